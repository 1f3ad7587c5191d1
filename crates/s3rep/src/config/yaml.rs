//! YAML, and JSON as part of it.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{
    node::{Entry, Kind, Node},
    problem::{Place, Problems, quoted},
    syntax::{MAX_DEPTH, MAX_WEIGHT},
};

/// A problem after which there is no tree.
struct Fatal {
    place: Place,
    message: String,
    help: String,
}

pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut builder = Builder { problems, stack: Vec::new(), anchors: HashMap::new(), root: None, weight: 0 };
    for next in Parser::new_from_str_with_options(text, options) {
        let step = match next {
            Ok((event, span)) => builder.event(event, place_of(&span.start)),
            Err(error) => {
                let place = place_of(error.marker());
                let has_variable = text.lines().nth(place.line - 1).is_some_and(|line| line.contains("${"));
                let help = if has_variable {
                    "inside { } and [ ] YAML wants ${NAME} in quotes: \"${NAME}\""
                } else {
                    "correct the syntax here or just before; a text with special characters needs quotes"
                };
                let message = format!("not YAML: {}", error.kind());
                Err(Fatal { place, message, help: help.to_owned() })
            }
        };
        if let Err(Fatal { place, message, help }) = step {
            builder.problems.at(place, message, help);
            return None;
        }
    }
    let root = builder.root.take();
    if root.is_none() {
        let help = "`s3rep init` writes one to begin with".to_owned();
        builder.problems.add(None, "the file has only comments", Some(help));
    }
    root
}

fn place_of(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or map that is not closed yet.
enum Open {
    List {
        items: Vec<Node>,
    },
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Place)>,
        known: HashMap<String, Place>,
        merged: Vec<Node>,
    },
}

struct Frame {
    place: Place,
    anchor: usize,
    open: Open,
}

struct Builder<'a> {
    problems: &'a mut Problems,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    weight: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Fatal> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                return Err(Fatal {
                    place,
                    message: "a second YAML document starts here".into(),
                    help: "a configuration is one document; remove '---' and what follows".into(),
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar(text.into_owned(), style, tag.as_deref(), place)?;
                let node = Node::new(place, kind);
                self.weigh(&node, place)?;
                self.remember(anchor, &node);
                self.add(node)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.start(place, anchor, tag.as_deref(), "seq", Open::List { items: Vec::new() })?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let open =
                    Open::Map { entries: Vec::new(), key: None, known: HashMap::new(), merged: Vec::new() };
                self.start(place, anchor, tag.as_deref(), "map", open)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Fatal {
                        place,
                        message: "an alias stands inside its own anchor".into(),
                        help: "write the value out".into(),
                    });
                };
                let node = node.clone();
                if self.stack.len() + depth(&node) > MAX_DEPTH {
                    return Err(too_large(place));
                }
                self.weigh(&node, place)?;
                self.add(node)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn start(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        core: &str,
        open: Open,
    ) -> Result<(), Fatal> {
        if tag.is_some_and(|tag| tag.core_suffix() != Some(core)) {
            return Err(unknown_tag(place));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_large(place));
        }
        self.weight += 16;
        self.stack.push(Frame { place, anchor, open });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fatal> {
        let Some(Frame { place, anchor, open }) = self.stack.pop() else { return Ok(()) };
        let kind = match open {
            Open::List { items } => Kind::List(items),
            Open::Map { mut entries, merged, mut known, .. } => {
                for entry in merged.into_iter().flat_map(merge_entries) {
                    if !known.contains_key(&entry.key) {
                        known.insert(entry.key.clone(), entry.place);
                        entries.push(entry);
                    }
                }
                Kind::Map(entries)
            }
        };
        let node = Node::new(place, kind);
        self.remember(anchor, &node);
        self.add(node)
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn weigh(&mut self, node: &Node, place: Place) -> Result<(), Fatal> {
        self.weight += weight(node);
        if self.weight > MAX_WEIGHT { Err(too_large(place)) } else { Ok(()) }
    }

    fn add(&mut self, node: Node) -> Result<(), Fatal> {
        let Some(Frame { open, .. }) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match open {
            Open::List { items } => items.push(node),
            Open::Map { entries, key, known, merged } => match key.take() {
                None => {
                    let Some(text) = key_text(&node) else {
                        return Err(Fatal {
                            place: node.place,
                            message: "a key has to be text".into(),
                            help: "put a text in quotes when it begins with [, {, * or &".into(),
                        });
                    };
                    *key = Some((text, node.place));
                }
                Some((name, _)) if name == "<<" && is_merge(&node) => merged.push(node),
                Some((name, place)) => {
                    if let Some(first) = known.get(&name) {
                        self.problems.at(
                            place,
                            format!("the key {} stands here a second time", quoted(&name)),
                            format!("keep this one or the one in line {}", first.line),
                        );
                    } else {
                        known.insert(name.clone(), place);
                        entries.push(Entry { key: name, place, value: node });
                    }
                }
            },
        }
        Ok(())
    }
}

