//! What a definition demands of a value.

use regex::Regex;
use serde_json::{Map, Value};

use super::js;
use crate::suggest::{did_you_mean, nearest};

/// The type that a value is checked against.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    String,
    Number,
    Boolean,
    /// A list, with the rule of its items.
    Array(Option<Box<Rule>>),
    /// A list of so many numbers.
    Embedding(Option<usize>),
    Object,
    Any,
    Json,
    Enum(Vec<Value>),
    Secret,
    SecretNumber,
    SecretAny,
    Password,
    Email,
    Url,
    Uuid,
    Date,
    DateTime,
    DateOnly,
    TimeOnly,
    Mac,
    Cidr,
    Semver,
    Phone,
    Color,
    Duration,
    Cron,
    Locale,
    Currency,
    Country,
    Ean,
    Ip4,
    Ip6,
    Money,
    Decimal,
    Latitude,
    Longitude,
    Point,
    Bytes,
    /// A name that s3db.js 21 does not know; any text.
    Unknown,
}

/// A rule: the type and its options.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    /// May be absent or null.
    pub(super) optional: bool,
    /// Stands in for an absent or null value; top level only.
    pub(super) default: Option<Value>,
    options: Vec<(String, Value)>,
    pub(super) pattern: Option<Result<Regex, ()>>,
}

impl Rule {
    /// Reads `type|option|option:value`.
    pub(super) fn of_text(definition: &str) -> Self {
        let mut parts = definition.split('|');
        let name = parts.next().unwrap_or_default().trim();
        let mut options = Vec::new();
        let mut default = None;
        for part in parts {
            let mut words = part.splitn(3, ':');
            let key = words.next().unwrap_or_default().trim().to_owned();
            if key == "default" {
                default = part.split_once(':').map(|(_, text)| default_value(definition, text));
                continue;
            }
            options.push((key, words.next().map_or(Value::Bool(true), option_value)));
        }
        Self::new(name, options, default)
    }

    /// Reads `{"type": "number", "min": 0}`.
    pub(super) fn of_form(members: &Map<String, Value>) -> Self {
        let text = members.get("type").and_then(Value::as_str).unwrap_or_default();
        let mut rule = Self::of_text(text);
        let mut options = std::mem::take(&mut rule.options);
        for (key, value) in members.iter().filter(|(key, _)| *key != "type" && *key != "default") {
            options.push((key.clone(), value.clone()));
        }
        let default = members.get("default").cloned().or(rule.default);
        Self::new(text.split('|').next().unwrap_or_default(), options, default)
    }

    fn new(name: &str, options: Vec<(String, Value)>, default: Option<Value>) -> Self {
        let find = |key: &str| options.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        let set = |key: &str| find(key).is_some_and(|value| *value != Value::Bool(false));
        let kind = kind(name, &options);
        // these three drop their options
        let always = matches!(kind, Kind::Bytes | Kind::Point);
        let pattern = find("pattern").and_then(Value::as_str).map(|text| Regex::new(text).map_err(|_| ()));
        Self { optional: set("optional") && !always, default, pattern, kind, options }
    }

    fn find(&self, key: &str) -> Option<&Value> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Whether the option is given and not `false`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| *value != Value::Bool(false))
    }

    /// Whether the option is given as `false`.
    pub(super) fn forbids(&self, key: &str) -> bool {
        self.find(key) == Some(&Value::Bool(false))
    }

    /// The option's number.
    pub(super) fn limit(&self, key: &str) -> Option<f64> {
        self.find(key)?.as_f64()
    }
}

/// `true` and `false` are booleans, numeric text is a number, the rest is text.
fn option_value(text: &str) -> Value {
    match text {
        "true" => true.into(),
        "false" => false.into(),
        text => js::parse_number(text).map_or_else(|| text.into(), js::number),
    }
}

fn default_value(definition: &str, text: &str) -> Value {
    let text = text.trim();
    if definition.contains("boolean") && text == "true" {
        return true.into();
    }
    let number = if definition.contains("number") { js::parse_number(text) } else { None };
    number.map_or_else(|| text.into(), js::number)
}

