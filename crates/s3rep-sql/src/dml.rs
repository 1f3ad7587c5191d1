//! Statements that write rows.

use s3rep_core::Result;

use crate::Dialect;

impl Dialect {
    /// Writes the row of a key, whether it is there or not. Parameters in the order of `columns`, which
    /// include `key`.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn upsert(self, table: &str, key: &str, columns: &[&str]) -> Result<String> {
        let mut statement = self.insert(table, columns)?;
        let key_quoted = self.quote(key)?;
        let mut updates = Vec::with_capacity(columns.len());
        for column in columns.iter().filter(|column| **column != key) {
            let column = self.quote(column)?;
            updates.push(match self {
                Self::Sqlite => format!("{column} = excluded.{column}"),
            });
        }
        statement += &match self {
            Self::Sqlite if updates.is_empty() => format!(" ON CONFLICT ({key_quoted}) DO NOTHING"),
            Self::Sqlite => format!(" ON CONFLICT ({key_quoted}) DO UPDATE SET {}", updates.join(", ")),
        };
        Ok(statement)
    }

    /// Adds the row of a change, unless its change id is there already. Parameters in the order of `columns`,
    /// which include `change_id`.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn append(self, table: &str, change_id: &str, columns: &[&str]) -> Result<String> {
        let statement = self.insert(table, columns)?;
        Ok(match self {
            Self::Sqlite => format!("{statement} ON CONFLICT ({}) DO NOTHING", self.quote(change_id)?),
        })
    }

    /// Deletes the row of a key, the one parameter.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn delete(self, table: &str, key: &str) -> Result<String> {
        Ok(format!("DELETE FROM {} WHERE {} = {}", self.quote(table)?, self.quote(key)?, self.placeholder(1)))
    }

    fn insert(self, table: &str, columns: &[&str]) -> Result<String> {
        let names = columns.iter().map(|column| self.quote(column)).collect::<Result<Vec<_>>>()?;
        let places: Vec<_> = (1..=columns.len()).map(|number| self.placeholder(number)).collect();
        Ok(format!(
            "INSERT INTO {} ({}) VALUES ({})",
            self.quote(table)?,
            names.join(", "),
            places.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CHANGE_ID, KEY};

    #[test]
    fn statements_read_as_expected() {
        let sqlite = Dialect::Sqlite;
        assert_eq!(
            sqlite.upsert("cars", KEY, &["id", "na\"me", "select"]).unwrap(),
            "INSERT INTO \"cars\" (\"id\", \"na\"\"me\", \"select\") VALUES (?1, ?2, ?3) ON CONFLICT (\"id\") DO \
             UPDATE SET \"na\"\"me\" = excluded.\"na\"\"me\", \"select\" = excluded.\"select\""
        );
        assert_eq!(
            sqlite.upsert("keys", KEY, &["id"]).unwrap(),
            r#"INSERT INTO "keys" ("id") VALUES (?1) ON CONFLICT ("id") DO NOTHING"#
        );
        assert_eq!(
            sqlite.append("log", CHANGE_ID, &["id", "_change_id"]).unwrap(),
            r#"INSERT INTO "log" ("id", "_change_id") VALUES (?1, ?2) ON CONFLICT ("_change_id") DO NOTHING"#
        );
        assert_eq!(sqlite.delete("x; drop", KEY).unwrap(), r#"DELETE FROM "x; drop" WHERE "id" = ?1"#);
        assert!(sqlite.delete("a\0", KEY).is_err());
    }
}
