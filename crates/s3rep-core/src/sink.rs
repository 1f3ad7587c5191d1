//! Destinations.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{
    Capability, ChangeId, Context, Error, Operation, Partition, Record, ResourceSchema, Result, RouteMode,
    SchemaSync, Seq, Timestamp,
};

/// A table, collection, queue or set of files that one resource is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name in the destination.
    pub name: Arc<str>,
    /// Whether it holds the latest rows or every change.
    pub mode: RouteMode,
    /// The shape of the records that arrive, after mapping.
    pub schema: Arc<ResourceSchema>,
}

/// One change on its way into a table, after mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// The primary key.
    pub key: Arc<str>,
    /// What happened. Upsert tables read insert, update and read alike.
    pub operation: Operation,
    /// The record as the mapping left it. For a delete the last known record, if there is one.
    pub record: Option<Arc<Record>>,
    /// Deterministic identity, the key to deduplicate on.
    pub change_id: ChangeId,
    /// When the source saw the change committed.
    pub timestamp: Timestamp,
    /// Position in the log.
    pub seq: Seq,
    /// Partition in the log.
    pub partition: Partition,
}

/// Changes for one table under one schema, in log order, within the sink's [`Limits`](crate::Limits).
///
/// A batch for an upsert table holds at most one change a key.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where to.
    pub table: Arc<Table>,
    /// What.
    pub changes: Vec<RowChange>,
    /// What the destination has after this batch. A sink with a transactional cursor stores it in the same
    /// transaction as the rows, and skips changes that the cursors stored for the table or for the replicator
    /// as a whole cover already; others ignore it. A cursor never moves back here.
    ///
    /// A batch that moves no cursor brings back changes that were rejected earlier. They stand before the
    /// cursors by nature and are never skipped.
    pub progress: Progress,
}

/// How far a replicator has come in a destination.
///
/// A replicator has a cursor of its own (`table` is empty: everything up to it is in every table) and, beyond
/// it, one for each table (everything up to it is in that table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The replicator that owns the cursor.
    pub replicator: Arc<str>,
    /// The log that the offsets belong to; a cursor of another log is worthless.
    pub log: Arc<str>,
    /// The owner's epoch. A sink refuses a smaller one than it has stored, with
    /// [`Fenced`](crate::ErrorKind::Fenced).
    pub fence: u64,
    /// The cursors that move.
    pub cursors: Vec<CursorMove>,
}

/// The new place of one cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The table, or empty text for the replicator as a whole.
    pub table: Arc<str>,
    /// The partition.
    pub partition: Partition,
    /// Everything of the partition up to here has been written.
    pub seq: Seq,
}

/// The cursors that a destination holds for a replicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCursors {
    /// The log that the offsets belong to.
    pub log: Arc<str>,
    /// The largest fence stored.
    pub fence: u64,
    /// Every cursor stored.
    pub cursors: Vec<CursorMove>,
}

/// What became of a batch that the sink took.
///
/// Without a transactional cursor everything that is not listed was written. With one, a batch is all or
/// nothing: as soon as one record is rejected, **nothing** of the batch is written and no cursor moves. The
/// engine parks the rejected records durably and hands in the rest again. (Were the cursor to pass a rejected
/// record first, a crash before it is parked would lose it.)
#[derive(Debug, Default)]
pub struct Outcome {
    /// The records that were refused, every one of the batch.
    pub rejected: Vec<Rejected>,
}

/// One record that the destination refused.
#[derive(Debug)]
pub struct Rejected {
    /// Index into [`Batch::changes`].
    pub index: usize,
    /// Temporary: it is tried again. Permanent: it is parked in the dead letter queue.
    pub error: Error,
}

/// A destination.
///
/// # Contract
/// 1. **Idempotent**: the same batch twice leaves what it left once.
/// 2. **Honest**: `Ok` means taken, but for what [`Outcome`] says. `Err` means that the outcome is unknown; the
///    batch will come back.
/// 3. **Impatient**: no retry, no sleep and no row in a log inside; the engine owns time. Retries of client
///    libraries are switched off.
/// 4. **Ordered by the engine**: calls that share a key are never concurrent; calls with disjoint keys may be,
///    up to [`Limits::in_flight`](crate::Limits::in_flight).
/// 5. **Exact**: a value is carried exactly or its record is rejected, never changed on the way.
///
/// The conformance suite of `s3rep-testkit` checks all of it.
#[async_trait]
pub trait Sink: Send + Sync + Debug + 'static {
    /// What this sink can do; constant for the life of the value.
    fn capability(&self) -> Capability;

    /// Proves connection and the permissions needed later. Writes nothing.
    ///
    /// # Errors
    /// What would fail later.
    async fn check(&self, cx: &Context) -> Result<()>;

    /// The cursors stored for `replicator`, `None` when the destination knows nothing of it. The engine
    /// believes it over the log's. Only called with
    /// [`transactional_cursor`](Capability::transactional_cursor).
    ///
    /// # Errors
    /// When the destination cannot be read.
    async fn cursors(&self, cx: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        let _ = (cx, replicator);
        Ok(None)
    }

    /// Writes one batch.
    ///
    /// # Errors
    /// The outcome is then unknown, and the batch comes back.
    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome>;

    /// Stores cursors without rows, as they are: also smaller ones, when a replicator is told to begin again.
    /// Only called with [`transactional_cursor`](Capability::transactional_cursor).
    ///
    /// # Errors
    /// The outcome is then unknown, and the call comes back.
    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        let _ = (cx, progress);
        Ok(())
    }

    /// Called when the replicator is idle, and before it stops: makes what was taken visible, rotates what is
    /// due.
    ///
    /// # Errors
    /// Reported; the call is made again at the next occasion.
    async fn flush(&self, cx: &Context) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Flushes and releases. Called once, last.
    ///
    /// # Errors
    /// Reported; nothing that was taken is lost by it.
    async fn close(&self, cx: &Context) -> Result<()> {
        self.flush(cx).await
    }

    /// Schema synchronisation, for destinations that have a schema and whose configuration asks for it.
    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        None
    }

    /// Reading back, with [`readback`](Capability::readback).
    fn readback(&self) -> Option<&dyn Readback> {
        None
    }
}

/// Reads a destination back, for `s3rep verify`.
#[async_trait]
pub trait Readback: Send + Sync {
    /// The record as this destination holds it, in the form in which [`Readback::rows`] returns it: member
    /// names and values after every conversion (booleans as 0 and 1, objects as JSON text …).
    ///
    /// # Errors
    /// When the destination cannot hold the record; such a record cannot be there either.
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record>;

    /// Up to `max` rows with keys after `after`, in the order of the keys' bytes. An append table is folded:
    /// the last change of each key, deleted ones left out. Empty at the end.
    ///
    /// # Errors
    /// When the destination cannot be read.
    async fn rows(
        &self,
        cx: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>>;
}
