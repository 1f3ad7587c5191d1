//! Looking at tables and changing them.

use async_trait::async_trait;
use s3rep_core::{Context, Result, SchemaPlan, SchemaSync, Table, TableShape};
use s3rep_sql::Dialect;

use crate::{pool::Session, sink::PostgresSink, table};

/// A table that others use is not waited for without end: everybody else would queue up behind s3rep.
/// Writing a large table anew takes longer than a write may.
const TIMEOUTS: &str = "SET LOCAL lock_timeout TO '10s'; SET LOCAL statement_timeout TO 0";

/// Runs a plan in one transaction: after a crash all of it is done, or nothing.
async fn execute(session: &mut Session, plan: &SchemaPlan) -> Result<()> {
    session.begin().await?;
    session.run(TIMEOUTS).await?;
    for statement in &plan.statements {
        session.run(statement).await?;
    }
    session.commit().await
}

#[async_trait]
impl SchemaSync for PostgresSink {
    async fn inspect(&self, _: &Context, table: &Table) -> Result<Option<TableShape>> {
        let mut session = self.pool().session().await?;
        let look = table::look(session.unsettled()?, table).await?;
        session.settled();
        Ok(look.map(|look| look.shape))
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        Dialect::Postgres.plan(table, have, self.options())
    }

    async fn execute(&self, _: &Context, plan: &SchemaPlan) -> Result<()> {
        if plan.statements.is_empty() {
            return Ok(());
        }
        self.forget();
        execute(&mut self.pool().session().await?, plan).await
    }
}
