//! Fields and lines of RFC 4180.

use serde_json::Value;

/// Appends a field; `None` is null, which is empty without quotes.
pub(crate) fn push_field(line: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return };
    let needs_quotes = text.is_empty() || text.contains(['"', ',', '\n', '\r']);
    if !needs_quotes {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    line.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}

/// What a value is in a field.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    }
}

/// The fields of one record, without its line end. `None` when the quotes do not fit.
pub(crate) fn fields(record: &str) -> Option<Vec<Option<String>>> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (text, after) = quoted_field(quoted)?;
                (Some(text), after)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let text = &rest[..end];
                if text.contains('"') {
                    return None;
                }
                ((!text.is_empty()).then(|| text.to_owned()), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted_field(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = quoted;
    loop {
        let quote = rest.find('"')?;
        text.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Some((text, rest)),
        }
    }
}

/// Whether the bytes hold whole records: no quote is left open.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'"').count() % 2 == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(fields: &[Option<String>]) -> Vec<u8> {
        let mut line = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            if i > 0 {
                line.push(b',');
            }
            push_field(&mut line, field.as_deref());
        }
        line
    }

    #[test]
    fn null_and_empty_text_differ() {
        let written = line(&[None, Some(String::new()), Some("a".into()), Some("x,\"y\"\n".into()), None]);
        assert_eq!(String::from_utf8(written).unwrap(), ",\"\",a,\"x,\"\"y\"\"\n\",");
        for broken in ["a\"b", "\"a", "\"a\"b", "\"a\" ,b"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn fields_come_back(list in prop::collection::vec(prop::option::of("[a\",\r\n\0 é]{0,6}"), 1..6)) {
            let written = line(&list);
            prop_assert!(is_complete(&written));
            prop_assert_eq!(fields(std::str::from_utf8(&written).unwrap()).unwrap(), list);
        }

        #[test]
        fn nonsense_does_not_panic(text in "\\PC{0,40}|[a\",\n]{0,20}") {
            let _ = fields(&text);
        }
    }
}
