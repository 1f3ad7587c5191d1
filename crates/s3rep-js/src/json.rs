//! Records on their way into JavaScript and back.

use std::borrow::Cow;

use rquickjs::{Array, Ctx, Function, Object, Type, Value as Js, function::This, object::Property};
use serde_json::{Map, Value};

use crate::JsError;

/// The value in a realm. It shares nothing with the one that is given.
pub(crate) fn into_js<'js>(cx: &Ctx<'js>, value: &Value) -> Result<Js<'js>, JsError> {
    check(value, "")?;
    made(cx, value).map_err(|error| JsError::thrown(cx, &error))
}

fn made<'js>(cx: &Ctx<'js>, value: &Value) -> rquickjs::Result<Js<'js>> {
    Ok(match value {
        Value::Null => Js::new_null(cx.clone()),
        Value::Bool(truth) => Js::new_bool(cx.clone(), *truth),
        Value::Number(number) => match number.as_i64().and_then(|integer| i32::try_from(integer).ok()) {
            Some(integer) => Js::new_int(cx.clone(), integer),
            None => Js::new_float(cx.clone(), number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => rquickjs::String::from_str(cx.clone(), text)?.into_value(),
        Value::Array(items) => {
            let array = Array::new(cx.clone())?;
            for (i, item) in items.iter().enumerate() {
                array.set(i, made(cx, item)?)?;
            }
            array.into_value()
        }
        Value::Object(members) => {
            let object = Object::new(cx.clone())?;
            for (name, member) in members {
                let member = made(cx, member)?;
                // Set, it would be another object's prototype.
                if name == "__proto__" {
                    object.prop(&**name, Property::from(member).writable().enumerable().configurable())?;
                } else {
                    object.set(&**name, member)?;
                }
            }
            object.into_value()
        }
    })
}

/// As deep as JSON text may be that others read.
const DEPTH: usize = 128;
/// What a value takes beside its text, about.
const WEIGHT: usize = 32;

/// What `JSON.stringify` makes of the value, `None` for undefined, in at most so many bytes.
pub(crate) fn from_js<'js>(cx: &Ctx<'js>, value: Js<'js>, room: usize) -> Result<Option<Value>, JsError> {
    Walk { cx, room, above: Vec::new() }.value(value, "")
}

/// A value is met as often as it is referred to: what is small in the engine may be endless here.
struct Walk<'a, 'js> {
    cx: &'a Ctx<'js>,
    room: usize,
    /// The objects that hold the one that is looked at.
    above: Vec<Js<'js>>,
}

impl<'js> Walk<'_, 'js> {
    fn value(&mut self, value: Js<'js>, key: &str) -> Result<Option<Value>, JsError> {
        self.take(WEIGHT)?;
        Ok(Some(match value.type_of() {
            Type::Undefined | Type::Symbol | Type::Function | Type::Constructor => return Ok(None),
            Type::Null => Value::Null,
            Type::Bool => Value::Bool(value.as_bool().unwrap_or_default()),
            Type::Int => value.as_int().unwrap_or_default().into(),
            Type::Float => number(value.as_float().unwrap_or_default()),
            Type::String => return self.text(value),
            Type::BigInt => return Err(JsError::new("TypeError", "BigInt is not in JSON")),
            Type::Array | Type::Object | Type::Exception => return self.object(value, key),
            // Only the engine looks through the others.
            _ => return self.printed(value),
        }))
    }

    fn take(&mut self, bytes: usize) -> Result<(), JsError> {
        let too_large = || JsError::new(JsError::MEMORY, "the result is too large");
        self.room = self.room.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    fn text(&mut self, value: Js<'js>) -> Result<Option<Value>, JsError> {
        let text = value.as_string().map(rquickjs::String::to_string);
        let Some(Ok(text)) = text else { return self.printed(value) };
        self.take(text.len())?;
        Ok(Some(Value::String(text)))
    }

    fn object(&mut self, value: Js<'js>, key: &str) -> Result<Option<Value>, JsError> {
        let Some(object) = value.as_object() else { return self.printed(value) };
        if self.above.len() >= DEPTH {
            return Err(match self.above.contains(&value) {
                true => JsError::new("TypeError", "circular reference"),
                false => JsError::new("InvalidReturn", "the result is nested deeper than 128 levels"),
            });
        }
        let own_idea: Js<'js> = object.get("toJSON").map_err(|error| self.failed(&error))?;
        if let Some(own_idea) = own_idea.into_function() {
            let other: Js<'js> =
                own_idea.call((This(object.clone()), key)).map_err(|error| self.failed(&error))?;
            // What it gives is not asked again.
            return if other.is_object() && !other.is_function() {
                self.members(other)
            } else {
                self.value(other, key)
            };
        }
        if self.is_boxed(object)? { self.printed(value) } else { self.members(value) }
    }

    fn members(&mut self, value: Js<'js>) -> Result<Option<Value>, JsError> {
        let Some(object) = value.as_object().cloned() else { return self.printed(value) };
        self.above.push(value);
        let made = if object.is_array() { self.items(&object) } else { self.properties(&object) };
        self.above.pop();
        made.map(Some)
    }

    fn items(&mut self, array: &Object<'js>) -> Result<Value, JsError> {
        let length: f64 = array.get("length").map_err(|error| self.failed(&error))?;
        let mut items = Vec::new();
        let mut i: u32 = 0;
        while f64::from(i) < length {
            let item = array.get(i).map_err(|error| self.failed(&error))?;
            items.push(self.value(item, &i.to_string())?.unwrap_or(Value::Null));
            i += 1;
        }
        Ok(Value::Array(items))
    }

    fn properties(&mut self, object: &Object<'js>) -> Result<Value, JsError> {
        let mut members = Map::new();
        for member in object.props::<String, Js<'js>>() {
            let (name, member) = member.map_err(|error| self.failed(&error))?;
            if let Some(member) = self.value(member, &name)? {
                self.take(name.len())?;
                members.insert(name, member);
            }
        }
        Ok(Value::Object(members))
    }

    /// A number, text or truth as an object, or JSON text as it is to be: without members of their own.
    fn is_boxed(&self, object: &Object<'js>) -> Result<bool, JsError> {
        let Some(prototype) = object.get_prototype() else {
            return object.contains_key("rawJSON").map_err(|error| self.failed(&error));
        };
        if object.is_array() || prototype.get_prototype().is_none() {
            return Ok(false);
        }
        let inner: Result<Function<'js>, _> = object.get("valueOf");
        let inner = inner.and_then(|value_of| value_of.call::<_, Js<'js>>((This(object.clone()),)));
        Ok(inner.map_err(|error| self.failed(&error)).is_ok_and(|inner| !inner.is_object()))
    }

    /// As the engine prints it.
    fn printed(&mut self, value: Js<'js>) -> Result<Option<Value>, JsError> {
        let text = self.cx.json_stringify(value).map_err(|error| self.failed(&error))?;
        let Some(text) = text else { return Ok(None) };
        let text = text.to_string().map_err(|error| self.failed(&error))?;
        self.take(text.len())?;
        read(&text).map(Some)
    }

    fn failed(&self, error: &rquickjs::Error) -> JsError {
        JsError::thrown(self.cx, error)
    }
}

