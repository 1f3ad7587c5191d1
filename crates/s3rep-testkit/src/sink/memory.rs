//! A destination in memory: what a perfect sink looks like, and the broken ones that the suite has to catch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, Error, ErrorKind, Limits, Operation, Outcome, Partition, Progress, Readback,
    Record, Rejected, Result, RouteMode, RowChange, SchemaSync, Scope, Seq, Sink, StoredCursors, Table,
};

use super::{broken::Bug, memory_schema::MemorySchema};

/// Everything that [`MemorySink`] can do.
pub const FULL: Capability = Capability {
    upsert: true,
    append: true,
    deletes: true,
    partial_failure: true,
    transactional_cursor: true,
    readback: true,
    limits: Limits { records: 1_000, bytes: 1 << 20, record_bytes: 512 << 10, in_flight: 4 },
};

/// A sink over a [`MemoryPlace`]. Cheap to clone; clones share the place.
///
/// Takes part in everything that the contract allows and keeps records exactly as they arrive, so that a test
/// of the engine can compare without a fold of its own:
///
/// ```
/// use s3rep_testkit::sink::{FULL, MemorySink};
/// let sink = MemorySink::new();
/// assert!(sink.place().rows("cars").is_empty());
/// let queue = MemorySink::with_capability(s3rep_core::Capability { upsert: false, ..FULL });
/// # let _ = queue;
/// ```
#[derive(Clone)]
pub struct MemorySink {
    place: MemoryPlace,
    capability: Capability,
    pub(super) schema: Option<MemorySchema>,
    bug: Option<Bug>,
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySink {
    /// A sink that can do everything, over a place of its own, that does not look at schemas.
    pub fn new() -> Self {
        Self::with_capability(FULL)
    }

    /// The same with other capabilities.
    pub fn with_capability(capability: Capability) -> Self {
        Self { place: MemoryPlace::default(), capability, schema: None, bug: None }
    }

    /// A sink with the same capabilities over `place`: what a new process would see.
    #[must_use]
    pub fn over(mut self, place: MemoryPlace) -> Self {
        self.schema = self.schema.map(|_| MemorySchema::new(place.clone()));
        self.place = place;
        self
    }

    /// Tables have to be created by schema synchronisation, and members without a column are refused.
    #[must_use]
    pub fn with_schema(mut self) -> Self {
        self.schema = Some(MemorySchema::new(self.place.clone()));
        self
    }

    /// A sink that does not keep its promises.
    #[must_use]
    pub fn with_bug(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// The destination, for a look inside.
    pub fn place(&self) -> &MemoryPlace {
        &self.place
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Why this change cannot be written, if so.
    fn refusal(
        &self,
        table: &Table,
        change: &RowChange,
        columns: Option<&BTreeSet<String>>,
    ) -> Option<Error> {
        let at = |error: Error| {
            error
                .with_scope(Scope::Record)
                .with_operation("apply")
                .with_context("table", &table.name)
                .with_context("key", &change.key)
        };
        if change.operation == Operation::Delete {
            return None;
        }
        let Some(record) = &change.record else {
            return Some(at(Error::new(ErrorKind::InvalidValue, "the change has no record")));
        };
        let text_bytes = json_bytes(record);
        if text_bytes > self.capability.limits.record_bytes {
            return Some(at(Error::new(ErrorKind::TooLarge, "the record is larger than the limit")
                .with_context("bytes", text_bytes)));
        }
        let missing = table
            .schema
            .attributes
            .iter()
            .find(|a| a.required && record.get(&a.name).is_none_or(serde_json::Value::is_null));
        if let Some(attribute) = missing {
            let error = at(Error::new(ErrorKind::InvalidValue, "a required attribute has no value")
                .with_context("attribute", &attribute.name));
            return Some(if self.has(Bug::LeaksValue) {
                error.with_source(std::io::Error::other(serde_json::json!(&**record).to_string()))
            } else {
                error
            });
        }
        let columns = columns?;
        let unknown = record.keys().find(|name| *name != "id" && !columns.contains(*name))?;
        Some(
            at(Error::new(ErrorKind::SchemaMismatch, "the table has no column for the attribute")
                .with_context("attribute", unknown))
            .with_advice("let schema synchronisation add it"),
        )
    }

    fn write(&self, state: &mut State, batch: &Batch) -> Result<Outcome> {
        let table = &*batch.table;
        if !self.capability.supports(table.mode) {
            return Err(Error::new(ErrorKind::Unsupported, "the sink does not write tables of this mode")
                .with_scope(Scope::Table)
                .with_context("table", &table.name));
        }
        let limits = self.capability.limits;
        if batch.changes.len() > limits.records {
            return Err(Error::new(ErrorKind::TooLarge, "the batch has more records than the limit"));
        }
        let progress = &batch.progress;
        if self.capability.transactional_cursor {
            self.admit(state, progress)?;
        }
        let columns = self.columns(state, table)?;
        let mut rejected = Vec::new();
        let mut taken = Vec::new();
        for (index, change) in batch.changes.iter().enumerate() {
            // A batch that moves no cursor brings parked changes back: they stand before the cursors by nature.
            let replay = self.capability.transactional_cursor
                && !progress.cursors.is_empty()
                && !self.has(Bug::DoublesOnReplay)
                && state.covers(progress, &table.name, change.partition, change.seq);
            if replay {
                continue;
            }
            match self.refusal(table, change, columns.as_ref()) {
                Some(error) if self.has(Bug::HidesRejection) => drop(error),
                Some(error) => rejected.push(Rejected { index, error }),
                None => taken.push(change),
            }
        }
        if !self.capability.partial_failure && !rejected.is_empty() {
            return Err(rejected.swap_remove(0).error);
        }
        let rolls_back = self.capability.transactional_cursor && !self.has(Bug::WritesBesideRejected);
        if rolls_back && !rejected.is_empty() {
            return Ok(Outcome { rejected });
        }
        if self.has(Bug::DropsLastChange) && taken.len() > 1 {
            taken.pop();
        }
        let rows = state.tables.entry(table.name.to_string()).or_default();
        for change in taken {
            self.take(rows, table.mode, change);
        }
        if self.capability.transactional_cursor && !self.has(Bug::ForgetsCursor) {
            state.store(progress, Move::Forward);
        }
        Ok(Outcome { rejected })
    }

    fn take(&self, table: &mut TableState, mode: RouteMode, change: &RowChange) {
        let mut change = change.clone();
        if self.has(Bug::ChangesValue)
            && let Some(record) = change.record.as_mut().map(Arc::make_mut)
        {
            record.values_mut().for_each(through_a_double);
        }
        match (mode, change.operation) {
            (_, Operation::Delete) if self.has(Bug::LosesDelete) => {}
            (RouteMode::Append, _) => table.changes.push(change),
            (RouteMode::Upsert, Operation::Delete) => drop(table.rows.remove(&*change.key)),
            (RouteMode::Upsert, Operation::Update) if self.has(Bug::LosesUpdateOfAbsentRow) => {
                if let Some(row) = table.rows.get_mut(&*change.key) {
                    *row = change.record.unwrap_or_default();
                }
            }
            (RouteMode::Upsert, _) => {
                let key =
                    if self.has(Bug::FoldsCase) { change.key.to_lowercase() } else { change.key.to_string() };
                table.rows.insert(key, change.record.unwrap_or_default());
            }
        }
    }

    /// Refuses an owner that another one has replaced, and forgets the cursors of another log.
    fn admit(&self, state: &mut State, progress: &Progress) -> Result<()> {
        let Some(stored) = state.cursors.get(&*progress.replicator) else { return Ok(()) };
        if stored.log != progress.log {
            state.cursors.remove(&*progress.replicator);
            return Ok(());
        }
        if stored.fence > progress.fence && !self.has(Bug::IgnoresFence) {
            return Err(Error::new(ErrorKind::Fenced, "a newer owner writes to this destination")
                .with_scope(Scope::Sink)
                .with_context("replicator", &progress.replicator)
                .with_advice("stop the other process that runs the same replicator"));
        }
        Ok(())
    }

    fn columns(&self, state: &State, table: &Table) -> Result<Option<BTreeSet<String>>> {
        if self.schema.is_none() {
            return Ok(None);
        }
        match state.tables.get(&*table.name).and_then(|table| table.columns.as_ref()) {
            Some(columns) => Ok(Some(columns.iter().cloned().collect())),
            None => Err(Error::new(ErrorKind::NotFound, "there is no such table")
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_advice("switch schemaSync on or create it")),
        }
    }
}

/// What a driver does that reads every number as a double.
fn through_a_double(value: &mut serde_json::Value) {
    if let Some(number) = value.as_number().and_then(serde_json::Number::as_f64)
        && number.fract() == 0.0
        && number.abs() < 1e19
    {
        *value = if number < 0.0 { (number as i64).into() } else { (number as u64).into() };
    }
}

/// Bytes of a record as JSON text, as limits count them.
pub(crate) fn json_bytes(record: &Record) -> usize {
    serde_json::to_vec(record).map_or(usize::MAX, |text| text.len())
}

#[async_trait]
impl Sink for MemorySink {
    fn capability(&self) -> Capability {
        self.capability
    }

    async fn check(&self, _: &Context) -> Result<()> {
        match self.place.lock().down {
            false => Ok(()),
            true => Err(unreachable_place()),
        }
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        Ok(self.place.cursors(replicator))
    }

    // A real destination is asked over a wire: the caller may be gone before the question leaves or before the
    // answer comes. The two yields are those places.
    async fn apply(&self, _: &Context, batch: &Batch) -> Result<Outcome> {
        tokio::task::yield_now().await;
        let outcome = {
            let mut state = self.place.lock();
            if state.down {
                return Err(unreachable_place());
            }
            self.write(&mut state, batch)
        };
        tokio::task::yield_now().await;
        outcome
    }

    async fn advance(&self, _: &Context, progress: &Progress) -> Result<()> {
        tokio::task::yield_now().await;
        let mut state = self.place.lock();
        if state.down {
            return Err(unreachable_place());
        }
        self.admit(&mut state, progress)?;
        if !self.has(Bug::ForgetsCursor) {
            state.store(progress, Move::Anywhere);
        }
        Ok(())
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.schema.as_ref().map(|schema| schema as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        self.capability.readback.then_some(self as _)
    }
}

fn unreachable_place() -> Error {
    Error::new(ErrorKind::Unavailable, "the destination cannot be reached")
        .temporary()
        .with_scope(Scope::Sink)
        .with_advice("bring it up again")
}

#[async_trait]
impl Readback for MemorySink {
    fn expected(&self, _: &Table, _: &str, record: &Record) -> Result<Record> {
        Ok(record.clone())
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let rows = match table.mode {
            RouteMode::Upsert => self.place.rows(&table.name),
            RouteMode::Append => self.place.folded(&table.name),
        };
        let mut rows: Vec<_> =
            rows.into_iter().filter(|(key, _)| after.is_none_or(|after| **key > *after)).collect();
        if self.has(Bug::OrdersByUtf16) {
            rows.sort_by_key(|(key, _)| key.encode_utf16().collect::<Vec<_>>());
        }
        rows.truncate(max);
        Ok(rows.into_iter().map(|(key, record)| (key, (*record).clone())).collect())
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").field("capability", &self.capability).finish_non_exhaustive()
    }
}

/// The destination of [`MemorySink`]s. Cheap to clone; clones are the same place.
#[derive(Clone, Default)]
pub struct MemoryPlace(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<String, TableState>,
    cursors: BTreeMap<String, StoredCursors>,
    down: bool,
}

#[derive(Default)]
pub(super) struct TableState {
    rows: BTreeMap<String, Arc<Record>>,
    changes: Vec<RowChange>,
    /// In order, when schema synchronisation made the table.
    pub(super) columns: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Move {
    /// An earlier batch that comes back must not take the cursor back with it.
    Forward,
    /// A replicator that is told to begin again writes smaller offsets than those stored.
    Anywhere,
}

impl State {
    fn covers(&self, progress: &Progress, table: &str, partition: Partition, seq: Seq) -> bool {
        self.cursors.get(&*progress.replicator).is_some_and(|stored| {
            stored.cursors.iter().any(|cursor| {
                cursor.partition == partition
                    && cursor.seq >= seq
                    && (cursor.table.is_empty() || *cursor.table == *table)
            })
        })
    }

    fn store(&mut self, progress: &Progress, how: Move) {
        let fence = progress.fence;
        let stored = self.cursors.entry(progress.replicator.to_string()).or_insert_with(|| StoredCursors {
            log: progress.log.clone(),
            fence,
            cursors: Vec::new(),
        });
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
