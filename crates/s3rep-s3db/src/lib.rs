//! The s3db.js database: its stored format, object stores, resources and the tail source.

mod format;
mod store;

pub use format::{
    Behavior, Document, Encoded, Entropy, Partition, Repair, ResourceConfig, ResourceEntry, ResourceFormat,
    StoredObject, check_id, id_of_key, new_id, partition_prefix, record_key, record_prefix,
};