fn key_text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Null => Some("null".to_owned()),
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Int(value) => Some(value.to_string()),
        Kind::Float(value) => Some(value.to_string()),
        Kind::Hole | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// What `<<` may hold: a map or a list of maps.
fn is_merge(node: &Node) -> bool {
    match &node.kind {
        Kind::Map(_) => true,
        Kind::List(items) => items.iter().all(|item| matches!(item.kind, Kind::Map(_))),
        _ => false,
    }
}

fn merge_entries(node: Node) -> Vec<Entry> {
    match node.kind {
        Kind::Map(entries) => entries,
        Kind::List(items) => items.into_iter().flat_map(merge_entries).collect(),
        _ => Vec::new(),
    }
}

fn weight(node: &Node) -> usize {
    let own = match &node.kind {
        Kind::Text(text) => text.len(),
        Kind::Map(entries) => entries.iter().map(|entry| entry.key.len()).sum(),
        _ => 0,
    };
    16 + own + node.children().map(weight).sum::<usize>()
}

fn depth(node: &Node) -> usize {
    match node.kind {
        Kind::List(_) | Kind::Map(_) => 1 + node.children().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn too_large(place: Place) -> Fatal {
    Fatal {
        place,
        message: "the configuration is too large or too deeply nested here, aliases counted".into(),
        help: format!("up to {MAX_DEPTH} levels and {} MiB are read", MAX_WEIGHT >> 20),
    }
}

fn unknown_tag(place: Place) -> Fatal {
    Fatal {
        place,
        message: "a YAML tag that means nothing here".into(),
        help: "remove the '!…' or put the text in quotes".into(),
    }
}

/// The value of a scalar under YAML's core schema.
fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Kind, Fatal> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Kind::Text(text) });
    };
    let kind = match tag.core_suffix() {
        Some("str") => Kind::Text(text),
        Some("null" | "bool" | "int" | "float") => plain(text),
        // '!' alone says: no schema, text.
        None if tag.suffix().is_empty() => Kind::Text(text),
        _ => return Err(unknown_tag(place)),
    };
    Ok(kind)
}

fn plain(text: String) -> Kind {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Kind::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Kind::Float(f64::NAN),
        _ => {}
    }
    let number = match text.as_bytes() {
        [b'0', b'x', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit) => {
            i128::from_str_radix(&text[2..], 16).ok()
        }
        [b'0', b'o', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            i128::from_str_radix(&text[2..], 8).ok()
        }
        _ => text.parse().ok(),
    };
    if let Some(number) = number {
        return Kind::Int(number);
    }
    // Rust reads "inf", "nan" and "infinity" as floats too, YAML does not.
    let looks_like_a_float = text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    match text.parse() {
        Ok(number) if looks_like_a_float => Kind::Float(number),
        _ => Kind::Text(text),
    }
}
