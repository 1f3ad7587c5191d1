//! Tables as they are: how they are looked at, and which of their columns take rows.

use std::sync::Arc;

use s3rep_core::{
    ColumnShape, Error, ErrorKind, OnMismatch, ResourceSchema, Result, Scope, Table, TableShape,
};
use s3rep_sql::{Dialect, Fit, KEY, Layout, Role, Write};

use crate::{
    encode::Target,
    row::{Row, text_of},
};

const SQLITE: Dialect = Dialect::Sqlite;

/// The names of the tables and views that SQLite takes for `?1`, as text.
pub(crate) fn names() -> String {
    format!(
        "SELECT {} FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        text_of("name")
    )
}

/// The columns of the table `?1`, for [`column`].
///
/// A column that may be left out of an insert counts as nullable: it has a default. Generated columns cannot
/// be written and are passed over.
pub(crate) fn columns() -> String {
    format!(
        "SELECT {}, {}, \"notnull\" = 0 OR dflt_value IS NOT NULL, pk FROM pragma_table_xinfo(?1) WHERE hidden = 0",
        text_of("name"),
        text_of("type")
    )
}

/// Whether something beside the keys of the table `?1` depends on the order in which its rows are written: values that
/// have to be unique, foreign keys, triggers.
pub(crate) const IS_ORDERED: &str = "\
    SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk') \
    OR EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1)) \
    OR EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE)";

pub(crate) fn column(mut row: Row) -> Result<ColumnShape> {
    Ok(ColumnShape {
        name: row.text(0)?,
        type_name: row.text(1)?,
        nullable: row.integer(2)? != 0,
        primary_key: row.integer(3)? != 0,
    })
}

/// The columns of a table, `None` when there is none of that name. To SQLite `cars` and `Cars` are one table:
/// two tables of a mapping would be mixed in silence.
pub(crate) fn shape(table: &str, names: &[String], columns: Vec<ColumnShape>) -> Result<Option<TableShape>> {
    if let Some(other) = names.iter().find(|name| *name != table) {
        return Err(Error::new(
            ErrorKind::SchemaMismatch,
            "the database has a table whose name differs only by case, and takes them for one",
        )
        .with_scope(Scope::Table)
        .with_context("table", table)
        .with_context("there is", other)
        .with_advice("spell it as it is in the database, or name another table in the mapping"));
    }
    Ok((!columns.is_empty()).then_some(TableShape { columns }))
}

/// The shape that schema synchronisation would give the table.
pub(crate) fn planned_shape(table: &Table) -> Result<TableShape> {
    let layout = Layout::of(SQLITE, table)?;
    let columns = layout.columns.into_iter().map(|column| ColumnShape {
        primary_key: column.role == Role::Key,
        name: column.name,
        type_name: column.type_name.into_owned(),
        nullable: column.nullable,
    });
    Ok(TableShape { columns: columns.collect() })
}

/// The columns of a table that take the values of a row.
pub(crate) fn targets(table: &Table, shape: &TableShape, on_mismatch: OnMismatch) -> Result<Vec<Target>> {
    let fit = SQLITE.fit(table, shape, on_mismatch)?;
    Ok(fit.columns.iter().map(|column| Target::new(column, &table.schema)).collect())
}

/// A table that rows go into.
pub(crate) struct Fitted {
    table: Table,
    fit: Fit,
    pub(crate) targets: Vec<Target>,
    /// The answer to [`IS_ORDERED`].
    pub(crate) is_ordered: bool,
}

impl Fitted {
    /// Looks for the columns, and says which attributes have none.
    pub(crate) fn new(
        table: &Table,
        shape: Option<TableShape>,
        is_ordered: bool,
        on_mismatch: OnMismatch,
    ) -> Result<Self> {
        SQLITE.check_table_name(&table.name)?;
        let Some(shape) = shape else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such table")
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_advice("set schemaSync.enabled to true, or create the table"));
        };
        let fit = SQLITE.fit(table, &shape, on_mismatch)?;
        for warning in &fit.warnings {
            tracing::warn!(table = %table.name, "{warning}: it is left out");
        }
        let targets = fit.columns.iter().map(|column| Target::new(column, &table.schema)).collect();
        Ok(Self { table: table.clone(), fit, targets, is_ordered })
    }

    /// Whether it was made for rows of this schema.
    pub(crate) fn is_for(&self, schema: &Arc<ResourceSchema>) -> bool {
        Arc::ptr_eq(&self.table.schema, schema) || self.table.schema == *schema
    }

    /// Writes so many rows, with the values of [`Self::targets`] in order.
    pub(crate) fn write(&self, rows: usize) -> Result<String> {
        SQLITE.write_rows(&Write::of(&self.table.name, self.table.mode, &self.fit), rows)
    }

    /// Deletes so many rows by their keys.
    pub(crate) fn delete(&self, keys: usize) -> Result<String> {
        let key = self.targets.iter().find(|target| target.role == Role::Key);
        let key = key.map_or(KEY, |target| &target.name);
        SQLITE.delete_keys(&self.table.name, key, &SQLITE.placeholders(keys))
    }
}

/// Whether a statement failed because an earlier run has done it: SQLite has no `ADD COLUMN IF NOT EXISTS`.
pub(crate) fn is_done_already(statement: &str, message: &str) -> bool {
    (statement.contains("\" ADD COLUMN \"") && message.contains("duplicate column name"))
        || (statement.contains("\" DROP COLUMN \"") && message.contains("no such column"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_another_case_is_another_table() {
        let columns = || {
            vec![ColumnShape {
                name: "id".into(),
                type_name: "TEXT".into(),
                nullable: false,
                primary_key: true,
            }]
        };
        assert!(shape("cars", &["cars".into()], columns()).unwrap().is_some());
        assert_eq!(shape("cars", &[], Vec::new()).unwrap(), None);
        let error = shape("cars", &["Cars".into()], columns()).unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table));
    }

    #[test]
    fn only_what_is_done_already_is_passed_over() {
        let (add, dropped) = (r#"ALTER TABLE "t" ADD COLUMN "a" TEXT"#, r#"ALTER TABLE "t" DROP COLUMN "a""#);
        assert!(is_done_already(add, "SQLite error: duplicate column name: a"));
        assert!(is_done_already(dropped, "no such column: a"));
        assert!(!is_done_already(add, "no such column: a"));
        assert!(!is_done_already(r#"CREATE TABLE "t" ("a" TEXT, "a" TEXT)"#, "duplicate column name: a"));
    }
}