fn kind(name: &str, options: &[(String, Value)]) -> Kind {
    let (word, argument) = name.split_once(':').unwrap_or((name, ""));
    let option = |key: &str| options.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    match word {
        "string" => Kind::String,
        "number" => Kind::Number,
        "boolean" | "bool" => Kind::Boolean,
        "array" => Kind::Array(option("items").map(|items| {
            let mut rule = match items {
                Value::Object(members) => Rule::of_form(members),
                items => Rule::of_text(items.as_str().unwrap_or("any")),
            };
            // in the text form the options of the list's items stand beside those of the list
            if options.iter().any(|(key, value)| key == "integer" && *value != Value::Bool(false)) {
                rule.options.push(("integer".into(), true.into()));
            }
            Box::new(rule)
        })),
        "embedding" => {
            let length = option("length").and_then(Value::as_u64).or_else(|| argument.parse().ok());
            Kind::Embedding(length.and_then(|length| usize::try_from(length).ok()))
        }
        "object" => Kind::Object,
        "any" => Kind::Any,
        "json" => Kind::Json,
        "enum" => Kind::Enum(option("values").and_then(Value::as_array).cloned().unwrap_or_default()),
        "secret" => Kind::Secret,
        "secretNumber" => Kind::SecretNumber,
        "secretAny" => Kind::SecretAny,
        "password" => Kind::Password,
        "email" => Kind::Email,
        "url" => Kind::Url,
        "uuid" => Kind::Uuid,
        "date" => Kind::Date,
        "datetime" => Kind::DateTime,
        "dateonly" => Kind::DateOnly,
        "timeonly" => Kind::TimeOnly,
        "mac" => Kind::Mac,
        "cidr" => Kind::Cidr,
        "semver" => Kind::Semver,
        "phone" => Kind::Phone,
        "color" => Kind::Color,
        "duration" => Kind::Duration,
        "cron" => Kind::Cron,
        "locale" => Kind::Locale,
        "currency" => Kind::Currency,
        "country" => Kind::Country,
        "ean" => Kind::Ean,
        "ip4" => Kind::Ip4,
        "ip6" => Kind::Ip6,
        "money" | "crypto" => Kind::Money,
        "decimal" => Kind::Decimal,
        "buffer" | "bits" => Kind::Bytes,
        "geo" => match argument.split(':').next() {
            Some("lat") => Kind::Latitude,
            Some("lon") => Kind::Longitude,
            Some("point") => Kind::Point,
            _ => Kind::Unknown,
        },
        _ => Kind::Unknown,
    }
}

/// Collects what is wrong with a declaration: types that s3db.js 21 refuses.
pub(super) fn check_declaration(attributes: &Map<String, Value>, problems: &mut Vec<String>) {
    for (name, definition) in attributes.iter().filter(|(name, _)| !name.starts_with("$$")) {
        check_definition(name, definition, problems, 0);
    }
}

fn check_definition(path: &str, definition: &Value, problems: &mut Vec<String>, depth: usize) {
    if depth > js::MAX_DEPTH {
        problems.push(format!("attribute '{path}' is nested too deeply"));
        return;
    }
    match definition {
        Value::String(text) => {
            let name = text.split('|').next().unwrap_or_default().trim();
            let textual_enum = name == "enum";
            check_rule(path, name, &Rule::of_text(text), textual_enum, problems);
            check_modifiers(path, text, problems);
        }
        Value::Object(members) if members.get("type").is_some_and(Value::is_string) => {
            let name = members.get("type").and_then(Value::as_str).unwrap_or_default();
            check_modifiers(path, name, problems);
            check_members(path, members, problems);
            let name = name.split('|').next().unwrap_or_default();
            check_rule(path, name, &Rule::of_form(members), false, problems);
        }
        Value::Object(members) => {
            for (name, definition) in members.iter().filter(|(name, _)| !name.starts_with("$$")) {
                check_definition(&format!("{path}.{name}"), definition, problems, depth + 1);
            }
        }
        _ => problems.push(format!("the definition of attribute '{path}' is neither text nor an object")),
    }
}

