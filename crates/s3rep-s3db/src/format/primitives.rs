//! The primitives below records, for the tests against the format's vectors.

pub use super::{
    number::{base62, batch, decimal, fixed, key36, parse_base62, parse_batch, parse_decimal, parse_fixed},
    password::{compact, expand, verify},
    text::{Decoded, base85, decode, encode, parse_base85},
};

/// Bytes of the fields, and bytes that there are for them, as behaviors count.
pub fn sizes(
    fields: &serde_json::Map<String, serde_json::Value>,
    version: &str,
    timestamps: bool,
    id: Option<&str>,
) -> (usize, usize) {
    let total = fields.iter().map(|(key, value)| key.len() + super::behavior::size(value)).sum();
    (total, super::behavior::effective(super::behavior::LIMIT, version, timestamps, id))
}
