//! Reading records.

use std::borrow::Cow;

use s3rep_core::{Error, ErrorKind, Record, Result, Scope};
use serde_json::{Map, Value};

use super::{
    Behavior, ResourceFormat, StoredObject,
    codec::{self, Codec},
    js::MAX_DEPTH,
    secret::{self, Opened},
    text::{self, Decoded},
};

/// What one leaf has in a stored object.
enum Slot<'a> {
    Text(Cow<'a, str>),
    Null,
    /// Known to be absent.
    Undefined,
    /// A value of a JSON body that is not a text.
    Value(Value),
    /// A value that needs no decoding.
    Plain(Value),
}

/// Values found so far.
struct Found<'a> {
    slots: Vec<Option<Slot<'a>>>,
    extras: Vec<(String, Value)>,
}

/// Secrets whose plain text the writer knows: deriving their keys once more would take time for nothing.
pub(super) type Known = [(usize, Value)];

impl ResourceFormat {
    /// Reads a record, decoding once.
    ///
    /// The record has its attributes in the order of their declaration, then members that nobody declared, then
    /// `id`. Absent stays absent and null stays null. Numbers that JSON cannot hold (s3db.js gives `NaN`) are
    /// null, as `JSON.stringify` has it. Left-over system fields are not part of the record.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the body is missing or broken, [`ErrorKind::ConfigInvalid`] when the
    /// passphrase does not open a secret; both concern this record only and name it.
    pub fn decode(&self, id: &str, object: &StoredObject) -> Result<Record> {
        self.decode_knowing(id, object, &[])
    }

