//! Values on their way into a column: exactly, or not at all.

use std::{borrow::Cow, net::IpAddr};

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Timelike};
use s3rep_core::{Error, ErrorKind, Record, ResourceSchema, Result, RowChange, Scope};
use serde_json::{Number, Value};

use crate::{ColumnType, Dialect, FittedColumn, KEY, Role, TypeClass};

/// A value as its column holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Null.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number; within the range of the column.
    Integer(i128),
    /// A double.
    Double(f64),
    /// A decimal number, digits with an optional sign and point.
    Decimal(String),
    /// Text.
    Text(Cow<'a, str>),
    /// JSON.
    Json(Cow<'a, Value>),
    /// UUID.
    Uuid(u128),
    /// IP address with the length of its network's prefix.
    Address(IpAddr, u8),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
}

/// A column that is written, with what has to be known for each value.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it holds.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Accepts null.
    pub nullable: bool,
    /// The attribute's values are JSON: text is a JSON text among others.
    pub is_json: bool,
}

/// Why a value is not written. Never shows it.
type Refusal = &'static str;

impl Target {
    /// Of a column that rows are written to.
    pub fn new(dialect: Dialect, column: &FittedColumn, schema: &ResourceSchema) -> Self {
        let is_json = match column.role {
            Role::Attribute(index) => {
                schema.attributes.get(index).is_some_and(|a| TypeClass::of(a) == TypeClass::Json)
            }
            _ => false,
        };
        Self {
            role: column.role,
            name: column.shape.name.clone(),
            column_type: ColumnType::of(dialect, &column.shape),
            nullable: column.shape.nullable,
            is_json,
        }
    }

    /// What the column holds of a change.
    ///
    /// # Errors
    /// Scope record, when it cannot hold it exactly.
    pub fn cell<'a>(&self, schema: &ResourceSchema, change: &'a RowChange) -> Result<Cell<'a>> {
        let cell = match self.role {
            Role::Key => self.column_type.text_cell(Cow::Borrowed(&*change.key)),
            Role::Operation => self.column_type.text_cell(Cow::Borrowed(change.operation.as_str())),
            Role::ChangeId => self.column_type.text_cell(Cow::Owned(change.change_id.to_string())),
            Role::ChangedAt => match self.column_type {
                ColumnType::Timestamp { .. } => Ok(Cell::Timestamp(change.timestamp.0.saturating_mul(1000))),
                other => other.text_cell(Cow::Owned(change.timestamp.to_string())),
            },
            Role::Row | Role::CreatedAt | Role::UpdatedAt => return Ok(Cell::Null),
            Role::Attribute(index) => return self.attribute(schema, index, change.record.as_deref()),
        };
        cell.map_err(|reason| self.refusal(KEY, reason))
    }

    /// What the column holds of a record's attribute.
    fn attribute<'a>(
        &self,
        schema: &ResourceSchema,
        index: usize,
        record: Option<&'a Record>,
    ) -> Result<Cell<'a>> {
        let Some(attribute) = schema.attributes.get(index) else { return Ok(Cell::Null) };
        match record.and_then(|record| record.get(&attribute.name)) {
            Some(value) => self
                .column_type
                .cell(value, self.is_json)
                .map_err(|reason| self.refusal(&attribute.name, reason)),
            None => Ok(Cell::Null),
        }
    }

    fn refusal(&self, attribute: &str, reason: Refusal) -> Error {
        Error::new(ErrorKind::InvalidValue, reason)
            .with_scope(Scope::Record)
            .with_context("attribute", attribute)
            .with_context("column", &self.name)
            .with_advice("correct the record, or give the column a type that holds the value")
    }
}

/// The record as its row reads back: attribute columns only, by column name, absent ones as null.
///
/// # Errors
/// Scope record, when the table cannot hold it.
pub fn expected(targets: &[Target], schema: &ResourceSchema, record: &Record) -> Result<Record> {
    let mut expected = Record::new();
    for target in targets {
        let Role::Attribute(index) = target.role else { continue };
        let cell = target.attribute(schema, index, Some(record))?;
        if cell == Cell::Null && !target.nullable {
            return Err(target.refusal(&target.name, "the column accepts no null"));
        }
        expected.insert(target.name.clone(), cell.into_json());
    }
    Ok(expected)
}

