//! SQLite and libSQL destinations: a database file, written through libSQL's SQLite, or a database on a server,
//! Turso or a libSQL server of one's own.
//!
//! # What a table looks like
//!
//! With `schemaSync.enabled` the sink creates its tables and adds columns (see `s3rep-sql`); without it, tables
//! are made by hand and columns are found by name, by name without case, or by the name in snake case.
//!
//! - An **upsert** table has one row a key. An **append** table has one row a change, with `_operation`,
//!   `_change_id` (unique) and `_changed_at`; a delete is a row with the last known record, or with nulls.
//! - A member of a record that the resource does not declare has no column and is **left out** (s3db.js lets
//!   records carry such members; they are counted in a debug event). A declared attribute without a column
//!   follows `schemaSync.onMismatch`.
//! - An attribute that is absent is null.
//!
//! # Values: exact or refused
//!
//! | value | column | is stored as |
//! |---|---|---|
//! | integer | `INTEGER` | the integer; beyond 64 bits with sign: refused |
//! | integer | `REAL` | the double; refused if it would be rounded (from 2^53 on) |
//! | double | `INTEGER`, `NUMERIC` | the double, as an integer if it is whole |
//! | number | `TEXT` | its JSON text |
//! | boolean | `INTEGER`, `REAL` | 0 or 1; in `TEXT` the words `true` and `false` |
//! | text | `TEXT` | itself, NUL characters included; JSON text with quotes for attributes of a JSON type |
//! | text | `INTEGER`, `REAL` | refused; in `NUMERIC` (which `DATETIME` and the like are) refused if SQLite would make it a number |
//! | object, array | `TEXT` | compact JSON text, members in order |
//!
//! # Exactly once
//!
//! Rows and cursor are written in one transaction, the cursor into the table `_s3rep_cursor` of the same
//! database. A file is switched to WAL and written with `synchronous=FULL`: the log forgets what the cursor has
//! passed, so both have to survive a power cut together. A server keeps what it acknowledged when it dies; libSQL's
//! own writes with `synchronous=NORMAL`, whatever a client asks for, so a power cut of its machine may take the
//! last transactions back, rows and cursor together.
//!
//! # Servers
//!
//! A batch is one request in Hrana 3 over HTTP and one transaction. It carries a statement that fails unless the
//! cursors and the schema are as they were when they were read last; so a batch needs no reading before it, and
//! one that was given up can do no harm when the server gets to it late. The token is sent in no other place than
//! the header of a request.

mod change;
mod config;
mod cursor;
mod encode;
mod local;
mod page;
mod remote;
mod row;
mod table;

pub use config::LibsqlConfig;
