//! The shape of a resource and s3db.js's attribute notation, such as `string|required|maxlength:50`.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Result};

/// The attributes of a resource, in order, as a destination needs to know them.
///
/// `id` is not among the attributes unless the user declared it.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSchema {
    /// The resource's name.
    pub name: Arc<str>,
    /// The version of the definition, such as `v1`.
    pub version: Arc<str>,
    /// Top-level attributes in the order of their declaration.
    pub attributes: Vec<Attribute>,
    /// The definition as the source stores it, where the source is an s3db database and nothing changed the
    /// attributes on the way: `attributes`, `behavior`, `timestamps`, `partitions` and so on, named as in
    /// `s3db.json`. Opaque to all but destinations of that kind, which make a resource of the same definition.
    pub definition: Option<Arc<Map<String, Value>>>,
}

impl ResourceSchema {
    /// Reads a declaration: `{"name": "string|required", "profile": {"bio": "string"}}`.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when a definition is neither text nor an object. A type name that nobody
    /// knows is not an error: it becomes [`AttributeType::Unknown`] and is carried as text.
    ///
    /// ```
    /// use s3rep_core::{AttributeType, ResourceSchema};
    /// let declaration = serde_json::json!({"name": "string|required|maxlength:50", "tags": "array|items:string"});
    /// let schema = ResourceSchema::parse("users", "v1", declaration.as_object().unwrap())?;
    /// assert_eq!(schema.attributes[0].max_length, Some(50));
    /// assert!(schema.attributes[0].required);
    /// assert_eq!(schema.attributes[1].kind, AttributeType::Array);
    /// # Ok::<(), s3rep_core::Error>(())
    /// ```
    pub fn parse(name: &str, version: &str, declaration: &Map<String, Value>) -> Result<Self> {
        let attributes = declaration
            .iter()
            .filter(|(attribute, _)| !attribute.starts_with("$$"))
            .map(|(attribute, definition)| Attribute::parse(attribute, definition))
            .collect::<Result<_>>()
            .map_err(|error| error.with_context("resource", name))?;
        Ok(Self { name: name.into(), version: version.into(), attributes, definition: None })
    }

    /// The same schema with the definition that its source stores.
    #[must_use]
    pub fn with_definition(self, definition: Map<String, Value>) -> Self {
        Self { definition: Some(Arc::new(definition)), ..self }
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// One top-level attribute of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The attribute's name.
    pub name: String,
    /// Its type.
    pub kind: AttributeType,
    /// The word `required` stands in the definition: columns become `NOT NULL`.
    pub required: bool,
    /// The word `optional` stands in the definition.
    pub optional: bool,
    /// `integer`, bare or `integer:true`, on a number.
    pub integer: bool,
    /// `maxlength:N` in UTF-16 code units, as s3db.js counts.
    pub max_length: Option<u32>,
    /// `min:N`.
    pub min: Option<f64>,
    /// `max:N`.
    pub max: Option<f64>,
    /// The definition as declared.
    pub definition: Value,
}

impl Attribute {
    /// Reads one definition: text, `{"type": "number", "min": 0}`, or a nested object of definitions.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the definition is neither text nor an object.
    pub fn parse(name: &str, definition: &Value) -> Result<Self> {
        let notation = match definition {
            Value::String(text) => Notation::parse(text),
            Value::Object(members) => Notation::of_members(members),
            _ => {
                return Err(Error::new(
                    ErrorKind::ConfigInvalid,
                    "the definition of an attribute is neither text nor an object",
                )
                .with_context("attribute", name)
                .with_advice("write it like \"string|required\""));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            required: notation.has("required"),
            optional: notation.has("optional"),
            integer: notation.option("integer").is_some_and(|value| value != "false"),
            max_length: notation.option("maxlength").and_then(|text| text.parse().ok()),
            min: notation.option("min").and_then(|text| text.parse().ok()),
            max: notation.option("max").and_then(|text| text.parse().ok()),
            kind: notation.kind,
            definition: definition.clone(),
        })
    }
}

/// The type of an attribute: the text before the first `|`, without the part after its `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeType {
    /// Text.
    String,
    /// A double; an integer with the option `integer`.
    Number,
    /// True or false.
    Boolean,
    /// A JSON value of any type.
    Json,
    /// An object without declared members.
    Object,
    /// An object with declared members.
    Nested,
    /// A list.
    Array,
    /// A list of numbers of a fixed length.
    Embedding,
    /// IPv4 address, dotted.
    Ip4,
    /// IPv6 address.
    Ip6,
    /// Encrypted where it is stored, plain in records.
    Secret,
    /// A hash that is never decoded.
    Password,
    /// Hyphenated UUID.
    Uuid,
    /// A date object of JavaScript, as JSON text.
    Date,
    /// ISO text with milliseconds, UTC.
    DateTime,
    /// `YYYY-MM-DD`.
    DateOnly,
    /// `HH:MM:SS.mmm`.
    TimeOnly,
    /// Text of one of the checked kinds: email, url, mac, cidr, semver, phone, color, duration, ean, enum …
    Text(String),
    /// An amount: money, crypto, decimal, geo:lat, geo:lon. A number in records.
    Decimal(String),
    /// `{latitude, longitude}`.
    GeoPoint,
    /// Bytes, as base64 text in records.
    Buffer,
    /// Any value.
    Any,
    /// A name that s3db.js 21 does not know; carried as text.
    Unknown(String),
}