/// How many members of a record have no column.
pub fn undeclared(targets: &[Target], schema: &ResourceSchema, record: &Record) -> usize {
    let has_column = |name: &str| {
        name == KEY
            || targets.iter().any(|target| match target.role {
                Role::Attribute(index) => schema.attributes.get(index).is_some_and(|a| a.name == name),
                _ => false,
            })
    };
    record.keys().filter(|name| !has_column(name)).count()
}

impl ColumnType {
    /// The value as the column holds it.
    ///
    /// # Errors
    /// Why it cannot hold it exactly.
    pub fn cell<'a>(&self, value: &'a Value, is_json: bool) -> Result<Cell<'a>, Refusal> {
        match (self, value) {
            (_, Value::Null) => Ok(Cell::Null),
            (Self::Json, value) => Ok(Cell::Json(Cow::Borrowed(value))),
            (Self::JsonBinary, value) if has_nul(value) => Err("jsonb holds no text with a NUL character"),
            (Self::JsonBinary, value) => Ok(Cell::Json(Cow::Borrowed(value))),
            (Self::Text { .. }, Value::String(text)) if !is_json => self.text_cell(Cow::Borrowed(text)),
            (Self::Text { .. }, value) => self.text_cell(Cow::Owned(value.to_string())),
            (_, Value::Bool(truth)) => self.boolean(*truth),
            (_, Value::Number(number)) => self.number(number),
            (_, Value::String(text)) => self.parsed(text),
            (_, Value::Array(_) | Value::Object(_)) => {
                Err("the value is a list or an object, and the column holds none")
            }
        }
    }

    /// Text as the column holds it.
    pub(crate) fn text_cell<'a>(&self, text: Cow<'a, str>) -> Result<Cell<'a>, Refusal> {
        let &Self::Text { characters, bytes, padded, nul } = self else {
            return match self {
                Self::Flexible(_) => Ok(Cell::Text(text)),
                _ => Err("the column does not hold text"),
            };
        };
        if !nul && text.contains('\0') {
            return Err("PostgreSQL holds no text with a NUL character");
        }
        // Most texts have fewer bytes than characters are allowed.
        if characters.is_some_and(|most| text.len() > most as usize && text.chars().count() > most as usize) {
            return Err("the text has more characters than the column takes");
        }
        if bytes.is_some_and(|most| text.len() as u64 > most) {
            return Err("the text has more bytes than the column takes");
        }
        if padded && text.ends_with(' ') {
            return Err("the column does not keep spaces at the end of a text");
        }
        Ok(Cell::Text(text))
    }

    fn boolean(&self, truth: bool) -> Result<Cell<'static>, Refusal> {
        match self {
            Self::Boolean => Ok(Cell::Boolean(truth)),
            Self::Integer { .. } => Ok(Cell::Integer(truth.into())),
            _ => Err("the value is true or false, and the column does not hold that"),
        }
    }

    fn number(&self, number: &Number) -> Result<Cell<'static>, Refusal> {
        match self {
            Self::Integer { min, max } => {
                let integer = integer_of(number)
                    .ok_or("the column holds whole numbers, and the value has a fraction")?;
                if integer < *min || integer > *max {
                    return Err("the integer is out of the range of the column");
                }
                Ok(Cell::Integer(integer))
            }
            Self::Double => double_of(number).map(Cell::Double),
            Self::Single => {
                let double = double_of(number)?;
                let same = f64::from(double as f32) == double;
                if same {
                    Ok(Cell::Double(double))
                } else {
                    Err("the column has single precision, and the value would be rounded")
                }
            }
            Self::Decimal { whole, scale } => {
                let decimal = decimal_of(number);
                let digits = decimal.trim_start_matches('-');
                let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
                if scale.is_some_and(|most| after.len() > usize::from(most)) {
                    return Err("the number has more digits after the point than the column takes");
                }
                if whole.is_some_and(|most| before.trim_start_matches('0').len() > usize::from(most)) {
                    return Err("the number has more digits before the point than the column takes");
                }
                Ok(Cell::Decimal(decimal))
            }
            _ => Err("the value is a number, and the column does not hold numbers"),
        }
    }

    fn parsed(&self, text: &str) -> Result<Cell<'static>, Refusal> {
        match self {
            Self::Uuid => uuid_of(text).map(Cell::Uuid).ok_or("the text is not a UUID"),
            Self::Address => address_of(text).ok_or("the text is not an IP address"),
            Self::Timestamp { digits } => {
                let micros = timestamp_of(text)
                    .ok_or("the text is not a date with time, such as 2024-01-02T03:04:05.678Z")?;
                exact_micros(micros, *digits).map(Cell::Timestamp)
            }
            Self::Date => date_of(text).map(Cell::Date).ok_or("the text is not a date, such as 2024-01-02"),
            Self::Time { digits } => {
                let micros = time_of(text).ok_or("the text is not a time of day, such as 03:04:05.678")?;
                exact_micros(micros, *digits).map(Cell::Time)
            }
            _ => Err("the value is text, and the column does not hold text"),
        }
    }
}

