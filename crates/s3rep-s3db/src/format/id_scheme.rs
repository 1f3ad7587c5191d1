//! How a resource's ids are made, as its configuration says.

use serde_json::{Map, Value};

use super::js;
use crate::suggest::did_you_mean;

/// The longest id that is made.
const LONGEST: u64 = 512;
/// Limits of s3db.js.
const MOST_PREFIX: usize = 20;
const MOST_PADDING: i64 = 20;
const MOST_BATCH: i64 = 100_000;

/// How ids are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdScheme {
    /// So many random characters; without a number as many as the resource has stored.
    Random(Option<usize>),
    /// Numbers one after the other.
    Incremental(Numbering),
    /// ULIDs.
    Ulid,
    /// UUIDs of version 7.
    UuidV7,
    /// By a function that the program hands over.
    Custom,
}

/// How numbers become ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    pub(crate) start: i64,
    pub(crate) increment: i64,
    pub(crate) prefix: String,
    /// Digits at least, zeros before the number.
    pub(crate) padding: usize,
    /// Numbers reserved at once: 1 unless the mode is `fast`.
    pub(crate) batch: u32,
}

impl Default for Numbering {
    fn default() -> Self {
        Self { start: 1, increment: 1, prefix: String::new(), padding: 0, batch: 1 }
    }
}

/// Numbers reserved at once in the mode `fast`.
const FAST: u32 = 100;

impl Numbering {
    /// The id of a number.
    pub(crate) fn id(&self, number: i64) -> String {
        let digits = number.to_string();
        format!("{}{digits:0>width$}", self.prefix, width = self.padding)
    }
}

impl IdScheme {
    /// Reads `idGenerator` and `idSize`; what is wrong is added to the problems.
    pub(crate) fn parse(
        generator: Option<&Value>,
        size: Option<u32>,
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        if size.is_some_and(|size| u64::from(size) > LONGEST || size == 0) {
            problems.push(format!("idSize is a number from 1 to {LONGEST}"));
        }
        let size = size.and_then(|size| usize::try_from(size).ok());
        match generator {
            None | Some(Value::Null) => size.map(|size| Self::Random(Some(size))),
            Some(Value::Number(length)) => {
                match length.as_u64().filter(|length| (1..=LONGEST).contains(length)) {
                    Some(length) => Some(Self::Random(usize::try_from(length).ok())),
                    None => {
                        problems.push(format!("idGenerator as a length is a number from 1 to {LONGEST}"));
                        None
                    }
                }
            }
            Some(Value::String(text)) => Self::of_text(text, size, problems),
            Some(Value::Object(members)) => of_object(members, problems).map(Self::Incremental),
            Some(_) => {
                problems.push("idGenerator is a length, a name or an object with a type".to_owned());
                None
            }
        }
    }

    fn of_text(text: &str, size: Option<usize>, problems: &mut Vec<String>) -> Option<Self> {
        let (name, suffix) = text.split_once(':').map_or((text, None), |(name, suffix)| (name, Some(suffix)));
        match (name, suffix) {
            ("default", None) => Some(Self::Random(size)),
            ("ulid", None) => Some(Self::Ulid),
            ("uuidv7", None) => Some(Self::UuidV7),
            ("custom", None) => Some(Self::Custom),
            ("incremental", None) => Some(Self::Incremental(Numbering::default())),
            ("incremental", Some(suffix)) => match of_suffix(suffix) {
                Some(numbering) => Some(Self::Incremental(numbering)),
                None => {
                    problems.push(format!(
                        "idGenerator '{text}' is not understood: write incremental:1000, incremental:ORD-0001, \
                         incremental:fast or incremental:fast:ORD-0001"
                    ));
                    None
                }
            },
            _ => {
                let known = ["incremental", "ulid", "uuidv7", "default", "custom"];
                problems.push(format!("there is no idGenerator '{text}': {}", did_you_mean(name, &known)));
                None
            }
        }
    }

    /// What `s3db.json` keeps of it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Random(_) => "default",
            Self::Incremental(_) => "incremental",
            // functions in s3db.js
            Self::Ulid | Self::UuidV7 | Self::Custom => "custom",
        }
    }
}

/// `1000`, `ORD-0001`, `fast`, `fast:…`.
fn of_suffix(suffix: &str) -> Option<Numbering> {
    let (batch, suffix) = match suffix.strip_prefix("fast") {
        Some("") => return Some(Numbering { batch: FAST, ..Numbering::default() }),
        Some(rest) => (FAST, rest.strip_prefix(':')?),
        None => (1, suffix),
    };
    let numbering = Numbering { batch, ..Numbering::default() };
    if let Ok(start) = suffix.parse::<i64>()
        && start.to_string() == suffix
    {
        return counts(start).then_some(Numbering { start, ..numbering });
    }
    let digits = suffix.find(|c: char| c.is_ascii_digit())?;
    let (prefix, digits) = suffix.split_at(digits);
    let letters = prefix.strip_suffix('-').unwrap_or(prefix);
    if letters.is_empty() || !letters.bytes().all(|b| b.is_ascii_alphabetic()) || prefix.len() > MOST_PREFIX {
        return None;
    }
    let start = digits.parse().ok().filter(|start| counts(*start))?;
    let padding = Some(digits.len()).filter(|digits| *digits as i64 <= MOST_PADDING)?;
    Some(Numbering { start, prefix: prefix.to_owned(), padding, ..numbering })
}

