//! What the changes of a batch do to their table.

use libsql::Value;
use s3rep_core::{Batch, Error, ErrorKind, Operation, Result, RouteMode, RowChange, Scope, Table};
use s3rep_sql::Admission;

use crate::{
    encode::{self, Target},
    table::Fitted,
};

/// The changes that the destination does not have yet, each with its index in the batch, in the order in which they
/// are written.
pub(crate) fn due<'a>(
    batch: &'a Batch,
    fitted: &Fitted,
    admission: &Admission,
) -> Vec<(usize, &'a RowChange)> {
    let changes = batch.changes.iter().enumerate();
    let mut due: Vec<_> = changes.filter(|(_, change)| !admission.covers(change)).collect();
    if batch.table.mode == RouteMode::Upsert && !fitted.is_ordered {
        // Each key is there once, so the order is free; in that of the index it costs a third less.
        let order = |change: &'a RowChange| (change.operation != Operation::Delete, &change.key);
        due.sort_unstable_by(|(_, a), (_, b)| order(a).cmp(&order(b)));
    }
    due
}

/// What a change does.
pub(crate) enum Effect {
    /// Deletes the row of this key.
    Delete(Value),
    /// Writes this row.
    Write(Vec<Value>),
}

impl Effect {
    /// The effect, and how many members of the record have no column.
    pub(crate) fn of(table: &Table, targets: &[Target], change: &RowChange) -> Result<(Self, usize)> {
        let is_delete = change.operation == Operation::Delete;
        if is_delete && table.mode == RouteMode::Upsert {
            return Ok((Self::Delete(Value::Text(change.key.to_string())), 0));
        }
        if change.record.is_none() && !is_delete {
            return Err(
                Error::new(ErrorKind::InvalidValue, "the change has no record").with_scope(Scope::Record)
            );
        }
        let (row, without_column) = encode::row(targets, &table.schema, change)?;
        Ok((Self::Write(row), without_column))
    }
}

impl Effect {
    pub(crate) fn is_delete(&self) -> bool {
        matches!(self, Self::Delete(_))
    }

    /// The parameters of its statement.
    pub(crate) fn values(&self) -> &[Value] {
        match self {
            Self::Delete(key) => std::slice::from_ref(key),
            Self::Write(row) => row,
        }
    }

    /// As [`Self::values`].
    pub(crate) fn into_values(self) -> Vec<Value> {
        match self {
            Self::Delete(key) => vec![key],
            Self::Write(row) => row,
        }
    }
}

/// The error, with where it happened.
pub(crate) fn at(error: Error, table: &Table, change: &RowChange) -> Error {
    error.with_operation("apply").with_context("table", &table.name).with_context("key", &change.key)
}

/// Says that members of records have no column, without showing any.
pub(crate) fn tell_undeclared(table: &Table, members: usize) {
    if members > 0 {
        tracing::debug!(table = %table.name, members, "members without a column are left out");
    }
}
