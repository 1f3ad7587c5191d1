//! What JavaScript does with values: number text, string conversion, trimming, member order, JSON text.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

/// The largest integer that a double counts without gaps: 2^53.
pub(super) const SAFE: f64 = 9_007_199_254_740_992.0;

/// Deepest nesting of a record or document; serde_json refuses to read deeper text.
pub(super) const MAX_DEPTH: usize = 120;

/// The shortest text that reads back as the same double, as JavaScript prints it.
pub(super) fn number_text(n: f64) -> String {
    if n.is_nan() {
        return "NaN".into();
    }
    if n.is_infinite() {
        return if n > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    if n == 0.0 {
        return "0".into();
    }
    ryu_js::Buffer::new().format(n).to_owned()
}

/// A double as a JSON value: integers up to 2^53 are JSON integers, `-0` is `0`, and what JSON cannot hold
/// (`NaN`, `Infinity`) is null, as `JSON.stringify` has it.
pub(super) fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() <= SAFE {
        // exact: an integer within 2^53
        return Value::from(n as i64);
    }
    Number::from_f64(n).map_or(Value::Null, Value::Number)
}

/// The double that a JSON number is in JavaScript, when that keeps every digit.
pub(super) fn exact(n: &Number) -> Option<f64> {
    let double = n.as_f64()?;
    let same = if let Some(i) = n.as_i64() {
        double as i128 == i128::from(i)
    } else if let Some(u) = n.as_u64() {
        double as u128 == u128::from(u)
    } else {
        true
    };
    same.then_some(double)
}

/// Whether an integer above 2^53 is what JavaScript prints of a double: its digits beyond the seventeenth are
/// zeros that the double does not have. Any other integer of that size is not JavaScript's, and stays.
pub(super) fn is_printed_double(n: &Number) -> bool {
    n.as_f64().is_some_and(|double| double.abs() > SAFE && number_text(double) == n.to_string())
}

/// Whether every number of the value is one that JavaScript holds, and the value is not nested too deeply.
pub(super) fn holds(value: &Value, depth: usize) -> bool {
    match value {
        Value::Number(n) => exact(n).is_some(),
        Value::Array(items) => depth < MAX_DEPTH && items.iter().all(|item| holds(item, depth + 1)),
        Value::Object(members) => depth < MAX_DEPTH && members.values().all(|value| holds(value, depth + 1)),
        _ => true,
    }
}

/// Equality as a reader sees it: `1` and `1.0` are the same number; the order of members does not count.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// `String(value)`.
pub(super) fn string(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => number_text(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts = items.iter().map(|item| if item.is_null() { String::new() } else { string(item) });
            texts.collect::<Vec<_>>().join(",")
        }
        Value::Object(_) => "[object Object]".into(),
    }
}

/// `Number(text)` for text that is a decimal number, with white space around it allowed.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let text = trim(text);
    let plain = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if text.is_empty() || !text.bytes().all(|b| plain(&b)) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

/// `text.trim()`: white space and line ends of ECMAScript.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

/// `text.length`: UTF-16 code units.
pub(super) fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

/// The first `units` UTF-16 code units; a surrogate pair that would be cut apart is left out.
pub(super) fn cut(text: &str, units: usize) -> &str {
    let mut left = units;
    for (at, c) in text.char_indices() {
        let Some(rest) = left.checked_sub(c.len_utf16()) else {
            return text.get(..at).unwrap_or(text);
        };
        left = rest;
    }
    text
}

/// The number that a member name is, when JavaScript orders it before all textual names.
pub(super) fn array_index(name: &str) -> Option<u32> {
    let digits = name.len() <= 10 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && (name.len() == 1 || !name.starts_with('0'));
    if canonical { name.parse().ok().filter(|n| *n != u32::MAX) } else { None }
}

/// Orders items as JavaScript enumerates members of these names: integers ascending, then the rest as given.
pub(super) fn order_members<T>(items: &mut [T], name: impl Fn(&T) -> &str) {
    items.sort_by_key(|item| array_index(name(item)).map_or((1, 0), |index| (0, index)));
}

/// The members in JavaScript's order.
pub(super) fn members(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    order_members(&mut members, |(name, _)| name.as_str());
    members
}

/// How to write JSON text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Compact,
    /// Two spaces.
    Pretty,
    /// Members sorted by code unit at every depth.
    Canonical,
}

