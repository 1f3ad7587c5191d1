//! SQL dialects as pure text: quoting, types, table layouts, plans and statements. No I/O.
//!
//! A driver asks its [`Dialect`] for the [`Layout`] that a table should have, for the [`plan`](Dialect::plan)
//! that brings an existing table into that shape, and for the statements that write rows. All identifiers are
//! untrusted (they come from configuration and from stored definitions): every one is quoted and escaped, and
//! what cannot be quoted is refused.
//!
//! # Tables
//!
//! | mode | columns |
//! |---|---|
//! | upsert | `id` (primary key), the attributes in order, `NOT NULL` where the definition says `required`, then `created_at` and `updated_at`, which the database fills, unless attributes have these names |
//! | append | `id`, the attributes in order (nullable: a delete may have none), `_operation`, `_change_id` (unique), `_changed_at`, and but for SQLite `_row`, which counts |
//!
//! A declared attribute `id` is the key and not repeated. SQLite's tables have no `created_at` and `updated_at`: it
//! cannot keep the second by itself.
//!
//! # Values
//!
//! A [`Target`] says what a column holds of a change as a [`Cell`], exactly or not at all; drivers only put cells
//! into their protocol.

mod cell;
mod column_type;
mod cursor;
mod ddl;
mod dialect;
mod dml;
mod fit;
mod floors;
mod layout;
mod mysql;
mod postgres;
mod sqlite;
mod types;

pub use cell::{
    Cell, Target, canonical, canonical_decimal, expected, format_address, format_date, format_time,
    format_timestamp, format_uuid, undeclared,
};
pub use column_type::ColumnType;
pub use cursor::{Admission, CURSOR_TABLE, StoredCursor, signed, stored_cursors};
pub use dialect::Dialect;
pub use dml::Write;
pub use fit::{Fit, FittedColumn};
pub use floors::{Floor, Floors, Move};
pub use layout::{CHANGE_ID, CHANGED_AT, CREATED_AT, Column, KEY, Layout, OPERATION, ROW, Role, UPDATED_AT};
pub use sqlite::Affinity;
pub use types::TypeClass;
