//! core
mod change;
mod context;
mod error;
mod schema;
mod secret;
mod source;
mod state;
mod timestamp;
pub use change::{Change, ChangeId, Entry, Operation, Partition, Record, Seq};
pub use context::{BoxFuture, Clock, Context, Failpoints, Random};
pub use error::{Error, ErrorKind, Result, Retry, Scope};
pub use schema::{Attribute, AttributeType, ResourceSchema};
pub use secret::Secret;
pub use source::{Capture, PassReport, SnapshotRows, Source, SourceCapability, SourceRow};
pub use state::{SourceState, StateWrite};
pub use timestamp::Timestamp;
