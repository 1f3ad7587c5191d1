//! Writing records.

use std::borrow::Cow;

use s3rep_core::{Error, ErrorKind, Record, Result, Scope, Timestamp};
use serde_json::{Map, Value};

use super::{
    Behavior, Encoded, Entropy, ResourceFormat, StoredObject,
    behavior::Fields,
    codec::Codec,
    js,
    keys::{check_id, new_id},
    password,
    plan::{Members, Node},
    read::insert,
    secret::{self, Opened},
    text,
};

/// Where `createdAt` and `updatedAt` of a whole record come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// Both are now: a new record.
    New,
    /// `createdAt` is kept if it is given: a record in place of another.
    Replaced,
    /// Both are as given, or absent: the copy of a record of another database.
    ///
    /// A copy is written as it is: nothing is trimmed, converted, rounded or cut, no default stands in for what
    /// is absent, and what became required after the record was written may be missing. It reads back as
    /// given or is refused. Secrets are stored as they are where the resource does not decrypt them.
    Given,
}

/// What a record is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    New,
    Update,
    Copy,
}

impl Stamps {
    fn keep(self, name: &str) -> bool {
        match self {
            Self::New => false,
            Self::Replaced => name == "createdAt",
            Self::Given => true,
        }
    }
}

/// What encoding collects on its way through a record.
struct Writing<'a> {
    format: &'a ResourceFormat,
    entropy: &'a mut dyn Entropy,
    copy: bool,
    /// Stored texts of secrets that did not change, by leaf.
    kept: Vec<(usize, String)>,
    fields: Vec<(String, Value)>,
    /// Plain texts of the secrets among the fields.
    known: Vec<(usize, Option<Value>)>,
    problems: Vec<String>,
}

/// Names that JavaScript gives a meaning of its own.
const RESERVED: [&str; 3] = ["__proto__", "constructor", "prototype"];

