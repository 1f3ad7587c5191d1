//! SQLite's types and affinities.

use crate::TypeClass;

pub(crate) const fn type_name(class: TypeClass) -> &'static str {
    match class {
        TypeClass::Double => "REAL",
        TypeClass::Integer | TypeClass::BigInteger | TypeClass::Boolean => "INTEGER",
        TypeClass::Text(_)
        | TypeClass::Json
        | TypeClass::Ip4
        | TypeClass::Ip6
        | TypeClass::Uuid
        | TypeClass::Timestamp => "TEXT",
    }
}

/// What SQLite converts a value to when it stores it in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Numbers become text.
    Text,
    /// Numeric text becomes a number, whole doubles become integers.
    Numeric,
    /// As numeric.
    Integer,
    /// As numeric, and integers become doubles.
    Real,
    /// Everything stays what it is.
    Blob,
}

impl Affinity {
    /// The affinity of a declared type, by the rules of SQLite's documentation ("Determination Of Column
    /// Affinity").
    pub fn of(type_name: &str) -> Self {
        let name = type_name.to_ascii_uppercase();
        let has = |part: &str| name.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || name.trim().is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether a column of this affinity carries the values of one that should have `wanted`.
    pub(crate) fn carries(self, wanted: Self) -> bool {
        match (wanted, self) {
            // Numeric covers DATE, DATETIME, UUID, JSON of hand-made tables: text that SQLite would turn into
            // a number is refused record by record.
            (Self::Text, have) => matches!(have, Self::Text | Self::Blob | Self::Numeric),
            (_, have) => have != Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_follow_the_documentation() {
        for (name, affinity) in [
            ("INT", Affinity::Integer),
            ("BIGINT UNSIGNED", Affinity::Integer),
            ("FLOATING POINT", Affinity::Integer),
            ("VARCHAR(255)", Affinity::Text),
            ("CHARINT", Affinity::Integer),
            ("clob", Affinity::Text),
            ("", Affinity::Blob),
            ("BLOB", Affinity::Blob),
            ("DOUBLE PRECISION", Affinity::Real),
            ("DECIMAL(10,5)", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
            ("DATETIME", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(name), affinity, "{name}");
        }
    }
}
