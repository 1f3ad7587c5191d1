//! A database file.

mod connection;
mod error;
mod readback;
mod schema;
mod sink;
mod state;
mod writer;

pub(crate) use sink::LocalSink;
