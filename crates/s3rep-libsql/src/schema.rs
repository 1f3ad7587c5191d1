//! Looking at tables and changing them.

use async_trait::async_trait;
use libsql::Value;
use s3rep_core::{
    ColumnShape, Context, Error, ErrorKind, Result, SchemaPlan, SchemaSync, Scope, Table, TableShape,
};
use s3rep_sql::Dialect;

use crate::{
    connection::{Connection, Transacted, text_of},
    sink::LibsqlSink,
    state::Need,
};

/// The columns of a table, `None` when there is none of that name. To SQLite `cars` and `Cars` are one table:
/// two tables of a mapping would be mixed in silence.
///
/// A column that may be left out of an insert counts as nullable: it has a default. Generated columns cannot
/// be written and are passed over.
pub(crate) fn inspect(connection: &Connection, table: &str) -> Result<Option<TableShape>> {
    let names = format!(
        "SELECT {} FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        text_of("name")
    );
    let names = connection.query(&names, vec![Value::from(table)], |row| row.text(0))?;
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
    let sql = format!(
        "SELECT {}, {}, \"notnull\" = 0 OR dflt_value IS NOT NULL, pk FROM pragma_table_xinfo(?1) WHERE hidden = 0",
        text_of("name"),
        text_of("type")
    );
    let columns = connection.query(&sql, vec![Value::from(table)], |row| {
        Ok(ColumnShape {
            name: row.text(0)?,
            type_name: row.text(1)?,
            nullable: row.integer(2)? != 0,
            primary_key: row.integer(3)? != 0,
        })
    })?;
    Ok((!columns.is_empty()).then_some(TableShape { columns }))
}

/// Runs a plan in one transaction. What an earlier run has done already is passed over.
fn execute(connection: &Connection, plan: &SchemaPlan) -> Result<()> {
    connection.transaction(|| {
        for statement in &plan.statements {
            match connection.run(statement) {
                Err(error) if is_done_already(statement, &error.to_string()) => {}
                result => result?,
            }
        }
        Ok(Transacted::Commit(()))
    })
}

/// SQLite has no `ADD COLUMN IF NOT EXISTS`.
fn is_done_already(statement: &str, message: &str) -> bool {
    (statement.contains("\" ADD COLUMN \"") && message.contains("duplicate column name"))
        || (statement.contains("\" DROP COLUMN \"") && message.contains("no such column"))
}

#[async_trait]
impl SchemaSync for LibsqlSink {
    async fn inspect(&self, _: &Context, table: &Table) -> Result<Option<TableShape>> {
        let name = table.name.clone();
        let shape =
            self.blocking(move |place| place.with(Need::Existing, |open| inspect(&open.connection, &name)));
        Ok(shape.await?.flatten())
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        Dialect::Sqlite.plan(table, have, self.options())
    }

    async fn execute(&self, _: &Context, plan: &SchemaPlan) -> Result<()> {
        if plan.statements.is_empty() {
            return Ok(());
        }
        let plan = plan.clone();
        self.blocking(move |place| place.with(Need::Created, |open| execute(&open.connection, &plan)))
            .await
            .map(drop)
    }
}