/// As JSON has them: whole ones without a fraction.
fn number(number: f64) -> Value {
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE {
        return (number as i64).into();
    }
    serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// Refuses integers that would be others on the way.
fn check(value: &Value, path: &str) -> Result<(), JsError> {
    let is_exact = match value {
        Value::Array(items) => {
            return items.iter().enumerate().try_for_each(|(i, item)| match item {
                Value::Number(_) | Value::Array(_) | Value::Object(_) => check(item, &format!("{path}[{i}]")),
                _ => Ok(()),
            });
        }
        Value::Object(members) => {
            return members.iter().try_for_each(|(name, member)| match member {
                Value::Array(_) | Value::Object(_) => check(member, &format!("{path}.{name}")),
                Value::Number(number) if !is_double(number) => check(member, &format!("{path}.{name}")),
                _ => Ok(()),
            });
        }
        Value::Number(number) => is_double(number),
        _ => true,
    };
    if is_exact {
        return Ok(());
    }
    let path = path.trim_start_matches('.');
    Err(JsError::new("RangeError", format!("the number at '{path}' has more digits than JavaScript keeps")))
}

/// Doubles beyond hold some integers, which JSON prints with other digits.
fn is_double(number: &serde_json::Number) -> bool {
    const SAFE: u64 = 1 << 53;
    match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => integer.unsigned_abs() <= SAFE,
        (None, Some(_)) => false,
        (None, None) => true,
    }
}

/// The value of JSON text that `JSON.stringify` made.
pub(crate) fn read(text: &str) -> Result<Value, JsError> {
    serde_json::from_str(&well_formed(text))
        .map_err(|_| JsError::new("InvalidReturn", "the result is nested deeper than 128 levels"))
}

/// Half of a character of two parts stands in the text as an escape. No text of a record has it.
fn well_formed(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        // Whole characters are written as they are, so this one is alone.
        let taken = if escape.starts_with("\\ud") {
            out.push_str("\\ufffd");
            6
        } else {
            let taken = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&escape[..taken]);
            taken
        };
        rest = &escape[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn halves_of_characters_are_replaced_and_nothing_else() {
        for (text, expected) in [
            (r#""\ud83d""#, json!("\u{fffd}")),
            (r#""a\\ud83d\"\\\ude00b""#, json!("a\\ud83d\"\\\u{fffd}b")),
            ("\"\u{1f98a}\\n\"", json!("\u{1f98a}\n")),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn integers_that_are_no_doubles_are_refused_by_their_place() {
        for value in [json!(1_u64 << 53), json!(-5), json!(1e300), json!([1.5])] {
            assert!(check(&value, "").is_ok(), "{value}");
        }
        let error = check(&json!({"a": [{"b": 9_007_199_254_740_993_i64}]}), "").unwrap_err();
        assert!(error.message.contains("'a[0].b'") && !error.message.contains("993"), "{error}");
    }
}
