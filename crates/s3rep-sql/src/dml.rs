//! Statements that write rows.

use s3rep_core::{Result, RouteMode};

use crate::{Dialect, Fit, Role};

/// What is written to a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Write<'a> {
    /// The table, unquoted, with its schema.
    pub table: &'a str,
    /// Upserts rows or appends them.
    pub mode: RouteMode,
    /// The column that has to be unique: the key, or the identity of the change in append tables.
    pub unique: &'a str,
    /// The columns that are written, in order.
    pub columns: Vec<&'a str>,
    /// The column that an update sets to the time of the database.
    pub updated_at: Option<&'a str>,
}

impl<'a> Write<'a> {
    /// What is written to a table that has been looked at.
    pub fn of(table: &'a str, mode: RouteMode, fit: &'a Fit) -> Self {
        let name_of = |role: Role, default: &'a str| {
            fit.columns.iter().find(|column| column.role == role).map_or(default, |column| &column.shape.name)
        };
        let unique = match mode {
            RouteMode::Upsert => name_of(Role::Key, crate::KEY),
            RouteMode::Append => name_of(Role::ChangeId, crate::CHANGE_ID),
        };
        let columns = fit.columns.iter().map(|column| &*column.shape.name).collect();
        Self { table, mode, unique, columns, updated_at: fit.updated_at.as_deref() }
    }
}

impl Dialect {
    /// Writes `rows` rows, whether they are there or not. Parameters row by row in the order of the columns.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn write_rows(self, write: &Write<'_>, rows: usize) -> Result<String> {
        let columns = write.columns.len();
        let row = |row: usize| {
            let places: Vec<_> = (1..=columns).map(|place| self.placeholder(row * columns + place)).collect();
            format!("({})", places.join(", "))
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        self.write_from(write, &format!("VALUES {}", rows.join(", ")))
    }

