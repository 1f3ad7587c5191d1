//! A serde deserializer over [`Node`] whose errors know the way to what is wrong.

use std::fmt;

use serde::{
    Deserialize, Deserializer, de,
    de::{IntoDeserializer, value::StrDeserializer},
    forward_to_deserialize_any,
};

use super::node::{Entry, Kind, Node};

/// One thing that serde did not like.
#[derive(Debug)]
pub(super) struct Fault {
    /// Child indices from the root down to the value at fault.
    pub(super) path: Vec<usize>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A value of the wrong kind, or out of range.
    Value { expected: String, wrong_kind: bool },
    /// Not one of the names there are.
    Variant { known: &'static [&'static str] },
    /// A key that nobody knows; the path ends at its entry.
    UnknownKey { known: &'static [&'static str] },
    /// The same option under two names; the path ends at the entry of the second.
    Twice { name: &'static str },
    /// A key is missing in the map at the path.
    Missing { name: &'static str },
    /// Any other message, made by somebody's code. It may quote the value.
    Other { message: String },
}

impl Fault {
    fn new(what: What) -> Self {
        Self { path: Vec::new(), what }
    }

    /// The same fault seen from the parent. Paths are collected from the inside out.
    fn inside(mut self, index: usize) -> Self {
        self.path.insert(0, index);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Other { message: message.to_string() })
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(What::Value { expected: expected.to_string(), wrong_kind: true })
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(What::Value { expected: expected.to_string(), wrong_kind: false })
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        Self::new(What::Value { expected: expected.to_string(), wrong_kind: false })
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Variant { known })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey { known })
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(What::Missing { name })
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(What::Twice { name })
    }
}

/// A value together with the node that it was read from, so that later checks can point at it.
pub(super) struct At<T> {
    pub(super) node: u32,
    pub(super) value: T,
}

impl<T> At<T> {
    const NAME: &'static str = "$s3rep::At";

    /// A default: it stands nowhere.
    pub(super) fn absent(value: T) -> Self {
        Self { node: Node::NO_ID, value }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of the configuration")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let missing = || de::Error::custom("not read from a configuration");
                Ok(At {
                    node: seq.next_element()?.ok_or_else(missing)?,
                    value: seq.next_element()?.ok_or_else(missing)?,
                })
            }
        }
        deserializer.deserialize_tuple_struct(Self::NAME, 2, Visitor(std::marker::PhantomData))
    }
}

struct AtAccess<'a> {
    node: &'a Node,
    step: u8,
}

impl<'de> de::SeqAccess<'de> for AtAccess<'_> {
    type Error = Fault;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.step += 1;
        match self.step {
            1 => seed.deserialize(self.node.id.into_deserializer()).map(Some),
            2 => seed.deserialize(Reader(self.node)).map(Some),
            _ => Ok(None),
        }
    }
}

/// The deserializer.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Node);

