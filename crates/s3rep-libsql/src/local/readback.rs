//! Reading tables back, for `verify`.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use libsql::Value as Sql;
use s3rep_core::{Context, Error, OnMismatch, Readback, Record, Result, RouteMode, Table};

use super::{
    connection::{Access, Connection},
    error::from_io,
    schema,
    sink::LocalSink,
};
use crate::{
    encode::{self, Target},
    page::{Page, readable, row_number},
    table::{planned_shape, targets},
};

/// A connection of its own, so that a comparison does not stand in the way of writes.
#[derive(Default)]
pub(crate) struct Reader {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    targets: HashMap<(Arc<str>, RouteMode), Arc<[Target]>>,
    /// The append table that the fold was made of.
    folded: Option<Arc<str>>,
}

/// The rows that are the last of their key, of one append table at a time.
const FOLD: &str = "CREATE TEMP TABLE _s3rep_fold (id TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID";

impl Reader {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where each value of a record is found in the table's rows.
    pub(crate) fn targets(
        &self,
        path: &Path,
        table: &Table,
        on_mismatch: OnMismatch,
    ) -> Result<Arc<[Target]>> {
        let mut state = self.lock();
        let key = (table.name.clone(), table.mode);
        if let Some(targets) = state.targets.get(&key) {
            return Ok(targets.clone());
        }
        let shape = match state.open(path)? {
            Some(connection) => schema::inspect(connection, &table.name)?,
            None => None,
        };
        let shape = match shape {
            Some(shape) => shape,
            None => planned_shape(table)?,
        };
        let targets: Arc<[Target]> = targets(table, &shape, on_mismatch)?.into();
        state.targets.insert(key, targets.clone());
        Ok(targets)
    }

    /// Closes the connection, so that the next call looks at the tables anew.
    pub(crate) fn refresh(&self) {
        *self.lock() = State::default();
    }

    fn rows(
        &self,
        path: &Path,
        table: &Table,
        targets: &[Target],
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let mut state = self.lock();
        let State { connection, folded, .. } = state.opened(path)?;
        let Some(connection) = connection else { return Ok(Vec::new()) };
        let Some(shape) = schema::inspect(connection, &table.name)? else { return Ok(Vec::new()) };
        let page = Page::of(table, targets)?;
        let sql = match table.mode {
            RouteMode::Upsert => page.upserted(),
            RouteMode::Append => {
                let place = row_number(&shape)?;
                if folded.as_ref() != Some(&table.name) || after.is_none() {
                    fold(connection, &page, place)?;
                    *folded = Some(table.name.clone());
                }
                format!(
                    "SELECT {} FROM temp._s3rep_fold AS f JOIN {} AS t ON t.{place} = f.place \
                     WHERE f.id > CAST(?1 AS TEXT) AND {} <> 'delete' ORDER BY f.id LIMIT ?2",
                    page.columns,
                    page.name,
                    page.operation()?
                )
            }
        };
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        // Every key is after the empty text but the empty key itself, which no record has.
        let mut after = after.unwrap_or_default().as_bytes().to_vec();
        loop {
            let parameters = vec![Sql::Blob(after), Sql::Integer(limit)];
            match readable(connection.query(&sql, parameters, |row| page.decode(row))?) {
                Ok(rows) => return Ok(rows),
                Err(last) => after = last,
            }
        }
    }
}

/// Notes which rows are the last of their key.
fn fold(connection: &Connection, page: &Page<'_>, place: &str) -> Result<()> {
    let Page { name, key, .. } = page;
    connection.run("DROP TABLE IF EXISTS temp._s3rep_fold")?;
    connection.run(FOLD)?;
    connection.run(&format!(
        "INSERT INTO temp._s3rep_fold SELECT {key}, max(t.{place}) FROM {name} AS t \
         WHERE typeof({key}) = 'text' GROUP BY {key} COLLATE BINARY ORDER BY 1"
    ))
}

impl State {
    fn open(&mut self, path: &Path) -> Result<Option<&Connection>> {
        Ok(self.opened(path)?.connection.as_ref())
    }

    fn opened(&mut self, path: &Path) -> Result<&mut Self> {
        if self.connection.is_none() && path.try_exists().map_err(|error| from_io(&error, path))? {
            let connection = Connection::open(path, Access::Read)?;
            self.connection = Some(connection);
        }
        Ok(self)
    }
}

#[async_trait]
impl Readback for LocalSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        let at = |error: Error| error.with_context("table", &table.name).with_context("key", key);
        let targets = self.reader().targets(self.path(), table, self.options().on_mismatch)?;
        encode::expected(&targets, &table.schema, record).map_err(at)
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let (sink, table, after) = (self.clone(), table.clone(), after.map(str::to_owned));
        self.blocking(move |_| {
            if after.is_none() {
                sink.reader().refresh();
            }
            let targets = sink.reader().targets(sink.path(), &table, sink.options().on_mismatch)?;
            sink.reader().rows(sink.path(), &table, &targets, after.as_deref(), max)
        })
        .await
    }
}
