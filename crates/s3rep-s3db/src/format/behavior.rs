//! How a record is split between an object's metadata and its body, with s3db.js's byte accounting.

use bytes::Bytes;
use s3rep_core::{Error, ErrorKind, Result, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{StoredObject, js, text};

/// User metadata that an object holds on AWS, as s3db.js counts it.
pub(super) const LIMIT: usize = 2047;
/// `createdAt` and `updatedAt` with their texts.
const TIMESTAMPS: usize = 2 * (9 + 24);
/// `$truncated` and `true`.
const TRUNCATED: usize = 14;

/// How a record is split between an object's metadata and its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behavior {
    /// All in metadata, or all in the body when that is too large.
    #[default]
    UserManaged,
    /// All in metadata; larger records are refused.
    EnforceLimits,
    /// All in metadata; what does not fit is cut.
    TruncateData,
    /// Small fields in metadata, the rest in the body.
    BodyOverflow,
    /// All in the body.
    BodyOnly,
}

impl Behavior {
    /// The name in definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserManaged => "user-managed",
            Self::EnforceLimits => "enforce-limits",
            Self::TruncateData => "truncate-data",
            Self::BodyOverflow => "body-overflow",
            Self::BodyOnly => "body-only",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::UserManaged, Self::EnforceLimits, Self::TruncateData, Self::BodyOverflow, Self::BodyOnly]
            .into_iter()
            .find(|behavior| behavior.as_str() == name)
    }
}

/// A record's fields under their keys, in the order of the record, and what else decides about their place.
pub(super) struct Fields<'a> {
    /// Without `_v`.
    pub(super) fields: Vec<(String, Value)>,
    /// User metadata that an object of the store holds.
    pub(super) limit: usize,
    pub(super) version: &'a str,
    pub(super) timestamps: bool,
    /// Counted where the behavior counts it.
    pub(super) id: Option<&'a str>,
    pub(super) map: &'a str,
    pub(super) plugin_map: Option<&'a str>,
}

/// Where a record's fields went.
pub(super) struct Placed {
    pub(super) object: StoredObject,
    /// Something was cut off.
    pub(super) truncated: bool,
}

/// Bytes of a value as s3db.js counts them.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::String(text) => text::bytes(text),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| text::bytes(&js::string(item))).sum::<usize>() + items.len() - 1
        }
        value => js::json(value).len(),
    }
}

/// Bytes that are left for fields.
pub(super) fn effective(limit: usize, version: &str, timestamps: bool, id: Option<&str>) -> usize {
    let overhead =
        2 + version.len() + if timestamps { TIMESTAMPS } else { 0 } + id.map_or(0, |id| 2 + id.len());
    limit.saturating_sub(overhead)
}

