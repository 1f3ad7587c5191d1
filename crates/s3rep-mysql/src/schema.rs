//! Looking at tables and changing them.

use async_trait::async_trait;
use s3rep_core::{Context, Result, SchemaPlan, SchemaSync, Table, TableShape};

use crate::{
    connection::Session,
    error::{code, code_of, from_ddl},
    sink::MysqlSink,
};

/// Runs a plan, statement by statement: each is a transaction of its own. What an earlier run has done already is
/// passed over.
async fn execute(session: &mut Session, plan: &SchemaPlan) -> Result<()> {
    for statement in &plan.statements {
        match session.run(statement).await {
            Err(error) if is_done_already(statement, &error) => {}
            result => result.map_err(from_ddl)?,
        }
    }
    Ok(())
}

/// MySQL has no `ADD COLUMN IF NOT EXISTS`. The words stand between quoted names, which have their quotes doubled.
fn is_done_already(statement: &str, error: &mysql_async::Error) -> bool {
    let says = |words: &str| statement.contains(words);
    match code_of(error) {
        Some(code::DUPLICATE_COLUMN) => says("` ADD COLUMN `") || says("` RENAME COLUMN `"),
        Some(code::CANNOT_DROP) => says("` DROP COLUMN `"),
        Some(code::UNKNOWN_COLUMN) => says("` RENAME COLUMN `"),
        _ => false,
    }
}

#[async_trait]
impl SchemaSync for MysqlSink {
    async fn inspect(&self, _: &Context, table: &Table) -> Result<Option<TableShape>> {
        let mut session = self.session().await?;
        let look = self.tables().look(&mut session, table).await?;
        Ok(look.map(|look| look.shape))
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        self.tables().server().dialect.plan(table, have, self.options())
    }

    async fn execute(&self, _: &Context, plan: &SchemaPlan) -> Result<()> {
        if plan.statements.is_empty() {
            return Ok(());
        }
        let mut session = self.session().await?;
        self.tables().remember(session.server()?);
        let executed = execute(&mut session, plan).await;
        self.tables().forget_all();
        executed
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn what_is_done_is_passed_over_and_nothing_else() {
        let error = |code| ServerError { code, message: String::new(), state: String::new() }.into();
        for (statement, code, is_done) in [
            ("ALTER TABLE `t` ADD COLUMN `c` INT NULL", 1060, true),
            ("ALTER TABLE `t` DROP COLUMN `c`", 1091, true),
            ("ALTER TABLE `t` RENAME COLUMN `a` TO `b`", 1054, true),
            ("ALTER TABLE `t` MODIFY COLUMN `c` INT NULL", 1054, false),
            ("CREATE TABLE `t` (`c` INT, `c` INT)", 1060, false),
            ("ALTER TABLE `t` ADD COLUMN `c` INT NULL", 1146, false),
        ] {
            assert_eq!(is_done_already(statement, &error(code)), is_done, "{statement}");
        }
    }
}