impl ResourceFormat {
    /// Encodes a new record. Without an `id` it gets a random one.
    ///
    /// Defaults stand in for absent and null values, values are normalised and checked, `createdAt` and
    /// `updatedAt` are set where the resource keeps them. What the format cannot hold is written in a
    /// neighbouring form that s3db.js reads back equal, or refused; nothing is lost in silence, but for what the
    /// declaration asks for: rounding of embeddings, money, decimals and coordinates, and the cuts of
    /// truncate-data.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] with every problem of the record; [`ErrorKind::TooLarge`] where the behavior
    /// refuses records that do not fit in metadata. Values are never part of an error.
    pub fn encode_insert(
        &self,
        record: &Record,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Encoded> {
        self.encode_whole(record, Stamps::New, entropy, now)
    }

    /// As [`ResourceFormat::encode_insert`], for a record that may be there already.
    ///
    /// # Errors
    /// As [`ResourceFormat::encode_insert`].
    pub fn encode_whole(
        &self,
        record: &Record,
        stamps: Stamps,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Encoded> {
        let id = match record.get("id") {
            None | Some(Value::Null) => new_id(entropy, self.id_size),
            Some(Value::String(id)) => id.clone(),
            Some(_) => {
                return Err(self
                    .invalid("", "the id is not a text")
                    .with_advice("write numbers as text: \"17\""));
            }
        };
        check_id(&id).map_err(|error| self.at(error, &id))?;
        let mut values: Record =
            record.iter().filter(|(name, _)| *name != "id").map(|(n, v)| (n.clone(), v.clone())).collect();
        if self.timestamps {
            // given or not, they come after the other members
            for name in ["createdAt", "updatedAt"] {
                let given = values.shift_remove(name).filter(|given| stamps.keep(name) && !given.is_null());
                let missing = || (stamps != Stamps::Given).then(|| now.to_string().into());
                values.extend(given.or_else(missing).map(|value| (name.to_owned(), value)));
            }
        }
        let purpose = if stamps == Stamps::Given { Purpose::Copy } else { Purpose::New };
        self.encode(&id, values, &[], &[], purpose, None, entropy)
    }

    /// Encodes a changed record: `changes` are merged into `previous`, which was decoded from `previous_object`.
    ///
    /// A dotted name sets a member of an object, an object is merged one level deep, lists and scalars are
    /// replaced. The whole record is checked again. Secrets and passwords that did not change keep their stored
    /// text; content that was set beside the record is kept.
    ///
    /// # Errors
    /// As for [`ResourceFormat::encode_insert`], and when the record needs the body that its content is in.
    pub fn encode_update(
        &self,
        previous: &Record,
        changes: &Record,
        previous_object: &StoredObject,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<Encoded> {
        let Some(id) = previous.get("id").and_then(Value::as_str) else {
            return Err(self.invalid("", "the previous record has no id"));
        };
        if changes.get("id").is_some_and(|changed| changed != id) {
            return Err(self
                .invalid(id, "the id cannot be changed")
                .with_advice("insert a new record and delete this one"));
        }
        let content = self.content(previous_object);
        let mut values = previous.clone();
        values.shift_remove("id");
        // members of JSON content are read as members of the record; they stay content
        for name in content.iter().flat_map(|content| &content.members) {
            if self.plan.root.get(name).is_none() && !changes.contains_key(name) {
                values.shift_remove(name);
            }
        }
        let unchecked: Vec<String> = values
            .keys()
            .filter(|name| self.plan.root.get(name).is_none() && !touched(changes, name))
            .cloned()
            .collect();
        merge(&mut values, changes);
        if self.timestamps {
            values.insert("updatedAt".into(), now.to_string().into());
        }
        let kept = self.kept_secrets(previous, &values, previous_object);
        self.encode(id, values, &kept, &unchecked, Purpose::Update, content, entropy)
    }

    #[expect(clippy::too_many_arguments, reason = "the two public entry points share everything else")]
    fn encode(
        &self,
        id: &str,
        values: Record,
        kept: &[(usize, String)],
        unchecked: &[String],
        purpose: Purpose,
        content: Option<Content<'_>>,
        entropy: &mut dyn Entropy,
    ) -> Result<Encoded> {
        let mut writing = Writing::new(self, entropy);
        writing.kept = kept.to_vec();
        writing.copy = purpose == Purpose::Copy;
        let values = writing.normalize(values, &self.plan.root, "");
        // What is wrong so far is left out from here on, so that the rest shows its problems too.
        writing.flatten(&values, &self.plan.root, "");
        writing.check_keys();
        let Writing { fields, known, mut problems, .. } = writing;
        let known: Vec<(usize, Value)> =
            known.into_iter().filter_map(|(leaf, value)| Some((leaf, value?))).collect();
        let fields = Fields {
            fields,
            limit: self.metadata_limit,
            version: self.version(),
            timestamps: self.timestamps,
            id: (purpose == Purpose::Update && self.behavior == Behavior::EnforceLimits).then_some(id),
            map: &self.plan.map_text,
            plugin_map: self.plan.plugin_text.as_deref(),
        };
        let whole = (self.behavior == Behavior::TruncateData).then(|| fields.in_metadata());
        let placed = fields.place(self.behavior).map_err(|error| {
            if problems.is_empty() { self.at(error, id) } else { self.problems(id, &problems) }
        })?;
        if placed.truncated && purpose == Purpose::Copy {
            let error = Error::new(ErrorKind::TooLarge, "the record would be cut to fit")
                .with_advice("give the resource the behavior body-overflow");
            return Err(self.at(error, id));
        }
        let mut object = placed.object;
        if let Some(content) = content {
            content.keep(&mut object).map_err(|error| self.at(error, id))?;
        }
        let record = self
            .decode_knowing(id, &object, &known)
            .map_err(|error| if problems.is_empty() { error } else { self.problems(id, &problems) })?;
        let read = match whole {
            Some(whole) if placed.truncated => &self.decode_knowing(id, &whole, &known)?,
            _ => &record,
        };
        let mut changed = Vec::new();
        for (name, value) in values.iter().filter(|(name, _)| !unchecked.contains(name)) {
            let node = self.plan.root.get(name);
            self.compare(name, value, read.get(name), node, purpose == Purpose::Copy, &mut changed);
        }
        problems.extend(changed);
        if !problems.is_empty() {
            return Err(self.problems(id, &problems));
        }
        Ok(Encoded { object, record })
    }

    /// Adds a problem for everything that reading does not give back as it was to be written.
    fn compare(
        &self,
        path: &str,
        written: &Value,
        read: Option<&Value>,
        node: Option<&Node>,
        copy: bool,
        problems: &mut Vec<String>,
    ) {
        let same = match node {
            Some(Node::Object(members)) => {
                if let (Value::Object(written), Some(Value::Object(read))) = (written, read)
                    && !written.is_empty()
                {
                    for (name, value) in written {
                        let path = format!("{path}.{name}");
                        self.compare(&path, value, read.get(name), members.get(name), copy, problems);
                    }
                    return;
                }
                read.is_some_and(|read| js::same(written, read))
            }
            Some(Node::Leaf(at)) => match self.plan.leaves.get(*at).map(|leaf| leaf.codec) {
                _ if written.is_null() => read == Some(&Value::Null),
                Some(Codec::Password(_)) => true,
                Some(Codec::Secret) if copy => {
                    read.and_then(Value::as_str).is_some_and(|read| read == js::string(written))
                }
                Some(Codec::Secret) => read.is_some(),
                Some(codec) if codec.rounds() && copy => read.is_some_and(|read| near(written, read)),
                Some(codec) if codec.rounds() => read.is_some_and(|read| !read.is_null()),
                _ => read.is_some_and(|read| js::same(written, read)),
            },
            None => read.is_some_and(|read| js::same(written, read)),
        };
        if !same {
            problems.push(match node {
                Some(_) => {
                    format!("attribute '{path}' has a value that the stored format gives back as another one")
                }
                None => format!(
                    "'{path}' is not declared, and would come back under another name or type: declare it"
                ),
            });
        }
    }

    fn at(&self, error: Error, id: &str) -> Error {
        error.with_scope(Scope::Record).with_context("resource", self.name()).with_context("id", id)
    }

    fn invalid(&self, id: &str, message: &'static str) -> Error {
        self.at(Error::new(ErrorKind::InvalidValue, message), id)
    }

    fn problems(&self, id: &str, problems: &[String]) -> Error {
        let message = format!("the record cannot be written: {}", problems.join("; "));
        self.at(Error::new(ErrorKind::InvalidValue, message), id)
            .with_advice("correct the values named, or change the resource's attributes")
    }

    /// Stored texts of secrets whose plain text is the same before and after.
    fn kept_secrets(
        &self,
        previous: &Record,
        values: &Record,
        object: &StoredObject,
    ) -> Vec<(usize, String)> {
        let secrets = self.plan.leaves.iter().enumerate().filter(|(_, leaf)| leaf.codec == Codec::Secret);
        let unchanged = secrets.filter(|(_, leaf)| {
            let value = at_path(previous, &leaf.segments);
            value.is_some_and(Value::is_string) && value == at_path(values, &leaf.segments)
        });
        unchanged.filter_map(|(at, _)| Some((at, self.stored_text(at, object)?))).collect()
    }
}

/// Equality up to what the arithmetic of coordinates and amounts leaves: their texts hold fewer digits.
fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-13 + 1e-15 * a.abs(),
            _ => false,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| near(a, b)))
        }
        _ => a == b,
    }
}