/// A definition taken apart.
struct Notation {
    kind: AttributeType,
    options: Vec<(String, String)>,
}

impl Notation {
    fn parse(text: &str) -> Self {
        let mut parts = text.split('|');
        let kind = AttributeType::named(parts.next().unwrap_or_default().trim());
        let options = parts
            .map(|part| {
                let (key, value) = part.split_once(':').unwrap_or((part, ""));
                (key.trim().to_owned(), value.to_owned())
            })
            .collect();
        Self { kind, options }
    }

    /// `{"type": "number|optional", "min": 0}` is the same as `number|optional|min:0`; an object without a
    /// textual `type` declares members. `$$type` says whether such an object is required.
    fn of_members(members: &Map<String, Value>) -> Self {
        let Some(Value::String(text)) = members.get("type") else {
            let marker = members.get("$$type").and_then(Value::as_str).unwrap_or_default();
            return Self { kind: AttributeType::Nested, options: Self::parse(marker).options };
        };
        let mut notation = Self::parse(text);
        for (key, value) in members.iter().filter(|(key, _)| *key != "type") {
            match value {
                Value::Bool(false) => {}
                Value::Bool(true) => notation.options.push((key.clone(), String::new())),
                Value::String(value) => notation.options.push((key.clone(), value.clone())),
                value => notation.options.push((key.clone(), value.to_string())),
            }
        }
        notation
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(key, _)| key == option)
    }

    fn option(&self, option: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == option).map(|(_, value)| value.as_str())
    }
}

impl AttributeType {
    fn named(text: &str) -> Self {
        let (name, argument) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "string" => Self::String,
            "number" => Self::Number,
            "boolean" | "bool" => Self::Boolean,
            "json" => Self::Json,
            "object" => Self::Object,
            "array" => Self::Array,
            "embedding" => Self::Embedding,
            "ip4" => Self::Ip4,
            "ip6" => Self::Ip6,
            "secret" | "secretAny" | "secretNumber" => Self::Secret,
            "password" => Self::Password,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "dateonly" => Self::DateOnly,
            "timeonly" => Self::TimeOnly,
            "buffer" | "bits" => Self::Buffer,
            "any" => Self::Any,
            "money" | "crypto" | "decimal" => Self::Decimal(name.to_owned()),
            "geo" => match argument.split(':').next() {
                Some("lat" | "lon") => Self::Decimal(text.to_owned()),
                Some("point") => Self::GeoPoint,
                _ => Self::Unknown(text.to_owned()),
            },
            "email" | "url" | "mac" | "cidr" | "semver" | "phone" | "color" | "duration" | "ean" | "enum"
            | "cron" | "locale" | "currency" | "country" => Self::Text(name.to_owned()),
            _ => Self::Unknown(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attribute(definition: Value) -> Attribute {
        Attribute::parse("a", &definition).unwrap()
    }

    #[test]
    fn the_text_form_and_the_object_form_say_the_same() {
        for definition in [
            json!("number|required|min:0|max:100|integer:true"),
            json!({"type": "number", "required": true, "min": 0, "max": 100, "integer": true}),
        ] {
            let a = attribute(definition);
            assert_eq!((a.kind, a.required, a.integer), (AttributeType::Number, true, true));
            assert_eq!((a.min, a.max), (Some(0.0), Some(100.0)));
        }
    }

    #[test]
    fn types_are_read_from_the_first_part() {
        for (definition, kind) in [
            (json!("embedding:1536|optional"), AttributeType::Embedding),
            (json!("geo:lat:4"), AttributeType::Decimal("geo:lat:4".into())),
            (json!({"bio": "string"}), AttributeType::Nested),
            (json!({"$$type": "object|required", "x": "string"}), AttributeType::Nested),
            (json!("bogus|optional"), AttributeType::Unknown("bogus".into())),
            (json!(""), AttributeType::Unknown(String::new())),
        ] {
            assert_eq!(attribute(definition.clone()).kind, kind, "{definition}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        let error = Attribute::parse("age", &json!(7)).unwrap_err();
        assert!(error.to_string().contains("age"), "{error}");
    }
}
