//! A configuration as a tree in which every key and value knows its place.

use serde_json::{Map, Number, Value};

use super::problem::Place;

/// A value of the configuration. No `Debug`: it may hold secrets.
#[derive(Clone)]
pub(crate) struct Node {
    /// Identity within one tree, [`Node::NO_ID`] for what was put in later.
    pub(crate) id: u32,
    pub(crate) place: Place,
    /// Some part of the text came from the environment: it is never shown.
    pub(crate) from_env: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    /// Stands where something wrong has been reported, so that reading can go on to the next problem.
    Hole,
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One member of a map.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) const NO_ID: u32 = u32::MAX;

    pub(crate) fn new(place: Place, kind: Kind) -> Self {
        Self { id: Self::NO_ID, place, from_env: false, kind }
    }

    pub(crate) fn hole(place: Place) -> Self {
        Self::new(place, Kind::Hole)
    }

    pub(crate) fn empty_map(place: Place) -> Self {
        Self::new(place, Kind::Map(Vec::new()))
    }

    pub(crate) fn is_hole(&self) -> bool {
        matches!(self.kind, Kind::Hole)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for "found …".
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Hole | Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    pub(crate) fn children(&self) -> Box<dyn Iterator<Item = &Node> + '_> {
        match &self.kind {
            Kind::List(items) => Box::new(items.iter()),
            Kind::Map(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
            _ => Box::new(std::iter::empty()),
        }
    }

    pub(crate) fn children_mut(&mut self) -> Box<dyn Iterator<Item = &mut Node> + '_> {
        match &mut self.kind {
            Kind::List(items) => Box::new(items.iter_mut()),
            Kind::Map(entries) => Box::new(entries.iter_mut().map(|entry| &mut entry.value)),
            _ => Box::new(std::iter::empty()),
        }
    }

    pub(crate) fn child(&self, index: usize) -> Option<&Node> {
        match &self.kind {
            Kind::List(items) => items.get(index),
            Kind::Map(entries) => entries.get(index).map(|entry| &entry.value),
            _ => None,
        }
    }

    pub(crate) fn child_mut(&mut self, index: usize) -> Option<&mut Node> {
        match &mut self.kind {
            Kind::List(items) => items.get_mut(index),
            Kind::Map(entries) => entries.get_mut(index).map(|entry| &mut entry.value),
            _ => None,
        }
    }

    pub(crate) fn entry(&self, index: usize) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.get(index),
            _ => None,
        }
    }

    /// The index of a member by key, or of an item by decimal index.
    pub(crate) fn index_of(&self, step: &str) -> Option<usize> {
        match &self.kind {
            Kind::List(items) => step.parse().ok().filter(|&index| index < items.len()),
            Kind::Map(entries) => entries.iter().position(|entry| entry.key == step),
            _ => None,
        }
    }

    /// Numbers every node.
    pub(crate) fn number(&mut self) {
        fn visit(node: &mut Node, next: &mut u32) {
            node.id = *next;
            *next = next.saturating_add(1);
            for child in node.children_mut() {
                visit(child, next);
            }
        }
        visit(self, &mut 0);
    }

    pub(crate) fn find(&self, id: u32) -> Option<&Node> {
        if id == Self::NO_ID {
            return None;
        }
        if self.id == id { Some(self) } else { self.children().find_map(|child| child.find(id)) }
    }

    pub(crate) fn has_hole(&self) -> bool {
        self.is_hole() || self.children().any(Node::has_hole)
    }

    /// The value without places. A hole is null.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Hole | Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Number::from_i128(*value).map_or(Value::Null, Value::Number),
            Kind::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}