fn at_path<'a>(record: &'a Record, segments: &[String]) -> Option<&'a Value> {
    let (first, rest) = segments.split_first()?;
    rest.iter().try_fold(record.get(first)?, |value, name| value.get(name))
}

/// A member's path.
fn joined<'a>(parent: &str, name: &'a str) -> Cow<'a, str> {
    if parent.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{parent}.{name}")) }
}

/// Whether the changes say something about a top-level member.
fn touched(changes: &Record, name: &str) -> bool {
    changes.keys().any(|changed| changed.split('.').next() == Some(name))
}

fn merge(values: &mut Record, changes: &Record) {
    for (name, change) in changes.iter().filter(|(name, _)| *name != "id") {
        if name.contains('.') && !values.contains_key(name) {
            let segments: Vec<String> = name.split('.').map(str::to_owned).collect();
            if segments.len() <= js::MAX_DEPTH {
                insert(values, &segments, change.clone());
                continue;
            }
        }
        match (values.get_mut(name), change) {
            (Some(Value::Object(members)), Value::Object(changes)) => {
                for (name, change) in changes {
                    members.insert(name.clone(), change.clone());
                }
            }
            _ => {
                values.insert(name.clone(), change.clone());
            }
        }
    }
}

impl<'a> Writing<'a> {
    fn new(format: &'a ResourceFormat, entropy: &'a mut dyn Entropy) -> Self {
        Self {
            format,
            entropy,
            copy: false,
            kept: Vec::new(),
            fields: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, path: &str, problem: &str) {
        self.problems.push(format!("attribute '{path}' {problem}"));
    }

    /// The members in normalised form, with defaults after them. Those with a problem are left out.
    fn normalize(&mut self, values: Record, members: &Members, parent: &str) -> Record {
        let mut normal = Record::with_capacity(values.len());
        let mut refused = Vec::new();
        let top = parent.is_empty();
        for (name, value) in values {
            let path = joined(parent, &name);
            if RESERVED.contains(&name.as_str()) || !js::holds(&value, 0) {
                self.problem(&path, "has a name or holds a number or nesting that JavaScript does not carry");
                refused.push(name);
                continue;
            }
            let value = match members.get(&name) {
                Some(Node::Leaf(at)) => self.normalize_leaf(*at, value, &path, top),
                Some(Node::Object(inner)) => match value {
                    Value::Object(values) => {
                        let before = self.problems.len();
                        let values = self.normalize(values, inner, &path);
                        // An object that is empty for its problems has none of its own.
                        (!values.is_empty() || self.problems.len() == before).then_some(Value::Object(values))
                    }
                    Value::Null => Some(Value::Null),
                    _ => {
                        self.problem(&path, "must be an object");
                        None
                    }
                },
                None => Some(value),
            };
            match value {
                Some(value) => {
                    normal.insert(name, value);
                }
                None => refused.push(name),
            }
        }
        if self.copy {
            return normal;
        }
        for (name, node) in &members.nodes {
            let missing = normal.get(name).is_none_or(Value::is_null);
            if !missing || (top && name == "id") || refused.contains(name) {
                continue;
            }
            let path = joined(parent, name);
            match node {
                Node::Leaf(at) => {
                    let format = self.format;
                    let Some(rule) = format.plan.leaves.get(*at).and_then(|leaf| leaf.rule.as_ref()) else {
                        continue;
                    };
                    match &rule.default {
                        Some(default) if top => {
                            let value = self.normalize_leaf(*at, default.clone(), &path, top);
                            normal.extend(value.map(|value| (name.clone(), value)));
                        }
                        _ if rule.optional => {}
                        _ => self.problem(&path, "is required"),
                    }
                }
                Node::Object(inner) if inner.required.unwrap_or(!self.format.nested_optional) => {
                    self.problem(&path, "is required");
                }
                Node::Object(_) => {}
            }
        }
        normal
    }

    fn normalize_leaf(&mut self, at: usize, value: Value, path: &str, top: bool) -> Option<Value> {
        let format = self.format;
        let rule = format.plan.leaves.get(at).and_then(|leaf| leaf.rule.as_ref());
        let Some(rule) = rule.filter(|_| !value.is_null()) else { return Some(value) };
        if self.kept.iter().any(|(kept, _)| *kept == at) {
            return Some(value);
        }
        match rule.normalize(&value) {
            // what this changes is caught when the outcome is read
            _ if self.copy => Some(value),
            // texts inside objects are written as they are
            Ok(_) if !top && matches!(rule.kind, super::rule::Kind::String) && !rule.has("convert") => {
                Some(value)
            }
            Ok(value) => Some(value),
            Err(_) => {
                for (place, problem) in rule.problems(&value) {
                    self.problem(&format!("{path}{place}"), &problem);
                }
                None
            }
        }
    }

    /// Adds the fields of an object's members.
    fn flatten(&mut self, values: &Map<String, Value>, members: &Members, parent: &str) {
        for (name, value) in js::members(values) {
            let path = joined(parent, name);
            if parent.is_empty() && name == "id" {
                continue;
            }
            match (members.get(name), value) {
                (Some(Node::Leaf(at)), value) => self.leaf(*at, value, &path),
                (Some(Node::Object(inner)), Value::Object(values)) if !values.is_empty() => {
                    self.flatten(values, inner, &path);
                }
                (Some(Node::Object(inner)), value) => {
                    match inner.own.and_then(|own| self.format.plan.leaves.get(own)) {
                        Some(own) => {
                            let stored = if value.is_null() { Value::Null } else { js::json(value).into() };
                            self.fields.push((own.key.clone(), stored));
                        }
                        None => self.problem(
                            &path,
                            "is an empty or null object where the stored format has no place for one",
                        ),
                    }
                }
                (None, Value::Object(values)) if !values.is_empty() => {
                    self.flatten(values, &Members::default(), &path);
                }
                (None, value) => match Codec::Text.encode(value) {
                    Ok(stored) => self.fields.push((path.into_owned(), stored)),
                    Err(problem) => self.problem(&path, problem),
                },
            }
        }
    }

    fn leaf(&mut self, at: usize, value: &Value, path: &str) {
        let format = self.format;
        let Some(leaf) = format.plan.leaves.get(at) else { return };
        let stored = match leaf.codec {
            _ if value.is_null() => Ok(Value::Null),
            Codec::Password(_) if self.copy && !value.as_str().is_some_and(password::is_hash) => {
                Err("is a password and no hash of one: a copy takes hashes only")
            }
            Codec::Secret => self.secret(at, value),
            Codec::Password(algorithm) => match value {
                Value::String(text) if password::is_hash(text) => Ok(password::compact(text).into()),
                value => password::hash(&js::string(value), algorithm, self.entropy).map(Value::from),
            },
            codec => codec.encode(value),
        };
        match stored {
            Ok(stored) => self.fields.push((leaf.key.clone(), stored)),
            Err(problem) => self.problem(path, problem),
        }
    }

    fn secret(&mut self, at: usize, value: &Value) -> Result<Value, &'static str> {
        if let Some((_, stored)) = self.kept.iter().find(|(kept, _)| *kept == at) {
            let known = self.format.auto_decrypt.then(|| value.clone());
            self.known.push((at, known));
            return Ok(stored.clone().into());
        }
        let plain = js::string(value);
        if self.copy && !self.format.auto_decrypt {
            return Ok(plain.into());
        }
        if matches!(plain.as_str(), "null" | "undefined") {
            return Err("is a word that stands for no value in the stored format");
        }
        if let Opened::Plain(_) = secret::open(&plain, &self.format.passphrase) {
            return Ok(plain.into());
        }
        let stored =
            secret::seal(&plain, &self.format.passphrase, self.entropy).ok_or("cannot be encrypted")?;
        if self.format.auto_decrypt {
            self.known.push((at, Some(plain.into())));
        }
        Ok(stored.into())
    }