    /// Writes the rows of `source`, a query or list of values with the columns in order.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn write_from(self, write: &Write<'_>, source: &str) -> Result<String> {
        let names = write.columns.iter().map(|column| self.quote(column)).collect::<Result<Vec<_>>>()?;
        let insert =
            format!("INSERT INTO {} ({}) {source}", self.quote_table(write.table)?, names.join(", "));
        Ok(format!("{insert} {}", self.on_conflict(write)?))
    }

    /// Deletes the rows with these keys; `keys` is what stands between the parentheses of IN.
    ///
    /// # Errors
    /// When a name cannot be quoted.
    pub fn delete_keys(self, table: &str, key: &str, keys: &str) -> Result<String> {
        let (table, key) = (self.quote_table(table)?, self.quote(key)?);
        Ok(match self {
            Self::Sqlite => format!("DELETE FROM {table} WHERE {key} IN ({keys})"),
            Self::Postgres => format!("DELETE FROM {table} WHERE {key} = ANY ({keys})"),
            // A hand-made key may take different texts for one.
            Self::Mysql | Self::Mariadb => {
                format!("DELETE FROM {table} WHERE {key} IN ({keys}) AND BINARY {key} IN ({keys})")
            }
        })
    }

    /// As many placeholders as there are values, with commas.
    pub fn placeholders(self, count: usize) -> String {
        let places: Vec<_> = (1..=count).map(|number| self.placeholder(number)).collect();
        places.join(", ")
    }

    fn on_conflict(self, write: &Write<'_>) -> Result<String> {
        let unique = self.quote(write.unique)?;
        let is_upsert = write.mode == RouteMode::Upsert;
        let mut updates = Vec::with_capacity(write.columns.len() + 1);
        if is_upsert {
            for column in write.columns.iter().filter(|column| **column != write.unique) {
                let column = self.quote(column)?;
                updates.push(match self {
                    Self::Sqlite | Self::Postgres => format!("{column} = excluded.{column}"),
                    Self::Mysql | Self::Mariadb => format!("{column} = VALUES({column})"),
                });
            }
        }
        if let (Self::Postgres, true, Some(updated_at)) = (self, is_upsert, write.updated_at) {
            updates.push(format!("{} = now()", self.quote(updated_at)?));
        }
        Ok(match self {
            Self::Sqlite | Self::Postgres if updates.is_empty() => {
                format!("ON CONFLICT ({unique}) DO NOTHING")
            }
            Self::Sqlite | Self::Postgres => {
                format!("ON CONFLICT ({unique}) DO UPDATE SET {}", updates.join(", "))
            }
            // MySQL updates whichever row any unique index finds. Another row than the key's is not touched: its
            // key would become null, which strict mode refuses.
            Self::Mysql | Self::Mariadb => {
                updates.insert(
                    0,
                    format!("{unique} = IF(BINARY {unique} = BINARY VALUES({unique}), {unique}, NULL)"),
                );
                format!("ON DUPLICATE KEY UPDATE {}", updates.join(", "))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CHANGE_ID, KEY};

    fn upsert<'a>(table: &'a str, columns: &[&'a str]) -> Write<'a> {
        Write { table, mode: RouteMode::Upsert, unique: KEY, columns: columns.to_vec(), updated_at: None }
    }

    fn append<'a>(table: &'a str, columns: &[&'a str]) -> Write<'a> {
        Write { mode: RouteMode::Append, unique: CHANGE_ID, ..upsert(table, columns) }
    }

    #[test]
    fn sqlite_reads_as_expected() {
        let sqlite = Dialect::Sqlite;
        insta::assert_snapshot!(sqlite.write_rows(&upsert("cars", &["id", "na\"me", "select"]), 2).unwrap(), @r#"INSERT INTO "cars" ("id", "na""me", "select") VALUES (?1, ?2, ?3), (?4, ?5, ?6) ON CONFLICT ("id") DO UPDATE SET "na""me" = excluded."na""me", "select" = excluded."select""#);
        insta::assert_snapshot!(sqlite.write_rows(&upsert("keys", &["id"]), 1).unwrap(), @r#"INSERT INTO "keys" ("id") VALUES (?1) ON CONFLICT ("id") DO NOTHING"#);
        insta::assert_snapshot!(sqlite.write_rows(&append("log", &["id", "_change_id"]), 1).unwrap(), @r#"INSERT INTO "log" ("id", "_change_id") VALUES (?1, ?2) ON CONFLICT ("_change_id") DO NOTHING"#);
        assert_eq!(
            sqlite.delete_keys("x; drop", KEY, "?1").unwrap(),
            r#"DELETE FROM "x; drop" WHERE "id" IN (?1)"#
        );
        assert!(sqlite.delete_keys("a\0", KEY, "?1").is_err());
    }

    #[test]
    fn postgres_reads_as_expected() {
        let postgres = Dialect::Postgres;
        let write = Write { updated_at: Some("updated_at"), ..upsert("sales.cars", &["id", "name"]) };
        insta::assert_snapshot!(postgres.write_from(&write, "SELECT * FROM unnest($1::text[], $2::text[])").unwrap(), @r#"INSERT INTO "sales"."cars" ("id", "name") SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name", "updated_at" = now()"#);
        insta::assert_snapshot!(postgres.delete_keys("cars", KEY, "$1").unwrap(), @r#"DELETE FROM "cars" WHERE "id" = ANY ($1)"#);
    }

    #[test]
    fn mysql_reads_as_expected() {
        let mysql = Dialect::Mysql;
        insta::assert_snapshot!(mysql.write_rows(&upsert("cars", &["id", "name"]), 2).unwrap(), @"INSERT INTO `cars` (`id`, `name`) VALUES (?, ?), (?, ?) ON DUPLICATE KEY UPDATE `id` = IF(BINARY `id` = BINARY VALUES(`id`), `id`, NULL), `name` = VALUES(`name`)");
        insta::assert_snapshot!(mysql.write_rows(&append("log", &["id", "_change_id"]), 1).unwrap(), @"INSERT INTO `log` (`id`, `_change_id`) VALUES (?, ?) ON DUPLICATE KEY UPDATE `_change_id` = IF(BINARY `_change_id` = BINARY VALUES(`_change_id`), `_change_id`, NULL)");
        insta::assert_snapshot!(mysql.delete_keys("cars", KEY, "?, ?").unwrap(), @"DELETE FROM `cars` WHERE `id` IN (?, ?) AND BINARY `id` IN (?, ?)");
    }
}
