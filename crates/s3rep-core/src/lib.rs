//! The contracts of s3rep: what a change is, where it may come from and go to, and what must hold on the way.
//!
//! Thin on purpose: no I/O, no runtime, no clock. A destination is a crate that implements [`Sink`]; a source
//! implements [`Source`]; the order of everything is decided by a [`ChangeLog`]; the engine moves changes from
//! one to the other.
//!
//! | to write | implement | and pass |
//! |---|---|---|
//! | a destination | [`Sink`], [`DriverConfig`], perhaps [`SchemaSync`] and [`Readback`] | the sink suite of `s3rep-testkit` |
//! | a log | [`ChangeLog`] with [`SourceState`] | the log suite of `s3rep-testkit` |
//! | a source | [`Source`] | |
//!
//! ```
//! use s3rep_core::{Capability, Context, Batch, Outcome, Result, Sink};
//!
//! /// Takes everything and keeps nothing.
//! #[derive(Debug)]
//! struct NullSink;
//!
//! #[async_trait::async_trait]
//! impl Sink for NullSink {
//!     fn capability(&self) -> Capability {
//!         Capability { upsert: true, append: true, deletes: true, ..Capability::NONE }
//!     }
//!     async fn check(&self, _: &Context) -> Result<()> {
//!         Ok(())
//!     }
//!     async fn apply(&self, _: &Context, _: &Batch) -> Result<Outcome> {
//!         Ok(Outcome::default())
//!     }
//! }
//! # assert!(NullSink.capability().upsert);
//! ```

mod capability;
mod change;
mod context;
mod driver;
mod error;
mod event;
mod log;
mod mapping;
mod retry;
mod schema;
mod schema_sync;
mod secret;
mod sink;
mod source;
mod state;
mod timestamp;

pub use capability::{Capability, Limits, RouteMode};
pub use change::{Change, ChangeId, Entry, Operation, Partition, Record, Seq};
pub use context::{BoxFuture, Clock, Context, Failpoints, Random};
pub use driver::DriverConfig;
pub use error::{Error, ErrorKind, Result, Retry, Scope};
pub use event::Event;
pub use log::{
    Appended, ChangeLog, Commit, DeadLetter, Extent, Lease, Page, ReplicatorState, Retention, StartAt,
    Trimmed,
};
pub use mapping::{Mapping, MappingProblem, Route};
pub use retry::RetryPolicy;
pub use schema::{Attribute, AttributeType, ResourceSchema};
pub use schema_sync::{
    ColumnShape, OnMismatch, SchemaPlan, SchemaStrategy, SchemaSync, SchemaSyncOptions, SyncKind, TableShape,
};
pub use secret::Secret;
pub use sink::{
    Batch, CursorMove, Outcome, Progress, Readback, Rejected, RowChange, Sink, StoredCursors, Table,
};
pub use source::{Capture, PassReport, SnapshotRows, Source, SourceCapability, SourceRow};
pub use state::{SourceState, StateWrite};
pub use timestamp::Timestamp;
