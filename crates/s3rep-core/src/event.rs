//! What happens while changes move, as one typed stream.

use std::{sync::Arc, time::Duration};

use crate::{ErrorKind, Seq, SyncKind};

/// Something an operator may want to know. [`Event::name`] gives the original's name where there is one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A pass over the source ended.
    PassCompleted {
        /// Records looked at.
        seen: u64,
        /// Changes captured.
        captured: u64,
        /// Records that cannot be decoded.
        undecodable: u64,
        /// How long it took.
        duration: Duration,
    },
    /// A pass over the source failed; another is made after the interval.
    PassFailed {
        /// What happened and what to do.
        error: String,
    },
    /// A stored record cannot be decoded. The others go on.
    Undecodable {
        /// Its resource.
        resource: Arc<str>,
        /// Its id.
        id: Arc<str>,
        /// What is wrong with it and what to do.
        error: String,
    },
    /// A batch is in its destination.
    Replicated {
        /// The replicator.
        replicator: Arc<str>,
        /// The table.
        table: Arc<str>,
        /// Changes that were written; fewer than were logged when newer ones replaced them.
        changes: usize,
        /// How long the destination took.
        duration: Duration,
    },
    /// A write failed and will be tried again.
    Retrying {
        /// The replicator.
        replicator: Arc<str>,
        /// The table.
        table: Arc<str>,
        /// How often it was tried.
        attempts: u32,
        /// The wait before the next try.
        delay: Duration,
        /// What kind of failure.
        kind: ErrorKind,
        /// What happened and what to do.
        error: String,
    },
    /// A change was parked in the dead letter queue; the others go on.
    Parked {
        /// The replicator.
        replicator: Arc<str>,
        /// The table.
        table: Arc<str>,
        /// Its place in the log.
        seq: Seq,
        /// Why.
        error: String,
    },
    /// A replicator does not move until something outside changes.
    Stopped {
        /// The replicator.
        replicator: Arc<str>,
        /// Why and what to do.
        error: String,
    },
    /// A replicator has everything that the log holds.
    CaughtUp {
        /// The replicator.
        replicator: Arc<str>,
        /// Up to here.
        seq: Seq,
    },
    /// Schema synchronisation made or changed a table.
    TableSynced {
        /// The replicator.
        replicator: Arc<str>,
        /// The table.
        table: Arc<str>,
        /// What became of it.
        kind: SyncKind,
        /// Statements that were run.
        statements: usize,
    },
    /// A replicator has begun, and schema synchronisation has looked after the tables of every resource that the
    /// source had then. Those of resources that come later follow before their first change.
    SchemaSynced {
        /// The replicator.
        replicator: Arc<str>,
        /// The resources, in the order of the routes.
        resources: Vec<Arc<str>>,
    },
    /// A replicator lost entries of the log and has to be synchronised anew.
    NeedsResync {
        /// The replicator.
        replicator: Arc<str>,
        /// Why.
        reason: String,
    },
    /// Part of the log was damaged and set aside.
    LogDamaged {
        /// What, where it lies now and what follows.
        detail: String,
    },
}

impl Event {
    /// The name of the event: s3db.js's where it has one, else in its style.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PassCompleted { .. } => "plg:replicator:pass_completed",
            Self::PassFailed { .. } => "plg:replicator:pass_failed",
            Self::Undecodable { .. } => "plg:replicator:undecodable",
            Self::Replicated { .. } => "plg:replicator:replicated",
            Self::Retrying { .. } => "plg:replicator:error",
            Self::Parked { .. } => "plg:replicator:parked",
            Self::Stopped { .. } => "plg:replicator:stopped",
            Self::CaughtUp { .. } => "plg:replicator:caught_up",
            Self::TableSynced { kind: SyncKind::Created, .. } => "table_created",
            Self::TableSynced { kind: SyncKind::Altered, .. } => "table_altered",
            Self::TableSynced { kind: SyncKind::Recreated, .. } => "table_recreated",
            Self::SchemaSynced { .. } => "schema_sync_completed",
            Self::NeedsResync { .. } => "plg:replicator:needs_resync",
            Self::LogDamaged { .. } => "plg:replicator:log_damaged",
        }
    }
}
