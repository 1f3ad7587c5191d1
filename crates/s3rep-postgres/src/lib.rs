//! PostgreSQL as a destination.
//!
//! A batch is one transaction: the cursor is locked and looked at, rows go in, the cursor moves, commit. Which way
//! the rows take depends on how many there are:
//!
//! | rows | way |
//! |---|---|
//! | few | one statement over arrays; with a cursor that is known, everything in one round trip |
//! | many, none of them there before | binary `COPY` into the table |
//! | many | binary `COPY` into a temporary table and one `INSERT … ON CONFLICT` from there |
//!
//! The cursor stands in the table `_s3rep_cursor`, in the first schema of the search path.
//!
//! ```
//! # use s3rep_core::DriverConfig;
//! let config: s3rep_postgres::PostgresConfig = serde_json::from_str(
//!     r#"{"connectionString": "postgresql://me:secret@localhost/analytics", "schemaSync": {"enabled": true}}"#,
//! )
//! .unwrap();
//! let sink = config.build().unwrap(); // connects to nothing yet
//! assert!(sink.schema_sync().is_some());
//! ```

mod address;
mod audit;
mod config;
mod cursor;
mod encode;
mod error;
mod pool;
mod readback;
mod schema;
mod sink;
mod table;
mod tls;
mod writer;

pub use config::{PoolOptions, PostgresConfig};
pub use tls::{SslFiles, SslOptions};
