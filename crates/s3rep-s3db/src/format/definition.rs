//! Resource definitions: what a user configures, and the versions that `s3db.json` keeps of it.

use s3rep_core::{Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Behavior, IdScheme, js, keys::check_name, rule};

fn yes() -> bool {
    true
}

/// The configuration of a resource, as s3db.js's `createResource` takes it. Unknown members are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceConfig {
    /// The resource's name.
    pub name: String,
    /// Attribute definitions.
    pub attributes: Map<String, Value>,
    /// How records are split between metadata and body.
    #[serde(default)]
    pub behavior: Behavior,
    /// Keeps `createdAt` and `updatedAt`, with a partition by day for each.
    #[serde(default)]
    pub timestamps: bool,
    /// Partitions by name: `{"byState": {"fields": {"state": "string"}}}`, or a list of attributes.
    #[serde(default, deserialize_with = "partitions")]
    pub partitions: Map<String, Value>,
    /// Refuses to delete all records at once.
    #[serde(default = "yes")]
    pub paranoid: bool,
    /// Objects with declared members may be absent.
    #[serde(default = "yes")]
    pub all_nested_objects_optional: bool,
    /// Secrets are decrypted on reading.
    #[serde(default = "yes")]
    pub auto_decrypt: bool,
    /// The length of generated ids: 1 to 512, 22 by default.
    #[serde(default)]
    pub id_size: Option<u32>,
    /// How ids are generated. Random characters by default, so that nobody has to be asked; also
    ///
    /// - a length: random ids of so many characters;
    /// - `incremental`, `incremental:1000`, `incremental:ORD-0001` (a prefix, a start and as many digits), and
    ///   `incremental:fast`, `incremental:fast:ORD-0001`, which reserve 100 numbers at once: numbers that no two
    ///   processes get both, with gaps where a record was not inserted after all or a process stopped;
    /// - `{"type": "incremental", "start": 1, "increment": 1, "mode": "standard" or "fast", "batchSize": 100,
    ///   "prefix": "", "padding": 0}`;
    /// - `ulid` and `uuidv7`, which sort by time;
    /// - `custom`: by [`Resource::generate_ids_with`](crate::Resource::generate_ids_with).
    ///
    /// `s3db.json` keeps only the kind, as in s3db.js: who opens the database later has to declare the resource
    /// again, or an insert without an id is refused.
    #[serde(default)]
    pub id_generator: Option<Value>,
    /// Who creates the resource: `user`, or the name of a plugin.
    #[serde(default)]
    pub created_by: Option<String>,
    /// Adds a partition by version.
    #[serde(default)]
    pub versioning_enabled: bool,
    /// Of s3db.js, without effect on what is stored.
    #[serde(default)]
    pub cache: bool,
    /// Of s3db.js: events are emitted after the call.
    #[serde(default)]
    pub async_events: Option<bool>,
    /// Of s3db.js: partition references are written after the call.
    #[serde(default)]
    pub async_partitions: Option<bool>,
}

/// Partitions as they are, or from the list of attributes that stands for one partition each.
fn partitions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        Value::Array(names) => names
            .iter()
            .map(|name| name.as_str().map(|name| (name.to_owned(), Value::Null)))
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("a list of partitions has names of attributes")),
        _ => Err(D::Error::custom("partitions are an object, or a list of attributes")),
    }
}