impl Cell<'_> {
    /// The value as it reads back, in one form for each: see [`canonical`].
    pub fn into_json(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(truth) => truth.into(),
            Self::Integer(integer) => match (i64::try_from(integer), u64::try_from(integer)) {
                (Ok(integer), _) => integer.into(),
                (_, Ok(integer)) => integer.into(),
                _ => integer.to_string().into(),
            },
            Self::Double(double) => canonical(double.into()),
            Self::Decimal(decimal) => decimal.into(),
            Self::Text(text) => text.into_owned().into(),
            Self::Json(value) => canonical(value.into_owned()),
            Self::Uuid(uuid) => format_uuid(uuid).into(),
            Self::Address(address, prefix) => format_address(address, prefix).into(),
            Self::Timestamp(micros) => format_timestamp(micros).into(),
            Self::Date(days) => format_date(days).into(),
            Self::Time(micros) => format_time(micros).into(),
        }
    }
}

/// A JSON value in one form for each: databases print the same number in several. Whole doubles become
/// integers, and zero has no sign.
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Number(number) => canonical_number(number),
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, canonical(value))).collect(),
        other => other,
    }
}

fn canonical_number(number: Number) -> Value {
    if number.is_f64()
        && let Some(integer) = integer_of(&number)
    {
        return match (i64::try_from(integer), u64::try_from(integer)) {
            (Ok(integer), _) => integer.into(),
            (_, Ok(integer)) => integer.into(),
            _ => Value::Number(number),
        };
    }
    Value::Number(number)
}

/// A decimal number without zeros that say nothing.
pub fn canonical_decimal(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match fraction.trim_end_matches('0') {
        "" if whole == "0" => "0".to_owned(),
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

fn integer_of(number: &Number) -> Option<i128> {
    if let Some(integer) = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)) {
        return Some(integer);
    }
    let double = number.as_f64()?;
    // Every whole double of up to 128 bits is an integer exactly.
    (double.fract() == 0.0 && double.abs() < 1e30).then_some(double as i128)
}

fn double_of(number: &Number) -> Result<f64, Refusal> {
    let double = number.as_f64().ok_or("the number is not a double")?;
    match integer_of(number) {
        Some(integer) if double as i128 != integer => {
            Err("the column holds doubles, and the integer would be rounded")
        }
        _ => Ok(double),
    }
}

/// Digits without an exponent, the shortest that mean the number.
fn decimal_of(number: &Number) -> String {
    match number.as_f64() {
        // `Display` of a double has no exponent.
        Some(double) if number.is_f64() => canonical_decimal(&format!("{double}")),
        _ => number.to_string(),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Hyphenated, in lower or upper case.
fn uuid_of(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&i| bytes[i] != b'-') {
        return None;
    }
    let mut uuid = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if [8, 13, 18, 23].contains(&i) {
            continue;
        }
        uuid = uuid << 4 | u128::from(char::from(byte).to_digit(16)?);
    }
    Some(uuid)
}

/// A UUID as text: hyphenated, in lower case.
pub fn format_uuid(uuid: u128) -> String {
    let digits = format!("{uuid:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

fn address_of(text: &str) -> Option<Cell<'static>> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|&prefix: &u8| prefix <= longest)?,
        None => longest,
    };
    Some(Cell::Address(address, prefix))
}

/// An address as text, with the prefix where it is not all of it.
pub fn format_address(address: IpAddr, prefix: u8) -> String {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if prefix == longest { address.to_string() } else { format!("{address}/{prefix}") }
}

