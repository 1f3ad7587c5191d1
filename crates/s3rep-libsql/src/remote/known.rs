//! What is known of a database, and the proof that it still holds.

use std::{collections::HashMap, sync::Arc};

use libsql::Value;
use s3rep_core::{Error, ErrorKind, OnMismatch, Progress, Result, RouteMode, Scope, Table, TableShape};
use s3rep_sql::{CURSOR_TABLE, Dialect, Move, StoredCursor, signed};

use super::{
    hrana::{Ran, Script, When},
    http::Http,
};
use crate::{
    cursor,
    table::{self, Fitted},
};

/// What a batch is built on. A batch proves it in its own transaction ([`Known::guard`]), so that it need not be
/// read before each.
pub(crate) struct Known {
    replicator: Arc<str>,
    pub(crate) cursors: Vec<StoredCursor>,
    /// Counts every change of a table's shape.
    schema_version: i64,
    tables: HashMap<(Arc<str>, RouteMode), Arc<Fitted>>,
}

impl Known {
    /// Looks at the database: the cursors of a replicator, and a table. Makes the table of cursors.
    pub(crate) async fn load(
        server: &Http,
        replicator: &Arc<str>,
        table: Option<&Table>,
        on_mismatch: OnMismatch,
    ) -> Result<Self> {
        if let Some(known) = Self::look(server, replicator, table, on_mismatch).await? {
            return Ok(known);
        }
        let mut script = Script::default();
        let create = script.run(When::Always, cursor::create(), vec![]);
        server.run(&script).await?.check(create)?;
        let known = Self::look(server, replicator, table, on_mismatch).await?;
        known.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the table of cursors is gone as soon as it is made")
                .temporary()
                .with_scope(Scope::Sink)
                .with_context("server", server.server())
        })
    }

    /// `None` when there is no table of cursors.
    async fn look(
        server: &Http,
        replicator: &Arc<str>,
        table: Option<&Table>,
        on_mismatch: OnMismatch,
    ) -> Result<Option<Self>> {
        let mut script = Script::default();
        // One transaction sees one state of the database. It ends with the request.
        let begin = script.run(When::Always, "BEGIN", vec![]);
        let when = When::Done(begin);
        let facts = facts(&mut script, when);
        let exists = script.query(when, cursor::exists(), vec![]);
        let cursors = script.query(when, cursor::select(), vec![Value::from(&**replicator)]);
        let look = table.map(|table| {
            let is_ordered = script.query(when, table::IS_ORDERED, vec![Value::from(&*table.name)]);
            (table, is_ordered, Look::add(&mut script, when, table))
        });
        let mut ran = server.run(&script).await?;
        let schema_version = schema_version(&mut ran, facts)?;
        if ran.rows(exists)?.is_empty() {
            return Ok(None);
        }
        let cursors = ran.rows(cursors)?.into_iter().map(cursor::decode).collect::<Result<_>>()?;
        let mut known =
            Self { replicator: replicator.clone(), cursors, schema_version, tables: HashMap::new() };
        if let Some((table, is_ordered, look)) = look {
            let shape = look.take(&mut ran)?;
            let is_ordered = ran.rows(is_ordered)?.pop().map(|mut row| row.integer(0)).transpose()?;
            let fitted = Fitted::new(table, shape, is_ordered != Some(0), on_mismatch)?;
            known.tables.insert((table.name.clone(), table.mode), Arc::new(fitted));
        }
        Ok(Some(known))
    }

    /// Takes over the tables that were looked at earlier and have not changed since.
    pub(crate) fn with_tables_of(mut self, earlier: Self) -> Self {
        if self.schema_version == earlier.schema_version {
            for (key, fitted) in earlier.tables {
                self.tables.entry(key).or_insert(fitted);
            }
        }
        self
    }

    /// Whether these are the cursors of this replicator, and the table was looked at.
    pub(crate) fn has(&self, replicator: &str, table: Option<&Table>) -> bool {
        *self.replicator == *replicator && table.is_none_or(|table| self.find(table).is_some())
    }

    /// A table that was looked at.
    pub(crate) fn fitted(&self, table: &Table) -> Result<Arc<Fitted>> {
        let fitted = self.find(table).cloned();
        fitted.ok_or_else(|| Error::new(ErrorKind::Unexpected, "a table that was looked at is gone"))
    }

    fn find(&self, table: &Table) -> Option<&Arc<Fitted>> {
        let fitted = self.tables.get(&(table.name.clone(), table.mode))?;
        fitted.is_for(&table.schema).then_some(fitted)
    }

    /// Adds the statement that fails when the database is not as it is known to be, and is nothing otherwise.
    ///
    /// Beside other owners it stops a request of ours that was given up, and that the server gets to only after
    /// later ones.
    pub(crate) fn guard(&self, script: &mut Script, when: When) -> usize {
        let row =
            |row: &StoredCursor| serde_json::json!([row.table, row.partition, row.seq, row.log, row.fence]);
        let expected = serde_json::Value::Array(self.cursors.iter().map(row).collect());
        let args = vec![
            Value::from(&*self.replicator),
            Value::Text(expected.to_string()),
            Value::Integer(self.schema_version),
        ];
        script.run(when, guard(), args)
    }

    /// Forgets the cursors, as the server did.
    pub(crate) fn forget_cursors(&mut self) {
        self.cursors.clear();
    }

    /// Moves the cursors as the server did.
    pub(crate) fn store(&mut self, progress: &Progress, how: Move) -> Result<()> {
        let fence = signed(progress.fence)?;
        for cursor in &progress.cursors {
            let (partition, seq) = (i64::from(cursor.partition.0), signed(cursor.seq.0)?);
            let is_same = |row: &&mut StoredCursor| row.table == *cursor.table && row.partition == partition;
            match self.cursors.iter_mut().find(is_same) {
                Some(row) => {
                    row.seq = if how == Move::Forward { row.seq.max(seq) } else { seq };
                    row.log = progress.log.to_string();
                    row.fence = fence;
                }
                None => self.cursors.push(StoredCursor {
                    table: cursor.table.to_string(),
                    partition,
                    seq,
                    log: progress.log.to_string(),
                    fence,
                }),
            }
        }
        Ok(())
    }
}

