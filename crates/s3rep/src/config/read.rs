//! Reading a type from a tree with every problem at once.
//!
//! serde stops at the first error. So: read, note the error, put a hole where it was (or take an unknown key
//! out), and read again. A hole reads as something harmless of whatever type is asked for, and what goes wrong
//! in a hole is not told.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::{
    de::{Fault, Reader, What},
    node::{Entry, Kind, Node},
    problem::{Problems, nearest, quoted, shown, suggest},
    secrets::Secrets,
};

/// What else is known where a tree is read, to make messages helpful.
#[derive(Clone, Copy)]
pub(super) struct Notes<'a> {
    /// What the root is called in messages.
    pub(super) root: &'a str,
    /// Help for keys that belong elsewhere.
    pub(super) misplaced: &'a dyn Fn(&Node, &Entry) -> Option<String>,
    /// What messages may not hold.
    pub(super) secrets: &'a Secrets,
}

/// Reads `T`. Every problem is added to `problems`; `tree` has holes in their places afterwards, and the value
/// has something harmless there. `None` when not even that can be made.
pub(super) fn read<T: DeserializeOwned>(
    tree: &mut Node,
    notes: Notes<'_>,
    problems: &mut Problems,
) -> Option<T> {
    // Keys that were probably meant, with the map they are missing in: not told a second time.
    let mut meant = HashSet::new();
    // Each round takes one thing out of the tree; the bound is for a type whose reading is not pure.
    for _ in 0..10 * Problems::MAX {
        let fault = match T::deserialize(Reader(tree)) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let node = follow(tree, &fault.path)?;
        if node.is_hole() {
            let parent = &fault.path[..fault.path.len().checked_sub(1)?];
            let parent = follow_mut(tree, parent)?;
            if parent.is_hole() {
                return None;
            }
            parent.kind = Kind::Hole;
            continue;
        }
        match &fault.what {
            What::UnknownKey { known } => {
                let (parent, entry) = entry_at(tree, &fault.path)?;
                meant.extend(nearest(&entry.key, known).map(|name| (parent.id, name)));
                tell(tree, &fault, notes, problems);
            }
            What::Missing { name } if meant.contains(&(node.id, *name)) => {}
            _ => tell(tree, &fault, notes, problems),
        }
        if problems.is_cut() {
            return None;
        }
        repair(tree, &fault)?;
    }
    None
}

fn repair(tree: &mut Node, fault: &Fault) -> Option<()> {
    match &fault.what {
        What::UnknownKey { .. } | What::Twice { .. } => {
            let (last, parent) = fault.path.split_last()?;
            match &mut follow_mut(tree, parent)?.kind {
                Kind::Map(entries) if *last < entries.len() => {
                    entries.remove(*last);
                }
                other => *other = Kind::Hole,
            }
        }
        What::Missing { name } => {
            let node = follow_mut(tree, &fault.path)?;
            let place = node.place;
            match &mut node.kind {
                Kind::Map(entries) if entries.iter().all(|entry| entry.key != *name) => {
                    entries.push(Entry { key: (*name).to_owned(), place, value: Node::hole(place) });
                }
                other => *other = Kind::Hole,
            }
        }
        What::Value { .. } | What::Variant { .. } | What::Other { .. } => {
            follow_mut(tree, &fault.path)?.kind = Kind::Hole;
        }
    }
    Some(())
}

fn tell(tree: &Node, fault: &Fault, notes: Notes<'_>, problems: &mut Problems) {
    let Some(node) = follow(tree, &fault.path) else { return };
    let label = label(tree, &fault.path, notes.root);
    match &fault.what {
        What::UnknownKey { known } => {
            let Some((parent, entry)) = entry_at(tree, &fault.path) else { return };
            let container = self::label(tree, &fault.path[..fault.path.len() - 1], notes.root);
            let help = (notes.misplaced)(parent, entry).unwrap_or_else(|| suggest(&entry.key, known));
            problems.at(entry.place, format!("unknown key {} in {container}", quoted(&entry.key)), help);
        }
        What::Twice { name } => {
            let Some((_, entry)) = entry_at(tree, &fault.path) else { return };
            let message = format!("'{name}' is given a second time, as {}", quoted(&entry.key));
            problems.at(entry.place, message, "keep one of the two names");
        }
        What::Missing { name } => {
            problems.at(node.place, format!("'{name}' is missing in {label}"), format!("add '{name}: …'"));
        }
        What::Variant { known } => {
            let given = node.text().filter(|_| !node.from_env).unwrap_or_default();
            let message = match shown(given) {
                Some(given) => format!("{label} cannot be '{given}'"),
                None => format!("{label} has to be one of {}", known.join(", ")),
            };
            problems.at(node.place, message, suggest(given, known));
        }
        What::Value { expected, wrong_kind } => {
            let expected = in_words(expected);
            let (message, help) = match node.kind {
                Kind::Null => {
                    (format!("{label} has no value"), Some(format!("give {expected}, or remove the key")))
                }
                Kind::Text(_) if expected.starts_with("a list") => (
                    format!("{label} has to be {expected}, not text"),
                    Some("put it in brackets: [ … ]".to_owned()),
                ),
                Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) if expected == "text" => (
                    format!("{label} has to be text, not {}", node.kind_name()),
                    Some("put it in quotes".to_owned()),
                ),
                _ if *wrong_kind => (format!("{label} has to be {expected}, not {}", node.kind_name()), None),
                _ => (format!("{label} has to be {expected}"), None),
            };
            problems.add(Some(node.place), message, help);
        }
        What::Other { message } => {
            let mut message = notes.secrets.scrub(message);
            // Somebody else's message may quote the value.
            if let Some(text) = node.text().filter(|text| text.len() >= 3) {
                message = message.replace(text, "***");
            }
            problems.add(Some(node.place), format!("{label}: {message}"), None);
        }
    }
}

fn entry_at<'a>(tree: &'a Node, path: &[usize]) -> Option<(&'a Node, &'a Entry)> {
    let (last, parent) = path.split_last()?;
    let parent = follow(tree, parent)?;
    Some((parent, parent.entry(*last)?))
}

pub(super) fn follow<'a>(tree: &'a Node, path: &[usize]) -> Option<&'a Node> {
    path.iter().try_fold(tree, |node, &index| node.child(index))
}

fn follow_mut<'a>(tree: &'a mut Node, path: &[usize]) -> Option<&'a mut Node> {
    path.iter().try_fold(tree, |node, &index| node.child_mut(index))
}

/// How a message names the value at the path: `'interval'`, `item 2 of 'resources'`.
pub(super) fn label(tree: &Node, path: &[usize], root: &str) -> String {
    let mut label = root.to_owned();
    let mut node = tree;
    for &index in path {
        label = match &node.kind {
            Kind::List(_) => format!("item {} of {label}", index + 1),
            Kind::Map(entries) => entries.get(index).map_or(label, |entry| quoted(&entry.key)),
            _ => label,
        };
        match node.child(index) {
            Some(child) => node = child,
            None => break,
        }
    }
    label
}

/// serde's words for what it expects, in those of a configuration.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" | "path string" | "a borrowed string" => "text",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" | "u128" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a map",
        _ if expected.starts_with("a nonzero") => "a whole number above 0",
        _ if expected.starts_with("struct ") || expected.starts_with("tuple struct ") => "a map of options",
        _ if expected.starts_with("enum ") || expected.ends_with("variant identifier") => "a name",
        _ => expected,
    };
    words.to_owned()
}
