//! The format of one resource.

use std::{fmt, sync::Arc};

use s3rep_core::{Error, ErrorKind, ResourceSchema, Result, Scope, Secret};
use serde_json::{Map, Value};

use super::{
    Behavior, Document, StoredObject,
    behavior::LIMIT,
    document::ResourceEntry,
    keys::{Partition, check_name},
    plan::Plan,
    registry, rule,
};

/// Everything needed to read and write the records of one resource at its current version.
///
/// It is made once and shared; reading and writing need nothing but it.
pub struct ResourceFormat {
    pub(super) schema: Arc<ResourceSchema>,
    pub(super) plan: Plan,
    pub(super) hash: String,
    pub(super) partitions: Vec<Partition>,
    pub(super) behavior: Behavior,
    pub(super) timestamps: bool,
    pub(super) nested_optional: bool,
    pub(super) auto_decrypt: bool,
    pub(super) paranoid: bool,
    pub(super) id_size: usize,
    id_generator: String,
    pub(super) metadata_limit: usize,
    pub(super) passphrase: Secret,
    /// Versions that have keys of their own, with their keys and paths.
    pub(super) older_maps: Vec<(String, Vec<(String, String)>)>,
}

impl fmt::Debug for ResourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ResourceFormat");
        out.field("name", &self.name()).field("version", &self.version()).field("behavior", &self.behavior);
        out.finish_non_exhaustive()
    }
}

