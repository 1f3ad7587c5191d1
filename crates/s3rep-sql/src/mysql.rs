//! Names and types of MySQL and MariaDB.

use std::borrow::Cow;

use crate::{ColumnType, Dialect, TypeClass};

/// In characters.
const LONGEST_NAME: usize = 64;
/// What the reference makes a VARCHAR; longer ones would use up the 65,535 bytes that a row may have.
const LONGEST_VARCHAR: u32 = 255;

pub(crate) fn problem_of_name(identifier: &str) -> Option<&'static str> {
    if identifier.chars().count() > LONGEST_NAME {
        Some("MySQL keeps 64 characters of a table or column name")
    } else if identifier.chars().any(|character| character > '\u{ffff}') {
        Some("MySQL takes no characters beyond U+FFFF in table and column names")
    } else if identifier.ends_with(' ') {
        Some("MySQL takes no table and column names that end with a space")
    } else {
        None
    }
}

/// Differs from the reference in two places, so that values arrive as they are: text without a declared length
/// is LONGTEXT and not TEXT, which ends at 65,535 bytes, and times are DATETIME(6) and not DATETIME, which has
/// whole seconds.
pub(crate) fn type_name(class: TypeClass) -> Cow<'static, str> {
    match class {
        TypeClass::Text(Some(length @ 1..=LONGEST_VARCHAR)) => format!("VARCHAR({length})").into(),
        TypeClass::Text(_) => "LONGTEXT".into(),
        TypeClass::Double => "DOUBLE".into(),
        TypeClass::Integer => "INT".into(),
        TypeClass::BigInteger => "BIGINT".into(),
        TypeClass::Boolean => "TINYINT(1)".into(),
        TypeClass::Json => "JSON".into(),
        TypeClass::Ip4 => "VARCHAR(15)".into(),
        TypeClass::Ip6 => "VARCHAR(45)".into(),
        TypeClass::Uuid => "CHAR(36)".into(),
        TypeClass::Timestamp => "DATETIME(6)".into(),
    }
}

/// The type of keys: compared byte by byte and with their trailing spaces. Every other collation would take
/// different ids for one row.
pub(crate) fn key_type(dialect: Dialect) -> String {
    let collation = match dialect {
        Dialect::Mariadb => "utf8mb4_nopad_bin",
        _ => "utf8mb4_0900_bin",
    };
    format!("VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {collation}")
}

/// Reads a type as `information_schema.columns.column_type` prints it, or as people write it.
pub(crate) fn column_type(type_name: &str) -> ColumnType {
    let lower = type_name.trim().to_ascii_lowercase();
    let word = lower.split(['(', ' ']).next().unwrap_or_default();
    let argument =
        lower.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(argument, _)| argument);
    let number = || argument.and_then(|text| text.trim().parse::<u32>().ok());
    let digits = || number().map_or(0, |digits| digits.min(6) as u8);
    let is_unsigned = lower.split(' ').any(|word| word == "unsigned");
    let integer = |bits: u32| {
        if is_unsigned {
            ColumnType::integer(0, (1_i128 << bits) - 1)
        } else {
            ColumnType::integer(-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
        }
    };
    let bytes = |bytes| ColumnType::Text { characters: None, bytes: Some(bytes), padded: false, nul: true };
    match word {
        "varchar" => ColumnType::text(number()),
        "char" => ColumnType::Text { characters: number().or(Some(1)), bytes: None, padded: true, nul: true },
        "tinytext" => bytes(255),
        "text" => bytes(65_535),
        "mediumtext" => bytes((1 << 24) - 1),
        "longtext" => bytes((1 << 32) - 1),
        // The database says which values there are.
        "enum" => ColumnType::text(None),
        "tinyint" | "bool" | "boolean" => integer(8),
        "smallint" => integer(16),
        "mediumint" => integer(24),
        "int" | "integer" => integer(32),
        "bigint" => integer(64),
        // `DOUBLE(10,2)` rounds what it is given, and says nothing.
        "float" | "double" | "real" if argument.is_some_and(|text| text.contains(',')) => ColumnType::Unknown,
        "float" => ColumnType::Single,
        "double" | "real" => ColumnType::Double,
        "decimal" | "numeric" => {
            let mut parts =
                argument.unwrap_or("10").split(',').map(|part| part.trim().parse::<u16>().unwrap_or(0));
            let (precision, scale) = (parts.next().unwrap_or(10), parts.next().unwrap_or(0));
            ColumnType::Decimal { whole: Some(precision.saturating_sub(scale)), scale: Some(scale) }
        }
        "json" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "datetime" | "timestamp" => ColumnType::Timestamp { digits: digits() },
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { digits: digits() },
        _ => ColumnType::Unknown,
    }
}
