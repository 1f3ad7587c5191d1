//! Columns, and values on their way through the client library: exactly, or not at all.

use std::borrow::Cow;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike};
use mysql_async::Value as Sql;
use s3rep_core::{Error, ErrorKind, Record, ResourceSchema, Result, RowChange, Scope, Timestamp};
use s3rep_sql::{
    Cell, ColumnType, Role, Target, canonical, canonical_decimal, format_date, format_time, format_timestamp,
    format_uuid,
};
use serde_json::Value;

/// A column that is written, with what this server does to its values beyond what its type says.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) target: Target,
    /// Those of an `ENUM`, which takes others for one of them: by case, and by their number.
    pub(crate) words: Option<Vec<String>>,
    /// Lists and objects within each other, where the server reads the JSON.
    pub(crate) most_nested: Option<usize>,
}

/// Why a value is not written. Never shows it.
type Refusal = &'static str;

impl Column {
    /// What the column gets of a change.
    ///
    /// # Errors
    /// Scope record, when it cannot hold it exactly.
    pub(crate) fn value(&self, schema: &ResourceSchema, change: &RowChange) -> Result<Sql> {
        if let (Some(most), Some(value)) = (self.most_nested, self.member(schema, change.record.as_deref())) {
            check_nesting(value, most).map_err(|reason| self.refusal(reason))?;
        }
        let cell = self.target.cell(schema, change)?;
        self.check(&cell).and_then(|()| sql_of(cell)).map_err(|reason| self.refusal(reason))
    }

    /// Refuses what [`Self::value`] would, where the target alone does not.
    pub(crate) fn check_member(&self, schema: &ResourceSchema, record: &Record) -> Result<()> {
        let Some(value) = self.member(schema, Some(record)) else { return Ok(()) };
        let checked = || {
            check_nesting(value, self.most_nested.unwrap_or(usize::MAX))?;
            let cell = self.target.column_type.cell(value, self.target.is_json)?;
            self.check(&cell)?;
            sql_of(cell).map(drop)
        };
        checked().map_err(|reason| self.refusal(reason))
    }

    /// Refuses a key that the column has no place for.
    pub(crate) fn check_key(&self, key: &str) -> Result<()> {
        if self.target.role != Role::Key {
            return Ok(());
        }
        let key = Value::from(key);
        let cell = self.target.column_type.cell(&key, false).map_err(|reason| self.refusal(reason))?;
        self.check(&cell).map_err(|reason| self.refusal(reason))
    }

    fn member<'a>(&self, schema: &ResourceSchema, record: Option<&'a Record>) -> Option<&'a Value> {
        match self.target.role {
            Role::Attribute(index) => record?.get(&schema.attributes.get(index)?.name),
            _ => None,
        }
    }

    fn check(&self, cell: &Cell<'_>) -> Result<(), Refusal> {
        match (cell, &self.words) {
            // The server would put the time, or the next number, in its place.
            (Cell::Null, _) if !self.target.nullable => Err("the column accepts no null"),
            (Cell::Text(text), Some(words)) if !words.iter().any(|word| *word == **text) => {
                Err("the text is none of those that the column takes")
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, reason: Refusal) -> Error {
        Error::new(ErrorKind::InvalidValue, reason)
            .with_scope(Scope::Record)
            .with_context("column", &self.target.name)
            .with_advice("correct the record, or give the column a type that holds the value")
    }
}

fn check_nesting(value: &Value, most: usize) -> Result<(), Refusal> {
    if is_nested(value, most) {
        return Err("the lists and objects are nested deeper than the server reads them");
    }
    Ok(())
}

/// Whether more lists and objects than these are within each other.
pub(crate) fn is_nested(value: &Value, most: usize) -> bool {
    let deeper = |value: &Value| is_nested(value, most - 1);
    match value {
        Value::Array(items) => most == 0 || items.iter().any(deeper),
        Value::Object(members) => most == 0 || members.values().any(deeper),
        _ => false,
    }
}

/// A time as a parameter; null where the database has no such year.
pub(crate) fn timestamp(time: Timestamp) -> Sql {
    date_time(time.0.saturating_mul(1000)).unwrap_or(Sql::NULL)
}

fn sql_of(cell: Cell<'_>) -> Result<Sql, Refusal> {
    const OUT_OF_RANGE: Refusal = "the integer is out of the range of the column";
    Ok(match cell {
        Cell::Null => Sql::NULL,
        Cell::Boolean(truth) => Sql::Int(truth.into()),
        Cell::Integer(integer) => match i64::try_from(integer) {
            Ok(integer) => Sql::Int(integer),
            Err(_) => Sql::UInt(u64::try_from(integer).map_err(|_| OUT_OF_RANGE)?),
        },
        Cell::Double(double) => Sql::Double(double),
        Cell::Decimal(decimal) => Sql::Bytes(decimal.into_bytes()),
        Cell::Text(Cow::Borrowed(text)) => Sql::Bytes(text.as_bytes().to_vec()),
        Cell::Text(Cow::Owned(text)) => Sql::Bytes(text.into_bytes()),
        Cell::Json(value) => Sql::Bytes(value.to_string().into_bytes()),
        Cell::Uuid(uuid) => Sql::Bytes(format_uuid(uuid).into_bytes()),
        Cell::Address(..) => return Err("the column holds addresses, which s3rep writes as text"),
        Cell::Timestamp(micros) => date_time(micros)?,
        Cell::Date(days) => date(days)?,
        Cell::Time(micros) => time(micros),
    })
}

const NO_SUCH_YEAR: Refusal = "the database knows the years 0 to 9999";

fn date_time(micros: i64) -> Result<Sql, Refusal> {
    let time = DateTime::from_timestamp_micros(micros).ok_or(NO_SUCH_YEAR)?;
    let year = year(time.year())?;
    let micros = time.nanosecond() / 1000;
    let (hour, minute, second) = (time.hour() as u8, time.minute() as u8, time.second() as u8);
    Ok(Sql::Date(year, time.month() as u8, time.day() as u8, hour, minute, second, micros))
}

fn date(days: i32) -> Result<Sql, Refusal> {
    let date = NaiveDate::default().checked_add_signed(TimeDelta::days(days.into())).ok_or(NO_SUCH_YEAR)?;
    Ok(Sql::Date(year(date.year())?, date.month() as u8, date.day() as u8, 0, 0, 0, 0))
}

fn year(year: i32) -> Result<u16, Refusal> {
    u16::try_from(year).ok().filter(|year| *year <= 9999).ok_or(NO_SUCH_YEAR)
}

fn time(micros: i64) -> Sql {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as u32);
    Sql::Time(false, 0, (seconds / 3600 % 24) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8, micros)
}