/// The types that an attribute can be declared with.
const TYPES: [&str; 41] = [
    "string",
    "number",
    "boolean",
    "array",
    "object",
    "json",
    "any",
    "enum",
    "embedding",
    "secret",
    "secretNumber",
    "secretAny",
    "password",
    "email",
    "url",
    "uuid",
    "date",
    "datetime",
    "dateonly",
    "timeonly",
    "mac",
    "cidr",
    "semver",
    "phone",
    "color",
    "duration",
    "cron",
    "locale",
    "currency",
    "country",
    "ean",
    "ip4",
    "ip6",
    "money",
    "crypto",
    "decimal",
    "buffer",
    "bits",
    "geo:lat",
    "geo:lon",
    "geo:point",
];
/// Names of types elsewhere, and what they are here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("text", "string"),
    ("varchar", "string"),
    ("int", "number|integer"),
    ("integer", "number|integer"),
    ("float", "number"),
    ("double", "number"),
    ("bool", "boolean"),
    ("timestamp", "datetime"),
    ("time", "timeonly"),
    ("binary", "buffer"),
    ("list", "array"),
    ("ip", "ip4"),
];
/// What can stand behind a type.
const MODIFIERS: [&str; 23] = [
    "required",
    "optional",
    "default",
    "min",
    "max",
    "length",
    "minlength",
    "maxlength",
    "items",
    "unique",
    "values",
    "integer",
    "positive",
    "negative",
    "pattern",
    "empty",
    "alphanum",
    "alpha",
    "numeric",
    "lowercase",
    "uppercase",
    "convert",
    "trim",
];

fn meant(name: &str) -> String {
    match ELSEWHERE.iter().find(|(known, _)| *known == name.to_lowercase()) {
        Some((_, ours)) => format!("did you mean '{ours}'?"),
        None => did_you_mean(name, &TYPES),
    }
}

fn check_rule(path: &str, name: &str, rule: &Rule, textual_enum: bool, problems: &mut Vec<String>) {
    let unknown = match &rule.kind {
        Kind::Unknown => Some(name),
        Kind::Boolean if name == "bool" => Some(name),
        Kind::Array(Some(items)) if matches!(items.kind, Kind::Unknown) => {
            rule.find("items").map(|items| items.as_str().unwrap_or_default())
        }
        _ => None,
    };
    if let Some(name) = unknown {
        problems.push(format!(
            "attribute '{path}' has the type '{name}', which s3db.js 21 does not take: {}",
            meant(name)
        ));
    }
    if matches!(rule.kind, Kind::Object) && rule.has("props") {
        problems.push(format!("attribute '{path}' has props: nest its members in an object instead"));
    }
    if matches!(&rule.kind, Kind::Enum(values) if values.is_empty()) || textual_enum {
        problems
            .push(format!("attribute '{path}': write an enum as {{\"type\": \"enum\", \"values\": […]}}"));
    }
    if matches!(rule.pattern, Some(Err(()))) {
        problems.push(format!("attribute '{path}' has a pattern that is not a regular expression here"));
    }
}

/// A misspelled modifier would be no check at all.
fn check_modifiers(path: &str, definition: &str, problems: &mut Vec<String>) {
    let words = definition.split('|').skip(1).map(|part| part.split(':').next().unwrap_or_default().trim());
    for word in words.filter(|word| !word.is_empty() && !MODIFIERS.contains(word)) {
        let meant = did_you_mean(word, &MODIFIERS);
        problems.push(format!("attribute '{path}' has the modifier '{word}', which is none: {meant}"));
    }
}

/// The object form may carry what is somebody else's; what nearly is a modifier is taken for a misspelled one.
fn check_members(path: &str, members: &Map<String, Value>, problems: &mut Vec<String>) {
    // Short words are near to too many others.
    let misspelled =
        |word: &&String| word.len() > 3 && *word != "type" && !MODIFIERS.contains(&word.as_str());
    for word in members.keys().filter(misspelled) {
        if let Some(meant) = nearest(word, &MODIFIERS) {
            problems.push(format!(
                "attribute '{path}' has the modifier '{word}', which is none: did you mean '{meant}'?"
            ));
        }
    }
}

/// The attributes, nested ones too, whose types nobody knows, with those types.
pub(super) fn unknown_types(attributes: &Map<String, Value>) -> Vec<(String, String)> {
    fn find(path: &str, definition: &Value, depth: usize, found: &mut Vec<(String, String)>) {
        let text = definition.get("type").unwrap_or(definition).as_str();
        match (text, definition) {
            (Some(text), _) => {
                let name = text.split('|').next().unwrap_or_default().trim();
                if matches!(kind(name, &[]), Kind::Unknown) {
                    found.push((path.to_owned(), name.to_owned()));
                }
            }
            (None, Value::Object(members)) if depth < js::MAX_DEPTH => {
                for (name, definition) in members.iter().filter(|(name, _)| !name.starts_with("$$")) {
                    find(&format!("{path}.{name}"), definition, depth + 1, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (name, definition) in attributes.iter().filter(|(name, _)| !name.starts_with("$$")) {
        find(name, definition, 0, &mut found);
    }
    found
}
