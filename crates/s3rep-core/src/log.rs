//! The durable change log: the only place where order is decided, and where progress is kept.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Change, Context, Entry, Partition, Result, Seq, SourceState, StateWrite, Timestamp};

/// The durable change log.
///
/// Partitioned by [`Partition::of`]; the number of partitions is fixed at creation. Offsets are global, only
/// grow and are never reused.
#[async_trait]
pub trait ChangeLog: SourceState + Send + Sync + Debug + 'static {
    /// The identity of this log, made at its creation: cursors of another log mean nothing here.
    fn id(&self) -> Arc<str>;

    /// How many partitions it has.
    fn partitions(&self) -> u16;

    /// Appends changes and writes state in one transaction, durable when it returns. A change whose id the log
    /// already holds is not appended again. Cancel-safe: all of it happens or nothing.
    ///
    /// # Errors
    /// Nothing was appended.
    async fn append(&self, cx: &Context, changes: &[Change], state: &[StateWrite]) -> Result<Appended>;

    /// Entries after `after`, in order, until `max_entries` or `max_bytes` is reached (at least one when there
    /// is one). Does not wait.
    ///
    /// Entries whose stored bytes are damaged are set aside and reported in [`Page::damaged`].
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn read(&self, cx: &Context, after: Seq, max_entries: usize, max_bytes: usize) -> Result<Page>;

    /// Returns when the log has an entry after `after`. Cancel-safe.
    async fn appended_after(&self, after: Seq);

    /// The span of the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn extent(&self, cx: &Context) -> Result<Extent>;

    /// Makes the caller the owner of a replicator's cursors and returns them with a fence above every earlier
    /// one. A new replicator stands at `start`.
    ///
    /// # Errors
    /// When the log cannot be written.
    async fn acquire(&self, cx: &Context, replicator: &str, start: StartAt) -> Result<Lease>;

    /// Moves cursors forward and parks or settles dead letters, in one transaction.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) when a newer owner has acquired the replicator, and
    /// [`Contention`](crate::ErrorKind::Contention) when a cursor does not stand at the expected place; nothing
    /// was changed then.
    async fn commit(&self, cx: &Context, commit: Commit<'_>) -> Result<()>;

    /// Sets every cursor of a replicator, back or forward, and clears or sets `needs_resync`. Under the fence,
    /// as [`ChangeLog::commit`].
    ///
    /// # Errors
    /// As [`ChangeLog::commit`].
    async fn reset(
        &self,
        cx: &Context,
        replicator: &str,
        fence: u64,
        to: Seq,
        needs_resync: Option<&str>,
    ) -> Result<()>;

    /// Every replicator that has cursors here.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn replicators(&self, cx: &Context) -> Result<Vec<ReplicatorState>>;

    /// Forgets a replicator, its cursors and its dead letters.
    ///
    /// # Errors
    /// When the log cannot be written.
    async fn forget(&self, cx: &Context, replicator: &str) -> Result<()>;

    /// Dead letters of a replicator with sequence numbers after `after`, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn dead_letters(
        &self,
        cx: &Context,
        replicator: &str,
        after: Seq,
        max: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Applies retention: forgets what every replicator has passed and is older than `passed`, then what
    /// exceeds `max_age` or `max_bytes`. Replicators that had not passed it are marked `needs_resync`.
    ///
    /// # Errors
    /// When the log cannot be written.
    async fn trim(&self, cx: &Context, retention: Retention) -> Result<Trimmed>;
}

/// What [`ChangeLog::append`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The last offset of the log after it.
    pub last: Seq,
    /// Changes that were appended.
    pub appended: usize,
    /// Changes that the log held already.
    pub duplicates: usize,
}

/// Entries read from the log.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// Read on from here. At least the last entry's offset; further when damaged entries were passed.
    pub next: Seq,
    /// Offsets whose entries cannot be read, with their partitions when those are known.
    pub damaged: Vec<(Seq, Option<Partition>)>,
}

/// The span of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The offset before the oldest entry: a cursor below it has lost entries.
    pub trimmed: Seq,
    /// The newest offset ever given.
    pub last: Seq,
    /// Bytes of the entries held.
    pub bytes: u64,
    /// Entries held.
    pub entries: u64,
}

/// Where a new replicator starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest entry held.
    Oldest,
    /// After the newest entry: a snapshot brings the rest.
    End,
}

/// Ownership of a replicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Above every earlier owner's.
    pub fence: u64,
    /// The replicator was not known before.
    pub is_new: bool,
    /// One offset for each partition, in order: everything up to it has been written.
    pub cursors: Vec<Seq>,
    /// Why the replicator has to be synchronised anew, when it has.
    pub needs_resync: Option<String>,
}

/// A move of a replicator's cursors.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The replicator.
    pub replicator: &'a str,
    /// The owner's fence.
    pub fence: u64,
    /// `(partition, expected, new)`, `new` not below `expected`.
    pub cursors: &'a [(Partition, Seq, Seq)],
    /// Changes that were parked instead of written.
    pub parked: &'a [DeadLetter],
    /// Parked changes that were written, dropped or superseded since: `(seq, table)`.
    pub settled: &'a [(Seq, Arc<str>)],
}

/// A change that a destination refused for good.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The offset of the change in the log.
    pub seq: Seq,
    /// The table that refused it.
    pub table: Arc<str>,
    /// The change. It stays here when the log forgets the entry.
    pub change: Change,
    /// Why, as the operator reads it. Without values of the record.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was parked.
    pub parked_at: Timestamp,
}

/// A replicator as `s3rep status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicatorState {
    /// Its name.
    pub replicator: String,
    /// The current fence.
    pub fence: u64,
    /// One offset for each partition, in order.
    pub cursors: Vec<Seq>,
    /// Entries it has not passed.
    pub pending: u64,
    /// When the oldest of them was logged.
    pub oldest_pending: Option<Timestamp>,
    /// Changes in its dead letter queue.
    pub dead_letters: u64,
    /// Why it has to be synchronised anew, when it has.
    pub needs_resync: Option<String>,
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries that every replicator has passed are kept this long, for `rewind`. Default one hour.
    pub passed: Duration,
    /// No entry is kept longer. Default seven days: longer than a weekend's outage.
    pub max_age: Duration,
    /// The entries together are not kept larger than this many bytes. Default 10 GiB.
    pub max_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            passed: Duration::from_secs(3_600),
            max_age: Duration::from_secs(7 * 24 * 3_600),
            max_bytes: 10 << 30,
        }
    }
}

/// What [`ChangeLog::trim`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Entries forgotten.
    pub entries: u64,
    /// Replicators that lost entries by it.
    pub fell_behind: Vec<String>,
}
