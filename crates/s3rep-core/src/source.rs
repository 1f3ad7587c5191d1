//! Where changes come from.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    Change, Context, Error, Record, ResourceSchema, Result,
    state::{SourceState, StateWrite},
};

/// What a source observes. `s3rep check` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCapability {
    /// Changes of one record arrive in the order in which they were committed.
    pub ordered_per_record: bool,
    /// Deletes are seen as they happen (else: inferred when a record is absent from a listing).
    pub sees_deletes: bool,
    /// Every version is seen (else: the latest at each pass).
    pub sees_every_version: bool,
    /// Updates and deletes come with the record before them.
    pub before_images: bool,
}

impl SourceCapability {
    /// Nothing but the latest state of each record; a source turns on what it can do.
    pub const LATEST_ONLY: Self = Self {
        ordered_per_record: true,
        sees_deletes: false,
        sees_every_version: false,
        before_images: false,
    };
}

/// A database that is followed.
#[async_trait]
pub trait Source: Send + Sync + Debug + 'static {
    /// What this source observes.
    fn capability(&self) -> SourceCapability;

    /// How long to wait between two passes.
    fn interval(&self) -> Duration;

    /// The resources as they are now, read anew. Bookkeeping resources of plugins are left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    async fn resources(&self, cx: &Context) -> Result<Vec<Arc<ResourceSchema>>>;

    /// Makes one pass: compares the database with `state`, and hands every difference to `capture` in order,
    /// page by page, together with the writes that remember it.
    ///
    /// What cannot be decoded is reported through [`Capture::undecodable`] and the pass goes on; it is looked
    /// at again in every later pass until it can be read.
    ///
    /// Cancel-safe: a page is durable when [`Capture::page`] returns, and a pass that is cut off is made again.
    ///
    /// # Errors
    /// When the database cannot be read or `capture` fails.
    async fn pass(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
    ) -> Result<PassReport>;

    /// Hands the current records of one resource to `capture` as [`Read`](crate::Operation::Read) changes for
    /// `target` only, starting after the id `after`, at most `max` records. Returns the last id handed over,
    /// `None` when the resource has no more.
    ///
    /// A record that changed since the last pass is captured as the live change it is before its row, so that
    /// a row is never older than a change that stands before it in the log.
    ///
    /// # Errors
    /// As [`Source::pass`].
    async fn snapshot(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
        rows: SnapshotRows<'_>,
    ) -> Result<Option<String>>;

    /// One page of the current records of a resource, ordered by the bytes of their ids. Empty at the end.
    ///
    /// # Errors
    /// When the listing cannot be read; a record that cannot be decoded stands in the page as its error.
    async fn records(
        &self,
        cx: &Context,
        resource: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<SourceRow>>;

    /// One current record, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    async fn record(&self, cx: &Context, resource: &str, id: &str) -> Result<Option<Arc<Record>>>;
}

/// Which rows [`Source::snapshot`] hands over.
#[derive(Clone, Copy)]
pub struct SnapshotRows<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The last id that was handed over before, `None` to begin.
    pub after: Option<&'a str>,
    /// At most this many records.
    pub max: usize,
    /// The replicator that asked.
    pub target: &'a Arc<str>,
    /// A state write that remembers the progress, given the last id; it goes into the same transaction as the
    /// rows.
    pub progress: &'a (dyn Fn(&str) -> StateWrite + Send + Sync),
}

/// A record as it is in the source now.
#[derive(Debug)]
pub struct SourceRow {
    /// The record's id.
    pub id: Arc<str>,
    /// The record, or why it cannot be decoded.
    pub record: Result<Arc<Record>>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Records looked at.
    pub seen: u64,
    /// Changes handed to the capture.
    pub captured: u64,
    /// Records that could not be decoded, including those of earlier passes.
    pub undecodable: u64,
    /// Records that were being written at that very moment; the next pass looks at them again.
    pub deferred: u64,
}

/// Takes what a source found. Implemented by the engine over the log.
#[async_trait]
pub trait Capture: Send {
    /// Makes changes and the state that remembers them durable, in one transaction.
    ///
    /// # Errors
    /// When the log refuses them; the source ends its pass with that error.
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()>;

    /// Reports a record that cannot be decoded. `error` names its key and what to do.
    async fn undecodable(&mut self, resource: &str, id: &str, error: Error);
}
