//! Writing a batch and its cursors in one transaction.

use libsql::Value;
use s3rep_core::{
    Batch, Context, Error, OnMismatch, Outcome, Progress, Rejected, Result, RowChange, Scope, Table,
};
use s3rep_sql::{Admission, Move};

use super::{
    connection::{Connection, Transacted},
    state::{Open, Prepared},
};
use crate::{
    change::{self, Effect},
    cursor,
};

/// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
pub(crate) fn apply(
    open: &mut Open,
    cx: &Context,
    batch: &Batch,
    on_mismatch: OnMismatch,
) -> Result<Outcome> {
    let Batch { table, progress, .. } = batch;
    let connection = open.connection.clone();
    let outcome = connection.transaction(|| {
        let admission = admit(&connection, progress, &table.name)?;
        let prepared = open.prepared(table, on_mismatch)?;
        let mut rejected = Vec::new();
        let mut undeclared = 0;
        for (index, change) in change::due(batch, &prepared.fitted, &admission) {
            match write(&connection, table, prepared, change, &mut undeclared) {
                Ok(()) => {}
                Err(error) if error.scope() == Scope::Record => {
                    if connection.is_autocommit() {
                        // A trigger or conflict clause of the table rolled everything back.
                        return Err(error.with_scope(Scope::Batch));
                    }
                    rejected.push(Rejected { index, error });
                }
                Err(error) => return Err(error),
            }
        }
        change::tell_undeclared(table, undeclared);
        if !rejected.is_empty() {
            rejected.sort_unstable_by_key(|rejected| rejected.index);
            return Ok(Transacted::Undo(Outcome { rejected }));
        }
        cx.failpoint("libsql.rows")?;
        store(&connection, progress, Move::Forward)?;
        cx.failpoint("libsql.commit")?;
        Ok(Transacted::Commit(Outcome { rejected }))
    })?;
    if !outcome.rejected.is_empty() {
        open.forget_tables();
    }
    cx.failpoint("libsql.committed")?;
    Ok(outcome)
}

fn write(
    connection: &Connection,
    table: &Table,
    prepared: &Prepared,
    change: &RowChange,
    undeclared: &mut usize,
) -> Result<()> {
    let at = |error: Error| change::at(error, table, change);
    let (effect, without_column) = Effect::of(table, &prepared.fitted.targets, change).map_err(at)?;
    *undeclared += without_column;
    let statement = if effect.is_delete() { &prepared.delete } else { &prepared.write };
    connection.step(statement, effect.into_values()).map_err(at)
}

/// Refuses an owner that another one has replaced, and forgets the cursors of another log. Part of the
/// caller's transaction.
fn admit(connection: &Connection, progress: &Progress, table: &str) -> Result<Admission> {
    let replicator = || vec![Value::from(&*progress.replicator)];
    connection.run(&cursor::create())?;
    let stored = connection.query(&cursor::select(), replicator(), cursor::decode)?;
    let admission = Admission::of(&stored, progress, table)?;
    if admission.replaces_log {
        connection.execute(&cursor::forget(), replicator())?;
    }
    Ok(admission)
}

/// Stores cursors and fence. Part of the caller's transaction.
fn store(connection: &Connection, progress: &Progress, how: Move) -> Result<()> {
    let statement = connection.prepare(&cursor::store(how, 1))?;
    for cursor in &progress.cursors {
        connection.step(&statement, cursor::values(progress, cursor)?.into())?;
    }
    Ok(())
}

/// Stores cursors without rows.
pub(crate) fn advance(open: &mut Open, cx: &Context, progress: &Progress) -> Result<()> {
    let connection = &open.connection;
    connection.transaction(|| {
        admit(connection, progress, "")?;
        store(connection, progress, Move::Anywhere)?;
        cx.failpoint("libsql.commit")?;
        Ok(Transacted::Commit(()))
    })
}
