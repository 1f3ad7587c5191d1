//! From text to a tree, in three syntaxes.

use std::path::Path;

use super::{
    node::Node,
    problem::{Place, Problems},
    toml, yaml,
};

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// YAML 1.2.
    Yaml,
    /// TOML 1.1.
    Toml,
    /// JSON.
    Json,
}

impl Syntax {
    /// The syntax that a file's ending names; YAML, which has JSON in it, when it names none.
    pub fn of_path(path: &Path) -> Self {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "toml" => Self::Toml,
            "json" => Self::Json,
            _ => Self::Yaml,
        }
    }
}

/// A tree may weigh this much, aliases expanded: its nodes at 16 each plus the bytes of its texts.
pub(super) const MAX_WEIGHT: usize = 8 << 20;
/// Lists and maps inside each other.
pub(super) const MAX_DEPTH: usize = 64;

/// Reads a text. `None` when it cannot be read at all, with the problem added.
pub(super) fn parse(text: &str, syntax: Syntax, problems: &mut Problems) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut root = match syntax {
        Syntax::Yaml => yaml::parse(text, problems)?,
        Syntax::Toml => toml::parse(text, problems)?,
        // JSON's own parser decides what is JSON; YAML's then tells every place.
        Syntax::Json => {
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
                let place = Place { line: error.line().max(1), column: error.column().max(1) };
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                problems.at(place, format!("not JSON: {message}"), "correct the JSON here or just before");
                return None;
            }
            yaml::parse(text, problems)?
        }
    };
    root.number();
    Some(root)
}

/// Lines and columns of byte offsets.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Place { line, column }
    }
}
