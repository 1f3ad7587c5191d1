//! How a value of each attribute type is stored, and read again.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    js,
    number::{self, power},
    packing::{self, Packing},
    password::Algorithms,
    text,
};

/// Decimals kept by embeddings and long lists.
const BATCH_PRECISION: u32 = 6;

/// The stored form of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Text as it is; JSON text is parsed on reading.
    Text,
    /// A number in an object-form definition: its JavaScript text.
    TypedNumber,
    /// A boolean in an object-form definition: `true` or `false`.
    TypedBoolean,
    /// The type `date`: a JSON text with its quotes.
    Date,
    Packed(Packing),
    Number,
    Integer,
    Boolean,
    Strings,
    Numbers,
    Integers,
    Batch,
    /// `array` without item type: JSON.
    Array,
    /// `json` and `object`.
    Json,
    Secret,
    Password(Algorithms),
    Ip4,
    Ip6,
    /// `buffer`, or `bits` of so many bytes.
    Bytes(Option<usize>),
    Money(u32),
    Decimal(u32),
    Latitude(u32),
    Longitude(u32),
    Point(u32),
}

impl Codec {
    /// The codec of a textual definition. s3db.js searches the whole text for type names, options and defaults
    /// included, and takes the first of this order.
    pub(super) fn of(definition: &str) -> Self {
        let has = |word: &str| definition.contains(word);
        let argument = |word: &str| -> Option<u32> {
            let at = definition.find(word)? + word.len();
            let digits = definition.get(at..)?.strip_prefix(':')?;
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits.get(..end)?.parse().ok().filter(|n| *n <= 1_000_000)
        };
        if has("embedding") {
            return Self::Batch;
        }
        if has("array") {
            return Self::list(definition, argument("length"));
        }
        if has("secret") {
            Self::Secret
        } else if has("password") {
            Self::Password(Algorithms::of(definition))
        } else if has("ip4") {
            Self::Ip4
        } else if has("ip6") {
            Self::Ip6
        } else if has("buffer") {
            Self::Bytes(None)
        } else if has("bits") {
            Self::Bytes(argument("bits").and_then(|bits| usize::try_from(bits.div_ceil(8)).ok()))
        } else if has("crypto") {
            Self::Money(argument("crypto").unwrap_or(8))
        } else if has("money") {
            Self::Money(argument("money").unwrap_or(2))
        } else if has("decimal") {
            Self::Decimal(argument("decimal").unwrap_or(2))
        } else if has("geo:lat") {
            Self::Latitude(argument("geo:lat").unwrap_or(6))
        } else if has("geo:lon") {
            Self::Longitude(argument("geo:lon").unwrap_or(6))
        } else if has("geo:point") {
            Self::Point(argument("geo:point").unwrap_or(6))
        } else if has("number") {
            if has("integer") { Self::Integer } else { Self::Number }
        } else if has("bool") {
            Self::Boolean
        } else if has("json") || has("object") {
            Self::Json
        } else if let Some(packing) = Packing::of(definition) {
            Self::Packed(packing)
        } else if definition.split('|').next() == Some("date") {
            Self::Date
        } else {
            Self::Text
        }
    }

    fn list(definition: &str, length: Option<u32>) -> Self {
        if definition.contains("items:string") {
            Self::Strings
        } else if definition.contains("items:number") {
            match length {
                Some(256..) => Self::Batch,
                _ if definition.contains("integer") => Self::Integers,
                _ => Self::Numbers,
            }
        } else {
            Self::Array
        }
    }

    /// The codec of an object-form definition: only lists have one. Other types are stored as plain text; their
    /// declared type tells how to read it.
    pub(super) fn of_form(members: &Map<String, Value>) -> Self {
        let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
        let items = members.get("items").and_then(Value::as_str).unwrap_or_default();
        match kind.split('|').next().unwrap_or_default() {
            "array" if items.starts_with("string") || items.starts_with("number") => {
                let integer =
                    if members.get("integer").is_some_and(|on| on != false) { "|integer" } else { "" };
                let length =
                    members.get("length").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                Self::list(&format!("array|items:{items}{integer}"), length)
            }
            "array" => Self::Array,
            "number" => Self::TypedNumber,
            "boolean" => Self::TypedBoolean,
            _ => Self::Text,
        }
    }