/// RFC 3339; more than six digits of a second only when the rest are zeros.
fn timestamp_of(text: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    // A leap second has no place of its own in any database.
    let nanos = time.nanosecond();
    if nanos >= 1_000_000_000 || nanos % 1000 != 0 {
        return None;
    }
    Some(time.timestamp_micros())
}

fn exact_micros(micros: i64, digits: u8) -> Result<i64, Refusal> {
    let unit = 10_i64.pow(u32::from(6 - digits.min(6)));
    if micros % unit == 0 {
        Ok(micros)
    } else {
        Err("the column keeps fewer digits of a second than the value has")
    }
}

fn date_of(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    // Other spellings of the day would read back in another form.
    if date.format("%Y-%m-%d").to_string() != text {
        return None;
    }
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

fn time_of(text: &str) -> Option<i64> {
    let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()?;
    let nanos = time.nanosecond();
    if nanos >= 1_000_000_000 || nanos % 1000 != 0 {
        return None;
    }
    Some(i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(nanos / 1000))
}

/// Microseconds since 1970 as RFC 3339 in UTC, with milliseconds unless there is more to tell.
pub fn format_timestamp(micros: i64) -> String {
    let digits = if micros % 1000 == 0 { SecondsFormat::Millis } else { SecondsFormat::Micros };
    DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(digits, true))
}

/// Days since 1970 as `YYYY-MM-DD`.
pub fn format_date(days: i32) -> String {
    let date = NaiveDate::default().checked_add_signed(chrono::TimeDelta::days(days.into()));
    date.map_or_else(|| days.to_string(), |date| date.format("%Y-%m-%d").to_string())
}

