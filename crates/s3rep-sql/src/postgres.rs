//! PostgreSQL's names and types.

use std::borrow::Cow;

use crate::{ColumnType, TypeClass};

/// `NAMEDATALEN - 1`: what is longer is cut with a notice that nobody reads.
const LONGEST_NAME: usize = 63;
/// The longest that `VARCHAR(n)` may say.
const LONGEST_VARCHAR: u32 = 10_485_760;

pub(crate) fn problem_of_name(identifier: &str) -> Option<&'static str> {
    (identifier.len() > LONGEST_NAME).then_some("PostgreSQL keeps 63 bytes of a table or column name")
}

pub(crate) fn type_name(class: TypeClass) -> Cow<'static, str> {
    match class {
        TypeClass::Text(Some(length @ 1..=LONGEST_VARCHAR)) => format!("VARCHAR({length})").into(),
        TypeClass::Text(_) => "TEXT".into(),
        TypeClass::Double => "DOUBLE PRECISION".into(),
        TypeClass::Integer => "INTEGER".into(),
        TypeClass::BigInteger => "BIGINT".into(),
        TypeClass::Boolean => "BOOLEAN".into(),
        TypeClass::Json => "JSONB".into(),
        TypeClass::Ip4 | TypeClass::Ip6 => "INET".into(),
        TypeClass::Uuid => "UUID".into(),
        TypeClass::Timestamp => "TIMESTAMP WITH TIME ZONE".into(),
    }
}

/// Reads a type as `format_type` prints it, or as people write it.
pub(crate) fn column_type(type_name: &str) -> ColumnType {
    let lower = type_name.trim().to_ascii_lowercase();
    // `timestamp(3) with time zone`: the argument stands in the middle.
    let (argument, bare) = match (lower.find('('), lower.find(')')) {
        (Some(open), Some(close)) if open < close => {
            (Some(&lower[open + 1..close]), format!("{}{}", &lower[..open], &lower[close + 1..]))
        }
        _ => (None, lower.clone()),
    };
    let number = || argument.and_then(|text| text.trim().parse::<u32>().ok());
    let digits = || number().map_or(6, |digits| digits.min(6) as u8);
    match bare.trim() {
        "text" | "citext" => text(None, false),
        "character varying" | "varchar" => text(number(), false),
        "character" | "char" | "bpchar" => text(number(), true),
        "smallint" | "int2" => ColumnType::integer(i16::MIN.into(), i16::MAX.into()),
        "integer" | "int" | "int4" => ColumnType::integer(i32::MIN.into(), i32::MAX.into()),
        "bigint" | "int8" => ColumnType::integer(i64::MIN.into(), i64::MAX.into()),
        "real" | "float4" => ColumnType::Single,
        "double precision" | "float8" => ColumnType::Double,
        "numeric" | "decimal" => decimal(argument),
        "boolean" | "bool" => ColumnType::Boolean,
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::JsonBinary,
        "uuid" => ColumnType::Uuid,
        "inet" => ColumnType::Address,
        "timestamp with time zone" | "timestamptz" | "timestamp without time zone" | "timestamp" => {
            ColumnType::Timestamp { digits: digits() }
        }
        "date" => ColumnType::Date,
        "time without time zone" | "time" => ColumnType::Time { digits: digits() },
        "bytea" => ColumnType::Bytes,
        _ => ColumnType::Unknown,
    }
}

fn text(characters: Option<u32>, padded: bool) -> ColumnType {
    ColumnType::Text { characters, bytes: None, padded, nul: false }
}

fn decimal(argument: Option<&str>) -> ColumnType {
    let Some(argument) = argument else { return ColumnType::Decimal { whole: None, scale: None } };
    let (precision, scale) = argument.split_once(',').unwrap_or((argument, "0"));
    match (precision.trim().parse::<u16>(), scale.trim().parse::<u16>()) {
        (Ok(precision), Ok(scale)) => {
            ColumnType::Decimal { whole: Some(precision.saturating_sub(scale)), scale: Some(scale) }
        }
        // A negative scale rounds tens or hundreds away.
        _ => ColumnType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_that_round_whole_numbers_are_not_written() {
        let decimal = |whole, scale| ColumnType::Decimal { whole, scale };
        assert_eq!(column_type("numeric"), decimal(None, None));
        assert_eq!(column_type("numeric(5)"), decimal(Some(5), Some(0)));
        assert_eq!(column_type("numeric(5, 2)"), decimal(Some(3), Some(2)));
        assert_eq!(column_type("numeric(5,-2)"), ColumnType::Unknown);
    }
}