    /// Whether reading gives back less than was written, as the type declares: rounding.
    pub(super) fn rounds(self) -> bool {
        matches!(
            self,
            Self::Batch
                | Self::Money(_)
                | Self::Decimal(_)
                | Self::Latitude(_)
                | Self::Longitude(_)
                | Self::Point(_)
        )
    }

    /// Reads a stored text. A text that is not of the type's form is returned as it is; numbers that are none
    /// are null, as the JSON text of JavaScript's `NaN` is. Secrets are opened elsewhere.
    pub(super) fn decode(self, stored: Cow<'_, str>) -> Value {
        match self {
            Self::Text => parse_json(&stored).unwrap_or_else(|| Value::String(stored.into_owned())),
            Self::TypedNumber => match js::parse_number(&stored) {
                Some(n) if js::number_text(n) == *stored => js::number(n),
                _ => Self::Text.decode(stored),
            },
            Self::TypedBoolean => match &*stored {
                "true" => true.into(),
                "false" => false.into(),
                _ => Self::Text.decode(stored),
            },
            Self::Packed(packing) => {
                Value::String(packing.unpack(&stored).unwrap_or_else(|| stored.into_owned()))
            }
            Self::Number => number_or_empty(&stored, number::parse_decimal),
            Self::Integer => number_or_empty(&stored, number::parse_base62),
            Self::Boolean => Value::Bool(matches!(&*stored, "1" | "true" | "yes" | "y")),
            Self::Strings => list(&stored, Value::String),
            Self::Numbers => list(&stored, |item| js::number(number_item(&item, number::parse_decimal))),
            Self::Integers => list(&stored, |item| js::number(number_item(&item, number::parse_base62))),
            Self::Batch => match number::parse_batch(&stored, BATCH_PRECISION) {
                Some(items) => Value::Array(items.into_iter().map(js::number).collect()),
                None => Self::Numbers.decode(stored),
            },
            Self::Array => serde_json::from_str(&stored).map_or_else(|_| list(&stored, Value::String), tidy),
            Self::Json => {
                serde_json::from_str(&stored).map_or_else(|_| Value::String(stored.into_owned()), tidy)
            }
            Self::Secret | Self::Password(_) | Self::Date => Value::String(stored.into_owned()),
            Self::Ip4 => match <[u8; 4]>::try_from(text::lenient_base64(&stored)) {
                Ok([a, b, c, d]) => Value::String(format!("{a}.{b}.{c}.{d}")),
                Err(_) => Value::String(stored.into_owned()),
            },
            Self::Ip6 => match <[u8; 16]>::try_from(text::lenient_base64(&stored)) {
                Ok(bytes) => Value::String(packing::ip6_text(bytes)),
                Err(_) => Value::String(stored.into_owned()),
            },
            Self::Bytes(length) => {
                let bytes = text::lenient_base64(&stored);
                if length.is_some_and(|length| length != bytes.len()) {
                    return Value::String(stored.into_owned());
                }
                Value::String(STANDARD.encode(bytes))
            }
            Self::Money(digits) => match stored.strip_prefix('$') {
                Some(n) => js::number(number::parse_base62(n) / power(digits)),
                None => Value::String(stored.into_owned()),
            },
            Self::Decimal(digits) => match stored.strip_prefix('^') {
                Some(_) => js::number(number::parse_fixed(&stored, digits)),
                None => Value::String(stored.into_owned()),
            },
            Self::Latitude(precision) | Self::Longitude(precision) => match stored.strip_prefix('~') {
                Some(n) => js::number(degrees(n, precision, self.offset())),
                None => Value::String(stored.into_owned()),
            },
            Self::Point(precision) => {
                let parts = stored.strip_prefix('~').and_then(|rest| rest.split_once('~'));
                let (latitude, longitude) = parts.map_or((f64::NAN, f64::NAN), |(latitude, longitude)| {
                    (degrees(latitude, precision, 90.0), degrees(longitude, precision, 180.0))
                });
                let mut point = Map::new();
                point.insert("latitude".into(), js::number(latitude));
                point.insert("longitude".into(), js::number(longitude));
                Value::Object(point)
            }
        }
    }

    pub(super) fn offset(self) -> f64 {
        if matches!(self, Self::Longitude(_)) { 180.0 } else { 90.0 }
    }

