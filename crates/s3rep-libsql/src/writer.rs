//! Writing a batch and its cursors in one transaction.

use libsql::Value;
use s3rep_core::{
    Batch, Context, Error, ErrorKind, OnMismatch, Operation, Outcome, Progress, Rejected, Result, RouteMode,
    RowChange, Scope, Table,
};

use crate::{
    connection::{Connection, Transacted},
    cursor::{self, Covered, Move},
    encode,
    state::{Open, Prepared},
};

/// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
pub(crate) fn apply(
    open: &mut Open,
    cx: &Context,
    batch: &Batch,
    on_mismatch: OnMismatch,
) -> Result<Outcome> {
    let Batch { table, changes, progress } = batch;
    let connection = open.connection.clone();
    let outcome = connection.transaction(|| {
        cursor::create(&connection)?;
        cursor::admit(&connection, progress)?;
        let covered = Covered::load(&connection, progress, &table.name)?;
        let prepared = open.prepared(table, on_mismatch)?;
        let mut rejected = Vec::new();
        let mut undeclared = 0;
        let mut due: Vec<_> =
            changes.iter().enumerate().filter(|(_, change)| !covered.has(change)).collect();
        if table.mode == RouteMode::Upsert {
            // Each key is there once, so the order is free; in that of the index it costs a third less.
            due.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        }
        for (index, change) in due {
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
        if undeclared > 0 {
            tracing::debug!(table = %table.name, members = undeclared, "members without a column are left out");
        }
        if !rejected.is_empty() {
            rejected.sort_unstable_by_key(|rejected| rejected.index);
            return Ok(Transacted::Undo(Outcome { rejected }));
        }
        cx.failpoint("libsql.rows")?;
        cursor::store(&connection, progress, Move::Forward)?;
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
    let at = |error: Error| {
        error.with_operation("apply").with_context("table", &table.name).with_context("key", &change.key)
    };
    let is_delete = change.operation == Operation::Delete;
    if is_delete && table.mode == RouteMode::Upsert {
        let key = vec![Value::Text(change.key.to_string())];
        return connection.step(&prepared.delete, key).map_err(at);
    }
    if change.record.is_none() && !is_delete {
        return Err(at(
            Error::new(ErrorKind::InvalidValue, "the change has no record").with_scope(Scope::Record)
        ));
    }
    let (row, without_column) = encode::row(&prepared.targets, &table.schema, change).map_err(at)?;
    *undeclared += without_column;
    connection.step(&prepared.write, row).map_err(at)
}

/// Stores cursors without rows.
pub(crate) fn advance(open: &mut Open, cx: &Context, progress: &Progress) -> Result<()> {
    let connection = &open.connection;
    connection.transaction(|| {
        cursor::create(connection)?;
        cursor::admit(connection, progress)?;
        cursor::store(connection, progress, Move::Anywhere)?;
        cx.failpoint("libsql.commit")?;
        Ok(Transacted::Commit(()))
    })
}
