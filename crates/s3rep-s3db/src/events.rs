//! What happened in a database, for whoever watches it in the same process.

use std::sync::Arc;

use s3rep_core::{Record, Timestamp};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events kept for a watcher that is behind.
const KEPT: usize = 1024;

/// Something happened through this [`Database`](crate::Database) or one of its clones.
///
/// Events are for watching. Replication does not rely on them: it has the [`Outbox`](crate::Outbox).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DatabaseEvent {
    /// A record was inserted.
    Inserted {
        /// The resource.
        resource: Arc<str>,
        /// The record, as it is stored.
        record: Arc<Record>,
        /// When.
        at: Timestamp,
    },
    /// A record was updated, patched or replaced.
    Updated {
        /// The resource.
        resource: Arc<str>,
        /// The record before, `None` when it could not be decoded.
        before: Option<Arc<Record>>,
        /// The record, as it is stored.
        after: Arc<Record>,
        /// When.
        at: Timestamp,
    },
    /// A record was deleted.
    Deleted {
        /// The resource.
        resource: Arc<str>,
        /// Its id.
        id: Arc<str>,
        /// The last record, `None` when it could not be decoded.
        before: Option<Arc<Record>>,
        /// When.
        at: Timestamp,
    },
    /// A resource was created, or its definition changed.
    ResourceChanged {
        /// The resource.
        resource: Arc<str>,
        /// Its version now.
        version: Arc<str>,
    },
    /// The watcher was too slow and missed so many events.
    Missed(u64),
}

impl DatabaseEvent {
    /// The name that s3db.js gives the event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inserted { .. } => "inserted",
            Self::Updated { .. } => "updated",
            Self::Deleted { .. } => "deleted",
            Self::ResourceChanged { .. } => "db:resource-updated",
            Self::Missed(_) => "missed",
        }
    }

    /// The resource that it is about.
    pub fn resource(&self) -> Option<&Arc<str>> {
        match self {
            Self::Inserted { resource, .. }
            | Self::Updated { resource, .. }
            | Self::Deleted { resource, .. }
            | Self::ResourceChanged { resource, .. } => Some(resource),
            Self::Missed(_) => None,
        }
    }
}

/// Events from the moment of its making on.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<DatabaseEvent>,
    /// Only those of this resource.
    resource: Option<Arc<str>>,
}

impl Events {
    /// The next event, `None` when the database is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<DatabaseEvent> {
        loop {
            let event = match self.receiver.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(missed)) => DatabaseEvent::Missed(missed),
                Err(RecvError::Closed) => return None,
            };
            if self.resource.is_none() || event.resource().is_none_or(|of| Some(of) == self.resource.as_ref())
            {
                return Some(event);
            }
        }
    }
}

/// Tells the watchers.
#[derive(Debug)]
pub(crate) struct Observers(broadcast::Sender<DatabaseEvent>);

impl Default for Observers {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

impl Observers {
    pub(crate) fn watch(&self, resource: Option<Arc<str>>) -> Events {
        Events { receiver: self.0.subscribe(), resource }
    }

    /// Makes the event only when somebody watches.
    pub(crate) fn tell(&self, event: impl FnOnce() -> DatabaseEvent) {
        if self.0.receiver_count() > 0 {
            // The last watcher may just have left.
            let _ = self.0.send(event());
        }
    }
}