impl<'a> Reader<'a> {
    fn whole_number(self) -> Option<i128> {
        match &self.0.kind {
            Kind::Int(number) => Some(*number),
            Kind::Float(number) if number.fract() == 0.0 && number.abs() < 1e18 => Some(*number as i128),
            // The environment has only text.
            Kind::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn list<'de, V: de::Visitor<'de>>(self, visitor: V, items: &'a [Node]) -> Result<V::Value, Fault> {
        let mut access = Items { items: items.iter().enumerate() };
        let value = visitor.visit_seq(&mut access)?;
        match access.items.next() {
            None => Ok(value),
            Some((index, _)) => {
                Err(Fault::new(What::Other { message: "one item too many".into() }).inside(index))
            }
        }
    }

    fn map<'de, V: de::Visitor<'de>>(self, visitor: V, entries: &'a [Entry]) -> Result<V::Value, Fault> {
        let mut access = Entries { entries: entries.iter().enumerate(), current: None };
        let result = visitor.visit_map(&mut access);
        let current = access.current.map(|(index, _)| index);
        match (result, current) {
            (Err(fault), Some(index))
                if fault.path.is_empty() && matches!(fault.what, What::Twice { .. }) =>
            {
                Err(fault.inside(index))
            }
            (result, _) => result,
        }
    }
}

fn visit_whole<'de, V: de::Visitor<'de>>(visitor: V, number: i128) -> Result<V::Value, Fault> {
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => visitor.visit_u64(number),
        (_, Ok(number)) => visitor.visit_i64(number),
        _ => visitor.visit_i128(number),
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.whole_number() {
                Some(number) => visit_whole(visitor, number),
                // One fits most limits where none is given.
                None if self.0.is_hole() => visitor.visit_u64(1),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.kind {
            Kind::Hole => visitor.visit_u64(1),
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Int(number) => visit_whole(visitor, *number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Text(text) => visitor.visit_str(text),
            Kind::List(items) => self.list(visitor, items),
            Kind::Map(entries) => self.map(visitor, entries),
        }
    }

    fn deserialize_bool<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.kind {
            Kind::Hole => visitor.visit_bool(false),
            Kind::Text(text) if text == "true" => visitor.visit_bool(true),
            Kind::Text(text) if text == "false" => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_f32<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.kind {
            Kind::Text(text) => match text.trim().parse::<f64>() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => self.deserialize_any(visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_hole() { visitor.visit_str("") } else { self.deserialize_any(visitor) }
    }

    fn deserialize_string<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_hole() { visitor.visit_char('-') } else { self.deserialize_any(visitor) }
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.kind {
            Kind::Hole | Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_hole() { self.list(visitor, &[]) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_tuple_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == At::<()>::NAME {
            visitor.visit_seq(AtAccess { node: self.0, step: 0 })
        } else {
            self.deserialize_seq(visitor)
        }
    }

    fn deserialize_map<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_hole() { self.map(visitor, &[]) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.kind {
            Kind::Hole => {
                let place = self.0.place;
                let hole = |key: &&str| Entry { key: (*key).to_owned(), place, value: Node::hole(place) };
                let entries: Vec<_> = fields.iter().map(hole).collect();
                // Whatever goes wrong in a hole goes wrong at the hole.
                Reader(self.0).map(visitor, &entries).map_err(|fault| Fault { path: Vec::new(), ..fault })
            }
            // A derived visitor would take a list for the fields in order.
            Kind::List(_) => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.kind {
            Kind::Hole => visitor.visit_enum(name(variants.first().copied().unwrap_or_default())),
            Kind::Text(text) => visitor.visit_enum(name(text)),
            Kind::Map(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct tuple identifier }
}

fn name(text: &str) -> StrDeserializer<'_, Fault> {
    text.into_deserializer()
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader(node)).map(Some).map_err(|fault| fault.inside(index))
    }
}

struct Entries<'a> {
    entries: std::iter::Enumerate<std::slice::Iter<'a, Entry>>,
    current: Option<(usize, &'a Entry)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, entry)) = self.entries.next() else { return Ok(None) };
        self.current = Some((index, entry));
        seed.deserialize(name(&entry.key)).map(Some).map_err(|fault| fault.inside(index))
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((index, entry)) = self.current else {
            return Err(de::Error::custom("a value before its key"));
        };
        seed.deserialize(Reader(&entry.value)).map_err(|fault| fault.inside(index))
    }
}

/// `{name: value}` for a variant that holds a value.
struct Variant<'a>(&'a Entry);

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        Ok((seed.deserialize(name(&self.0.key)).map_err(|fault| fault.inside(0))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(Reader(&self.0.value)).map_err(|fault| fault.inside(0))
    }

    fn tuple_variant<V: de::Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Reader(&self.0.value).deserialize_seq(visitor).map_err(|fault| fault.inside(0))
    }

    fn struct_variant<V: de::Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        Reader(&self.0.value).deserialize_struct("", fields, visitor).map_err(|fault| fault.inside(0))
    }
}
