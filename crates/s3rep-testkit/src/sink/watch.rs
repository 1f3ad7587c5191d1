//! Watches the engine's side of the contract of sinks.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use s3rep_core::{Batch, Capability, Operation, Outcome, RouteMode, Seq};

use super::{faulty::Call, memory::json_bytes};

/// Shared by the clones of a wrapper.
#[derive(Clone)]
pub(super) struct Watch {
    capability: Capability,
    state: Arc<Mutex<State>>,
}

/// A table and a key in it.
type Place = (Arc<str>, Arc<str>);

#[derive(Default)]
struct State {
    violations: Vec<String>,
    /// The keys of each call that has not come back, by a running number.
    in_flight: HashMap<u64, HashSet<Place>>,
    calls: u64,
    most: usize,
    records: usize,
    /// The last change taken of each key, with the fence of its owner: another owner may begin further back.
    taken: HashMap<Place, (u64, Seq)>,
    closed: bool,
}

/// A call that has not come back. Dropped with it, also when the caller gives up.
pub(super) struct Watched {
    watch: Watch,
    call: u64,
}

impl Watch {
    pub(super) fn new(capability: Capability) -> Self {
        Self { capability, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(super) fn records(&self) -> usize {
        self.lock().records
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.lock().most
    }

    pub(super) fn restarted(&self) {
        let mut state = self.lock();
        state.taken.clear();
        state.closed = false;
    }

    pub(super) fn called(&self, call: Call) {
        let mut state = self.lock();
        if state.closed {
            state.violations.push(format!("{call:?} after close"));
        }
        state.closed |= call == Call::Close;
        if matches!(call, Call::Cursors | Call::Advance) && !self.capability.transactional_cursor {
            state.violations.push(format!("{call:?} on a sink without a transactional cursor"));
        }
    }

    pub(super) fn enter(&self, batch: &Batch) -> Watched {
        let mut state = self.lock();
        let mut found = self.problems_of(batch);
        let keys: HashSet<Place> =
            batch.changes.iter().map(|change| (batch.table.name.clone(), change.key.clone())).collect();
        for shared in state.in_flight.values().flat_map(|other| other.intersection(&keys)) {
            found.push(format!("two calls at the same time share the key {:?}", shared.1));
        }
        for change in &batch.changes {
            let place = (batch.table.name.clone(), change.key.clone());
            if let Some(&(fence, seq)) = state.taken.get(&place)
                && fence == batch.progress.fence
                && change.seq < seq
            {
                found.push(format!("{:?}: change {} after {seq} was taken", change.key, change.seq));
            }
        }
        state.calls += 1;
        let call = state.calls;
        state.in_flight.insert(call, keys);
        state.most = state.most.max(state.in_flight.len());
        state.records += batch.changes.len();
        if state.in_flight.len() > self.capability.limits.in_flight {
            found.push(format!("{} calls at the same time", state.in_flight.len()));
        }
        let table = &batch.table.name;
        state.violations.extend(found.into_iter().map(|violation| format!("{table}: {violation}")));
        Watched { watch: self.clone(), call }
    }

    fn problems_of(&self, batch: &Batch) -> Vec<String> {
        let Capability { limits, deletes, .. } = self.capability;
        let mut found = Vec::new();
        if !self.capability.supports(batch.table.mode) {
            found.push(format!("{:?} on a sink that does not do it", batch.table.mode));
        }
        if batch.changes.len() > limits.records {
            found.push(format!("{} records in a batch", batch.changes.len()));
        }
        let sizes: Vec<usize> =
            batch.changes.iter().map(|c| c.record.as_deref().map_or(0, json_bytes)).collect();
        if sizes.len() > 1 && sizes.iter().sum::<usize>() > limits.bytes {
            found.push(format!("{} bytes in a batch", sizes.iter().sum::<usize>()));
        }
        if let Some(size) = sizes.iter().find(|size| **size > limits.record_bytes) {
            found.push(format!("{size} bytes in a record"));
        }
        if batch.changes.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            found.push("a batch is not in the order of the log".to_owned());
        }
        let mut keys = HashSet::new();
        if batch.table.mode == RouteMode::Upsert
            && let Some(twice) = batch.changes.iter().find(|change| !keys.insert(&change.key))
        {
            found.push(format!("two changes of the key {:?} in a batch for an upsert table", twice.key));
        }
        for change in &batch.changes {
            if change.operation == Operation::Delete && !deletes {
                found.push("a delete on a sink that does not do them".to_owned());
            }
            if change.operation != Operation::Delete && change.record.is_none() {
                found.push(format!("{} of {:?} without a record", change.operation, change.key));
            }
        }
        if batch.progress.replicator.is_empty() || batch.progress.log.is_empty() {
            found.push("progress of nobody".to_owned());
        }
        found
    }
}

impl Watched {
    /// The destination took the batch.
    pub(super) fn taken(&self, batch: &Batch, outcome: &Outcome) {
        let refused: HashSet<usize> = outcome.rejected.iter().map(|rejected| rejected.index).collect();
        let mut state = self.watch.lock();
        for (i, change) in batch.changes.iter().enumerate() {
            if !refused.contains(&i) {
                let place = (batch.table.name.clone(), change.key.clone());
                state.taken.insert(place, (batch.progress.fence, change.seq));
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.lock().in_flight.remove(&self.call);
    }
}
