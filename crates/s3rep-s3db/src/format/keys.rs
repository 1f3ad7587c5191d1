//! Object keys of records and partition references, without the database's prefix.

use s3rep_core::{Error, ErrorKind, Record, Result, Scope};
use serde_json::Value;

use super::{Entropy, ResourceFormat, js, order, time};

/// Characters that keys are made of.
const UNSAFE: [char; 4] = ['\\', '/', '=', '%'];

/// S3 takes keys of up to 1,024 bytes, so that an id may have somewhat less.
const MAX_KEY: usize = 1024;
const MAX_ID: usize = 1000;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// One partition of a resource: reference objects under its fields' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    name: String,
    fields: Vec<(String, String)>,
}

impl Partition {
    /// A partition by the fields and rules of its declaration. Keys have the fields in the order of their names.
    pub(super) fn new(name: &str, fields: impl Iterator<Item = (String, String)>) -> Self {
        let mut fields: Vec<_> = fields.collect();
        fields.sort_by(|(a, _), (b, _)| order::compare(a, b));
        Self { name: name.to_owned(), fields }
    }

    /// The partition's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its fields and their rules, in the order in which they stand in keys.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.fields.iter().map(|(field, rule)| (field.as_str(), rule.as_str()))
    }

    fn prefix(&self, resource: &str) -> String {
        format!("resource={resource}/partition={}/", self.name)
    }

    /// Whether a record has these values in the partition's fields, compared as they stand in keys.
    pub(crate) fn holds(&self, record: &Record, version: &str, values: &Record) -> bool {
        let mut given = self.fields().filter_map(|(field, rule)| Some((field, rule, values.get(field)?)));
        given.all(|(field, rule, wanted)| {
            let text = field_text(record, version, field, rule);
            text.is_some() && text == value_text(wanted, rule)
        })
    }
}

/// The text of a record's field in the key of a reference; none without a value.
fn field_text(record: &Record, version: &str, field: &str, rule: &str) -> Option<String> {
    if field == "_v" {
        return value_text(&version.into(), rule);
    }
    value_text(lookup(record, field)?, rule)
}

/// The key of a record, without the database's prefix.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when the id or the resource's name cannot stand in a key.
pub fn record_key(resource: &str, id: &str) -> Result<String> {
    check_id(id).map_err(|error| error.with_context("resource", resource))?;
    Ok(record_prefix(resource)? + id)
}

/// The prefix of every record of a resource, ending in `/id=`.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when the resource's name cannot stand in a key.
pub fn record_prefix(resource: &str) -> Result<String> {
    check_name(resource)?;
    Ok(format!("resource={resource}/data/id="))
}

/// The id in the key of a record or of a partition reference.
pub fn id_of_key(key: &str) -> Option<&str> {
    key.rsplit_once("/id=").map(|(_, id)| id).filter(|id| !id.is_empty())
}

/// Whether the id can stand in a key: not empty, at most 1,000 bytes, without `\`, `/`, `=` and `%`.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] naming the character that cannot.
pub fn check_id(id: &str) -> Result<()> {
    let problem = if id.is_empty() {
        "the id is empty".into()
    } else if id.len() > MAX_ID {
        format!("the id is longer than {MAX_ID} bytes")
    } else if let Some(found) = id.chars().find(|c| UNSAFE.contains(c)) {
        format!("the id contains the unsafe character '{found}'")
    } else if id.contains('\0') {
        "the id contains the unsafe character NUL".into()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidValue, problem)
        .with_scope(Scope::Record)
        .with_advice("use an id without \\ / = and %"))
}

/// Whether a resource's name can stand in a key.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`].
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= 200 && !name.contains(|c| UNSAFE.contains(&c) || c == '\0');
    if fits {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ConfigInvalid,
        "the resource's name is empty, too long or contains \\ / = or %",
    )
    .with_context("resource", name))
}

/// The prefix of the references of a partition for the values of its leading fields, ending in `/`. Values are
/// cut by the fields' rules as records' values are.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when a leading field has no value while a later one has, a name is not a field,
/// or a value cannot stand in a key.
pub fn partition_prefix(resource: &str, partition: &Partition, values: &[(&str, &Value)]) -> Result<String> {
    check_name(resource)?;
    let wrong = |message: &'static str| {
        Err(Error::new(ErrorKind::InvalidValue, message)
            .with_context("resource", resource)
            .with_context("partition", &partition.name))
    };
    let given = |field: &str| values.iter().find(|(name, _)| *name == field).map(|(_, value)| *value);
    if let Some((unknown, _)) =
        values.iter().find(|(name, _)| partition.fields().all(|(field, _)| field != *name))
    {
        return wrong("the partition has no such field")
            .map_err(|error: Error| error.with_context("field", unknown));
    }
    let mut key = partition.prefix(resource);
    let mut count = 0;
    for (field, rule) in partition.fields() {
        let Some(text) = given(field).and_then(|value| value_text(value, rule)) else { break };
        key.push_str(&format!("{field}={text}/"));
        count += 1;
    }
    if count < values.len() {
        return wrong("a value is null, or a field before it has no value").map_err(|error| {
            error.with_advice("give values for the leading fields, in the order of their names")
        });
    }
    let joined = join(key.trim_end_matches('/')) + "/";
    if joined.starts_with(&partition.prefix(resource)) {
        Ok(joined)
    } else {
        wrong("a value leaves the partition")
    }
}