    /// Two members under one key would overwrite each other.
    fn check_keys(&mut self) {
        let mut keys: Vec<String> = self.fields.iter().map(|(key, _)| text::key(key)).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair.first() == pair.last()) {
            self.problems.push("two members would be stored under one name: declare them".into());
        }
    }
}

/// Content that somebody set as the body beside a record in metadata.
struct Content<'a> {
    object: &'a StoredObject,
    /// Names of its members, when it is a JSON object.
    members: Vec<String>,
}

impl ResourceFormat {
    fn content<'a>(&self, object: &'a StoredObject) -> Option<Content<'a>> {
        let overflow = object.metadata.iter().any(|(key, _)| key == "_overflow");
        if object.body.is_empty() || overflow || self.behavior == Behavior::BodyOnly {
            return None;
        }
        match serde_json::from_slice::<Map<String, Value>>(&object.body) {
            // s3db.js writes the version into every body that it makes of a record
            Ok(members) if members.contains_key("_v") => None,
            Ok(members) => Some(Content { object, members: members.keys().cloned().collect() }),
            Err(_) => Some(Content { object, members: Vec::new() }),
        }
    }
}

impl Content<'_> {
    fn keep(self, object: &mut StoredObject) -> Result<()> {
        if !object.body.is_empty() {
            return Err(Error::new(ErrorKind::TooLarge, "the record needs the body that its content is in")
                .with_advice("shorten the record, or remove its content first"));
        }
        object.body = self.object.body.clone();
        object.content_type.clone_from(&self.object.content_type);
        let about = ["_hascontent", "_mimetype", "_contentlength"];
        let kept = self.object.metadata.iter().filter(|(key, _)| about.contains(&key.as_str()));
        object.metadata.extend(kept.cloned());
        Ok(())
    }
}
