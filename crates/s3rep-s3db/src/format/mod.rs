//! The stored format of s3db.js 21, as pure functions: no I/O, no clock, no randomness of their own.
//!
//! [`Document`] is `s3db.json`; [`ResourceFormat`] is what one resource of it needs to read and write records.

use std::sync::Arc;

use bytes::Bytes;
use s3rep_core::{Error, ErrorKind, Record, ResourceSchema, Result, Secret, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

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

/// How a record is split between an object's metadata and its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// The configuration of a resource, as s3db.js's `createResource` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceConfig {
    /// The resource's name.
    pub name: String,
    /// Attribute definitions.
    pub attributes: Map<String, Value>,
    /// Metadata and body split.
    #[serde(default)]
    pub behavior: Behavior,
    /// Adds `createdAt` and `updatedAt`.
    #[serde(default)]
    pub timestamps: bool,
    /// Partitions by name.
    #[serde(default)]
    pub partitions: Map<String, Value>,
}

/// Something that was wrong with `s3db.json` and has been repaired in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What was repaired, in words.
    pub message: String,
    /// The text could not be read at all and an empty document stands in for it: keep a copy of the text
    /// before writing.
    pub unreadable: bool,
}

/// `s3db.json`: the resources of a database, their versions and registries.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    root: Map<String, Value>,
}

/// One resource as `s3db.json` has it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceEntry<'a> {
    members: &'a Map<String, Value>,
}

impl<'a> ResourceEntry<'a> {
    /// The members as stored.
    pub fn raw(self) -> &'a Map<String, Value> {
        self.members
    }
}

impl Document {
    /// A document without resources.
    pub fn empty(now: Timestamp) -> Self {
        let _ = now;
        Self { root: Map::new() }
    }
    /// Reads the document and heals what can be healed.
    pub fn parse(bytes: &[u8]) -> (Self, Vec<Repair>) {
        let _ = bytes;
        (Self { root: Map::new() }, Vec::new())
    }
    /// The document as text with two-space indent.
    pub fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Sets `lastUpdated`.
    pub fn touch(&mut self, now: Timestamp) {
        let _ = now;
    }
    /// The resources by name.
    pub fn resources(&self) -> impl Iterator<Item = (&str, ResourceEntry<'_>)> {
        self.root.iter().filter_map(|(k, v)| Some((k.as_str(), ResourceEntry { members: v.as_object()? })))
    }
    /// The resource of that name.
    pub fn resource(&self, name: &str) -> Option<ResourceEntry<'_>> {
        self.resources().find(|(n, _)| *n == name).map(|(_, r)| r)
    }
    /// Creates the resource, or makes a new version of it when its definition changed.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] naming every problem of the configuration.
    pub fn put_resource(&mut self, config: &ResourceConfig, now: Timestamp) -> Result<()> {
        let _ = (config, now);
        Err(soon())
    }
    /// Removes the resource; true when it was there.
    pub fn remove_resource(&mut self, name: &str) -> bool {
        let _ = name;
        false
    }
}

fn soon() -> Error {
    Error::new(ErrorKind::Unsupported, "not there yet")
}

/// Everything needed to read and write the records of one resource at its current version.
#[derive(Debug)]
pub struct ResourceFormat {
    schema: Arc<ResourceSchema>,
    hash: String,
    partitions: Vec<Partition>,
}

/// One partition of a resource: reference objects under its fields' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    name: String,
    fields: Vec<(String, String)>,
}

impl Partition {
    /// The partition's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its fields and their rules, in the order in which they stand in keys.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.fields.iter().map(|(f, r)| (f.as_str(), r.as_str()))
    }
}

impl ResourceFormat {
    /// Prepares the current version of a resource.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the document has no such resource.
    pub fn new(document: &Document, resource: &str, passphrase: &Secret) -> Result<Self> {
        let _ = (document, resource, passphrase);
        Err(soon())
    }
    /// The attributes.
    pub fn schema(&self) -> &Arc<ResourceSchema> {
        &self.schema
    }
    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.schema.name
    }
    /// The current version, such as `v1`: what reference objects carry as `_v`.
    pub fn version(&self) -> &str {
        &self.schema.version
    }
    /// The partitions, automatic ones included.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
    /// The partition of that name.
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }
    /// How records are split between metadata and body.
    pub fn behavior(&self) -> Behavior {
        Behavior::UserManaged
    }
    /// Whether `createdAt` and `updatedAt` are kept.
    pub fn timestamps(&self) -> bool {
        false
    }
    /// Whether deleting all records is refused.
    pub fn paranoid(&self) -> bool {
        true
    }
    /// The length of generated ids.
    pub fn id_size(&self) -> usize {
        22
    }
    /// The definition hash of the current version, `sha256:…`.
    pub fn hash(&self) -> &str {
        &self.hash
    }
    /// Reads a record, decoding once.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] and its like, naming resource, id and attribute.
    pub fn decode(&self, id: &str, object: &StoredObject) -> Result<Record> {
        let _ = (id, object);
        Err(soon())
    }
    /// Encodes a new record.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] with every problem of the record.
    pub fn encode_insert(
        &self,
        record: &Record,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Encoded> {
        let _ = (record, entropy, now);
        Err(soon())
    }
    /// Encodes a changed record: `changes` are merged into `previous`.
    ///
    /// # Errors
    /// As for [`ResourceFormat::encode_insert`].
    pub fn encode_update(
        &self,
        previous: &Record,
        changes: &Record,
        previous_object: &StoredObject,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Encoded> {
        let _ = (previous, changes, previous_object, entropy, now);
        Err(soon())
    }
    /// The keys of the record's partition references, without the database's prefix.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when a value would leave its partition.
    pub fn partition_keys(&self, id: &str, record: &Record) -> Result<Vec<String>> {
        let _ = (id, record);
        Err(soon())
    }
    /// The object of a partition reference: `_v` and nothing else.
    pub fn reference(&self) -> StoredObject {
        StoredObject { metadata: vec![("_v".into(), self.version().into())], ..StoredObject::default() }
    }
}

/// The key of a record, without the database's prefix.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when the id or the resource's name cannot stand in a key.
pub fn record_key(resource: &str, id: &str) -> Result<String> {
    check_id(id)?;
    Ok(format!("resource={resource}/data/id={id}"))
}

/// The id in a record's or reference's key.
pub fn id_of_key(key: &str) -> Option<&str> {
    key.rsplit_once("/id=").map(|(_, id)| id)
}

/// Whether the id can stand in a key.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] naming the character that cannot.
pub fn check_id(id: &str) -> Result<()> {
    let _ = id;
    Ok(())
}

/// The prefix of every record of a resource, ending in `/id=`.
///
/// # Errors
/// As for [`record_key`].
pub fn record_prefix(resource: &str) -> Result<String> {
    Ok(format!("resource={resource}/data/id="))
}

/// The prefix of the references of a partition for the values of its leading fields, ending in `/`.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when a value cannot stand in a key.
pub fn partition_prefix(resource: &str, partition: &Partition, values: &[(&str, &Value)]) -> Result<String> {
    let _ = (partition, values);
    Ok(format!("resource={resource}/"))
}

/// A random id of `size` characters of `A-Z a-z 0-9 _ -`.
pub fn new_id(entropy: &mut dyn Entropy, size: usize) -> String {
    let _ = entropy;
    "x".repeat(size)
}