    pub(super) fn decode_knowing(&self, id: &str, object: &StoredObject, known: &Known) -> Result<Record> {
        let mut found = Found { slots: Vec::new(), extras: Vec::new() };
        found.slots.resize_with(self.plan.leaves.len(), || None);
        let maps = self.maps(object);
        for (key, value) in &object.metadata {
            self.take_metadata(key, value, &maps, &mut found);
        }
        self.take_body(object, &maps, &mut found).map_err(|error| self.locate(error, id))?;
        let mut record = Record::with_capacity(found.slots.len() + 1);
        for (at, slot) in found.slots.into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            let Some(leaf) = self.plan.leaves.get(at) else { continue };
            let plain = known.iter().find(|(leaf, _)| *leaf == at).map(|(_, value)| Some(value.clone()));
            let value = match plain {
                Some(value) => value,
                None => self
                    .open_slot(slot, leaf.codec)
                    .map_err(|error| self.locate(error.with_context("attribute", &leaf.path), id))?,
            };
            if let Some(value) = value {
                insert(&mut record, &leaf.segments, value);
            }
        }
        found.extras.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, value) in found.extras {
            if !record.contains_key(&name) {
                // dots part the names of members, within reason
                let segments: Vec<String> = name.split('.').map(str::to_owned).collect();
                let segments = if segments.len() > MAX_DEPTH { vec![name] } else { segments };
                insert(&mut record, &segments, value);
            }
        }
        if record.contains_key("id") {
            record.shift_remove("id");
        }
        record.insert("id".into(), id.into());
        Ok(record)
    }

    fn locate(&self, error: Error, id: &str) -> Error {
        error.with_scope(Scope::Record).with_context("resource", self.name()).with_context("id", id)
    }

    fn open_slot(&self, slot: Slot<'_>, codec: Codec) -> Result<Option<Value>> {
        Ok(match slot {
            Slot::Null => Some(Value::Null),
            Slot::Undefined => None,
            Slot::Plain(value) => Some(value),
            // bodies hold the codec's output: texts, and numbers and booleans of types without a codec
            Slot::Value(value) => Some(codec::tidy(value)),
            Slot::Text(stored) if codec == Codec::Secret && self.auto_decrypt => self.reveal(stored)?,
            Slot::Text(stored) => Some(codec.decode(stored)),
        })
    }

    fn reveal(&self, stored: Cow<'_, str>) -> Result<Option<Value>> {
        match secret::open(&stored, &self.passphrase) {
            // s3db.js encrypts absent and null secrets as these words
            Opened::Plain(plain) if plain == "undefined" => Ok(None),
            Opened::Plain(plain) if plain == "null" => Ok(Some(Value::Null)),
            Opened::Plain(plain) => Ok(Some(Value::String(plain))),
            Opened::Bare => Ok(Some(Value::String(stored.into_owned()))),
            Opened::Locked => Err(Error::new(
                ErrorKind::ConfigInvalid,
                "a stored secret does not open with this passphrase, or is damaged",
            )
            .with_advice("give the passphrase that the database was written with")),
        }
    }

    /// The keys that this object brings along: those of its version's older map, of `_map` and `_pluginmap`.
    fn maps(&self, object: &StoredObject) -> Vec<(String, String)> {
        let get = |name: &str| object.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let mut maps = Vec::new();
        let mut add = |value: &str, ours: &str| {
            if value == ours {
                return;
            }
            let Decoded::Text(value) = text::decode(value) else { return };
            if value == ours {
                return;
            }
            let Ok(map) = serde_json::from_str::<Map<String, Value>>(&value) else { return };
            maps.extend(map.into_iter().filter_map(|(path, key)| Some((key.as_str()?.to_owned(), path))));
        };
        if let Some(value) = get("_pluginmap") {
            add(value, self.plan.plugin_text.as_deref().unwrap_or_default());
        }
        if let Some(value) = get("_map") {
            add(value, &self.plan.map_text);
        }
        if !self.older_maps.is_empty() {
            let version = get("_v").map(|version| version.trim_start_matches('v')).unwrap_or_default();
            let older = self.older_maps.iter().find(|(known, _)| known.trim_start_matches('v') == version);
            maps.extend(older.iter().flat_map(|(_, map)| map.iter().cloned()));
        }
        maps
    }

    /// The leaf that a key of this object stands for, or the name that it has instead.
    fn resolve<'k>(&self, key: &'k str, maps: &'k [(String, String)]) -> Result<usize, &'k str> {
        if !maps.is_empty()
            && let Some((_, path)) = maps.iter().find(|(known, _)| known == key)
        {
            return self.plan.by_path(path).ok_or(path.as_str());
        }
        self.plan.by_key(key).ok_or(key)
    }

    fn take_metadata<'a>(&self, key: &str, value: &'a str, maps: &[(String, String)], found: &mut Found<'a>) {
        let name = match self.resolve(key, maps) {
            Ok(leaf) => {
                if let Some(slot) = found.slots.get_mut(leaf) {
                    *slot = Some(match text::decode(value) {
                        Decoded::Null => Slot::Null,
                        Decoded::Undefined => Slot::Undefined,
                        Decoded::Text(text) => Slot::Text(text),
                    });
                }
                return;
            }
            Err(name) => name,
        };
        if self.is_system(name) || name.is_empty() {
            return;
        }
        match text::decode(value) {
            Decoded::Undefined => {}
            Decoded::Null => self.take_extra(name, Slot::Null, found),
            Decoded::Text(text) => self.take_extra(name, Slot::Text(text), found),
        }
    }

    /// A member that has no key: an attribute that older writers stored under its name, or nobody's.
    fn take_extra<'a>(&self, name: &str, slot: Slot<'a>, found: &mut Found<'a>) {
        if let Some(free) = self.plan.by_name(name).and_then(|leaf| found.slots.get_mut(leaf)) {
            if free.is_none() {
                *free = Some(slot);
            }
            return;
        }
        if self.plan.is_burned(name) && self.plan.root.get(name).is_some() {
            return;
        }
        if let Ok(Some(value)) = self.open_slot(slot, Codec::Text) {
            found.extras.push((name.to_owned(), value));
        }
    }

    /// Fields that s3db.js keeps beside the record, also those that its updates leave behind.
    fn is_system(&self, name: &str) -> bool {
        name.starts_with(['_', '$'])
            || name == "id"
            || (self.timestamps && name == "metadata_updatedat" && self.plan.root.get("metadata").is_none())
    }

    fn take_body<'a>(
        &self,
        object: &'a StoredObject,
        maps: &[(String, String)],
        found: &mut Found<'a>,
    ) -> Result<()> {
        let overflow = object.metadata.iter().any(|(key, value)| key == "_overflow" && value == "true");
        let found_some = found.slots.iter().any(Option::is_some);
        // a record that was written under another behavior is read as it was written
        let in_body = overflow || (self.behavior == Behavior::BodyOnly && !found_some);
        if matches!(self.behavior, Behavior::EnforceLimits | Behavior::TruncateData)
            && found_some
            && !overflow
        {
            return Ok(());
        }
        let broken = |what: &'static str| {
            Err(Error::new(ErrorKind::Corrupt, what).with_advice("write the record again, or delete it"))
        };
        if object.body.is_empty() {
            return if in_body { broken("the stored object has lost its body") } else { Ok(()) };
        }
        let members = match serde_json::from_slice::<Value>(&object.body) {
            Ok(Value::Object(members)) => members,
            // content that somebody set beside the record
            Ok(_) if !in_body => return Ok(()),
            Err(_) if !in_body && object.content_type.as_deref() != Some("application/json") => return Ok(()),
            _ => return broken("the stored object's body is not the JSON of a record"),
        };
        // after an update by s3db.js metadata has every field and the body repeats them under attribute names
        let repeated = self.behavior == Behavior::UserManaged && found_some && !overflow;
        let in_metadata = found.extras.len();
        for (name, value) in members {
            match self.resolve(&name, maps) {
                Ok(_) if repeated => {}
                Ok(leaf) => {
                    if let Some(free @ None) = found.slots.get_mut(leaf) {
                        *free = Some(match value {
                            Value::Null => Slot::Null,
                            Value::String(text) => Slot::Text(text.into()),
                            value => Slot::Value(value),
                        });
                    }
                }
                // metadata goes before the body
                Err(name) if found.extras.iter().take(in_metadata).any(|(known, _)| known == name) => {}
                Err(name) => self.take_named(name, value, repeated, found),
            }
        }
        Ok(())
    }

    /// A member of a body that is under no key.
    fn take_named(&self, name: &str, value: Value, repeated: bool, found: &mut Found<'_>) {
        let left_over = name == "metadata"
            && self.timestamps
            && value.as_object().is_some_and(|members| members.keys().all(|key| key == "updatedAt"));
        if self.is_system(name) || left_over || (repeated && self.plan.root.get(name).is_some()) {
            return;
        }
        let slot = match value {
            Value::String(text) => Slot::Text(text.into()),
            value => Slot::Plain(codec::tidy(value)),
        };
        self.take_extra(name, slot, found);
    }
}

