//! A destination in memory: what a perfect sink looks like, and the broken ones that the suite has to catch.

use std::{borrow::Cow, collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, Error, ErrorKind, Limits, Operation, Outcome, Progress, Readback, Record,
    Rejected, Result, RouteMode, RowChange, SchemaStrategy, SchemaSync, Scope, Sink, StoredCursors, Table,
};

use super::{
    broken::Bug,
    memory_place::{MemoryPlace, Move, State, TableState},
    memory_schema::MemorySchema,
};

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
        self.schema = self.schema.map(|schema| schema.over(place.clone()));
        self.place = place;
        self
    }

    /// Tables have to be created by schema synchronisation, and members without a column are refused.
    #[must_use]
    pub fn with_schema(self) -> Self {
        self.with_strategy(SchemaStrategy::Alter)
    }

    /// The same with another strategy for tables that lack a column than to add it.
    #[must_use]
    pub fn with_strategy(mut self, strategy: SchemaStrategy) -> Self {
        self.schema = Some(MemorySchema::new(self.place.clone(), strategy));
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
            if self.is_replay(state, batch, change) {
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
            let back = self.has(Bug::MovesCursorBack);
            state.store(progress, if back { Move::Anywhere } else { Move::Forward });
        }
        Ok(Outcome { rejected })
    }

    /// Whether a change was written by an earlier call with the same batch or a part of it.
    fn is_replay(&self, state: &State, batch: &Batch, change: &RowChange) -> bool {
        // A batch that moves no cursor brings parked changes back: they stand before the cursors by nature.
        let parked = batch.progress.cursors.is_empty() && !self.has(Bug::SkipsParked);
        self.capability.transactional_cursor
            && !parked
            && !self.has(Bug::DoublesOnReplay)
            && state.covers(&batch.progress, &batch.table.name, change)
    }

    fn take(&self, table: &mut TableState, mode: RouteMode, change: &RowChange) {
        let mut change = change.clone();
        if (self.has(Bug::ChangesValue) || self.has(Bug::AgreesWithItself))
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
            (RouteMode::Upsert, _) if self.has(Bug::MergesMembers) => {
                let row = Arc::make_mut(table.rows.entry(change.key.to_string()).or_default());
                row.extend(change.record.as_deref().cloned().unwrap_or_default());
            }
            (RouteMode::Upsert, _) => {
                let key =
                    if self.has(Bug::FoldsCase) { change.key.to_lowercase() } else { change.key.to_string() };
                table.rows.insert(key, change.record.unwrap_or_default());
            }
        }
    }

    /// Refuses an owner that another one has replaced.
    fn admit(&self, state: &State, progress: &Progress) -> Result<()> {
        let stored = state.cursors.get(&*progress.replicator).filter(|stored| stored.log == progress.log);
        let Some(stored) = stored else { return Ok(()) };
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

/// The owner of every cursor, where replicators share them.
const SHARED: &str = "everybody";

/// The bugs that change what a call is about.
impl MemorySink {
    fn renamed<'a>(&self, progress: &'a Progress) -> Cow<'a, Progress> {
        if self.has(Bug::SharesCursors) {
            Cow::Owned(Progress { replicator: SHARED.into(), ..progress.clone() })
        } else {
            Cow::Borrowed(progress)
        }
    }

    fn spoil(&self, batch: &mut Cow<'_, Batch>) -> Result<()> {
        if self.has(Bug::SharesCursors) {
            batch.to_mut().progress.replicator = SHARED.into();
        }
        if self.has(Bug::KeepsCursorsOfOtherLog) {
            batch.to_mut().progress.log = "any".into();
        }
        if self.has(Bug::CursorBeforeRows) {
            let mut state = self.place.lock();
            self.admit(&state, &batch.progress)?;
            let known = |change: &RowChange| self.is_replay(&state, batch, change);
            let new = batch.changes.iter().filter(|change| !known(change)).cloned().collect();
            state.store(&batch.progress, Move::Forward);
            let batch = batch.to_mut();
            batch.changes = new;
            batch.progress.cursors.clear();
        }
        Ok(())
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
        let replicator = if self.has(Bug::SharesCursors) { SHARED } else { replicator };
        Ok(self.place.cursors(replicator))
    }

    // A real destination is asked over a wire: the caller may be gone before the question leaves or before the
    // answer comes. The two yields are those places.
    async fn apply(&self, _: &Context, batch: &Batch) -> Result<Outcome> {
        let mut batch = Cow::Borrowed(batch);
        self.spoil(&mut batch)?;
        tokio::task::yield_now().await;
        let outcome = {
            let mut state = self.place.lock();
            if state.down {
                return Err(unreachable_place());
            }
            self.write(&mut state, &batch)
        };
        tokio::task::yield_now().await;
        outcome
    }

    async fn advance(&self, _: &Context, progress: &Progress) -> Result<()> {
        let progress = self.renamed(progress);
        tokio::task::yield_now().await;
        let mut state = self.place.lock();
        if state.down {
            return Err(unreachable_place());
        }
        self.admit(&state, &progress)?;
        if !self.has(Bug::ForgetsCursor) {
            state.store(&progress, Move::Anywhere);
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
        let mut record = record.clone();
        if self.has(Bug::AgreesWithItself) {
            record.values_mut().for_each(through_a_double);
        }
        Ok(record)
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