impl ResourceConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] saying what is wrong.
    pub fn from_value(value: &Value) -> Result<Self> {
        Self::deserialize(value).map_err(|error| {
            Error::new(ErrorKind::ConfigInvalid, format!("the resource's configuration is wrong: {error}"))
        })
    }

    /// The declaration with the automatic attributes.
    pub(super) fn declared(&self) -> Map<String, Value> {
        let mut attributes = self.attributes.clone();
        if self.timestamps {
            for name in ["createdAt", "updatedAt"] {
                attributes.entry(name).or_insert_with(|| "datetime|optional".into());
            }
        }
        attributes
    }

    /// The partitions in full, with the automatic ones.
    pub(super) fn all_partitions(&self) -> Map<String, Value> {
        let mut partitions = Map::new();
        for (name, partition) in &self.partitions {
            if !partition.is_null() {
                partitions.insert(name.clone(), partition.clone());
                continue;
            }
            let definition = self.attributes.get(name).and_then(Value::as_str).unwrap_or("string");
            let rule = definition.split('|').next().unwrap_or("string");
            let mut letters = name.chars();
            let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            partitions.insert(format!("by{first}{}", letters.as_str()), json!({"fields": {name: rule}}));
        }
        if self.versioning_enabled {
            partitions.entry("byVersion").or_insert_with(|| json!({"fields": {"_v": "string"}}));
        }
        if self.timestamps {
            for (name, field) in [("byCreatedDate", "createdAt"), ("byUpdatedDate", "updatedAt")] {
                partitions.entry(name).or_insert_with(|| json!({"fields": {field: "date|maxlength:10"}}));
            }
        }
        partitions
    }

    /// Everything that is wrong with the configuration, in one error.
    pub(crate) fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        let mut problems = Vec::new();
        rule::check_declaration(&self.attributes, &mut problems);
        IdScheme::parse(self.id_generator.as_ref(), self.id_size, &mut problems);
        let declared = self.declared();
        for (name, partition) in &self.all_partitions() {
            let Some(fields) = partition.get("fields").and_then(Value::as_object) else {
                problems.push(format!("partition '{name}' has no object 'fields'"));
                continue;
            };
            if name.is_empty() || name.contains(['/', '=', '%', '\\']) {
                problems.push(format!("the name of partition '{name}' cannot stand in a key"));
            }
            if fields.is_empty() {
                problems.push(format!("partition '{name}' has no fields"));
            }
            for (field, rule) in fields {
                let root = field.split('.').next().unwrap_or(field);
                if field != "_v" && !declared.contains_key(field) && !declared.contains_key(root) {
                    problems
                        .push(format!("partition '{name}' has the field '{field}', which is no attribute"));
                }
                if !rule.is_string() {
                    problems.push(format!("the rule of field '{field}' in partition '{name}' is not a text"));
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ConfigInvalid, problems.join("; "))
            .with_context("resource", &self.name)
            .with_advice("correct the resource's configuration"))
    }

    /// How ids are made; none when the configuration does not say.
    pub(crate) fn id_scheme(&self) -> Option<IdScheme> {
        IdScheme::parse(self.id_generator.as_ref(), self.id_size, &mut Vec::new())
    }

    fn id_size(&self) -> usize {
        match self.id_scheme() {
            Some(IdScheme::Random(Some(size))) => size,
            _ => self.id_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(22),
        }
    }

    /// The hash that tells whether the definition has changed.
    pub(super) fn hash(&self) -> String {
        definition_hash(&self.declared(), self.behavior, &self.all_partitions(), self.timestamps)
    }

    /// A member of `versions`. `first` is the version that creates the resource.
    pub(super) fn version(&self, first: bool, now: Timestamp) -> Value {
        let partitions = self.all_partitions();
        let mut version = Map::new();
        let mut set = |name: &str, value: Value| version.insert(name.to_owned(), value);
        set("hash", self.hash().into());
        set("attributes", self.declared().into());
        set("behavior", self.behavior.as_str().into());
        set("timestamps", self.timestamps.into());
        set("partitions", Value::Object(partitions.clone()));
        set("paranoid", self.paranoid.into());
        set("allNestedObjectsOptional", self.all_nested_objects_optional.into());
        set("autoDecrypt", self.auto_decrypt.into());
        if first {
            set("cache", false.into());
        }
        // s3db.js counts its own handlers that keep the references of partitions
        let only_versions = first && self.versioning_enabled && partitions.len() == 1;
        let hooked = !(partitions.is_empty() || only_versions);
        let handlers = json!({"count": 1, "handlers": [{"name": null, "length": 1, "type": "function"}]});
        set(
            "hooks",
            if hooked { json!({"afterInsert": handlers, "afterDelete": handlers}) } else { json!({}) },
        );
        set("idSize", self.id_size().into());
        set("idGenerator", self.id_scheme().map_or("default", |scheme| scheme.kind()).into());
        set("createdAt", now.to_string().into());
        Value::Object(version)
    }
}

/// `sha256:` and the hash of attributes, behavior and partitions; automatic attributes do not count.
pub(super) fn definition_hash(
    attributes: &Map<String, Value>,
    behavior: Behavior,
    partitions: &Map<String, Value>,
    timestamps: bool,
) -> String {
    let mut attributes = attributes.clone();
    if timestamps {
        attributes.retain(|name, _| name != "createdAt" && name != "updatedAt");
    }
    hash_of(&json!({"attributes": attributes, "behavior": behavior.as_str(), "partitions": partitions}))
}

fn hash_of(value: &Value) -> String {
    let digest = Sha256::digest(js::canonical(value));
    digest.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_the_format_specification() {
        let config =
            ResourceConfig::from_value(&json!({"name": "r", "attributes": {"a": "string"}})).unwrap();
        assert_eq!(config.hash(), "sha256:953f78ff20eec42d5b732dd285809f5a83fc3a2c2caf0654d7d618521bf24af8");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let config = ResourceConfig::from_value(&json!({
            "name": "r", "attributes": {"a": "bogus", "b": {"c": "text"}}, "partitions": {"p": {"fields": {"x": "string"}}},
        }));
        let error = config.unwrap().check().unwrap_err().to_string();
        for part in ["'a'", "'b.c'", "'x'"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(ResourceConfig::from_value(&json!({"name": "r", "attributes": {}, "colour": 1})).is_err());
    }
}