impl ResourceFormat {
    /// Prepares the current version of a resource.
    ///
    /// An attribute of a type that s3db.js 21 does not know is read as text, with a warning in the log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the document has no such resource, [`ErrorKind::Corrupt`] when its definition
    /// cannot be understood: an unknown behavior, or keys that are not of the format.
    pub fn new(document: &Document, resource: &str, passphrase: &Secret) -> Result<Self> {
        let Some(entry) = document.resource(resource) else {
            return Err(Error::new(ErrorKind::NotFound, "the database has no such resource")
                .with_scope(Scope::Table)
                .with_context("resource", resource)
                .with_advice("check the name: resources are listed by `s3rep db resources`"));
        };
        check_name(resource)?;
        let corrupt = |message: &'static str| {
            Error::new(ErrorKind::Corrupt, message)
                .with_scope(Scope::Table)
                .with_context("resource", resource)
        };
        let attributes =
            entry.attributes().ok_or_else(|| corrupt("the resource's current version has no attributes"))?;
        let behavior = entry.behavior().ok_or_else(|| corrupt("the resource has an unknown behavior"))?;
        // a definition that is neither text nor an object stands for any value
        let any = || Value::from("any|optional");
        for (attribute, kind) in rule::unknown_types(attributes) {
            tracing::warn!(resource, attribute, kind, "the type is not one of s3db.js 21: read as text");
        }
        let declared = attributes.iter().map(|(name, definition)| {
            let known = definition.is_string() || definition.is_object();
            (name.clone(), if known { definition.clone() } else { any() })
        });
        let schema = ResourceSchema::parse(resource, entry.version(), &declared.collect())
            .map_err(|error| error.with_scope(Scope::Table).with_context("resource", resource))?;
        let map = entry.current().and_then(ResourceEntry::map);
        if let Some(map) = map {
            let keys: Vec<&str> = map.values().filter_map(Value::as_str).collect();
            let valid = |key: &str| {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
            };
            let mut unique = keys.clone();
            unique.sort_unstable();
            unique.dedup();
            if keys.len() < map.len() || unique.len() < keys.len() || !keys.iter().all(|key| valid(key)) {
                return Err(corrupt("the resource's map has keys that are not unique or not in base 36")
                    .with_advice(
                        "open the database with the s3db.js that wrote it and write its resources again",
                    ));
            }
        }
        let plugins = entry.plugin_keys();
        let mut registry = entry.registry();
        // where there is but an older map, attributes that it leaves out are stored under their names
        if map.is_none() || entry.raw().contains_key("schemaRegistry") {
            registry.complete(&registry::paths(attributes, &plugins));
        }
        let partitions = entry.partitions().into_iter().flatten().filter_map(|(name, partition)| {
            let fields = partition.get("fields")?.as_object()?;
            let fields = fields
                .iter()
                .map(|(field, rule)| (field.clone(), rule.as_str().unwrap_or("string").to_owned()));
            Some(Partition::new(name, fields))
        });
        let id_size = entry.current().and_then(|version| version.get("idSize")).and_then(Value::as_u64);
        Ok(Self {
            plan: Plan::new(attributes, &registry, map, &plugins),
            schema: Arc::new(schema.with_definition(entry.definition())),
            hash: entry
                .current()
                .and_then(|version| version.get("hash"))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .into(),
            partitions: partitions.filter(|partition| partition.fields().len() > 0).collect(),
            behavior,
            timestamps: entry.flag("timestamps", false),
            nested_optional: entry.flag("allNestedObjectsOptional", true),
            auto_decrypt: entry.flag("autoDecrypt", true),
            paranoid: entry.flag("paranoid", true),
            id_size: id_size
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| (1..=512).contains(size))
                .unwrap_or(22),
            id_generator: entry
                .current()
                .and_then(|version| version.get("idGenerator"))
                .and_then(Value::as_str)
                .unwrap_or("default")
                .into(),
            metadata_limit: LIMIT,
            passphrase: passphrase.clone(),
            older_maps: older_maps(entry),
        })
    }

    /// The same for a store whose objects hold so many bytes of metadata: 2,047 by default, as AWS does.
    #[must_use]
    pub fn with_metadata_limit(self, metadata_limit: usize) -> Self {
        Self { metadata_limit, ..self }
    }

    /// The same with secrets in the clear, or as they are stored, whatever the resource says.
    #[must_use]
    pub(crate) fn with_auto_decrypt(self, auto_decrypt: bool) -> Self {
        Self { auto_decrypt, ..self }
    }

    /// The attributes.
    pub fn schema(&self) -> &Arc<ResourceSchema> {
        &self.schema
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.schema.name
    }

    /// The current version, such as `v1`.
    pub fn version(&self) -> &str {
        &self.schema.version
    }

    /// The partitions, automatic ones included.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The partition of that name.
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name() == name)
    }

    /// How records are split between metadata and body.
    pub fn behavior(&self) -> Behavior {
        self.behavior
    }

    /// Whether `createdAt` and `updatedAt` are kept.
    pub fn timestamps(&self) -> bool {
        self.timestamps
    }

    /// Whether deleting all records at once is refused.
    pub fn paranoid(&self) -> bool {
        self.paranoid
    }

    /// The length of generated ids.
    pub fn id_size(&self) -> usize {
        self.id_size
    }

    /// How ids are made, as far as that is stored: `default` (random), `incremental` or `custom`.
    pub fn id_generator_kind(&self) -> &str {
        &self.id_generator
    }

    /// The definition hash of the current version, `sha256:…`; empty in documents of older versions.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The metadata keys of an attribute and its members.
    pub fn metadata_keys(&self, attribute: &str) -> Vec<String> {
        let own = self
            .plan
            .leaves
            .iter()
            .filter(|leaf| leaf.segments.first().is_some_and(|first| first == attribute));
        own.map(|leaf| leaf.key.clone()).collect()
    }

    /// The object of a partition reference: the resource's version and nothing else.
    pub fn reference(&self) -> StoredObject {
        StoredObject { metadata: vec![("_v".into(), self.version().into())], ..StoredObject::default() }
    }
}

impl ResourceEntry<'_> {
    /// What makes a resource of the same definition elsewhere, named as in a configuration.
    pub(crate) fn definition(self) -> Map<String, Value> {
        const MEMBERS: [&str; 8] = [
            "attributes",
            "behavior",
            "timestamps",
            "paranoid",
            "allNestedObjectsOptional",
            "autoDecrypt",
            "idSize",
            "idGenerator",
        ];
        let mut definition = Map::new();
        for name in MEMBERS {
            let value = self.current().and_then(|version| version.get(name));
            definition.extend(value.map(|value| (name.to_owned(), value.clone())));
        }
        let partitions = self.partitions().cloned().unwrap_or_default();
        definition.insert("partitions".to_owned(), Value::Object(partitions));
        definition
    }
}

/// The maps of versions before the current one: records keep the keys that they were written with.
fn older_maps(entry: ResourceEntry<'_>) -> Vec<(String, Vec<(String, String)>)> {
    let versions = entry.versions().into_iter().flatten();
    let older = versions.filter(|(name, _)| *name != entry.version());
    let maps = older.filter_map(|(name, version)| {
        let map = ResourceEntry::map(version.as_object()?)?;
        let keys = map.iter().filter_map(|(path, key)| Some((key.as_str()?.to_owned(), path.clone())));
        Some((name.clone(), keys.collect()))
    });
    maps.collect()
}
