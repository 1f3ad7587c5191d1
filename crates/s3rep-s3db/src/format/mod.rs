//! The stored format of s3db.js 21, as pure functions: no I/O, no clock, no randomness of their own.
//!
//! [`Document`] is `s3db.json`; [`ResourceFormat`] is what one resource of it needs to read and write records.
//! A record is decoded exactly once: s3db.js decodes what it has decoded once more, which spoils some values, and
//! that is not repeated here.

mod behavior;
mod codec;
mod definition;
mod dictionary;
mod document;
mod heal;
mod id_scheme;
mod js;
mod keys;
mod normal;
mod number;
mod order;
mod packing;
mod password;
mod plan;
#[doc(hidden)]
pub mod primitives;
#[cfg(test)]
mod properties;
mod read;
mod registry;
mod resource;
mod rule;
mod secret;
mod text;
mod time;
mod write;

use bytes::Bytes;
use s3rep_core::Record;

pub use behavior::Behavior;
pub use definition::ResourceConfig;
pub use document::{Document, Repair, ResourceEntry};
pub(crate) use id_scheme::{IdScheme, Numbering};
pub use keys::{Partition, check_id, id_of_key, new_id, partition_prefix, record_key, record_prefix};
pub use resource::ResourceFormat;
pub use write::Stamps;

/// What an object store holds for one key.
///
/// User metadata is in wire form: names lower-case, values text-encoded (ASCII), in no particular order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredObject {
    /// User metadata.
    pub metadata: Vec<(String, String)>,
    /// The body; empty when the record lives in the metadata.
    pub body: Bytes,
    /// Content type, when one was given.
    pub content_type: Option<String>,
}

impl StoredObject {
    /// An object of nothing but a JSON body, such as `s3db.json`.
    pub(crate) fn json(body: Bytes) -> Self {
        Self { body, content_type: Some("application/json".to_owned()), metadata: Vec::new() }
    }
}

/// What a record's write needs to be put under its key, and the record as a later read returns it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The object to store.
    pub object: StoredObject,
    /// The record as [`ResourceFormat::decode`] returns it from `object`: `id` is its last member.
    pub record: Record,
}

/// A source of random bytes for ids, salts and initialisation vectors.
pub trait Entropy {
    /// Fills the buffer with random bytes fit for keys.
    fn fill(&mut self, bytes: &mut [u8]);
}
