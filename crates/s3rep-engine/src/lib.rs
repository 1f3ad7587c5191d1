//! Moves changes from a source through a durable log into destinations.
//!
//! ```text
//! source ── capture ──► log ──► lane (one a replicator): route, coalesce, batch, apply ──► sink
//! ```
//!
//! A [`Pipeline`] runs one capture, the only writer of the log, and one lane for each [`Replicator`]. Lanes
//! share nothing but the log: a destination that is down delays no other and no writer. What waits lies in the
//! log, not in memory: a lane holds about three windows of 4 MiB.
//!
//! [`verify()`] compares a source with a destination, [`repair`] mends what differs. [`plan_table`] says what
//! schema synchronisation would do to a table, [`Pipeline::apply_plan`] does it.

mod capture;
pub mod context;
mod lane;
mod observer;
mod pipeline;
mod replicator;
mod schemas;
mod snapshot;
mod tables;
mod verify;

pub use observer::{LaneProgress, LaneState};
pub use pipeline::{Pipeline, PipelineOptions, RunReport};
pub use replicator::{DeliveryOptions, Replicator};
pub use tables::plan_table;
pub use verify::{Drift, DriftKind, RouteReport, repair, verify};