/// Whether JavaScript counts this far.
fn counts(number: i64) -> bool {
    (number as f64).abs() < js::SAFE
}

fn of_object(members: &Map<String, Value>, problems: &mut Vec<String>) -> Option<Numbering> {
    const MEMBERS: [&str; 7] = ["type", "start", "increment", "mode", "batchSize", "prefix", "padding"];
    let before = problems.len();
    if members.get("type").and_then(Value::as_str) != Some("incremental") {
        problems.push("idGenerator as an object has \"type\": \"incremental\"".to_owned());
    }
    for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
        problems.push(format!("idGenerator has no member '{name}': {}", did_you_mean(name, &MEMBERS)));
    }
    let mut integer = |name: &str, default: i64, low: i64, high: i64| {
        let Some(value) = members.get(name) else { return default };
        let number = value.as_i64().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            problems.push(format!("idGenerator.{name} is an integer from {low} to {high}"));
        }
        number.unwrap_or(default)
    };
    let safe = js::SAFE as i64 - 1;
    let start = integer("start", 1, -safe, safe);
    let increment = integer("increment", 1, -safe, safe);
    let batch = integer("batchSize", i64::from(FAST), 1, MOST_BATCH);
    let padding = integer("padding", 0, 0, MOST_PADDING);
    if increment == 0 {
        problems.push("idGenerator.increment is not 0".to_owned());
    }
    let fast = match members.get("mode").map(Value::as_str) {
        None | Some(Some("standard")) => false,
        Some(Some("fast")) => true,
        Some(_) => {
            problems.push("idGenerator.mode is standard or fast".to_owned());
            false
        }
    };
    let prefix = members.get("prefix").map_or(Some(""), Value::as_str).filter(|prefix| {
        prefix.len() <= MOST_PREFIX && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    });
    if prefix.is_none() {
        problems
            .push(format!("idGenerator.prefix is a text of up to {MOST_PREFIX} letters, digits, _ and -"));
    }
    (problems.len() == before).then(|| Numbering {
        start,
        increment,
        prefix: prefix.unwrap_or_default().to_owned(),
        padding: usize::try_from(padding).unwrap_or_default(),
        batch: if fast { u32::try_from(batch).unwrap_or(FAST) } else { 1 },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Option<IdScheme>, Vec<String>> {
        let mut problems = Vec::new();
        let scheme = IdScheme::parse(Some(&value), None, &mut problems);
        if problems.is_empty() { Ok(scheme) } else { Err(problems) }
    }

    fn first(value: Value) -> (String, u32) {
        match parse(value) {
            Ok(Some(IdScheme::Incremental(numbering))) => (numbering.id(numbering.start), numbering.batch),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_s3db_js_is_read() {
        for (value, id, batch) in [
            (json!("incremental"), "1", 1),
            (json!("incremental:1000"), "1000", 1),
            (json!("incremental:-5"), "-5", 1),
            (json!("incremental:ORD-0001"), "ORD-0001", 1),
            (json!("incremental:INV001"), "INV001", 1),
            (json!("incremental:fast"), "1", 100),
            (json!("incremental:fast:5000"), "5000", 100),
            (json!("incremental:fast:TKT-0007"), "TKT-0007", 100),
            (json!({"type": "incremental"}), "1", 1),
            (json!({"type": "incremental", "start": 7, "prefix": "A_", "padding": 3}), "A_007", 1),
            (json!({"type": "incremental", "mode": "fast", "batchSize": 5}), "1", 5),
        ] {
            assert_eq!(first(value.clone()), (id.to_owned(), batch), "{value}");
        }
        assert_eq!(parse(json!(8)), Ok(Some(IdScheme::Random(Some(8)))));
        assert_eq!(parse(json!("ulid")), Ok(Some(IdScheme::Ulid)));
        assert_eq!(parse(json!(null)), Ok(None));
        assert_eq!(IdScheme::parse(None, Some(9), &mut Vec::new()), Some(IdScheme::Random(Some(9))));
    }

    #[test]
    fn every_problem_is_named() {
        for (value, parts) in [
            (json!(0), vec!["from 1 to 512"]),
            (json!("incremntal"), vec!["did you mean 'incremental'?"]),
            (json!("incremental:1x"), vec!["incremental:ORD-0001"]),
            (json!("incremental:fastest"), vec!["not understood"]),
            (json!("incremental:99999999999999999999"), vec!["not understood"]),
            (json!(true), vec!["a length, a name or an object"]),
            (
                json!({"type": "incremental", "strat": 1, "increment": 0, "mode": "slow", "batchSize": 0,
                       "padding": 21, "prefix": "a/b", "start": 1.5}),
                vec![
                    "'strat': did you mean 'start'?",
                    "increment",
                    "mode",
                    "batchSize",
                    "padding",
                    "prefix",
                    "start",
                ],
            ),
            (json!({"start": 1}), vec!["\"type\": \"incremental\""]),
        ] {
            let problems = parse(value.clone()).unwrap_err().join("; ");
            for part in parts {
                assert!(problems.contains(part), "{value}: {problems}");
            }
        }
    }
}
