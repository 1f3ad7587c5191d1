//! The embedded durable log and state of s3rep: one SQLite file in a state directory.
//!
//! [`EmbeddedLog`] implements [`ChangeLog`](s3rep_core::ChangeLog). What was appended is on the disk when the
//! call returns; what many tasks append at the same time shares one transaction, and so one sync of the disk. A
//! second process is kept away from the directory; [`EmbeddedLog::open_readonly`] looks at the log beside the
//! process that uses it.
//!
//! # Damage
//! Every row carries a check sum, and offsets have no gaps, so flipped bits are noticed when they are read:
//! - a damaged entry is moved to the table `damaged` and reported in [`Page::damaged`](s3rep_core::Page); the
//!   replicators that had not passed it are marked `needs_resync`, and the log goes on;
//! - when the file itself is damaged, the error says so, and the next start moves it to `log.db.damaged-…`,
//!   begins a new log with a new identity that keeps the replicators, and says so in its events.

mod checkpoint;
mod codec;
mod durability;
mod error;
mod files;
mod ids;
mod letters;
mod live;
mod log;
mod names;
mod open;
mod reader;
mod recent;
mod replicators;
mod schema;
mod sqlite;
mod state;
mod store;
mod trim;
mod writer;

pub use durability::Durability;
pub use log::{EmbeddedLog, LogOptions, LogReader};
