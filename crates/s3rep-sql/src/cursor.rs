//! The table in which a destination keeps the cursors of replicators, beside the rows.

use std::{collections::HashMap, sync::Arc};

use s3rep_core::{
    CursorMove, Error, ErrorKind, Partition, Progress, Result, RowChange, Scope, Seq, StoredCursors,
};

use crate::Dialect;

/// The name of the table.
pub const CURSOR_TABLE: &str = "_s3rep_cursor";

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCursor {
    /// The table that the cursor is of; empty for the replicator as a whole.
    pub table: String,
    /// Partition of the log.
    pub partition: i64,
    /// Everything up to here is written.
    pub seq: i64,
    /// The log that the offset belongs to.
    pub log: String,
    /// The owner that stored it.
    pub fence: i64,
}

impl Dialect {
    /// Creates the table of cursors, unless it is there. `table` is its name, quoted, with its schema.
    pub fn create_cursor_table(self, table: &str) -> String {
        let (text, key_text, integer, tail) = match self {
            Self::Sqlite => ("TEXT", "TEXT".to_owned(), "INTEGER", " WITHOUT ROWID"),
            Self::Postgres => ("TEXT", "TEXT".to_owned(), "BIGINT", ""),
            // Keys of InnoDB have at most 3,072 bytes.
            Self::Mysql | Self::Mariadb => (
                "VARCHAR(255)",
                crate::mysql::key_type(self),
                "BIGINT",
                " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
            ),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n  replicator {key_text} NOT NULL,\n  table_name {key_text} NOT NULL,\n  \
             {partition} INTEGER NOT NULL,\n  seq {integer} NOT NULL,\n  log {text} NOT NULL,\n  fence {integer} NOT NULL,\n  \
             PRIMARY KEY (replicator, table_name, {partition})\n){tail}",
            partition = self.partition_column(),
        )
    }

    /// `partition` is a reserved word of MySQL.
    pub fn partition_column(self) -> &'static str {
        match self {
            Self::Sqlite => "partition",
            Self::Postgres => "\"partition\"",
            Self::Mysql | Self::Mariadb => "`partition`",
        }
    }
}

/// Every cursor of a replicator, `None` when there is none.
pub fn stored_cursors(rows: Vec<StoredCursor>) -> Option<StoredCursors> {
    let log: Arc<str> = rows.first()?.log.as_str().into();
    let fence = rows.iter().map(|row| unsigned(row.fence)).max().unwrap_or_default();
    let cursors = rows.into_iter().map(|row| CursorMove {
        table: row.table.into(),
        partition: partition(row.partition),
        seq: Seq(unsigned(row.seq)),
    });
    Some(StoredCursors { log, fence, cursors: cursors.collect() })
}

/// What the stored cursors say to a batch.
#[derive(Debug, Default)]
pub struct Admission {
    /// The cursors are those of another log: they are worthless and have to go.
    pub replaces_log: bool,
    covered: HashMap<Partition, Seq>,
}

impl Admission {
    /// Looks at every cursor of the replicator, for a batch of `table`.
    ///
    /// A batch that moves no cursor brings back rejected changes, which stand before the cursors by nature:
    /// nothing of it is covered.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when a newer owner has stored cursors.
    pub fn of(rows: &[StoredCursor], progress: &Progress, table: &str) -> Result<Self> {
        if rows.iter().any(|row| row.log != *progress.log) {
            return Ok(Self { replaces_log: true, ..Self::default() });
        }
        if rows.iter().any(|row| unsigned(row.fence) > progress.fence) {
            return Err(Error::new(ErrorKind::Fenced, "a newer owner writes to this database")
                .with_scope(Scope::Sink)
                .with_context("replicator", &progress.replicator)
                .with_advice("stop the other process that runs the same replicator"));
        }
        let mut covered = HashMap::new();
        if !progress.cursors.is_empty() {
            for row in rows.iter().filter(|row| row.table.is_empty() || row.table == table) {
                let seq = covered.entry(partition(row.partition)).or_insert(Seq(0));
                *seq = (*seq).max(Seq(unsigned(row.seq)));
            }
        }
        Ok(Self { replaces_log: false, covered })
    }

    /// Whether the destination has the change already.
    pub fn covers(&self, change: &RowChange) -> bool {
        self.covered.get(&change.partition).is_some_and(|seq| change.seq <= *seq)
    }
}

/// An offset or fence as the table holds it.
///
/// # Errors
/// When it has more than 63 bits, which would take a log of millennia.
pub fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| {
        Error::new(ErrorKind::Unexpected, "an offset or fence does not fit into 63 bits")
            .with_scope(Scope::Sink)
    })
}

/// Negative numbers are never written; a hand that wrote one meant the beginning.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn partition(number: i64) -> Partition {
    Partition(u16::try_from(number).unwrap_or(u16::MAX))
}
