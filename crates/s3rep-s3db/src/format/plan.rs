//! What has to be known of every attribute to read and write records, prepared once for a resource.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    codec::Codec,
    js, number,
    registry::{self, Registry},
    rule::Rule,
    text,
};

/// One path that values are stored under.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Dotted.
    pub(super) path: String,
    pub(super) segments: Vec<String>,
    /// The metadata key.
    pub(super) key: String,
    pub(super) codec: Codec,
    /// None for the own key of an object with declared members.
    pub(super) rule: Option<Rule>,
}

/// A declared attribute or member.
#[derive(Debug)]
pub(super) enum Node {
    /// A value that is stored whole, by the index of its leaf.
    Leaf(usize),
    /// An object whose members are stored each on its own.
    Object(Members),
}

/// The declared members of an object.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// In JavaScript's order.
    pub(super) nodes: Vec<(String, Node)>,
    /// Indices of the nodes by name.
    sorted: Vec<usize>,
    /// The leaf of the object itself, for null and `{}`; only some objects have one.
    pub(super) own: Option<usize>,
    /// Whether absent or null is an error, where the declaration says so.
    pub(super) required: Option<bool>,
}

impl Members {
    fn new(nodes: Vec<(String, Node)>, own: Option<usize>, required: Option<bool>) -> Self {
        let mut sorted: Vec<usize> = (0..nodes.len()).collect();
        sorted.sort_by_key(|at| nodes.get(*at).map(|(name, _)| name.as_str()));
        Self { nodes, sorted, own, required }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let name_of = |at: &usize| self.nodes.get(*at).map(|(name, _)| name.as_str());
        let at = self.sorted.binary_search_by(|at| name_of(at).cmp(&Some(name))).ok()?;
        self.nodes.get(*self.sorted.get(at)?).map(|(_, node)| node)
    }
}

/// Everything about the attributes of one resource version.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order in which a record has them.
    pub(super) leaves: Vec<Leaf>,
    pub(super) root: Members,
    /// Keys and their leaves, sorted by key.
    keys: Vec<(String, usize)>,
    /// Sanitised paths and their leaves, for values that older writers stored under their name.
    names: HashMap<String, usize>,
    /// `_map`: every user attribute's path and key, as JSON text.
    pub(super) map_text: String,
    /// `_pluginmap`, when there are attributes of plugins.
    pub(super) plugin_text: Option<String>,
    /// Indices below this that have no leaf are burned.
    next_index: u64,
}

impl Plan {
    /// `map` is the map of paths to keys of older documents: it goes before the registry. `plugin_keys` are the
    /// keys of attributes that plugins have registered.
    pub(super) fn new(
        attributes: &Map<String, Value>,
        registry: &Registry,
        map: Option<&Map<String, Value>>,
        plugin_keys: &Map<String, Value>,
    ) -> Self {
        let paths = registry::paths(attributes, plugin_keys);
        let key_of = |path: &str| -> Option<String> {
            let listed = map.and_then(|map| map.get(path)).and_then(Value::as_str).map(str::to_owned);
            listed.or_else(|| registry.index(path).map(number::key36))
        };
        let mut plan = Self {
            leaves: Vec::new(),
            root: Members::default(),
            keys: Vec::new(),
            names: HashMap::new(),
            map_text: {
                let map = paths.iter().filter_map(|path| Some((path.clone(), Value::from(key_of(path)?))));
                js::json(&Value::Object(map.collect()))
            },
            plugin_text: None,
            next_index: registry.next_index,
        };
        let mut plugins = Map::new();
        let mut nodes = Vec::new();
        for (name, definition) in
            js::members(attributes).into_iter().filter(|(name, _)| !name.starts_with("$$"))
        {
            let registered = plugin_keys.get(name).and_then(Value::as_str).map(str::to_owned);
            let plugin_key = registered.or_else(|| {
                let taken = |key: &str| plugins.values().any(|taken| taken == key);
                registry::plugin_of(definition).map(|plugin| registry::plugin_key(plugin, name, taken))
            });
            let key = |path: &str| match &plugin_key {
                Some(key) => (path == name).then(|| key.clone()),
                None => key_of(path),
            };
            let node = plan.node(name, definition, &[], &key, true);
            if let (Node::Leaf(_), Some(key)) = (&node, plugin_key) {
                plugins.insert(name.clone(), key.into());
            }
            nodes.push((name.clone(), node));
        }
        plan.root = Members::new(nodes, None, None);
        if !plugins.is_empty() {
            plan.plugin_text = Some(js::json(&Value::Object(plugins)));
        }
        plan.keys = plan.leaves.iter().enumerate().map(|(at, leaf)| (leaf.key.clone(), at)).collect();
        plan.keys.sort();
        plan.names =
            plan.leaves.iter().enumerate().rev().map(|(at, leaf)| (text::key(&leaf.path), at)).collect();
        plan
    }

    fn leaf(
        &mut self,
        segments: Vec<String>,
        key: Option<String>,
        codec: Codec,
        rule: Option<Rule>,
    ) -> usize {
        let path = segments.join(".");
        // an attribute without a key is stored under its own name
        let key = key.unwrap_or_else(|| text::key(&path));
        self.leaves.push(Leaf { path, segments, key, codec, rule });
        self.leaves.len() - 1
    }

    fn node(
        &mut self,
        name: &str,
        definition: &Value,
        parents: &[String],
        key: &dyn Fn(&str) -> Option<String>,
        has_own: bool,
    ) -> Node {
        let segments: Vec<String> = parents.iter().cloned().chain([name.to_owned()]).collect();
        let path = segments.join(".");
        match definition {
            Value::String(text) => {
                Node::Leaf(self.leaf(segments, key(&path), Codec::of(text), Some(Rule::of_text(text))))
            }
            Value::Object(members) if registry::is_scalar_form(members) => Node::Leaf(self.leaf(
                segments,
                key(&path),
                Codec::of_form(members),
                Some(Rule::of_form(members)),
            )),
            Value::Object(members) if segments.len() < js::MAX_DEPTH => {
                let kind = members.get("$$type").and_then(Value::as_str).unwrap_or_default();
                let own = has_own.then(|| self.leaf(segments.clone(), key(&path), Codec::Text, None));
                let descend = has_own && kind == "object";
                let nodes = js::members(members)
                    .into_iter()
                    .filter(|(name, _)| !name.starts_with("$$"))
                    .map(|(name, definition)| {
                        (name.clone(), self.node(name, definition, &segments, key, descend))
                    })
                    .collect();
                let word = |word: &str| kind.split('|').any(|known| known == word);
                let required = if word("required") { Some(true) } else { word("optional").then_some(false) };
                Node::Object(Members::new(nodes, own, required))
            }
            _ => {
                Node::Leaf(self.leaf(segments, key(&path), Codec::Text, Some(Rule::of_text("any|optional"))))
            }
        }
    }

    /// The leaf of a metadata key.
    pub(super) fn by_key(&self, key: &str) -> Option<usize> {
        let at = self.keys.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        self.keys.get(at).map(|(_, leaf)| *leaf)
    }

    /// The leaf of a path.
    pub(super) fn by_path(&self, path: &str) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.path == path)
    }

    /// The leaf that older writers stored under this name, having had no key for it.
    pub(super) fn by_name(&self, name: &str) -> Option<usize> {
        if self.is_burned(name) { None } else { self.names.get(name).copied() }
    }

    /// Whether the key stands for an attribute that is no longer declared.
    pub(super) fn is_burned(&self, key: &str) -> bool {
        number::parse_key36(key).is_some_and(|index| index < self.next_index) && self.by_key(key).is_none()
    }
}
