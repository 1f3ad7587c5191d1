//! The table with the cursors of replicators.

use std::collections::HashMap;

use libsql::Value;
use s3rep_core::{
    CursorMove, Error, ErrorKind, Partition, Progress, Result, RowChange, Scope, Seq, StoredCursors,
};

use crate::connection::{Connection, text_of};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS _s3rep_cursor (
  replicator TEXT NOT NULL,
  table_name TEXT NOT NULL,
  partition INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  log TEXT NOT NULL,
  fence INTEGER NOT NULL,
  PRIMARY KEY (replicator, table_name, partition)
) WITHOUT ROWID";

/// Whether the database has cursors at all.
fn exists(connection: &Connection) -> Result<bool> {
    let found = connection.query(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_s3rep_cursor'",
        Vec::new(),
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Every cursor of a replicator.
pub(crate) fn load(connection: &Connection, replicator: &str) -> Result<Option<StoredCursors>> {
    if !exists(connection)? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT {}, partition, seq, {}, fence FROM _s3rep_cursor WHERE replicator = ?1",
        text_of("table_name"),
        text_of("log")
    );
    let mut stored: Option<StoredCursors> = None;
    connection.query(&sql, vec![Value::from(replicator)], |row| {
        let log = row.text(3)?;
        let stored =
            stored.get_or_insert_with(|| StoredCursors { log: log.into(), fence: 0, cursors: Vec::new() });
        stored.fence = stored.fence.max(unsigned(row.integer(4)?));
        stored.cursors.push(CursorMove {
            table: row.text(0)?.into(),
            partition: Partition(u16::try_from(row.integer(1)?).unwrap_or(u16::MAX)),
            seq: Seq(unsigned(row.integer(2)?)),
        });
        Ok(())
    })?;
    Ok(stored)
}

/// Creates the table of cursors. Part of the caller's transaction.
pub(crate) fn create(connection: &Connection) -> Result<()> {
    connection.run(CREATE)
}

/// Refuses an owner that another one has replaced, and forgets the cursors of another log. Part of the
/// caller's transaction.
pub(crate) fn admit(connection: &Connection, progress: &Progress) -> Result<()> {
    let sql = format!("SELECT {}, fence FROM _s3rep_cursor WHERE replicator = ?1", text_of("log"));
    let mut newest = None;
    let mut is_other_log = false;
    connection.query(&sql, vec![Value::from(&*progress.replicator)], |row| {
        is_other_log |= row.text(0)? != *progress.log;
        newest = newest.max(Some(unsigned(row.integer(1)?)));
        Ok(())
    })?;
    if is_other_log {
        connection.execute(
            "DELETE FROM _s3rep_cursor WHERE replicator = ?1",
            vec![Value::from(&*progress.replicator)],
        )?;
        return Ok(());
    }
    match newest {
        Some(newest) if newest > progress.fence => {
            Err(Error::new(ErrorKind::Fenced, "a newer owner writes to this database")
                .with_scope(Scope::Sink)
                .with_context("replicator", &progress.replicator)
                .with_advice("stop the other process that runs the same replicator"))
        }
        _ => Ok(()),
    }
}

/// What the stored cursors cover of one table.
#[derive(Default)]
pub(crate) struct Covered(HashMap<Partition, Seq>);

impl Covered {
    /// Reads what is covered, after [`admit`]. A batch that moves no cursor brings back rejected changes,
    /// which stand before the cursors by nature: nothing of it is covered.
    pub(crate) fn load(connection: &Connection, progress: &Progress, table: &str) -> Result<Self> {
        let mut covered = HashMap::new();
        if progress.cursors.is_empty() {
            return Ok(Self(covered));
        }
        connection.query(
            "SELECT partition, max(seq) FROM _s3rep_cursor WHERE replicator = ?1 AND table_name IN ('', ?2) \
             GROUP BY partition",
            vec![Value::from(&*progress.replicator), Value::from(table)],
            |row| {
                let partition = Partition(u16::try_from(row.integer(0)?).unwrap_or(u16::MAX));
                covered.insert(partition, Seq(unsigned(row.integer(1)?)));
                Ok(())
            },
        )?;
        Ok(Self(covered))
    }

    pub(crate) fn has(&self, change: &RowChange) -> bool {
        self.0.get(&change.partition).is_some_and(|seq| change.seq <= *seq)
    }
}

/// Whether a cursor may move back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Forward,
    Anywhere,
}

/// Stores cursors and fence. Part of the caller's transaction.
pub(crate) fn store(connection: &Connection, progress: &Progress, how: Move) -> Result<()> {
    let seq = match how {
        Move::Forward => "max(seq, excluded.seq)",
        Move::Anywhere => "excluded.seq",
    };
    let sql = format!(
        "INSERT INTO _s3rep_cursor (replicator, table_name, partition, seq, log, fence) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (replicator, table_name, partition) \
         DO UPDATE SET seq = {seq}, log = excluded.log, fence = excluded.fence"
    );
    let statement = connection.prepare(&sql)?;
    for CursorMove { table, partition, seq } in &progress.cursors {
        let params = vec![
            Value::from(&*progress.replicator),
            Value::from(&**table),
            Value::Integer(partition.0.into()),
            Value::Integer(signed(seq.0)?),
            Value::from(&*progress.log),
            Value::Integer(signed(progress.fence)?),
        ];
        connection.step(&statement, params)?;
    }
    Ok(())
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| {
        Error::new(ErrorKind::Unexpected, "an offset or fence does not fit into 63 bits")
            .with_scope(Scope::Sink)
    })
}

/// Negative numbers are never written; a hand that wrote one meant the beginning.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
