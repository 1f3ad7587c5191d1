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
//! | upsert | `id` (primary key), the attributes in order, `NOT NULL` where the definition says `required` |
//! | append | `id`, the attributes in order (nullable: a delete may have none), `_operation`, `_change_id` (unique), `_changed_at` |
//!
//! A declared attribute `id` is the key and not repeated. s3db.js adds `created_at` and `updated_at` with
//! defaults to the tables it creates; nothing ever writes them afterwards, so they are left out here (and left
//! alone in tables that have them).

mod ddl;
mod dialect;
mod dml;
mod fit;
mod layout;
mod sqlite;
mod types;

pub use dialect::Dialect;
pub use fit::{Fit, FittedColumn};
pub use layout::{CHANGE_ID, CHANGED_AT, Column, KEY, Layout, OPERATION, Role};
pub use sqlite::Affinity;
pub use types::TypeClass;
