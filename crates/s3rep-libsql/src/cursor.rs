//! The table with the cursors of replicators, as statements and rows. What its rows mean is shared by all SQL
//! destinations ([`s3rep_sql::Admission`]).

use libsql::Value;
use s3rep_core::{CursorMove, Progress, Result};
use s3rep_sql::{CURSOR_TABLE, Dialect, Move, StoredCursor, signed};

use crate::row::{Row, text_of};

/// What [`values`] has for each cursor.
pub(crate) const COLUMNS: usize = 6;

/// Creates the table, unless it is there.
pub(crate) fn create() -> String {
    Dialect::Sqlite.create_cursor_table(CURSOR_TABLE)
}

/// Has a row when the table is there.
pub(crate) fn exists() -> String {
    format!("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '{CURSOR_TABLE}'")
}

/// Every cursor of a replicator, for [`decode`].
pub(crate) fn select() -> String {
    format!(
        "SELECT {}, {}, seq, {}, fence FROM {CURSOR_TABLE} WHERE replicator = ?1",
        text_of("table_name"),
        Dialect::Sqlite.partition_column(),
        text_of("log")
    )
}

pub(crate) fn decode(mut row: Row) -> Result<StoredCursor> {
    Ok(StoredCursor {
        table: row.text(0)?,
        partition: row.integer(1)?,
        seq: row.integer(2)?,
        log: row.text(3)?,
        fence: row.integer(4)?,
    })
}

/// Forgets the cursors of a replicator.
pub(crate) fn forget() -> String {
    format!("DELETE FROM {CURSOR_TABLE} WHERE replicator = ?1")
}

/// Stores so many cursors with their log and fence.
pub(crate) fn store(how: Move, cursors: usize) -> String {
    let seq = match how {
        Move::Forward => "max(seq, excluded.seq)",
        Move::Anywhere => "excluded.seq",
    };
    let row = |row: usize| {
        let places: Vec<_> = (1..=COLUMNS).map(|place| format!("?{}", row * COLUMNS + place)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<_> = (0..cursors).map(row).collect();
    format!(
        "INSERT INTO {CURSOR_TABLE} (replicator, table_name, {partition}, seq, log, fence) VALUES {rows} \
         ON CONFLICT (replicator, table_name, {partition}) \
         DO UPDATE SET seq = {seq}, log = excluded.log, fence = excluded.fence",
        partition = Dialect::Sqlite.partition_column(),
        rows = rows.join(", "),
    )
}

/// The parameters of [`store`] for one cursor.
pub(crate) fn values(progress: &Progress, cursor: &CursorMove) -> Result<[Value; COLUMNS]> {
    let CursorMove { table, partition, seq } = cursor;
    Ok([
        Value::from(&*progress.replicator),
        Value::from(&**table),
        Value::Integer(partition.0.into()),
        Value::Integer(signed(seq.0)?),
        Value::from(&*progress.log),
        Value::Integer(signed(progress.fence)?),
    ])
}
