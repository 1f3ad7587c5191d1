//! Records to rows: every value exactly, or not at all.

use libsql::Value as Sql;
use s3rep_core::{ColumnShape, Error, ErrorKind, Record, ResourceSchema, Result, RowChange, Scope};
use s3rep_sql::{Affinity, FittedColumn, Role, TypeClass};
use serde_json::{Number, Value};

/// A column that is written, with what has to be known for each value.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) role: Role,
    pub(crate) name: String,
    affinity: Affinity,
    nullable: bool,
    is_json: bool,
}

impl Target {
    pub(crate) fn new(column: &FittedColumn, schema: &ResourceSchema) -> Self {
        let FittedColumn { role, shape: ColumnShape { name, type_name, nullable, .. } } = column;
        let is_json = match role {
            Role::Attribute(index) => {
                schema.attributes.get(*index).is_some_and(|a| TypeClass::of(a) == TypeClass::Json)
            }
            _ => false,
        };
        Self {
            role: *role,
            name: name.clone(),
            affinity: Affinity::of(type_name),
            nullable: *nullable,
            is_json,
        }
    }

    /// The value as the column stores it.
    pub(crate) fn value(&self, value: &Value) -> Result<Sql, &'static str> {
        let affinity = self.affinity;
        match value {
            Value::Null => Ok(Sql::Null),
            Value::Bool(truth) => Ok(match affinity {
                Affinity::Text => Sql::Text(truth.to_string()),
                Affinity::Real => Sql::Real(if *truth { 1.0 } else { 0.0 }),
                _ => Sql::Integer((*truth).into()),
            }),
            Value::Number(number) => encode_number(number, affinity),
            Value::String(text) if self.is_json => Ok(Sql::Text(Value::from(text.as_str()).to_string())),
            Value::String(text) => encode_text(text, affinity),
            Value::Array(_) | Value::Object(_) => encode_text(&value.to_string(), affinity),
        }
    }
}

fn encode_number(number: &Number, affinity: Affinity) -> Result<Sql, &'static str> {
    const ROUNDED: &str = "the column holds doubles, and the integer would be rounded";
    if affinity == Affinity::Text {
        return Ok(Sql::Text(number.to_string()));
    }
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if let Some(integer) = integer {
        if affinity == Affinity::Real {
            let double = integer as f64;
            return if double as i128 == integer { Ok(Sql::Real(double)) } else { Err(ROUNDED) };
        }
        let integer =
            i64::try_from(integer).map_err(|_| "the integer has more than 64 bits with its sign")?;
        return Ok(Sql::Integer(integer));
    }
    // Zero has no sign in SQLite: -0 is stored, and read back, as the 0 that it equals.
    let double = number.as_f64().ok_or("the number is not a double")? + 0.0;
    let is_whole = double.fract() == 0.0 && double.abs() < 9_223_372_036_854_775_808.0;
    Ok(match affinity {
        Affinity::Integer | Affinity::Numeric if is_whole => Sql::Integer(double as i64),
        _ => Sql::Real(double),
    })
}

fn encode_text(text: &str, affinity: Affinity) -> Result<Sql, &'static str> {
    match affinity {
        Affinity::Text | Affinity::Blob => Ok(Sql::Text(text.to_owned())),
        Affinity::Numeric if looks_numeric(text) => Err("SQLite would turn the text into a number"),
        Affinity::Numeric => Ok(Sql::Text(text.to_owned())),
        Affinity::Integer | Affinity::Real => Err("the column holds numbers, and the value is text"),
    }
}

/// Whether SQLite may take the text for a number. Says yes too often rather than too seldom.
fn looks_numeric(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && text.parse::<f64>().is_ok()
}

/// The row of a change in the order of `targets`, and how many members of the record have no column.
pub(crate) fn row(
    targets: &[Target],
    schema: &ResourceSchema,
    change: &RowChange,
) -> Result<(Vec<Sql>, usize)> {
    let record = change.record.as_deref();
    let mut row = Vec::with_capacity(targets.len());
    let mut found = 0;
    for target in targets {
        row.push(match target.role {
            Role::Key => Sql::Text(change.key.to_string()),
            Role::Operation => Sql::Text(change.operation.as_str().to_owned()),
            Role::ChangeId => Sql::Text(change.change_id.to_string()),
            Role::ChangedAt => Sql::Text(change.timestamp.to_string()),
            Role::Attribute(index) => match member(schema, index, record) {
                Some((name, value)) => {
                    found += 1;
                    target.value(value).map_err(|reason| refusal(name, target, reason))?
                }
                None => Sql::Null,
            },
            // The database fills them; SQLite's tables have none.
            Role::Row | Role::CreatedAt | Role::UpdatedAt => Sql::Null,
        });
    }
    let members = record.map_or(0, |record| record.len() - usize::from(record.contains_key(s3rep_sql::KEY)));
    Ok((row, members.saturating_sub(found)))
}

