//! The databases that are spoken to.

use std::borrow::Cow;

use s3rep_core::{Attribute, Error, ErrorKind, Result, Scope};

use crate::{TypeClass, mysql, postgres, sqlite};

/// A dialect of SQL. One arm a question; a new database is a new variant and the compiler's list of what it
/// has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite and libSQL.
    Sqlite,
    /// PostgreSQL 12 and later, and what speaks its language.
    Postgres,
    /// MySQL 8 and PlanetScale.
    Mysql,
    /// MariaDB 10.2 and later.
    Mariadb,
}

impl Dialect {
    /// The identifier, quoted and escaped.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] for an empty name, for one that no quoting can carry, and for one that is
    /// longer than the database keeps (PostgreSQL would cut it in silence).
    pub fn quote(self, identifier: &str) -> Result<String> {
        self.check_identifier(identifier)?;
        let quote = match self {
            Self::Sqlite | Self::Postgres => '"',
            Self::Mysql | Self::Mariadb => '`',
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

    /// The name of a table, quoted and escaped. Where databases have schemas, what stands before the first dot
    /// names one: `analytics.users`.
    ///
    /// # Errors
    /// As [`Self::quote`].
    pub fn quote_table(self, table: &str) -> Result<String> {
        match self.split_table(table) {
            (Some(schema), name) => Ok(format!("{}.{}", self.quote(schema)?, self.quote(name)?)),
            (None, name) => self.quote(name),
        }
    }

    /// The schema (in MySQL the database) and the name of a table.
    pub fn split_table(self, table: &str) -> (Option<&str>, &str) {
        match (self, table.split_once('.')) {
            (Self::Sqlite, _) | (_, None) => (None, table),
            (_, Some((schema, name))) => (Some(schema), name),
        }
    }

    /// The type of a column for values of this class.
    pub fn type_name(self, class: TypeClass) -> Cow<'static, str> {
        match self {
            Self::Sqlite => sqlite::type_name(class).into(),
            Self::Postgres => postgres::type_name(class),
            Self::Mysql | Self::Mariadb => mysql::type_name(class),
        }
    }

    /// The type of the attribute's column.
    pub fn type_of(self, attribute: &Attribute) -> Cow<'static, str> {
        self.type_name(TypeClass::of(attribute))
    }

    /// Whether the database takes the two for the same column.
    pub fn same_column(self, a: &str, b: &str) -> bool {
        match self {
            Self::Sqlite => a.eq_ignore_ascii_case(b),
            Self::Postgres => a == b,
            Self::Mysql | Self::Mariadb => a == b || a.to_lowercase() == b.to_lowercase(),
        }
    }

    /// Refuses table names that the database or s3rep keeps for itself.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`], scope table.
    pub fn check_table_name(self, table: &str) -> Result<()> {
        self.quote_table(table)?;
        let (schema, name) = self.split_table(table);
        let (schema, name) = (schema.unwrap_or_default().to_ascii_lowercase(), name.to_ascii_lowercase());
        let reserved = match self {
            Self::Sqlite => name.starts_with("sqlite_") || name.starts_with("libsql_"),
            Self::Postgres => schema.starts_with("pg_") || schema == "information_schema",
            Self::Mysql | Self::Mariadb => {
                ["mysql", "sys", "information_schema", "performance_schema"].contains(&&*schema)
            }
        };
        if reserved || name.starts_with("_s3rep") {
            return Err(Error::new(ErrorKind::ConfigInvalid, "the table name is reserved")
                .with_scope(Scope::Table)
                .with_context("table", table)
                .with_advice("name another table in the mapping of the resource"));
        }
        Ok(())
    }

