//! Change data capture for databases that live on S3.
//!
//! s3rep follows a database in the format of [s3db.js](https://github.com/forattini-dev/s3db.js), written by any
//! program, and carries every insert, update and delete to any number of destinations: each through a lane of
//! its own over one durable log, so that a destination that is down delays no other.
//!
//! This crate is the facade: it has the parts under one roof and the table of [`drivers`].
//!
//! | module | |
//! |---|---|
//! | [`config`] | the configuration file, with every problem at once |
//! | [`drivers`] | the destinations of this build |
//! | [`core`] | what a change is, and the traits of sources, logs and sinks |
//! | [`engine`] | moves changes from a source through a log into sinks |
//! | [`log`] | the embedded durable log |
//! | [`s3db`] | the database itself: resources, records, the tail source |
//!
//! Features, all on by default: `postgres`, `mysql` (MariaDB and PlanetScale too), `libsql` (SQLite and Turso), `files`
//! (JSON Lines and CSV) and `s3db`.

pub mod config;
pub mod drivers;
mod replication;
mod replicator;

pub use replication::{Replication, open_source, replicators};
pub use replicator::{Replicator, ReplicatorBuilder};
pub use s3rep_core as core;
pub use s3rep_engine as engine;
#[cfg(feature = "files")]
pub use s3rep_files as files;
#[cfg(feature = "js")]
pub use s3rep_js as js;
#[cfg(feature = "libsql")]
pub use s3rep_libsql as libsql;
pub use s3rep_log as log;
#[cfg(feature = "mysql")]
pub use s3rep_mysql as mysql;
#[cfg(feature = "postgres")]
pub use s3rep_postgres as postgres;
pub use s3rep_s3db as s3db;

pub use s3rep_core::{
    Capability, Change, DriverConfig, Error, ErrorKind, Mapping, Operation, Record, Result, Route, RouteMode,
    Secret, Sink, Source,
};