/// What reads back of a value that was stored, as [`s3rep_sql::expected`] says it. What s3rep never writes reads
/// as something that equals nothing it does.
pub(crate) fn json_of(value: Sql, column_type: ColumnType) -> Value {
    match (value, column_type) {
        (Sql::NULL, _) => Value::Null,
        (Sql::Int(integer), _) => integer.into(),
        (Sql::UInt(integer), _) => integer.into(),
        (Sql::Float(float), _) => canonical(f64::from(float).into()),
        (Sql::Double(double), _) => canonical(double.into()),
        (Sql::Bytes(bytes), column_type) => match String::from_utf8(bytes) {
            Ok(text) => text_of(text, column_type),
            Err(error) => foreign("bytes", &hex(error.as_bytes())),
        },
        (Sql::Date(year, month, day, hour, minute, second, micros), column_type) => {
            let date = NaiveDate::from_ymd_opt(year.into(), month.into(), day.into());
            let time = date
                .and_then(|date| date.and_hms_micro_opt(hour.into(), minute.into(), second.into(), micros));
            match (time, column_type) {
                (Some(time), ColumnType::Date) => {
                    let days = time.date().signed_duration_since(NaiveDate::default()).num_days();
                    format_date(i32::try_from(days).unwrap_or(i32::MAX)).into()
                }
                (Some(time), _) => format_timestamp(time.and_utc().timestamp_micros()).into(),
                (None, _) => foreign("date", &format!("{year:04}-{month:02}-{day:02}")),
            }
        }
        (Sql::Time(false, 0, hour, minute, second, micros), _) => {
            let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
            format_time(seconds * 1_000_000 + i64::from(micros)).into()
        }
        (Sql::Time(is_negative, days, hour, ..), _) => {
            foreign("time", &format!("{}{days} {hour}", if is_negative { "-" } else { "" }))
        }
    }
}

fn text_of(text: String, column_type: ColumnType) -> Value {
    match column_type {
        ColumnType::Decimal { .. } => canonical_decimal(&text).into(),
        ColumnType::Json => serde_json::from_str(&text).map_or(Value::String(text), canonical),
        _ => text.into(),
    }
}