fn member<'a>(
    schema: &'a ResourceSchema,
    index: usize,
    record: Option<&'a Record>,
) -> Option<(&'a str, &'a Value)> {
    let name = schema.attributes.get(index)?.name.as_str();
    Some((name, record?.get(name)?))
}

fn refusal(attribute: &str, target: &Target, reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidValue, reason)
        .with_scope(Scope::Record)
        .with_context("attribute", attribute)
        .with_context("column", &target.name)
        .with_advice("correct the record, or give the column a type that holds the value")
}

/// The record as its row reads back: attribute columns only, by column name, absent ones as null.
pub(crate) fn expected(targets: &[Target], schema: &ResourceSchema, record: &Record) -> Result<Record> {
    let mut expected = Record::new();
    for target in targets {
        let Role::Attribute(index) = target.role else { continue };
        let value = match member(schema, index, Some(record)) {
            Some((name, value)) => {
                let stored = target.value(value).map_err(|reason| refusal(name, target, reason))?;
                decode(stored)
            }
            None => Value::Null,
        };
        if value.is_null() && !target.nullable {
            return Err(refusal(&target.name, target, "the column accepts no null"));
        }
        expected.insert(target.name.clone(), value);
    }
    Ok(expected)
}

/// What reads back of a value that was stored.
fn decode(value: Sql) -> Value {
    match value {
        Sql::Null => Value::Null,
        Sql::Integer(integer) => integer.into(),
        Sql::Real(double) => double.into(),
        Sql::Text(text) => text.into(),
        Sql::Blob(bytes) => foreign("blob", &bytes),
    }
}

/// What a column holds, read with its type because text is read as a blob.
pub(crate) fn decode_typed(type_name: &str, value: Sql) -> Value {
    match (type_name, value) {
        ("text", Sql::Blob(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(error) => foreign("text", error.as_bytes()),
        },
        (_, value) => decode(value),
    }
}

/// A value that s3rep never writes, in a form that equals none that it does.
fn foreign(kind: &str, bytes: &[u8]) -> Value {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({ kind: hex })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(affinity: Affinity, is_json: bool, value: Value) -> Result<Sql, &'static str> {
        Target { role: Role::Attribute(0), name: "c".into(), affinity, nullable: true, is_json }.value(&value)
    }

    #[test]
    fn values_are_carried_exactly() {
        use Affinity::*;
        for (affinity, value, sql) in [
            (Integer, json!(5), Sql::Integer(5)),
            (Integer, json!(5.0), Sql::Integer(5)),
            (Integer, json!(5.5), Sql::Real(5.5)),
            (Integer, json!(i64::MIN), Sql::Integer(i64::MIN)),
            (Integer, json!(9_007_199_254_740_993_i64), Sql::Integer(9_007_199_254_740_993)),
            (Integer, json!(1e300), Sql::Real(1e300)),
            (Integer, json!(true), Sql::Integer(1)),
            (Real, json!(5), Sql::Real(5.0)),
            (Real, json!(-9_007_199_254_740_992_i64), Sql::Real(-9_007_199_254_740_992.0)),
            (Real, json!(-0.0), Sql::Real(0.0)),
            (Real, json!(false), Sql::Real(0.0)),
            (Text, json!(19.99), Sql::Text("19.99".into())),
            (Text, json!(u64::MAX), Sql::Text("18446744073709551615".into())),
            (Text, json!(true), Sql::Text("true".into())),
            (Text, json!("a\0b"), Sql::Text("a\0b".into())),
            (Text, json!({"b": 1, "a": [null, "x"]}), Sql::Text(r#"{"b":1,"a":[null,"x"]}"#.into())),
            (Numeric, json!("2024-01-02T03:04:05.678Z"), Sql::Text("2024-01-02T03:04:05.678Z".into())),
            (Numeric, json!(2.0), Sql::Integer(2)),
            (Blob, json!("007"), Sql::Text("007".into())),
            (Blob, json!(2.0), Sql::Real(2.0)),
            (Text, Value::Null, Sql::Null),
        ] {
            assert_eq!(stored(affinity, false, value.clone()), Ok(sql), "{affinity:?} {value}");
        }
        assert_eq!(stored(Text, true, json!("plain \"text\"")), Ok(Sql::Text(r#""plain \"text\"""#.into())));
    }

    #[test]
    fn values_that_would_change_are_refused() {
        use Affinity::*;
        for (affinity, value) in [
            (Real, json!(9_007_199_254_740_993_i64)),
            (Real, json!(i64::MAX)),
            (Real, json!(u64::MAX)),
            (Integer, json!(u64::MAX)),
            (Numeric, json!(u64::MAX)),
            (Blob, json!(u64::MAX)),
            (Integer, json!("5")),
            (Real, json!("x")),
            (Integer, json!([1])),
            (Numeric, json!("007")),
            (Numeric, json!(" 1e5 ")),
            (Numeric, json!("-.5")),
        ] {
            assert!(stored(affinity, false, value.clone()).is_err(), "{affinity:?} {value}");
        }
    }
}
