//! What memory sinks write to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use s3rep_core::{Operation, Progress, Record, RowChange, StoredCursors};

use crate::oracle::StoredChange;

/// The destination of [`MemorySink`](super::MemorySink)s. Cheap to clone; clones are the same place.
#[derive(Clone, Default)]
pub struct MemoryPlace(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<String, TableState>,
    pub(super) cursors: BTreeMap<String, StoredCursors>,
    pub(super) down: bool,
}

#[derive(Default)]
pub(super) struct TableState {
    pub(super) rows: BTreeMap<String, Arc<Record>>,
    pub(super) changes: Vec<RowChange>,
    /// In order, when schema synchronisation made the table.
    pub(super) columns: Option<Vec<String>>,
    /// Nothing fits into it.
    pub(super) sealed: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Move {
    /// An earlier batch that comes back must not take the cursor back with it.
    Forward,
    /// A replicator that is told to begin again writes smaller offsets than those stored.
    Anywhere,
}

impl State {
    /// Whether a change is in the destination already, as far as the cursors of its log say.
    pub(super) fn covers(&self, progress: &Progress, table: &str, change: &RowChange) -> bool {
        let stored = self.cursors.get(&*progress.replicator).filter(|stored| stored.log == progress.log);
        stored.is_some_and(|stored| {
            stored.cursors.iter().any(|cursor| {
                cursor.partition == change.partition
                    && cursor.seq >= change.seq
                    && (cursor.table.is_empty() || *cursor.table == *table)
            })
        })
    }

    pub(super) fn store(&mut self, progress: &Progress, how: Move) {
        let fence = progress.fence;
        let anew = || StoredCursors { log: progress.log.clone(), fence, cursors: Vec::new() };
        let stored = self.cursors.entry(progress.replicator.to_string()).or_insert_with(anew);
        if stored.log != progress.log {
            *stored = anew();
        }
        stored.fence = stored.fence.max(fence);
        for new in &progress.cursors {
            let old = stored
                .cursors
                .iter_mut()
                .find(|old| old.table == new.table && old.partition == new.partition);
            match old {
                Some(old) if how == Move::Anywhere || new.seq > old.seq => old.seq = new.seq,
                Some(_) => {}
                None => stored.cursors.push(new.clone()),
            }
        }
    }
}

impl MemoryPlace {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of an upsert table.
    pub fn rows(&self, table: &str) -> BTreeMap<String, Arc<Record>> {
        self.lock().tables.get(table).map(|table| table.rows.clone()).unwrap_or_default()
    }

    /// Every change of an append table, in the order of arrival.
    pub fn changes(&self, table: &str) -> Vec<RowChange> {
        self.lock().tables.get(table).map(|table| table.changes.clone()).unwrap_or_default()
    }

    /// The same in the form in which the oracle compares it.
    pub fn stored_changes(&self, table: &str) -> Vec<StoredChange> {
        let stored = |change: RowChange| StoredChange {
            key: change.key.to_string(),
            operation: change.operation,
            change_id: change.change_id,
            record: change.record.as_deref().cloned(),
        };
        self.changes(table).into_iter().map(stored).collect()
    }

    /// An append table as the latest row of each key.
    pub fn folded(&self, table: &str) -> BTreeMap<String, Arc<Record>> {
        let mut rows = BTreeMap::new();
        for change in self.changes(table) {
            match change.record {
                Some(record) if change.operation != Operation::Delete => {
                    rows.insert(change.key.to_string(), record);
                }
                _ => drop(rows.remove(&*change.key)),
            }
        }
        rows
    }

    /// The names of the tables, in order.
    pub fn tables(&self) -> Vec<String> {
        self.lock().tables.keys().cloned().collect()
    }

    /// The cursors stored for a replicator.
    pub fn cursors(&self, replicator: &str) -> Option<StoredCursors> {
        self.lock().cursors.get(replicator).cloned()
    }

    /// Makes a table that nothing fits into and that schema synchronisation does not mend.
    pub fn seal(&self, table: &str) {
        let sealed =
            TableState { columns: Some(vec!["sealed".to_owned()]), sealed: true, ..TableState::default() };
        self.lock().tables.insert(table.to_owned(), sealed);
    }

    /// Drops a table behind the replicator's back.
    pub fn drop_table(&self, table: &str) {
        self.lock().tables.remove(table);
    }

    /// The columns of a table that schema synchronisation made, in order.
    pub fn columns(&self, table: &str) -> Vec<String> {
        self.lock().tables.get(table).and_then(|table| table.columns.clone()).unwrap_or_default()
    }

    /// Takes the destination down or brings it up again.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }
}

impl fmt::Debug for MemoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPlace").field("tables", &self.tables()).finish_non_exhaustive()
    }
}