/// A random id of `size` characters of `A-Z a-z 0-9 _ -`.
pub fn new_id(entropy: &mut dyn Entropy, size: usize) -> String {
    let mut bytes = vec![0; size.clamp(1, MAX_ID)];
    entropy.fill(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect()
}

impl ResourceFormat {
    /// The keys of the record's partition references, without the database's prefix. A partition without a
    /// value for each of its fields has no reference.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when a value would leave its partition, for its parts such as `/../`, or is too
    /// long for a key.
    pub fn partition_keys(&self, id: &str, record: &Record) -> Result<Vec<String>> {
        check_id(id).map_err(|error| error.with_context("resource", self.name()))?;
        let mut keys = Vec::new();
        'partitions: for partition in self.partitions() {
            let prefix = partition.prefix(self.name());
            let mut key = prefix.clone();
            for (field, rule) in partition.fields() {
                let Some(text) = field_text(record, self.version(), field, rule) else {
                    continue 'partitions;
                };
                key.push_str(&format!("{field}={text}/"));
            }
            // an id of `.` or `..` is a name like any other once it stands behind `id=`
            let key = join(&format!("{key}id={id}"));
            if !key.starts_with(&prefix) || !key.ends_with(&format!("/id={id}")) {
                return Err(Error::new(ErrorKind::InvalidValue, "a value leaves its partition")
                    .with_scope(Scope::Record)
                    .with_context("resource", self.name())
                    .with_context("id", id)
                    .with_context("partition", partition.name())
                    .with_advice("use values without /../ in fields that partition"));
            }
            if key.len() > MAX_KEY {
                return Err(Error::new(
                    ErrorKind::InvalidValue,
                    "a value is too long for a partition: keys have up to 1,024 bytes",
                )
                .with_scope(Scope::Record)
                .with_context("resource", self.name())
                .with_context("id", id)
                .with_context("partition", partition.name())
                .with_advice("shorten it, or cut it in keys with a rule such as string|maxlength:100"));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

/// The value of a field, dotted names leading into objects.
fn lookup<'a>(record: &'a Record, field: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(field) {
        return Some(value);
    }
    let mut parts = field.split('.');
    parts.clone().nth(1)?;
    let first = record.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// The text of a value in a key; none for null.
fn value_text(value: &Value, rule: &str) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let text = js::string(value);
    if !value.is_string() {
        return Some(text);
    }
    let cut = rule.split('|').find_map(|part| part.trim().strip_prefix("maxlength:")?.parse().ok());
    let text = cut.map_or(text.as_str(), |units| js::cut(&text, units));
    if !rule.contains("date") {
        return Some(text.to_owned());
    }
    let day = match text.split_once('T') {
        Some((day, rest)) if rest.contains('Z') || day.contains('Z') => Some(day.to_owned()),
        _ => time::day(&Value::from(text)).and_then(time::date),
    };
    Some(day.unwrap_or_else(|| text.to_owned()))
}

/// A key as path-join leaves it: no empty parts, `.` and `..` resolved.
fn join(key: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_cut_by_their_rule() {
        for (rule, value, text) in [
            ("date|maxlength:10", json!("2024-05-06T23:59:59.999Z"), "2024-05-06"),
            ("date", json!("2024-05-06T23:59:59.999Z"), "2024-05-06"),
            ("string|maxlength:7", json!("2024-05-06T23:59:59.999Z"), "2024-05"),
            ("date", json!("2023-12-31"), "2023-12-31"),
            ("date", json!("no day"), "no day"),
            ("number", json!(1.5), "1.5"),
            ("number", json!(0), "0"),
            ("boolean", json!(false), "false"),
            ("string|maxlength:2", json!("a😀b"), "a"),
        ] {
            assert_eq!(value_text(&value, rule).as_deref(), Some(text), "{rule}");
        }
    }

    #[test]
    fn prefixes_end_in_a_slash_and_take_leading_fields() {
        let fields = [("status", "string"), ("region", "string")].map(|(f, r)| (f.to_owned(), r.to_owned()));
        let partition = Partition::new("byBoth", fields.into_iter());
        let (us, on) = (json!("US"), json!("on"));
        let prefix = |values: &[(&str, &Value)]| partition_prefix("items", &partition, values).ok();
        assert_eq!(prefix(&[]).as_deref(), Some("resource=items/partition=byBoth/"));
        assert_eq!(prefix(&[("region", &us)]).as_deref(), Some("resource=items/partition=byBoth/region=US/"));
        let both = prefix(&[("status", &on), ("region", &us)]);
        assert_eq!(both.as_deref(), Some("resource=items/partition=byBoth/region=US/status=on/"));
        assert_eq!(prefix(&[("status", &on)]), None);
        assert_eq!(prefix(&[("other", &on)]), None);
        assert_eq!(prefix(&[("region", &json!("x/../../../data"))]), None);
    }

    #[test]
    fn ids_are_checked() {
        for id in ["a/b", "a=b", "a%b", "a\\b", ""] {
            assert!(record_key("items", id).is_err(), "{id}");
        }
        for id in ["with space", "ünï-😀", "a+b&c?d#e", "..", "."] {
            assert_eq!(record_key("items", id).unwrap(), format!("resource=items/data/id={id}"));
        }
    }
}
