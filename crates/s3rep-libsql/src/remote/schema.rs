//! Looking at tables and changing them.

use async_trait::async_trait;
use s3rep_core::{Context, Result, SchemaPlan, SchemaSync, Table, TableShape};
use s3rep_sql::Dialect;

use super::{
    hrana::{Script, When},
    http::Http,
    known,
    sink::RemoteSink,
};
use crate::table;

/// Runs a plan in one transaction. What an earlier run has done already is passed over.
async fn execute(server: &Http, plan: &SchemaPlan) -> Result<()> {
    let mut statements = plan.statements.clone();
    while let Some(done_already) = try_all(server, &statements).await? {
        statements.remove(done_already);
    }
    Ok(())
}

/// Runs statements in one transaction. When one of them turns out to be done already, none is run, and it is
/// returned.
async fn try_all(server: &Http, statements: &[String]) -> Result<Option<usize>> {
    let mut script = Script::default();
    let begin = script.run(When::Always, "BEGIN IMMEDIATE", vec![]);
    let mut last = begin;
    for statement in statements {
        last = script.run(When::Done(last), statement, vec![]);
    }
    let commit = script.run(When::Done(last), "COMMIT", vec![]);
    script.run(When::NotDone(commit), "ROLLBACK", vec![]);
    let ran = server.run(&script).await?;
    if ran.is_done(commit) {
        return Ok(None);
    }
    ran.check(begin)?;
    let first = begin + 1;
    for (index, statement) in statements.iter().enumerate() {
        if ran
            .failure(first + index)
            .is_some_and(|failure| table::is_done_already(statement, &failure.message))
        {
            return Ok(Some(index));
        }
        ran.check(first + index)?;
    }
    ran.check(commit).map(|()| None)
}

#[async_trait]
impl SchemaSync for RemoteSink {
    async fn inspect(&self, _: &Context, table: &Table) -> Result<Option<TableShape>> {
        known::inspect(&self.server, table).await
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        Dialect::Sqlite.plan(table, have, &self.options)
    }

    async fn execute(&self, _: &Context, plan: &SchemaPlan) -> Result<()> {
        if plan.statements.is_empty() {
            return Ok(());
        }
        execute(&self.server, plan).await
    }
}