    /// The placeholder of the parameter with this number, counted from 1.
    pub(crate) fn placeholder(self, number: usize) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("${number}"),
            Self::Mysql | Self::Mariadb => "?".to_owned(),
        }
    }

    fn check_identifier(self, identifier: &str) -> Result<()> {
        let problem = if identifier.is_empty() {
            "a table or column has an empty name"
        } else if identifier.contains('\0') {
            "a table or column name contains a NUL character"
        } else {
            let problem = match self {
                Self::Sqlite => None,
                Self::Postgres => postgres::problem_of_name(identifier),
                Self::Mysql | Self::Mariadb => mysql::problem_of_name(identifier),
            };
            let Some(problem) = problem else { return Ok(()) };
            problem
        };
        Err(Error::new(ErrorKind::ConfigInvalid, problem)
            .with_scope(Scope::Table)
            .with_context("name", identifier.escape_debug())
            .with_advice("map it to another name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dialect; 4] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql, Dialect::Mariadb];

    #[test]
    fn hostile_identifiers_are_quoted_or_refused() {
        for (name, quoted, backquoted) in [
            ("plain", r#""plain""#, "`plain`"),
            (r#"a"b"#, r#""a""b""#, "`a\"b`"),
            ("\"\"", "\"\"\"\"\"\"", "`\"\"`"),
            ("select", r#""select""#, "`select`"),
            ("x; drop table y --", r#""x; drop table y --""#, "`x; drop table y --`"),
            ("naïve 日本", r#""naïve 日本""#, "`naïve 日本`"),
            ("a`b'c[d]", r#""a`b'c[d]""#, "`a``b'c[d]`"),
        ] {
            assert_eq!(Dialect::Sqlite.quote(name).unwrap(), quoted);
            assert_eq!(Dialect::Postgres.quote(name).unwrap(), quoted);
            assert_eq!(Dialect::Mysql.quote(name).unwrap(), backquoted);
        }
        for dialect in ALL {
            for name in ["", "a\0b"] {
                assert_eq!(dialect.quote(name).unwrap_err().kind(), ErrorKind::ConfigInvalid);
            }
        }
    }

    #[test]
    fn names_that_a_database_would_change_are_refused() {
        let (bytes63, bytes64) = ("é".repeat(31) + "x", "é".repeat(32));
        Dialect::Postgres.quote(&bytes63).unwrap();
        assert!(Dialect::Postgres.quote(&bytes64).unwrap_err().to_string().contains("63"));
        Dialect::Mysql.quote(&"é".repeat(64)).unwrap();
        for name in ["x".repeat(65), "smile 😀".to_owned(), "trailing ".to_owned()] {
            assert!(Dialect::Mariadb.quote(&name).is_err(), "{name}");
        }
    }

    #[test]
    fn tables_may_name_their_schema() {
        assert_eq!(Dialect::Postgres.quote_table("a.b\"c.d").unwrap(), r#""a"."b""c.d""#);
        assert_eq!(Dialect::Mysql.quote_table("a.b").unwrap(), "`a`.`b`");
        assert_eq!(Dialect::Sqlite.quote_table("a.b").unwrap(), r#""a.b""#);
        for name in [".b", "a.", "."] {
            assert!(Dialect::Postgres.quote_table(name).is_err());
        }
    }

    #[test]
    fn reserved_tables_are_refused() {
        for (dialect, name) in [
            (Dialect::Sqlite, "sqlite_master"),
            (Dialect::Sqlite, "SQLite_x"),
            (Dialect::Sqlite, "_s3rep_cursor"),
            (Dialect::Postgres, "_S3REP_x"),
            (Dialect::Postgres, "public._s3rep_cursor"),
            (Dialect::Postgres, "pg_catalog.pg_class"),
            (Dialect::Mysql, "mysql.user"),
            (Dialect::Sqlite, ""),
        ] {
            let error = dialect.check_table_name(name).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Table));
        }
        ALL.iter().for_each(|dialect| dialect.check_table_name("users").unwrap());
    }

    proptest::proptest! {
        /// Between the outer quotes every quote is doubled: nothing can end the identifier early.
        #[test]
        fn quoted_identifiers_hold_together(name in "[a\";`\\\\é-]{1,12}") {
            for dialect in ALL {
                let quoted = dialect.quote(&name).unwrap();
                let quote = quoted.chars().next().unwrap();
                let inner = quoted.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap();
                let double = format!("{quote}{quote}");
                proptest::prop_assert!(!inner.replace(&double, "").contains(quote));
                proptest::prop_assert_eq!(inner.replace(&double, &quote.to_string()), name.clone());
            }
        }
    }
}
