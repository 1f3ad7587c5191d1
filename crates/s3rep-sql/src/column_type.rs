//! What an existing column can hold, and which values it holds exactly.

use s3rep_core::ColumnShape;

use crate::{Affinity, Column, Dialect, Role, TypeClass, mysql, postgres};

/// What a column of an existing table holds, read from its type. Drives the exactness of [`Cell`](crate::Cell)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// SQLite, where a column has an affinity and its values have types.
    Flexible(Affinity),
    /// Text.
    Text {
        /// At most so many Unicode characters.
        characters: Option<u32>,
        /// At most so many bytes of UTF-8.
        bytes: Option<u64>,
        /// Filled up with spaces, which are not told from the value's own.
        padded: bool,
        /// Takes the NUL character, which PostgreSQL does not.
        nul: bool,
    },
    /// A whole number of this range.
    Integer {
        /// The smallest.
        min: i128,
        /// The largest.
        max: i128,
    },
    /// A double.
    Double,
    /// A number of single precision.
    Single,
    /// A decimal number.
    Decimal {
        /// Digits before the point, without limit when absent.
        whole: Option<u16>,
        /// Digits after the point, without limit when absent.
        scale: Option<u16>,
    },
    /// True or false.
    Boolean,
    /// JSON, kept as text or in a form without loss.
    Json,
    /// PostgreSQL's `jsonb`, which takes no NUL in text.
    JsonBinary,
    /// UUID.
    Uuid,
    /// IP address.
    Address,
    /// Date and time of day, in UTC, with so many digits of a second.
    Timestamp {
        /// 0 to 6.
        digits: u8,
    },
    /// Date.
    Date,
    /// Time of day with so many digits of a second.
    Time {
        /// 0 to 6.
        digits: u8,
    },
    /// Bytes.
    Bytes,
    /// Something that s3rep does not write.
    Unknown,
}

/// How the type of an existing column meets the one that its layout asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It holds every value, or those that it does not are refused one by one as no type could be wider.
    Holds,
    /// A wider type of the same kind would hold more.
    TooNarrow,
    /// Values of another kind.
    Wrong,
}

impl ColumnType {
    pub(crate) const fn text(characters: Option<u32>) -> Self {
        Self::Text { characters, bytes: None, padded: false, nul: true }
    }

    pub(crate) const fn integer(min: i128, max: i128) -> Self {
        Self::Integer { min, max }
    }

    /// Of a column as it exists.
    pub fn of(dialect: Dialect, shape: &ColumnShape) -> Self {
        match dialect {
            Dialect::Sqlite => Self::Flexible(Affinity::of(&shape.type_name)),
            Dialect::Postgres => postgres::column_type(&shape.type_name),
            Dialect::Mysql | Dialect::Mariadb => mysql::column_type(&shape.type_name),
        }
    }

    pub(crate) fn holds(self, dialect: Dialect, wanted: &Column) -> Match {
        let want = Self::of(
            dialect,
            &ColumnShape {
                name: String::new(),
                type_name: wanted.type_name.to_string(),
                nullable: true,
                primary_key: false,
            },
        );
        if let (Self::Flexible(have), Self::Flexible(want)) = (self, want) {
            // Keys are compared as bytes: a numeric column would turn '007' into 7.
            let is_good = match wanted.role {
                Role::Key => matches!(have, Affinity::Text | Affinity::Blob),
                _ => have.carries(want),
            };
            return if is_good { Match::Holds } else { Match::Wrong };
        }
        if wanted.role == Role::Key {
            return if matches!(self, Self::Text { .. }) { Match::Holds } else { Match::Wrong };
        }
        self.holds_values_of(want, wanted.class)
    }

