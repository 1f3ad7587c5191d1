//! The s3db.js database: its stored format, object stores, resources and the tail source.

mod format;
mod store;
