//! Looking at tables and changing them.

use async_trait::async_trait;
use libsql::Value;
use s3rep_core::{Context, Result, SchemaPlan, SchemaSync, Table, TableShape};
use s3rep_sql::Dialect;

use super::{
    connection::{Connection, Transacted},
    sink::LocalSink,
    state::Need,
};
use crate::table;

/// The columns of a table, `None` when there is none of that name.
pub(crate) fn inspect(connection: &Connection, name: &str) -> Result<Option<TableShape>> {
    let names = connection.query(&table::names(), vec![Value::from(name)], |mut row| row.text(0))?;
    let columns = connection.query(&table::columns(), vec![Value::from(name)], table::column)?;
    table::shape(name, &names, columns)
}

/// Runs a plan in one transaction. What an earlier run has done already is passed over.
fn execute(connection: &Connection, plan: &SchemaPlan) -> Result<()> {
    connection.transaction(|| {
        for statement in &plan.statements {
            match connection.run(statement) {
                Err(error) if table::is_done_already(statement, &error.to_string()) => {}
                result => result?,
            }
        }
        Ok(Transacted::Commit(()))
    })
}

#[async_trait]
impl SchemaSync for LocalSink {
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