impl Fields<'_> {
    /// Splits the fields.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] where the behavior refuses records that do not fit.
    pub(super) fn place(self, behavior: Behavior) -> Result<Placed> {
        let whole = |object| Ok(Placed { object, truncated: false });
        match behavior {
            Behavior::UserManaged if self.total() <= self.effective() => whole(self.in_metadata()),
            Behavior::UserManaged => {
                let mut metadata = vec![self.version_field()];
                metadata.extend(self.plugin_field());
                whole(with_body(metadata, self.body(self.fields.iter(), true)))
            }
            Behavior::EnforceLimits if self.total() <= self.effective() => whole(self.in_metadata()),
            Behavior::EnforceLimits => {
                Err(Error::new(ErrorKind::TooLarge, "the record does not fit in metadata")
                    .with_scope(Scope::Record)
                    .with_context("bytes", self.total())
                    .with_context("limit", self.effective())
                    .with_advice("shorten it, or give the resource the behavior body-overflow"))
            }
            Behavior::TruncateData => Ok(self.truncated()),
            Behavior::BodyOverflow => whole(self.overflowing()),
            Behavior::BodyOnly => {
                let mut metadata = vec![self.version_field(), wire("_map", &Value::from(self.map))];
                metadata.extend(self.plugin_field());
                whole(with_body(metadata, self.body(self.fields.iter(), true)))
            }
        }
    }

    fn effective(&self) -> usize {
        effective(self.limit, self.version, self.timestamps, self.id)
    }

    fn total(&self) -> usize {
        let fields = self.fields.iter().map(|(key, value)| text::bytes(key) + size(value));
        fields.sum::<usize>() + 2 + self.version.len()
    }

    fn version_field(&self) -> (String, String) {
        ("_v".into(), self.version.into())
    }

    fn plugin_field(&self) -> Option<(String, String)> {
        self.plugin_map.map(|map| wire("_pluginmap", &Value::from(map)))
    }

    /// Everything in metadata, whatever its size.
    pub(super) fn in_metadata(&self) -> StoredObject {
        let fields = self.fields.iter().map(|(key, value)| wire(key, value));
        let metadata = fields.chain([self.version_field()]).collect();
        StoredObject { metadata, ..StoredObject::default() }
    }

    fn body<'b>(&'b self, fields: impl Iterator<Item = &'b (String, Value)>, with_version: bool) -> String {
        let version = Value::from(self.version);
        let version = with_version.then_some(("_v", &version));
        js::json_of(version.into_iter().chain(fields.map(|(key, value)| (key.as_str(), value))))
    }

    /// The fields in JavaScript's member order, from small to large.
    fn by_size(&self) -> Vec<(&(String, Value), usize)> {
        let mut fields: Vec<_> = self.fields.iter().map(|field| (field, size(&field.1))).collect();
        js::order_members(&mut fields, |((key, _), _)| key.as_str());
        fields.sort_by_key(|(_, size)| *size);
        fields
    }

    fn overflowing(&self) -> StoredObject {
        let mut metadata = vec![self.version_field()];
        let mut sum = self.version.len();
        if let Some((key, value)) = self.plugin_field() {
            sum += key.len() + value.len();
            metadata.push((key, value));
        }
        let mut fields = self.by_size().into_iter().peekable();
        while let Some(((key, value), size)) = fields.next_if(|(_, size)| sum + size <= self.effective()) {
            sum += size;
            metadata.push(wire(key, value));
        }
        if fields.peek().is_none() {
            return StoredObject { metadata, ..StoredObject::default() };
        }
        metadata.push(("_overflow".into(), "true".into()));
        // the body keeps the order of the walk, but for integer keys
        let rest: Vec<_> = fields.map(|(field, _)| field).collect();
        with_body(metadata, self.body(rest.into_iter(), false))
    }

    fn truncated(&self) -> Placed {
        if self.total() <= self.effective() {
            return Placed { object: self.in_metadata(), truncated: false };
        }
        let room = self.effective().saturating_sub(TRUNCATED);
        let mut kept: Vec<(&str, Value)> = Vec::new();
        let mut sum = self.version.len();
        for ((key, value), size) in self.by_size() {
            if sum + size <= room {
                sum += size;
                kept.push((key, value.clone()));
                continue;
            }
            let cut = match value {
                Value::String(text) => cut_bytes(text, room.saturating_sub(sum)).to_owned(),
                _ => String::new(),
            };
            kept.push((key, cut.into()));
            break;
        }
        js::order_members(&mut kept, |(key, _)| key);
        let total = |kept: &[(&str, Value)]| {
            kept.iter().map(|(key, value)| key.len() + size(value)).sum::<usize>()
                + 2
                + self.version.len()
                + TRUNCATED
        };
        // s3db.js empties the last member again and again; here the last that still has something, until it fits
        while total(&kept) > self.effective() {
            let Some((_, value)) = kept.iter_mut().rev().find(|(_, value)| size(value) > 0) else { break };
            *value = Value::from("");
        }
        let mut metadata: Vec<_> = kept.iter().map(|(key, value)| wire(key, value)).collect();
        metadata.push(self.version_field());
        metadata.push(("_truncated".into(), "true".into()));
        Placed { object: StoredObject { metadata, ..StoredObject::default() }, truncated: true }
    }
}

/// At most so many bytes of a text; no character is cut apart.
fn cut_bytes(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn with_body(metadata: Vec<(String, String)>, body: String) -> StoredObject {
    StoredObject { metadata, body: Bytes::from(body), content_type: Some("application/json".into()) }
}

/// A field in wire form.
fn wire(key: &str, value: &Value) -> (String, String) {
    let text = match value {
        Value::String(text) => text::encode_lossless(text).into_owned(),
        Value::Null => "null".into(),
        value => text::encode_lossless(&js::string(value)).into_owned(),
    };
    (text::key(key), text)
}
