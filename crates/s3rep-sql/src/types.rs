//! What kind of column an attribute needs, before any dialect spells it.

use s3rep_core::{Attribute, AttributeType};
use serde_json::Value;

/// The kinds of columns that s3db.js's schema synchronisation tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeClass {
    /// Text, with the largest length in UTF-16 code units where one is declared.
    Text(Option<u32>),
    /// A double.
    Double,
    /// A whole number whose declared range lies within 32 bits.
    Integer,
    /// A whole number.
    BigInteger,
    /// True or false.
    Boolean,
    /// JSON of any type.
    Json,
    /// IPv4 address.
    Ip4,
    /// IPv6 address.
    Ip6,
    /// UUID.
    Uuid,
    /// Date with time.
    Timestamp,
}

impl TypeClass {
    /// The class of an attribute's values.
    ///
    /// Differs from s3db.js in what makes a number whole: the word `integer` and not a range. A double would round
    /// integers beyond 2^53, and a price between 0 and 100 has a fraction.
    pub fn of(attribute: &Attribute) -> Self {
        match &attribute.kind {
            AttributeType::Number => {
                let is_small = attribute.min.is_some_and(|min| min >= 0.0)
                    && attribute.max.is_some_and(|max| max <= 2_147_483_647.0);
                match (attribute.integer, is_small) {
                    (true, true) => Self::Integer,
                    (true, false) => Self::BigInteger,
                    (false, _) => Self::Double,
                }
            }
            AttributeType::Boolean => Self::Boolean,
            AttributeType::Json | AttributeType::Object | AttributeType::Array => Self::Json,
            AttributeType::Embedding if !has_argument(&attribute.definition) => Self::Json,
            AttributeType::Ip4 => Self::Ip4,
            AttributeType::Ip6 => Self::Ip6,
            AttributeType::Uuid => Self::Uuid,
            AttributeType::Date | AttributeType::DateTime => Self::Timestamp,
            AttributeType::String => Self::Text(attribute.max_length),
            _ => Self::Text(None),
        }
    }
}

/// Whether the type name of a definition carries an argument, as in `embedding:1536`.
fn has_argument(definition: &Value) -> bool {
    let text = definition.as_str().or_else(|| definition.get("type")?.as_str()).unwrap_or_default();
    text.split('|').next().unwrap_or_default().contains(':')
}