    /// The stored form of a normalised value that is not null. Secrets and passwords are made elsewhere.
    ///
    /// # Errors
    /// What is wrong with the value, without the value.
    pub(super) fn encode(self, value: &Value) -> Result<Value, &'static str> {
        let numeric = || value.as_f64().ok_or("is not a number");
        let textual = || value.as_str().ok_or("is not a text");
        let text = match self {
            Self::Text | Self::TypedNumber | Self::TypedBoolean => match value {
                Value::String(word) if matches!(word.as_str(), "null" | "undefined" | "[object Object]") => {
                    return Err("is a word that stands for no value in the stored format");
                }
                Value::Object(_) | Value::Array(_) => js::json(value),
                _ => return Ok(value.clone()),
            },
            Self::Date => textual()?.to_owned(),
            Self::Packed(packing) => match value {
                Value::String(text) => packing.pack(text).unwrap_or_else(|| text.clone()),
                _ => return Err("is not of its type's form"),
            },
            Self::Number => number::lossless_decimal(numeric()?).ok_or("has no stored form")?,
            Self::Integer => {
                number::lossless_integer(numeric()?).ok_or("is not an integer that can be stored")?
            }
            Self::Boolean => if value.as_bool().ok_or("is not a boolean")? { "1" } else { "0" }.to_owned(),
            Self::Strings => join(items(value)?.iter().map(|item| item.as_str().map(Cow::Borrowed)))
                .ok_or("has an item that is not a text")?,
            Self::Numbers => {
                let form = |item: &Value| item.as_f64().and_then(number::lossless_decimal).map(Cow::Owned);
                join(items(value)?.iter().map(form))
                    .ok_or("has an item that is not a number that can be stored")?
            }
            Self::Integers => {
                let form = |item: &Value| item.as_f64().and_then(number::lossless_integer).map(Cow::Owned);
                join(items(value)?.iter().map(form))
                    .ok_or("has an item that is not an integer that can be stored")?
            }
            Self::Batch => {
                let numbers = items(value)?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
                let numbers = numbers.ok_or("has an item that is not a number")?;
                if numbers.iter().any(|n| number::scaled(*n, BATCH_PRECISION).abs() > 1e300) {
                    return Err("has an item that is too large");
                }
                number::batch(numbers.into_iter(), BATCH_PRECISION)
            }
            Self::Array => js::json(value),
            Self::Json => match value {
                // text is stored as it is; one that would be read as something else goes in its quotes
                Value::String(text) if serde_json::from_str::<Value>(text).is_err() => text.clone(),
                _ => js::json(value),
            },
            Self::Secret | Self::Password(_) => return Err("cannot be stored unprotected"),
            Self::Ip4 => match packing::ip4(textual()?) {
                Some(address) => STANDARD.encode(address.to_be_bytes()),
                None => textual()?.to_owned(),
            },
            Self::Ip6 => match packing::ip6(textual()?) {
                Some(bytes) => STANDARD.encode(bytes),
                None => textual()?.to_owned(),
            },
            Self::Bytes(_) => textual()?.to_owned(),
            Self::Money(digits) => format!("${}", number::base62(rounded(numeric()?, digits)?)),
            Self::Decimal(digits) => {
                rounded(numeric()?, digits)?;
                number::fixed(numeric()?, digits)
            }
            Self::Latitude(precision) | Self::Longitude(precision) => {
                place(numeric()?, self.offset(), precision)?
            }
            Self::Point(precision) => {
                let (latitude, longitude) =
                    coordinates(value).ok_or("is not a point: give {latitude, longitude}")?;
                place(latitude, 90.0, precision)? + &place(longitude, 180.0, precision)?
            }
        };
        Ok(Value::String(text))
    }
}

fn items(value: &Value) -> Result<&Vec<Value>, &'static str> {
    value.as_array().ok_or("is not a list")
}

fn rounded(n: f64, digits: u32) -> Result<f64, &'static str> {
    let scaled = number::scaled(n, digits);
    if scaled.abs() < 1e300 { Ok(scaled) } else { Err("is too large") }
}

fn place(degrees: f64, offset: f64, precision: u32) -> Result<String, &'static str> {
    if !(-offset..=offset).contains(&degrees) {
        return Err("is outside the globe");
    }
    Ok(format!("~{}", number::base62(number::scaled(degrees + offset, precision))))
}

fn degrees(stored: &str, precision: u32, offset: f64) -> f64 {
    number::parse_base62(stored) / power(precision) - offset
}

