//! Mending a damaged `s3db.json`, as s3db.js does when it connects.

use serde_json::{Map, Value, json};

use super::document::Repair;

fn note(repairs: &mut Vec<Repair>, message: impl Into<String>) {
    repairs.push(Repair { message: message.into(), unreadable: false });
}

/// The document's members. When the text is no JSON, three repairs are tried, each on the original text.
pub(super) fn parse(bytes: &[u8], repairs: &mut Vec<Repair>) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}');
    if let Ok(members) = serde_json::from_str(text) {
        return Some(members);
    }
    for (attempt, message) in [
        (without_trailing_commas as fn(&str) -> String, "removed trailing commas"),
        (with_quoted_keys, "quoted bare names"),
        (with_closed_brackets, "appended missing brackets"),
    ] {
        if let Ok(members) = serde_json::from_str(&attempt(text)) {
            note(repairs, format!("s3db.json was not valid JSON: {message}"));
            return Some(members);
        }
    }
    repairs.push(Repair {
        message: "s3db.json cannot be read: an empty document stands in for it, so that no resource is known. Keep a \
                  copy of the file and restore it from a backup"
            .into(),
        unreadable: true,
    });
    None
}

/// What stands outside of texts, piece by piece: `edit` gets each character and the rest of the text after it.
fn outside_of_texts(text: &str, mut edit: impl FnMut(&mut String, char, &str)) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c == '"' {
            quoted = true;
            out.push(c);
        } else {
            edit(&mut out, c, text.get(at + c.len_utf8()..).unwrap_or_default());
        }
    }
    out
}

fn without_trailing_commas(text: &str) -> String {
    outside_of_texts(text, |out, c, rest| {
        if !(c == ',' && rest.trim_start().starts_with(['}', ']'])) {
            out.push(c);
        }
    })
}

fn with_quoted_keys(text: &str) -> String {
    let name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    outside_of_texts(text, |out, c, rest| {
        let starts = name(c) && out.trim_end().ends_with(['{', ',']);
        let inside = name(c) && out.ends_with(name);
        let ends = || rest.trim_start_matches(name).trim_start().starts_with(':');
        if starts && ends() {
            out.push('"');
        }
        out.push(c);
        let last = !rest.starts_with(name);
        let opened = out.trim_end_matches(name).ends_with('"') && (starts || inside);
        if name(c) && last && opened && rest.trim_start().starts_with(':') {
            out.push('"');
        }
    })
}

fn with_closed_brackets(text: &str) -> String {
    let (mut curly, mut square) = (0_i64, 0_i64);
    let mut closed = outside_of_texts(text, |out, c, _| {
        match c {
            '{' => curly += 1,
            '}' => curly -= 1,
            '[' => square += 1,
            ']' => square -= 1,
            _ => {}
        }
        out.push(c);
    });
    (0..square).for_each(|_| closed.push(']'));
    (0..curly).for_each(|_| closed.push('}'));
    closed
}

/// Gives the document the shape that everything else relies on.
pub(super) fn repair(root: &mut Map<String, Value>, s3db_version: &str, repairs: &mut Vec<Repair>) {
    match root.get("version") {
        Some(Value::String(_)) => {}
        Some(Value::Number(n)) => {
            let text = n.to_string();
            root.insert("version".into(), text.into());
            note(repairs, "s3db.json: 'version' was a number");
        }
        _ => set(root, "version", "1".into(), repairs),
    }
    if !root.get("s3dbVersion").is_some_and(Value::is_string) {
        set(root, "s3dbVersion", s3db_version.into(), repairs);
    }
    if !root.get("lastUpdated").is_some_and(Value::is_string) {
        set(root, "lastUpdated", s3rep_core::Timestamp(0).to_string().into(), repairs);
    }
    if !root.get("resources").is_some_and(Value::is_object) {
        set(root, "resources", json!({}), repairs);
    }
    let Some(resources) = root.get_mut("resources").and_then(Value::as_object_mut) else { return };
    resources.retain(|name, value| {
        let kept = value.as_object_mut().is_some_and(|resource| resource_shape(name, resource, repairs));
        if !kept {
            note(repairs, format!("s3db.json: resource '{name}' has no usable definition and was left out"));
        }
        kept
    });
}

fn set(root: &mut Map<String, Value>, member: &str, value: Value, repairs: &mut Vec<Repair>) {
    root.insert(member.to_owned(), value);
    note(repairs, format!("s3db.json: '{member}' was missing"));
}

/// False when the resource cannot be used.
fn resource_shape(name: &str, resource: &mut Map<String, Value>, repairs: &mut Vec<Repair>) -> bool {
    let versions = resource.get("versions").and_then(Value::as_object);
    let Some(first) = versions.and_then(|versions| versions.keys().next()).cloned() else { return false };
    if !resource.get("currentVersion").is_some_and(Value::is_string) {
        resource.insert("currentVersion".into(), "v1".into());
        note(repairs, format!("s3db.json: 'currentVersion' of resource '{name}' was missing"));
    }
    let current = resource.get("currentVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(versions) = resource.get_mut("versions").and_then(Value::as_object_mut) else { return false };
    let current = if versions.contains_key(&current) {
        current
    } else {
        note(
            repairs,
            format!(
                "s3db.json: the current version of resource '{name}' has no definition: {first} is taken"
            ),
        );
        first
    };
    let Some(version) = versions.get_mut(&current).and_then(Value::as_object_mut) else { return false };
    if !version.get("attributes").is_some_and(Value::is_object) {
        return false;
    }
    if let Some(hooks) = version.get_mut("hooks")
        && !hooks.is_object()
    {
        *hooks = json!({});
        note(repairs, format!("s3db.json: the hooks of resource '{name}' were malformed"));
    }
    resource.insert("currentVersion".into(), current.into());
    if resource.get("partitions").is_some_and(|partitions| !partitions.is_object()) {
        resource.insert("partitions".into(), json!({}));
        note(repairs, format!("s3db.json: the partitions of resource '{name}' were malformed"));
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::format::Document;

    #[test]
    fn three_repairs_are_tried() {
        for text in [
            r#"{"version":"1","resources":{"k":{"versions":{"v1":{"attributes":{"a":"string,}"}}},}},}"#,
            r#"{version:"1", resources: {k: {"versions":{v1:{attributes:{a:"string, b: x"}}}}}}"#,
            r#"{"version":"1","resources":{"k":{"versions":{"v1":{"attributes":{"a":"string"}}"#,
        ] {
            let (document, repairs) = Document::parse(text.as_bytes());
            assert!(document.resource("k").is_some(), "{text}: {repairs:?}");
            assert!(!repairs.is_empty() && repairs.iter().all(|repair| !repair.unreadable));
        }
        let (document, repairs) = Document::parse(b"not json at all");
        assert_eq!(document.resources().count(), 0);
        assert!(repairs.iter().any(|repair| repair.unreadable));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in r#"[{}\[\]",:a-z0-9\\ ]*"#) {
            let (document, _) = Document::parse(text.as_bytes());
            let (again, repairs) = Document::parse(&document.to_bytes());
            prop_assert!(repairs.is_empty());
            prop_assert_eq!(document, again);
        }
    }
}