/// `JSON.stringify(value)`.
pub(super) fn json(value: &Value) -> String {
    let mut text = String::new();
    write_json(&mut text, value, Style::Compact, 0);
    text
}

/// `JSON.stringify(value, null, 2)`.
pub(super) fn pretty(members: &Map<String, Value>) -> String {
    let mut text = String::new();
    write_members(&mut text, members, Style::Pretty, 0);
    text
}

/// JSON text with sorted members, as definition hashes are made of.
pub(super) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_json(&mut text, value, Style::Canonical, 0);
    text
}

/// `JSON.stringify` of these members, in JavaScript's order.
pub(super) fn json_of<'a>(members: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let mut members: Vec<_> = members.collect();
    order_members(&mut members, |(name, _)| name);
    let mut text = String::from("{");
    for (i, (name, value)) in members.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        quote(&mut text, name);
        text.push(':');
        write_json(&mut text, value, Style::Compact, 1);
    }
    text.push('}');
    text
}

fn write_json(out: &mut String, value: &Value, style: Style, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        // integers beyond 2^53 keep their digits: a reader of ours reads them exactly
        Value::Number(n) if n.is_f64() => out.push_str(&number_text(n.as_f64().unwrap_or(0.0))),
        Value::Number(n) => {
            let _ = write!(out, "{n}");
        }
        Value::String(text) => quote(out, text),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                indent(out, style, depth + 1);
                write_json(out, item, style, depth + 1);
            }
            indent(out, style, depth);
            out.push(']');
        }
        Value::Object(members) => write_members(out, members, style, depth),
    }
}

fn write_members(out: &mut String, map: &Map<String, Value>, style: Style, depth: usize) {
    if map.is_empty() {
        out.push_str("{}");
        return;
    }
    let mut members = members(map);
    if style == Style::Canonical {
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    for (i, (name, value)) in members.into_iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        indent(out, style, depth + 1);
        quote(out, name);
        out.push_str(if style == Style::Pretty { ": " } else { ":" });
        write_json(out, value, style, depth + 1);
    }
    indent(out, style, depth);
    out.push('}');
}

fn indent(out: &mut String, style: Style, depth: usize) {
    if style == Style::Pretty {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    }
}

/// JSON text of a string. Both languages escape `"`, `\` and control characters the same way.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_that_javascript_printed_are_doubles() {
        let is_printed = |text: &str| is_printed_double(&text.parse().unwrap());
        // the double is 123456789012345677
        assert!(is_printed("123456789012345680") && is_printed("9007199254740994"));
        assert!(!is_printed("123456789012345677") && !is_printed("9007199254740993"));
        assert!(!is_printed("9007199254740992") && !is_printed("5"));
    }

    #[test]
    fn numbers_print_as_javascript_prints_them() {
        for (n, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (0.000_001, "0.000001"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(number_text(n), text);
        }
    }

    #[test]
    fn integers_stay_integers() {
        assert_eq!(number(18.0), json!(18));
        assert_eq!(number(-0.0), json!(0));
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number(1.5), json!(1.5));
        assert!(exact(json!(9_007_199_254_740_993_u64).as_number().unwrap()).is_none());
        assert!(exact(json!(u64::MAX).as_number().unwrap()).is_none());
        assert!(exact(json!(i64::MIN).as_number().unwrap()).is_some());
    }

    #[test]
    fn members_are_enumerated_integers_first() {
        let map = json!({"b": 1, "10": 2, "2": 3, "01": 4, "a": 5});
        assert_eq!(json(&map), r#"{"2":3,"10":2,"b":1,"01":4,"a":5}"#);
        assert_eq!(canonical(&map), r#"{"01":4,"10":2,"2":3,"a":5,"b":1}"#);
        assert_eq!(
            pretty(json!({"a": {}, "b": [1]}).as_object().unwrap()),
            "{\n  \"a\": {},\n  \"b\": [\n    1\n  ]\n}"
        );
    }

    #[test]
    fn text_is_trimmed_and_cut_as_in_javascript() {
        assert_eq!(trim("\u{feff}\u{a0} x \u{85}"), "x \u{85}");
        assert_eq!(cut("a😀b", 2), "a");
        assert_eq!(cut("a😀b", 3), "a😀");
        assert_eq!(cut("ab", 9), "ab");
    }
}