/// Latitude and longitude of the shapes that s3db.js takes.
pub(super) fn coordinates(value: &Value) -> Option<(f64, f64)> {
    match value {
        Value::Array(items) => match items.as_slice() {
            [latitude, longitude] => Some((latitude.as_f64()?, longitude.as_f64()?)),
            _ => None,
        },
        Value::Object(members) => {
            let get = |long: &str, short: &str| members.get(long).or_else(|| members.get(short))?.as_f64();
            Some((get("latitude", "lat")?, get("longitude", "lon")?))
        }
        _ => None,
    }
}

/// An empty text in a number's place is what s3db.js makes of numbers such as 1e-7; it reads it as empty text.
fn number_or_empty(stored: &str, parse: fn(&str) -> f64) -> Value {
    if stored.is_empty() { Value::String(String::new()) } else { js::number(parse(stored)) }
}

fn number_item(item: &str, parse: fn(&str) -> f64) -> f64 {
    if item.is_empty() { f64::NAN } else { parse(item) }
}

/// A text that starts like a JSON object or list, parsed when it is one.
fn parse_json(text: &str) -> Option<Value> {
    if text.starts_with(['{', '[']) { serde_json::from_str(text).ok().map(tidy) } else { None }
}

/// Numbers as [`js::number`] has them, at any depth.
pub(super) fn tidy(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() || js::is_printed_double(&n) => {
            n.as_f64().map_or(Value::Null, js::number)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(tidy).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, tidy(value))).collect())
        }
        value => value,
    }
}

/// Items joined with `|`; `|` and `\` in an item are escaped. `None` when an item has no form.
fn join<'a>(items: impl Iterator<Item = Option<Cow<'a, str>>>) -> Option<String> {
    let mut joined = String::new();
    for (i, item) in items.enumerate() {
        if i > 0 {
            joined.push('|');
        }
        for c in item?.chars() {
            if matches!(c, '|' | '\\') {
                joined.push('\\');
            }
            joined.push(c);
        }
    }
    // a list that would be read as null or as JSON gets a backslash that reading drops
    if matches!(joined.as_str(), "null" | "undefined") || is_json_list(&joined) {
        joined.insert(0, '\\');
    }
    Some(joined)
}

fn is_json_list(text: &str) -> bool {
    text::is_json(text) && serde_json::from_str::<Value>(text).is_ok()
}

/// The items of a joined list.
fn list(stored: &str, item: impl Fn(String) -> Value) -> Value {
    if stored.is_empty() {
        return Value::Array(Vec::new());
    }
    if stored.starts_with('[')
        && let Ok(items @ Value::Array(_)) = serde_json::from_str(stored)
    {
        return tidy(items);
    }
    let (mut items, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for c in stored.chars() {
        match c {
            c if escaped => {
                current.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '|' => items.push(item(std::mem::take(&mut current))),
            c => current.push(c),
        }
    }
    items.push(item(current));
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_found_by_their_name_anywhere() {
        for (definition, codec) in [
            ("string|default:secretly", Codec::Secret),
            ("string|optional|default:numbers", Codec::Number),
            ("number|integer:true", Codec::Integer),
            ("array|items:number|length:256", Codec::Batch),
            ("array|items:number|length:255", Codec::Numbers),
            ("money:3|optional", Codec::Money(3)),
            ("crypto", Codec::Money(8)),
            ("geo:point:3", Codec::Point(3)),
            ("bits:9", Codec::Bytes(Some(2))),
            ("datetime|optional", Codec::Packed(Packing::DateTime)),
            ("uuid|optional", Codec::Packed(Packing::Uuid)),
            ("date|optional", Codec::Date),
            ("email", Codec::Text),
            ("bogus", Codec::Text),
        ] {
            assert_eq!(Codec::of(definition), codec, "{definition}");
        }
    }

    #[test]
    fn lists_that_look_like_something_else_are_escaped() {
        for items in [
            json!(["null"]),
            json!(["[1]"]),
            json!(["a|b", "c\\d"]),
            json!(["", ""]),
            json!([]),
            json!(["{}"]),
        ] {
            let stored = Codec::Strings.encode(&items).unwrap();
            assert_eq!(Codec::Strings.decode(stored.as_str().unwrap().into()), items, "{stored}");
        }
    }

    #[test]
    fn json_texts_keep_their_type() {
        for value in [json!("123"), json!("plain"), json!("\"q\""), json!(42), json!({"a": 1}), json!("")] {
            let stored = Codec::Json.encode(&value).unwrap();
            assert_eq!(Codec::Json.decode(stored.as_str().unwrap().into()), value, "{stored}");
        }
    }
}
