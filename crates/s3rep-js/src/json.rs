//! Records on their way into JavaScript and back.

use std::borrow::Cow;

use rquickjs::{Array, Ctx, Object, Value as Js, object::Property};
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

/// What `JSON.stringify` makes of the value, `None` for undefined.
pub(crate) fn from_js<'js>(cx: &Ctx<'js>, value: Js<'js>) -> Result<Option<Value>, JsError> {
    if let Ok(plain) = plain(&value, DEPTH) {
        return Ok(plain);
    }
    // Dates, boxed values, what has a toJSON of its own, what cannot be printed: the engine knows best.
    let failed = |error| JsError::thrown(cx, &error);
    let text = cx.json_stringify(value).map_err(failed)?;
    let Some(text) = text else { return Ok(None) };
    read(&text.to_string().map_err(failed)?).map(Some)
}

/// The value is not plain data, or cannot be read.
struct Special;

impl From<rquickjs::Error> for Special {
    fn from(_: rquickjs::Error) -> Self {
        Self
    }
}

/// Values that are plain data, which most are.
fn plain(value: &Js<'_>, depth: usize) -> Result<Option<Value>, Special> {
    use rquickjs::Type;
    let left = depth.checked_sub(1).ok_or(Special)?;
    Ok(Some(match value.type_of() {
        Type::Undefined | Type::Symbol | Type::Function | Type::Constructor => return Ok(None),
        Type::Null => Value::Null,
        Type::Bool => Value::Bool(value.as_bool().ok_or(Special)?),
        Type::Int => value.as_int().ok_or(Special)?.into(),
        Type::Float => number(value.as_float().ok_or(Special)?),
        Type::String => Value::String(value.as_string().ok_or(Special)?.to_string()?),
        Type::Array => {
            let array = value.as_array().ok_or(Special)?;
            is_plain(array.as_object())?;
            let mut items = Vec::with_capacity(array.len());
            for item in array.iter::<Js<'_>>() {
                items.push(plain(&item?, left)?.unwrap_or(Value::Null));
            }
            Value::Array(items)
        }
        Type::Object => {
            let object = value.as_object().ok_or(Special)?;
            is_plain(object)?;
            let mut members = Map::new();
            for member in object.props::<String, Js<'_>>() {
                let (name, member) = member?;
                if let Some(member) = plain(&member, left)? {
                    members.insert(name, member);
                }
            }
            Value::Object(members)
        }
        _ => return Err(Special),
    }))
}

/// Nothing but its members says what it is in JSON.
fn is_plain(object: &Object<'_>) -> Result<(), Special> {
    let has_own_idea = object.contains_key("toJSON")?;
    let prototype = object.get_prototype();
    let is_usual = prototype.is_none_or(|prototype| prototype.get_prototype().is_none()) || object.is_array();
    if has_own_idea || !is_usual { Err(Special) } else { Ok(()) }
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

fn is_double(number: &serde_json::Number) -> bool {
    const SAFE: u64 = 1 << 53;
    match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => {
            integer.unsigned_abs() <= SAFE || (integer as f64) as i128 == i128::from(integer)
        }
        (None, Some(integer)) => (integer as f64) as i128 == i128::from(integer),
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
        for value in [json!(1_u64 << 53), json!(u64::MAX - 2047), json!(-5), json!(1e300), json!([1.5])] {
            assert!(check(&value, "").is_ok(), "{value}");
        }
        let error = check(&json!({"a": [{"b": 9_007_199_254_740_993_i64}]}), "").unwrap_err();
        assert!(error.message.contains("'a[0].b'") && !error.message.contains("993"), "{error}");
    }
}
