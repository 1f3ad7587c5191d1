//! The databases that are spoken to.

use s3rep_core::{Attribute, Error, ErrorKind, Result, Scope};

use crate::{TypeClass, sqlite};

/// A dialect of SQL. One arm a question; a new database is a new variant and the compiler's list of what it
/// has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite and libSQL.
    Sqlite,
}

impl Dialect {
    /// The identifier, quoted and escaped.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] for an empty name and for one with a NUL, which no quoting can carry.
    pub fn quote(self, identifier: &str) -> Result<String> {
        check_identifier(identifier)?;
        let quote = match self {
            Self::Sqlite => '"',
        };
        let mut quoted = String::with_capacity(identifier.len() + 2);
        quoted.push(quote);
        for character in identifier.chars() {
            if character == quote {
                quoted.push(quote);
            }
            quoted.push(character);
        }
        quoted.push(quote);
        Ok(quoted)
    }

    /// The type of a column for values of this class.
    pub const fn type_name(self, class: TypeClass) -> &'static str {
        match self {
            Self::Sqlite => sqlite::type_name(class),
        }
    }

    /// The type of the attribute's column.
    pub fn type_of(self, attribute: &Attribute) -> &'static str {
        self.type_name(TypeClass::of(attribute))
    }

    /// Whether the database takes the two for the same column.
    pub fn same_column(self, a: &str, b: &str) -> bool {
        match self {
            Self::Sqlite => a.eq_ignore_ascii_case(b),
        }
    }

    /// Refuses table names that the database or s3rep keeps for itself.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`], scope table.
    pub fn check_table_name(self, name: &str) -> Result<()> {
        check_identifier(name).map_err(|error| error.with_scope(Scope::Table))?;
        let lower = name.to_ascii_lowercase();
        let reserved = match self {
            Self::Sqlite => lower.starts_with("sqlite_") || lower.starts_with("libsql_"),
        };
        if reserved || lower.starts_with("_s3rep") {
            return Err(Error::new(ErrorKind::ConfigInvalid, "the table name is reserved")
                .with_scope(Scope::Table)
                .with_context("table", name)
                .with_advice("name another table in the mapping of the resource"));
        }
        Ok(())
    }

    /// The placeholder of the parameter with this number, counted from 1.
    pub(crate) fn placeholder(self, number: usize) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
        }
    }
}

fn check_identifier(identifier: &str) -> Result<()> {
    let problem = if identifier.is_empty() {
        "a table or column has an empty name"
    } else if identifier.contains('\0') {
        "a table or column name contains a NUL character"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::ConfigInvalid, problem)
        .with_scope(Scope::Table)
        .with_context("name", identifier.escape_debug())
        .with_advice("map it to another name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_identifiers_are_quoted_or_refused() {
        for (name, quoted) in [
            ("plain", r#""plain""#),
            (r#"a"b"#, r#""a""b""#),
            ("\"\"", "\"\"\"\"\"\""),
            ("select", r#""select""#),
            ("x; drop table y --", r#""x; drop table y --""#),
            ("naïve 日本 😀", r#""naïve 日本 😀""#),
            ("a`b'c[d]", r#""a`b'c[d]""#),
        ] {
            assert_eq!(Dialect::Sqlite.quote(name).unwrap(), quoted);
        }
        for name in ["", "a\0b"] {
            assert_eq!(Dialect::Sqlite.quote(name).unwrap_err().kind(), ErrorKind::ConfigInvalid);
        }
    }

    #[test]
    fn reserved_tables_are_refused() {
        for name in ["sqlite_master", "SQLite_x", "_s3rep_cursor", "_S3REP_x", ""] {
            let error = Dialect::Sqlite.check_table_name(name).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Table));
        }
        Dialect::Sqlite.check_table_name("users").unwrap();
    }

    proptest::proptest! {
        /// Between the outer quotes every quote is doubled: nothing can end the identifier early.
        #[test]
        fn quoted_identifiers_hold_together(name in "[a\";\\\\ é-]{1,12}") {
            let quoted = Dialect::Sqlite.quote(&name).unwrap();
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            proptest::prop_assert!(!inner.replace("\"\"", "").contains('"'));
            proptest::prop_assert_eq!(inner.replace("\"\"", "\""), name);
        }
    }
}
