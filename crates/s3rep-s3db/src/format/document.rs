//! `s3db.json`, the document that says which resources a database has.

use s3rep_core::{Error, ErrorKind, Result, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    Behavior, ResourceConfig, heal, js,
    registry::{self, Registry},
};

/// The version of s3db.js whose format is written.
const S3DB_VERSION: &str = "21.6.2";

/// Something that was wrong with `s3db.json` and has been repaired in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What was repaired, in words.
    pub message: String,
    /// The text could not be read at all and an empty document stands in for it. Keep a copy of the text (s3db.js
    /// calls it `s3db.json.corrupted.<time>.backup`) before writing.
    pub unreadable: bool,
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// `s3db.json`: the resources of a database, their versions and registries.
///
/// Members that are not known here stay as they are, in their place.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    root: Map<String, Value>,
}

impl Document {
    /// A document without resources.
    pub fn empty(now: Timestamp) -> Self {
        let mut root = Map::new();
        root.insert("version".into(), "1".into());
        root.insert("s3dbVersion".into(), S3DB_VERSION.into());
        root.insert("lastUpdated".into(), now.to_string().into());
        root.insert("resources".into(), json!({}));
        Self { root }
    }

    /// Reads the document and heals what s3db.js heals; every repair is named. A text that cannot be read gives
    /// an empty document and a repair that is [`Repair::unreadable`].
    pub fn parse(bytes: &[u8]) -> (Self, Vec<Repair>) {
        let mut repairs = Vec::new();
        let root = heal::parse(bytes, &mut repairs).map(|mut root| {
            heal::repair(&mut root, S3DB_VERSION, &mut repairs);
            Self { root }
        });
        (root.unwrap_or_else(|| Self::empty(Timestamp(0))), repairs)
    }

    /// The document as text with two-space indent.
    pub fn to_bytes(&self) -> Vec<u8> {
        js::pretty(&self.root).into_bytes()
    }

    /// Sets `lastUpdated`. To be called before the document is written.
    pub fn touch(&mut self, now: Timestamp) {
        self.root.insert("lastUpdated".into(), now.to_string().into());
    }

    /// The resources by name, in the order of the document.
    pub fn resources(&self) -> impl Iterator<Item = (&str, ResourceEntry<'_>)> {
        let resources = self.root.get("resources").and_then(Value::as_object);
        let entries = resources.into_iter().flat_map(|resources| js::members(resources));
        entries
            .filter_map(|(name, value)| Some((name.as_str(), ResourceEntry { members: value.as_object()? })))
    }

