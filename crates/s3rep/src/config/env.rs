//! `${NAME}` in values.
//!
//! It is put in after the syntax has been read, so that a value can never become syntax, and only in values,
//! never in keys.

use super::{
    node::{Kind, Node},
    problem::{Place, Problems, shown},
};

/// Where `${NAME}` is looked up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text grows to no more than this.
const MAX_TEXT: usize = 1 << 20;

/// Replaces every `${NAME}` and `${NAME:-default}`; `$$` is a literal `$`. What was put in is added to
/// `secrets`, because any of it may be one.
pub(crate) fn substitute(
    node: &mut Node,
    env: Lookup<'_>,
    secrets: &mut Vec<String>,
    problems: &mut Problems,
) {
    if let Kind::Text(text) = &node.kind
        && text.contains('$')
    {
        match replace(text, env, secrets) {
            Ok((text, from_env)) => {
                if from_env {
                    secrets.push(text.clone());
                }
                node.from_env = from_env;
                node.kind = Kind::Text(text);
            }
            Err(faults) => {
                for (message, help) in faults {
                    problems.at(node.place, message, help);
                }
                *node = hole_like(node.place, node.id);
            }
        }
    }
    for child in node.children_mut() {
        substitute(child, env, secrets, problems);
    }
}

fn hole_like(place: Place, id: u32) -> Node {
    Node { id, ..Node::hole(place) }
}

type Faults = Vec<(String, String)>;

fn replace(text: &str, env: Lookup<'_>, secrets: &mut Vec<String>) -> Result<(String, bool), Faults> {
    let mut out = String::with_capacity(text.len());
    let mut faults = Faults::new();
    let mut from_env = false;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((reference, after)) = after.split_once('}') else {
                faults
                    .push(("'${' without '}'".into(), "close it, or write '$${' for a literal '${'".into()));
                break;
            };
            rest = after;
            match value_of(reference, env) {
                Ok(value) => {
                    from_env = true;
                    out.push_str(&value);
                    secrets.push(value);
                }
                Err(fault) => faults.push(fault),
            }
        } else {
            out.push('$');
        }
        if out.len() > MAX_TEXT {
            faults.push((
                "the text is longer than 1 MiB with the environment put in".into(),
                "shorten the variable".into(),
            ));
            break;
        }
    }
    out.push_str(rest);
    if faults.is_empty() { Ok((out, from_env)) } else { Err(faults) }
}

fn value_of(reference: &str, env: Lookup<'_>) -> Result<String, (String, String)> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && shown(name).is_some();
    if !is_name {
        return Err((
            "'${…}' does not hold the name of an environment variable".into(),
            "write '${NAME}' or '${NAME:-default}', and '$${' for a literal '${'".into(),
        ));
    }
    // As in a shell, a default also stands in for an empty variable.
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err((
            format!("the environment variable '{name}' is not set"),
            format!("set it, or give a default: ${{{name}:-…}}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(String, bool), Faults> {
        let env = |name: &str| match name {
            "A" => Some("a ${B} \"\n- x: y".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        replace(text, &env, &mut Vec::new())
    }

    #[test]
    fn values_are_put_in_once_and_as_they_are() {
        for (text, expected, from_env) in [
            ("plain $5 and $", "plain $5 and $", false),
            ("$$ $${A}", "$ ${A}", false),
            ("<${A}>", "<a ${B} \"\n- x: y>", true),
            ("${NO:-fall back}", "fall back", true),
            ("${EMPTY:-x}${EMPTY}", "x", true),
            ("${NO:-}", "", true),
        ] {
            assert_eq!(of(text).unwrap(), (expected.to_owned(), from_env), "{text}");
        }
    }

    #[test]
    fn every_bad_reference_is_told() {
        assert_eq!(of("${NO} ${record.name} ${ALSO_NO} ${").unwrap_err().len(), 4);
    }
}