/// Microseconds since midnight as `HH:MM:SS.mmm`.
pub fn format_time(micros: i64) -> String {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros % 1000 == 0 {
        format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", micros / 1000)
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INT4: ColumnType = ColumnType::integer(i32::MIN as i128, i32::MAX as i128);
    const INT8: ColumnType = ColumnType::integer(i64::MIN as i128, i64::MAX as i128);
    const TEXT: ColumnType = ColumnType::text(None);
    const MONEY: ColumnType = ColumnType::Decimal { whole: Some(3), scale: Some(2) };
    const ANY_DECIMAL: ColumnType = ColumnType::Decimal { whole: None, scale: None };
    const MILLIS: ColumnType = ColumnType::Timestamp { digits: 3 };

    #[test]
    fn values_are_carried_exactly() {
        for (column, value, back) in [
            (INT4, json!(5), json!(5)),
            (INT4, json!(5.0), json!(5)),
            (INT4, json!(true), json!(1)),
            (INT8, json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_993_i64)),
            (INT8, json!(i64::MIN), json!(i64::MIN)),
            (ColumnType::integer(0, u64::MAX as i128), json!(u64::MAX), json!(u64::MAX)),
            (ColumnType::Double, json!(19.99), json!(19.99)),
            (ColumnType::Double, json!(1e300), json!(1e300)),
            (ColumnType::Double, json!(7), json!(7)),
            (ColumnType::Double, json!(-0.0), json!(0)),
            (ColumnType::Single, json!(0.5), json!(0.5)),
            (MONEY, json!(19.99), json!("19.99")),
            (MONEY, json!(-5), json!("-5")),
            (ANY_DECIMAL, json!(1e-7), json!("0.0000001")),
            (ANY_DECIMAL, json!(u64::MAX), json!("18446744073709551615")),
            (ColumnType::Boolean, json!(false), json!(false)),
            (TEXT, json!("naïve 😀"), json!("naïve 😀")),
            (TEXT, json!(5.5), json!("5.5")),
            (TEXT, json!(true), json!("true")),
            (TEXT, json!({"b": 1, "a": [null]}), json!(r#"{"b":1,"a":[null]}"#)),
            (ColumnType::text(Some(2)), json!("éé"), json!("éé")),
            (
                ColumnType::JsonBinary,
                json!({"a": [1.0, -0.0, 1e16, "x"]}),
                json!({"a": [1, 0, 10_000_000_000_000_000_i64, "x"]}),
            ),
            (ColumnType::Json, json!("nul \0"), json!("nul \0")),
            (
                ColumnType::Uuid,
                json!("00000000-0000-4000-8000-00000000ABCD"),
                json!("00000000-0000-4000-8000-00000000abcd"),
            ),
            (ColumnType::Address, json!("10.0.0.1"), json!("10.0.0.1")),
            (ColumnType::Address, json!("10.0.0.0/8"), json!("10.0.0.0/8")),
            (ColumnType::Address, json!("2001:DB8::1"), json!("2001:db8::1")),
            (MILLIS, json!("2024-01-02T03:04:05.678Z"), json!("2024-01-02T03:04:05.678Z")),
            (MILLIS, json!("2024-01-02T03:04:05+02:00"), json!("2024-01-02T01:04:05.000Z")),
            (MILLIS, json!("1969-12-31T23:59:59.999Z"), json!("1969-12-31T23:59:59.999Z")),
            (
                ColumnType::Timestamp { digits: 6 },
                json!("2024-01-02T03:04:05.678901Z"),
                json!("2024-01-02T03:04:05.678901Z"),
            ),
            (ColumnType::Date, json!("2024-02-29"), json!("2024-02-29")),
            (ColumnType::Date, json!("1969-12-31"), json!("1969-12-31")),
            (ColumnType::Time { digits: 6 }, json!("03:04:05.678"), json!("03:04:05.678")),
            (INT4, Value::Null, Value::Null),
        ] {
            let cell = column.cell(&value, false);
            assert_eq!(cell.map(Cell::into_json), Ok(back), "{column:?} {value}");
        }
        let text = json!("plain \"text\"");
        assert_eq!(TEXT.cell(&text, true).unwrap(), Cell::Text(r#""plain \"text\"""#.into()));
    }

    #[test]
    fn values_that_would_change_are_refused() {
        let padded = ColumnType::Text { characters: Some(5), bytes: None, padded: true, nul: true };
        for (column, value) in [
            (INT4, json!(2_147_483_648_i64)),
            (INT4, json!(5.5)),
            (INT4, json!("5")),
            (INT8, json!(u64::MAX)),
            (INT8, json!(1e19)),
            (INT8, json!([1])),
            (ColumnType::Double, json!(9_007_199_254_740_993_i64)),
            (ColumnType::Double, json!(u64::MAX)),
            (ColumnType::Double, json!("NaN")),
            (ColumnType::Double, json!(true)),
            (ColumnType::Single, json!(0.1)),
            (MONEY, json!(1.005)),
            (MONEY, json!(1000)),
            (ColumnType::Boolean, json!(1)),
            (ColumnType::Boolean, json!("true")),
            (ColumnType::text(Some(2)), json!("ééé")),
            (ColumnType::Text { characters: None, bytes: Some(5), padded: false, nul: true }, json!("ééé")),
            (padded, json!("a ")),
            (ColumnType::JsonBinary, json!({"a": ["\0"]})),
            (ColumnType::JsonBinary, json!({"a\0": 1})),
            (ColumnType::Uuid, json!("0000000000004000800000000000abcd")),
            (ColumnType::Uuid, json!("00000000-0000-4000-8000-00000000abcg")),
            (ColumnType::Address, json!("10.0.0.256")),
            (ColumnType::Address, json!("10.0.0.1/33")),
            (MILLIS, json!("2024-01-02")),
            (MILLIS, json!("2024-13-02T00:00:00Z")),
            (MILLIS, json!("2024-01-02T03:04:05.6789Z")),
            (MILLIS, json!("2024-01-02T23:59:60Z")),
            (ColumnType::Timestamp { digits: 6 }, json!("2024-01-02T03:04:05.678901234Z")),
            (MILLIS, json!(1_700_000_000)),
            (ColumnType::Date, json!("2024-02-30")),
            (ColumnType::Date, json!("2024-2-3")),
            (ColumnType::Time { digits: 0 }, json!("03:04:05.678")),
            (ColumnType::Bytes, json!("aGk=")),
            (ColumnType::Unknown, json!("x")),
        ] {
            assert!(column.cell(&value, false).is_err(), "{column:?} {value}");
        }
    }

    #[test]
    fn decimals_have_one_form() {
        for (text, one) in [("007.500", "7.5"), ("-0.00", "0"), ("-1.0", "-1"), ("100", "100"), (".5", "0.5")]
        {
            assert_eq!(canonical_decimal(text), one, "{text}");
        }
    }
}