/// Sets a member at a path, making objects on the way; before a numeric part it makes a list.
pub(super) fn insert(record: &mut Record, segments: &[String], value: Value) {
    let Some((first, rest)) = segments.split_first() else { return };
    if rest.is_empty() {
        record.insert(first.clone(), value);
        return;
    }
    let slot = record.entry(first.clone()).or_insert(Value::Null);
    insert_into(slot, rest, value);
}

/// Longest list that is made of numeric parts; a larger number is a name.
const MAX_INDEX: usize = 4096;

fn insert_into(slot: &mut Value, segments: &[String], value: Value) {
    let Some((first, rest)) = segments.split_first() else {
        *slot = value;
        return;
    };
    let digits = first.bytes().all(|b| b.is_ascii_digit());
    let index = if digits { first.parse::<usize>().ok().filter(|index| *index < MAX_INDEX) } else { None };
    match (slot, index) {
        (Value::Object(members), _) => {
            insert_into(members.entry(first.clone()).or_insert(Value::Null), rest, value)
        }
        (Value::Array(items), Some(index)) => {
            if items.len() <= index {
                items.resize(index + 1, Value::Null);
            }
            if let Some(item) = items.get_mut(index) {
                insert_into(item, rest, value);
            }
        }
        (slot, Some(_)) if !slot.is_array() => {
            *slot = Value::Array(Vec::new());
            insert_into(slot, segments, value);
        }
        (slot, _) => {
            *slot = Value::Object(Map::new());
            insert_into(slot, segments, value);
        }
    }
}

impl ResourceFormat {
    /// What is stored for a leaf, before its codec.
    pub(super) fn stored_text(&self, leaf: usize, object: &StoredObject) -> Option<String> {
        let mut found = Found { slots: Vec::new(), extras: Vec::new() };
        found.slots.resize_with(self.plan.leaves.len(), || None);
        let maps = self.maps(object);
        for (key, value) in &object.metadata {
            self.take_metadata(key, value, &maps, &mut found);
        }
        self.take_body(object, &maps, &mut found).ok()?;
        match found.slots.into_iter().nth(leaf)?? {
            Slot::Text(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}
