//! MySQL, MariaDB and PlanetScale destinations.
//!
//! ```no_run
//! # use s3rep_core::{DriverConfig, Result, Sink};
//! # async fn example(cx: s3rep_core::Context) -> Result<()> {
//! let config: s3rep_mysql::MariadbConfig = serde_json::from_str(
//!     r#"{"url": "mysql://s3rep:secret@db.example.com/shop", "schemaSync": {"enabled": true}}"#,
//! ).unwrap();
//! let sink = config.build()?; // connects to nothing yet
//! sink.check(&cx).await?; // proves connection and rights, and writes nothing
//! # Ok(())
//! # }
//! ```
//!
//! # What a table looks like
//!
//! With `schemaSync.enabled` the sink creates its tables and alters them (see `s3rep-sql`); without it, tables are
//! made by hand and columns are found by name, by name without case, or by the name in snake case. `other.cars` is
//! the table `cars` of the database `other`.
//!
//! - An **upsert** table has one row a key. An **append** table has one row a change, with `_operation`,
//!   `_change_id` (unique), `_changed_at` and `_row`, which counts; a delete is a row with the last known record, or with nulls.
//! - The column of the key (`_change_id` in an append table) needs a unique index of its own and accepts no null.
//!   A table without is refused, since MySQL would add another row with every update; so is one whose storage engine
//!   has no transactions.
//! - Keys that the collation of a hand-made column takes for one (`a` and `A`) stay two records: the second one is
//!   refused, and no row is changed by it. The same goes for unique indexes on other columns.
//! - A member of a record that the resource does not declare has no column and is **left out**. A declared attribute
//!   without a column follows `schemaSync.onMismatch`.
//! - An attribute that is absent is null.
//!
//! # Values: exact or refused
//!
//! The session is strict, in UTC and in `utf8mb4`, whatever the server's defaults are. Beyond that a value is
//! looked at before it is sent where the server would change it without a word: digits of a second and of decimal
//! numbers that the column does not keep, spaces at the end of `CHAR`, words of an `ENUM` by case or number, null in
//! columns that fill themselves, and JSON that is nested deeper than MariaDB reads.
//!
//! # Exactly once
//!
//! Rows and cursor are written in one transaction, the cursor into the table `_s3rep_cursor` of the connection's
//! database. A transaction first takes hold of the cursors that it moves. An earlier attempt, whose connection was
//! lost and which the server may still carry out, has come to its end then, and what it wrote is seen and skipped.
//! A connection whose transaction did not end in good order is closed and never used again.
//!
//! What a server acknowledged survives a crash with `innodb_flush_log_at_trx_commit = 1`, which is the default.

mod config;
mod connection;
mod cursor;
mod encode;
mod error;
mod log_table;
mod readback;
mod schema;
mod sink;
mod table;
mod writer;

pub use config::{MariadbConfig, MysqlConfig, MysqlOptions, PlanetscaleConfig, Ssl, SslOptions};
