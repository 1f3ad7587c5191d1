//! Records on their way into JavaScript and back.

use std::borrow::Cow;

use serde_json::Value;

use crate::JsError;

/// The value as JSON text.
pub(crate) fn written(value: &Value) -> Result<Vec<u8>, JsError> {
    check(value, "")?;
    serde_json::to_vec(value).map_err(|error| JsError::new("Error", error.to_string()))
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
            assert!(written(&value).is_ok(), "{value}");
        }
        let error = written(&json!({"a": [{"b": 9_007_199_254_740_993_i64}]})).unwrap_err();
        assert!(error.message.contains("'a[0].b'") && !error.message.contains("993"), "{error}");
    }
}