    fn holds_values_of(self, want: Self, class: Option<TypeClass>) -> Match {
        use ColumnType as T;
        let narrower = |is_narrower: bool| if is_narrower { Match::TooNarrow } else { Match::Holds };
        match (self, want) {
            (T::Unknown, _) => Match::Wrong,
            (T::Text { characters, bytes, .. }, T::Text { characters: wanted, bytes: wanted_bytes, .. }) => {
                let fewer_characters = characters.is_some_and(|have| wanted.is_none_or(|want| have < want));
                let fewer_bytes = match (bytes, wanted_bytes, wanted) {
                    (Some(have), Some(want), _) => have < want,
                    (Some(have), None, Some(characters)) => have < u64::from(characters) * 4,
                    _ => false,
                };
                narrower(fewer_characters || fewer_bytes)
            }
            // Whatever JSON is, text holds it; a length would be a matter of luck.
            (T::Text { .. }, T::Json | T::JsonBinary | T::Uuid | T::Address | T::Timestamp { .. }) => {
                Match::Holds
            }
            // A hand-made table may say more exactly what the text is; what it is not is refused one by one.
            (T::Json | T::JsonBinary, _) => Match::Holds,
            (T::Uuid | T::Address | T::Timestamp { .. } | T::Date | T::Time { .. }, T::Text { .. }) => {
                Match::Holds
            }
            (T::Integer { min, max }, T::Integer { min: low, max: high }) => {
                // TINYINT(1) is asked for truth values only.
                narrower(class != Some(TypeClass::Boolean) && (min > low || max < high))
            }
            // A double holds the integers that it holds exactly; others are refused one by one.
            (T::Double, T::Integer { .. } | T::Double) => Match::Holds,
            (T::Single, T::Double) => Match::TooNarrow,
            // A double holds every integer of 32 bits. Of 64 it does not: such a column is better left as it is, and
            // fractions are refused one by one.
            (T::Integer { min, max }, T::Double) => {
                narrower(min >= i32::MIN.into() && max <= u32::MAX.into())
            }
            (T::Decimal { .. }, T::Double | T::Integer { .. }) => Match::Holds,
            (T::Boolean, T::Boolean) | (T::Integer { .. }, T::Boolean) => Match::Holds,
            (T::Boolean, T::Integer { .. }) if class == Some(TypeClass::Boolean) => Match::Holds,
            (T::Uuid, T::Uuid) | (T::Address, T::Address) => Match::Holds,
            (T::Timestamp { digits }, T::Timestamp { digits: wanted }) => narrower(digits < wanted.min(3)),
            _ => Match::Wrong,
        }
    }
}

impl Dialect {
    /// Whether the column takes more than its layout asks for, and would take less if it had the type asked for.
    pub(crate) fn is_wider(self, wanted: &Column, have: &ColumnShape) -> bool {
        use ColumnType as T;
        if wanted.class.is_none() || wanted.class == Some(TypeClass::Boolean) {
            return false;
        }
        let asked = ColumnShape { type_name: wanted.type_name.to_string(), ..have.clone() };
        match (T::of(self, have), T::of(self, &asked)) {
            (T::Text { characters: have, .. }, T::Text { characters: Some(want), .. }) => {
                have.is_none_or(|have| have > want)
            }
            (T::Integer { min, max }, T::Integer { min: low, max: high }) => min < low || max > high,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(type_name: &str) -> ColumnShape {
        ColumnShape { name: "c".into(), type_name: type_name.into(), nullable: true, primary_key: false }
    }

    #[test]
    fn types_are_read_as_the_databases_print_them() {
        use ColumnType as T;
        let postgres = |name| T::of(Dialect::Postgres, &shape(name));
        let mysql = |name| T::of(Dialect::Mysql, &shape(name));
        let varchar = T::Text { characters: Some(50), bytes: None, padded: false, nul: false };
        assert_eq!(postgres("character varying(50)"), varchar);
        assert_eq!(postgres("VARCHAR(50)"), varchar);
        assert_eq!(postgres("timestamp(3) with time zone"), T::Timestamp { digits: 3 });
        assert_eq!(postgres("TIMESTAMP WITH TIME ZONE"), T::Timestamp { digits: 6 });
        assert_eq!(postgres("numeric(10,2)"), T::Decimal { whole: Some(8), scale: Some(2) });
        assert_eq!(postgres("numeric"), T::Decimal { whole: None, scale: None });
        assert_eq!(postgres("bigint"), T::integer(i64::MIN.into(), i64::MAX.into()));
        assert_eq!(postgres("text[]"), T::Unknown);
        assert_eq!(mysql("tinyint(1)"), T::integer(-128, 127));
        assert_eq!(mysql("bigint(20) unsigned"), T::integer(0, u64::MAX.into()));
        assert_eq!(mysql("datetime"), T::Timestamp { digits: 0 });
        assert_eq!(mysql("datetime(6)"), T::Timestamp { digits: 6 });
        assert_eq!(mysql("decimal(10,2)"), T::Decimal { whole: Some(8), scale: Some(2) });
        assert_eq!(mysql("enum('a','b c')"), T::text(None));
        assert_eq!(mysql("char(36)"), T::Text { characters: Some(36), bytes: None, padded: true, nul: true });
        assert_eq!(mysql("geometry"), T::Unknown);
    }
}