fn foreign(kind: &str, text: &str) -> Value {
    serde_json::json!({ kind: text })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The words of `enum('a','it''s')`, as the server prints it.
pub(crate) fn words_of(type_name: &str) -> Option<Vec<String>> {
    let lower = type_name.get(..5)?;
    let list = lower.eq_ignore_ascii_case("enum(").then(|| type_name[5..].strip_suffix(')'))??;
    let mut words = Vec::new();
    let mut rest = list;
    while let Some(inner) = rest.strip_prefix('\'') {
        let mut end = 0;
        loop {
            end += inner[end..].find('\'')?;
            if !inner[end + 1..].starts_with('\'') {
                break;
            }
            end += 2;
        }
        words.push(inner[..end].replace("''", "'"));
        rest = inner[end + 1..].trim_start_matches(',');
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use s3rep_core::ColumnShape;
    use s3rep_sql::Dialect;
    use serde_json::json;

    use super::*;

    fn of(type_name: &str) -> ColumnType {
        let (name, type_name) = ("c".to_owned(), type_name.to_owned());
        ColumnType::of(Dialect::Mysql, &ColumnShape { name, type_name, nullable: true, primary_key: false })
    }

    fn column(column_type: ColumnType, nullable: bool) -> Column {
        let target = Target {
            role: Role::Attribute(0),
            name: "c".into(),
            column_type,
            nullable,
            is_json: matches!(column_type, ColumnType::Json),
        };
        Column { target, words: None, most_nested: None }
    }

    fn schema() -> ResourceSchema {
        ResourceSchema::parse("t", "v1", json!({"c": "string"}).as_object().unwrap()).unwrap()
    }

    fn check(column: &Column, value: Value) -> Result<()> {
        column.check_member(&schema(), json!({ "c": value }).as_object().unwrap())
    }

    #[test]
    fn what_goes_out_comes_back() {
        for (type_name, value) in [
            ("datetime(6)", json!("2026-01-31T10:20:30.456Z")),
            ("datetime(6)", json!("1815-12-10T00:00:00.001Z")),
            ("datetime(6)", json!("9999-12-31T23:59:59.999999Z")),
            ("datetime(6)", json!("0000-01-01T00:00:00.000Z")),
            ("date", json!("2024-02-29")),
            ("time(6)", json!("23:59:59.999999")),
            ("bigint(20) unsigned", json!(u64::MAX)),
            ("bigint(20)", json!(i64::MIN)),
            ("double", json!(5e-324)),
            ("double", json!(1)),
            ("float", json!(0.5)),
            ("json", json!({"b": [1.5, null, "x"], "a": {}})),
            ("longtext", json!("a\0'\\é😀")),
        ] {
            let column_type = of(type_name);
            let is_json = column_type == ColumnType::Json;
            let sent = sql_of(column_type.cell(&value, is_json).unwrap()).unwrap();
            assert_eq!(json_of(sent, column_type), value, "{column_type:?}");
        }
        assert_eq!(json_of(Sql::Bytes(b"1.50".to_vec()), of("decimal(10,2)")), json!("1.5"));
        assert_eq!(json_of(Sql::Double(-0.0), ColumnType::Double), json!(0));
    }

    #[test]
    fn years_that_the_database_does_not_know_are_refused() {
        let timestamps = column(ColumnType::Timestamp { digits: 6 }, true);
        for value in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"] {
            let error = check(&timestamps, json!(value)).unwrap_err();
            assert!(error.to_string().contains("years"), "{error}");
        }
    }

    #[test]
    fn nulls_words_and_nesting_are_looked_at_here() {
        let text = of("longtext");
        assert!(check(&column(text, false), Value::Null).is_err());
        assert!(check(&column(text, true), Value::Null).is_ok());
        let words = Column { words: words_of("enum('red','it''s')"), ..column(text, true) };
        for (value, is_good) in [("red", true), ("it's", true), ("Red", false), ("1", false), ("", false)] {
            assert_eq!(check(&words, json!(value)).is_ok(), is_good, "{value}");
        }
        let nested = Column { most_nested: Some(2), ..column(ColumnType::Json, true) };
        assert!(check(&nested, json!([1, {"a": 1}])).is_ok());
        assert!(check(&nested, json!([1, {"a": []}])).is_err());
    }

    #[test]
    fn words_are_read_as_the_server_prints_them() {
        for (text, words) in [
            ("enum('a','b c')", vec!["a", "b c"]),
            ("ENUM('')", vec![""]),
            ("enum('it''s','''','a,b','x)')", vec!["it's", "'", "a,b", "x)"]),
        ] {
            assert_eq!(words_of(text).unwrap(), words, "{text}");
        }
        assert_eq!(words_of("varchar(5)"), None);
        assert_eq!(words_of("int"), None);
    }

    #[test]
    fn what_others_wrote_equals_nothing_of_ours() {
        let text = of("longtext");
        assert_eq!(json_of(Sql::Bytes(vec![0xff, 0]), text), json!({"bytes": "ff00"}));
        let zero = Sql::Date(0, 0, 0, 0, 0, 0, 0);
        assert_eq!(json_of(zero, ColumnType::Timestamp { digits: 0 }), json!({"date": "0000-00-00"}));
        let long = Sql::Time(false, 3, 1, 0, 0, 0);
        assert!(json_of(long, ColumnType::Time { digits: 0 }).is_object());
    }
}
