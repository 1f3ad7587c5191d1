//! A database on a server: Turso, or a libSQL server of one's own.
//!
//! The server is spoken to in Hrana over HTTP, its documented protocol, one request a batch: the transaction, the
//! rows and the cursors are steps that the server runs one after the other, each only if the one before it
//! succeeded. So no transaction is ever open between two requests, and a call that is given up leaves either all
//! or nothing. (The client of the `libsql` crate sends every statement in a request of its own, with the
//! transaction open all the while.)

mod address;
mod error;
mod hrana;
mod http;
mod known;
mod readback;
mod schema;
mod sink;
mod writer;

pub(crate) use address::Address;
pub(crate) use sink::RemoteSink;
