//! Which metadata key stands for which attribute.

use s3rep_core::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{js, number};

/// Whether an attribute definition is the object form of a scalar, such as `{"type": "number", "min": 0}`.
pub(super) fn is_scalar_form(members: &Map<String, Value>) -> bool {
    members.get("type").is_some_and(Value::is_string)
}

/// The plugin that an attribute belongs to.
pub(super) fn plugin_of(definition: &Value) -> Option<&str> {
    definition.get("__plugin__").and_then(Value::as_str)
}

/// Every path that gets a key, in order: the leaves of the declaration, then the objects.
///
/// The members of object forms such as `{"type": "number"}` are leaves like any other: they get keys that
/// nothing is ever stored under. Attributes of plugins have keys of their own and are left out.
pub(super) fn paths(attributes: &Map<String, Value>, plugins: &Map<String, Value>) -> Vec<String> {
    let mut paths = Vec::new();
    let own = || {
        let all = js::members(attributes).into_iter();
        all.filter(|(name, definition)| plugin_of(definition).is_none() && !plugins.contains_key(*name))
    };
    for (name, definition) in own() {
        leaves(name, definition, &mut paths, 0);
    }
    paths.retain(|path| !path.contains("$$"));
    for (name, definition) in own() {
        objects(name, definition, &mut paths, 0);
    }
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

fn leaves(path: &str, definition: &Value, paths: &mut Vec<String>, depth: usize) {
    match definition.as_object() {
        Some(members) if !members.is_empty() && depth < js::MAX_DEPTH => {
            for (name, definition) in js::members(members) {
                leaves(&format!("{path}.{name}"), definition, paths, depth + 1);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

fn objects(path: &str, definition: &Value, paths: &mut Vec<String>, depth: usize) {
    let Some(members) = definition.as_object() else { return };
    if path.contains("$$") {
        return;
    }
    paths.push(path.to_owned());
    if members.get("$$type").and_then(Value::as_str) == Some("object") && depth < js::MAX_DEPTH {
        for (name, definition) in js::members(members) {
            objects(&format!("{path}.{name}"), definition, paths, depth + 1);
        }
    }
}

/// The indices of attribute paths. An index is never used for another path, even when its path is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Registry {
    pub(super) next_index: u64,
    /// In the order of `s3db.json`.
    pub(super) mapping: Vec<(String, u64)>,
    /// Entries as stored.
    burned: Vec<Value>,
}

impl Registry {
    /// Reads `schemaRegistry`; what has no sensible form in it is left out.
    pub(super) fn read(value: &Value) -> Self {
        let mapping = value.get("mapping").and_then(Value::as_object);
        let mut registry = Self {
            next_index: value.get("nextIndex").and_then(Value::as_u64).unwrap_or(0),
            mapping: mapping
                .map(|mapping| {
                    mapping.iter().filter_map(|(path, index)| Some((path.clone(), index.as_u64()?))).collect()
                })
                .unwrap_or_default(),
            burned: value.get("burned").and_then(Value::as_array).cloned().unwrap_or_default(),
        };
        registry.raise();
        registry
    }

    /// A registry made from a map of paths to keys, as older documents have it.
    pub(super) fn of_keys<'a>(keys: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mapping =
            keys.filter_map(|(path, key)| Some((path.to_owned(), number::parse_key36(key)?))).collect();
        let mut registry = Self { next_index: 0, mapping, burned: Vec::new() };
        registry.raise();
        registry
    }

    fn raise(&mut self) {
        let burned = self.burned.iter().filter_map(|entry| entry.get("index")?.as_u64());
        let highest = self.mapping.iter().map(|(_, index)| *index).chain(burned).max();
        self.next_index = self.next_index.max(highest.map_or(0, |index| index.saturating_add(1)));
    }

    /// Keeps fresh indices above these.
    pub(super) fn reserve(&mut self, index: u64) {
        self.next_index = self.next_index.max(index.saturating_add(1));
    }

    /// The index of a path.
    pub(super) fn index(&self, path: &str) -> Option<u64> {
        self.mapping.iter().find(|(known, _)| known == path).map(|(_, index)| *index)
    }

    /// Gives every path an index and burns the indices of paths that are gone. True when something changed.
    pub(super) fn declare(&mut self, paths: &[String], now: Timestamp) -> bool {
        let declared: std::collections::HashSet<&str> = paths.iter().map(String::as_str).collect();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.mapping)
            .into_iter()
            .partition(|(path, _)| declared.contains(path.as_str()));
        self.mapping = kept;
        let mut changed = !gone.is_empty();
        for (attribute, index) in gone {
            self.burned.push(json!({
                "index": index, "attribute": attribute, "burnedAt": now.to_string(), "reason": "removed",
            }));
        }
        changed |= self.complete(paths);
        changed
    }

    /// Gives every path an index that has none.
    pub(super) fn complete(&mut self, paths: &[String]) -> bool {
        self.raise();
        let known: std::collections::HashSet<String> =
            self.mapping.iter().map(|(path, _)| path.clone()).collect();
        let before = self.mapping.len();
        for path in paths.iter().filter(|path| !known.contains(*path)) {
            self.mapping.push((path.clone(), self.next_index));
            self.next_index = self.next_index.saturating_add(1);
        }
        self.mapping.len() > before
    }

    /// The member `schemaRegistry`.
    pub(super) fn to_value(&self) -> Value {
        let mapping: Map<String, Value> =
            self.mapping.iter().map(|(path, index)| (path.clone(), Value::from(*index))).collect();
        json!({ "nextIndex": self.next_index, "mapping": mapping, "burned": self.burned })
    }
}

/// The key of a plugin's attribute: `p` and three characters of a hash, numbered when taken.
pub(super) fn plugin_key(plugin: &str, attribute: &str, taken: impl Fn(&str) -> bool) -> String {
    let hash = Sha256::digest(format!("{plugin}:{attribute}"));
    let first = hash.iter().take(4).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let digits = number::padded62(first, 3);
    let key = format!("p{}", digits.get(..3).unwrap_or(&digits).to_ascii_lowercase());
    if !taken(&key) {
        return key;
    }
    (1_u32..).map(|i| format!("{key}{i}")).find(|key| !taken(key)).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of(value: &Value) -> Vec<String> {
        paths(value.as_object().unwrap(), &Map::new())
    }

    #[test]
    fn leaves_come_before_objects() {
        let nested = json!({"name": "string", "profile": {"bio": "string", "address": {"city": "string"}}, "tag": "string"});
        assert_eq!(paths_of(&nested), ["name", "profile.bio", "profile.address.city", "tag", "profile"]);
        assert_eq!(paths_of(&json!({"n": {"type": "number", "min": 0}})), ["n.type", "n.min", "n"]);
        let typed = json!({"p": {"$$type": "object", "q": {"z": "number", "r": {"x": "string"}}}});
        assert_eq!(paths_of(&typed), ["p.q.z", "p.q.r.x", "p", "p.q"]);
    }

    #[test]
    fn indices_are_never_used_again() {
        let mut registry = Registry::default();
        let text = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
        registry.declare(&text(&["a", "b"]), Timestamp(0));
        assert!(registry.declare(&text(&["a"]), Timestamp(0)));
        registry.declare(&text(&["b", "a"]), Timestamp(0));
        assert_eq!((registry.index("a"), registry.index("b")), (Some(0), Some(2)));
        assert_eq!(Registry::read(&registry.to_value()), registry);
    }

    #[test]
    fn keys_of_plugins() {
        for (plugin, attribute, key) in
            [("vector", "clusterId", "p1oi"), ("geo", "_geohash", "puub"), ("vector", "score", "p4gb")]
        {
            assert_eq!(plugin_key(plugin, attribute, |_| false), key);
        }
        assert_eq!(plugin_key("vector", "clusterId", |key| key == "p1oi"), "p1oi1");
    }
}