    /// The resource of that name.
    pub fn resource(&self, name: &str) -> Option<ResourceEntry<'_>> {
        let members = self.root.get("resources")?.get(name)?.as_object()?;
        Some(ResourceEntry { members })
    }

    /// Creates the resource, or makes a new version of it when attributes, behavior or partitions have changed.
    /// Earlier versions stay, and no attribute index is ever used for another attribute. True when the document
    /// has changed and is to be written.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`](s3rep_core::ErrorKind::ConfigInvalid) naming every problem of the
    /// configuration.
    pub fn put_resource(&mut self, config: &ResourceConfig, now: Timestamp) -> Result<bool> {
        config.check()?;
        let old = self.resource(&config.name);
        let attributes = config.declared();
        let plugins = old.map(ResourceEntry::plugin_keys).unwrap_or_default();
        let paths = registry::paths(&attributes, &plugins);
        let mut registry = old.map(ResourceEntry::registry).unwrap_or_default();
        let registry_changed = registry.declare(&paths, now);
        let current = old.and_then(ResourceEntry::current);
        if let Some((old, version)) = old.zip(current)
            && version.get("hash").and_then(Value::as_str) == Some(&config.hash())
            && !(registry_changed || old.members.get("schemaRegistry").is_none())
        {
            return Ok(false);
        }
        let mut members = old.map(|old| old.members.clone()).unwrap_or_default();
        let mut versions = members.get("versions").and_then(Value::as_object).cloned().unwrap_or_default();
        let same_hash =
            current.and_then(|version| version.get("hash")).and_then(Value::as_str) == Some(&config.hash());
        let mut name = old.map(|old| old.version().to_owned()).unwrap_or_else(|| "v1".into());
        if !same_hash {
            if !versions.is_empty() {
                let numbers = versions.keys().filter_map(|name| name.strip_prefix('v')?.parse::<u64>().ok());
                name = format!("v{}", numbers.max().unwrap_or(0).saturating_add(1));
            }
            let first = versions.is_empty();
            versions.insert(name.clone(), config.version(first, now));
        }
        let created_by = members.get("createdBy").and_then(Value::as_str);
        let created_by = created_by.or(config.created_by.as_deref()).unwrap_or("user").to_owned();
        let plugins = members.get("pluginSchemaRegistry").cloned().unwrap_or_else(|| json!({}));
        // in the order in which s3db.js writes them, then what else there was
        let mut entry = Map::new();
        for (member, value) in [
            ("currentVersion", Value::from(name)),
            ("partitions", Value::Object(config.all_partitions())),
            ("createdBy", created_by.into()),
            ("versions", Value::Object(versions)),
            ("schemaRegistry", registry.to_value()),
            ("pluginSchemaRegistry", plugins),
        ] {
            members.shift_remove(member);
            entry.insert(member.into(), value);
        }
        entry.extend(members);
        if let Some(resources) = self.root.entry("resources").or_insert_with(|| json!({})).as_object_mut() {
            resources.insert(config.name.clone(), Value::Object(entry));
        }
        self.touch(now);
        self.root.insert("s3dbVersion".into(), S3DB_VERSION.into());
        // s3db.js's order, then what else there was
        for member in ["resources", "lastUpdated", "s3dbVersion", "version"] {
            if let Some(value) = self.root.shift_remove(member) {
                self.root.shift_insert(0, member.into(), value);
            }
        }
        Ok(true)
    }

    /// Gives a resource other attributes, with everything else of its definition as it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](s3rep_core::ErrorKind::NotFound) when there is no such resource, and as
    /// [`Document::put_resource`].
    pub fn update_attributes(
        &mut self,
        name: &str,
        attributes: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<bool> {
        let Some(entry) = self.resource(name) else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no resource '{name}'")));
        };
        let config = ResourceConfig { attributes: attributes.clone(), ..entry.config(name)? };
        self.put_resource(&config, now)
    }

    /// Removes the resource from the document; its objects stay. True when it was there.
    pub fn remove_resource(&mut self, name: &str) -> bool {
        let resources = self.root.get_mut("resources").and_then(Value::as_object_mut);
        resources.is_some_and(|resources| resources.shift_remove(name).is_some())
    }
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

    /// The current version's name, such as `v1`.
    pub fn version(self) -> &'a str {
        self.members.get("currentVersion").and_then(Value::as_str).unwrap_or("v1")
    }

    /// The current version's members.
    pub fn current(self) -> Option<&'a Map<String, Value>> {
        self.versions()?.get(self.version())?.as_object()
    }

    /// The current version's declaration.
    pub fn attributes(self) -> Option<&'a Map<String, Value>> {
        self.current()?.get("attributes")?.as_object()
    }

    /// The configuration that makes the current version again.
    ///
    /// # Errors
    /// When the definition is none of this version's.
    pub(super) fn config(self, name: &str) -> Result<ResourceConfig> {
        const STORED: [&str; 8] = [
            "attributes",
            "behavior",
            "timestamps",
            "paranoid",
            "allNestedObjectsOptional",
            "autoDecrypt",
            "idSize",
            "idGenerator",
        ];
        let version = self.current().into_iter().flatten();
        let mut config: Map<String, Value> = version
            .filter(|(member, value)| STORED.contains(&member.as_str()) && *value != "default")
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect();
        config.insert("name".into(), name.into());
        config.insert("partitions".into(), self.partitions().cloned().unwrap_or_default().into());
        ResourceConfig::from_value(&config.into())
    }

    /// Who created it: `user`, or the name of a plugin.
    pub fn created_by(self) -> Option<&'a str> {
        self.raw().get("createdBy").and_then(Value::as_str)
    }

    pub(super) fn versions(self) -> Option<&'a Map<String, Value>> {
        self.members.get("versions")?.as_object()
    }

    pub(super) fn behavior(self) -> Option<Behavior> {
        match self.current().and_then(|version| version.get("behavior")).and_then(Value::as_str) {
            None => Some(Behavior::default()),
            Some(name) => Behavior::named(name),
        }
    }

    pub(super) fn flag(self, name: &str, default: bool) -> bool {
        self.current().and_then(|version| version.get(name)).and_then(Value::as_bool).unwrap_or(default)
    }

    /// Partitions: those of the resource, or of its current version.
    pub(super) fn partitions(self) -> Option<&'a Map<String, Value>> {
        let own = self.members.get("partitions").and_then(Value::as_object);
        own.or_else(|| self.current()?.get("partitions")?.as_object())
    }

    /// The map of paths to keys that older documents have instead of a registry.
    pub(super) fn map(version: &Map<String, Value>) -> Option<&Map<String, Value>> {
        version.get("map").and_then(Value::as_object).filter(|map| !map.is_empty())
    }

    /// Attributes that plugins have registered, with their keys.
    pub(super) fn plugin_keys(self) -> Map<String, Value> {
        let plugins = self.members.get("pluginSchemaRegistry").and_then(Value::as_object);
        let mappings =
            plugins.into_iter().flatten().filter_map(|(_, plugin)| plugin.get("mapping")?.as_object());
        let keys = mappings.flatten().filter(|(_, key)| key.is_string());
        keys.map(|(attribute, key)| (attribute.clone(), key.clone())).collect()
    }

    /// The registry: as stored, or made from an older map. Keys of the map go before those of the registry.
    pub(super) fn registry(self) -> Registry {
        let map = self.current().and_then(Self::map);
        let keys = map.into_iter().flatten().filter_map(|(path, key)| Some((path.as_str(), key.as_str()?)));
        let mut of_map = Registry::of_keys(keys);
        let Some(stored) = self.members.get("schemaRegistry") else { return of_map };
        let mut registry = Registry::read(stored);
        if map.is_some() {
            for (path, index) in std::mem::take(&mut of_map.mapping) {
                registry.reserve(index);
                registry.mapping.retain(|(known, _)| *known != path);
                registry.mapping.push((path, index));
            }
        }
        registry
    }
}