/// Adds the question for what has to be known of the database as a whole.
pub(crate) fn facts(script: &mut Script, when: When) -> usize {
    let facts = "SELECT (SELECT schema_version FROM pragma_schema_version), \
                 (SELECT encoding = 'UTF-8' FROM pragma_encoding)";
    script.query(when, facts, vec![])
}

/// The answer to [`facts`]: the version of the schema, of a database whose text is UTF-8. Other text sorts, compares
/// and casts differently.
pub(crate) fn schema_version(ran: &mut Ran, facts: usize) -> Result<i64> {
    let Some(mut row) = ran.rows(facts)?.pop() else {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the server does not say which version its schema has",
        ));
    };
    if row.integer(1)? == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "the database holds its text as UTF-16")
            .with_scope(Scope::Sink)
            .with_advice("use a database with PRAGMA encoding = 'UTF-8', which is SQLite's default"));
    }
    row.integer(0)
}

/// Breaks the table's NOT NULL when the cursors of `?1` are not those of the JSON in `?2`, or the version of the
/// schema is not `?3`.
fn guard() -> String {
    let partition = Dialect::Sqlite.partition_column();
    let stored =
        format!("SELECT table_name, {partition}, seq, log, fence FROM {CURSOR_TABLE} WHERE replicator = ?1");
    format!(
        "INSERT INTO {CURSOR_TABLE} (replicator, table_name, {partition}, seq, log, fence) \
         SELECT NULL, '', 0, 0, '', 0 \
         WHERE (SELECT schema_version FROM pragma_schema_version) <> ?3 \
         OR (SELECT count(*) FROM {CURSOR_TABLE} WHERE replicator = ?1) <> json_array_length(?2) \
         OR EXISTS ({stored} EXCEPT \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?2))"
    )
}

/// A look at a table, as part of a script.
pub(crate) struct Look {
    table: Arc<str>,
    names: usize,
    columns: usize,
}

impl Look {
    pub(crate) fn add(script: &mut Script, when: When, table: &Table) -> Self {
        let name = || vec![Value::from(&*table.name)];
        Self {
            table: table.name.clone(),
            names: script.query(when, table::names(), name()),
            columns: script.query(when, table::columns(), name()),
        }
    }

    pub(crate) fn take(self, ran: &mut Ran) -> Result<Option<TableShape>> {
        let names = ran.rows(self.names)?.into_iter().map(|mut row| row.text(0));
        let names = names.collect::<Result<Vec<_>>>()?;
        let columns = ran.rows(self.columns)?.into_iter().map(table::column).collect::<Result<_>>()?;
        table::shape(&self.table, &names, columns)
    }
}

/// Looks at a table by itself.
pub(crate) async fn inspect(server: &Http, table: &Table) -> Result<Option<TableShape>> {
    let mut script = Script::default();
    let begin = script.run(When::Always, "BEGIN", vec![]);
    let look = Look::add(&mut script, When::Done(begin), table);
    look.take(&mut server.run(&script).await?)
}
