//! Reading tables back, for `verify`.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use libsql::Value as Sql;
use s3rep_core::{
    ColumnShape, Context, Error, ErrorKind, OnMismatch, Readback, Record, Result, RouteMode, Scope, Table,
    TableShape,
};
use s3rep_sql::{Dialect, KEY, Layout, Role};

use crate::{
    connection::{Access, Connection, text_of},
    encode::{self, Target},
    error::from_io,
    schema,
    sink::LibsqlSink,
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
        let fit = Dialect::Sqlite.fit(table, &shape, on_mismatch)?;
        let targets: Arc<[Target]> = fit.columns.iter().map(|c| Target::new(c, &table.schema)).collect();
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
        let name = Dialect::Sqlite.quote(&table.name)?;
        let key = targets.iter().find(|target| target.role == Role::Key).map_or(KEY, |target| &target.name);
        let key = format!("t.{}", Dialect::Sqlite.quote(key)?);
        let mut columns = vec![text_of(&key)];
        for target in targets.iter().filter(|target| matches!(target.role, Role::Attribute(_))) {
            let column = format!("t.{}", Dialect::Sqlite.quote(&target.name)?);
            columns.push(text_of(&format!("typeof({column})")));
            let text = text_of(&column);
            columns.push(format!("CASE typeof({column}) WHEN 'text' THEN {text} ELSE {column} END"));
        }
        let columns = columns.join(", ");
        let sql = match table.mode {
            RouteMode::Upsert => format!(
                "SELECT {columns} FROM main.{name} AS t WHERE {key} COLLATE BINARY > ?1 \
                 AND typeof({key}) = 'text' ORDER BY {key} COLLATE BINARY LIMIT ?2"
            ),
            RouteMode::Append => {
                let place = rowid(&shape).ok_or_else(|| {
                    unsupported("the table hides its row numbers, so changes have no order")
                })?;
                if folded.as_ref() != Some(&table.name) || after.is_none() {
                    connection.run("DROP TABLE IF EXISTS temp._s3rep_fold")?;
                    connection.run(FOLD)?;
                    connection.run(&format!(
                        "INSERT INTO temp._s3rep_fold SELECT {key}, max(t.{place}) FROM main.{name} AS t \
                         WHERE typeof({key}) = 'text' GROUP BY {key} COLLATE BINARY ORDER BY 1"
                    ))?;
                    *folded = Some(table.name.clone());
                }
                let operation = operation(targets)?;
                format!(
                    "SELECT {columns} FROM temp._s3rep_fold AS f JOIN main.{name} AS t ON t.{place} = f.place \
                     WHERE f.id > ?1 AND t.{operation} <> 'delete' ORDER BY f.id LIMIT ?2"
                )
            }
        };
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        // Every key is after the empty text but the empty key itself, which no record has.
        let parameters = vec![Sql::from(after.unwrap_or_default()), Sql::Integer(limit)];
        connection.query(&sql, parameters, |row| {
            let mut record = Record::new();
            let attributes = targets.iter().filter(|target| matches!(target.role, Role::Attribute(_)));
            for (target, index) in attributes.zip((1..).step_by(2)) {
                let value = encode::decode_typed(&row.text(index)?, row.value(index + 1)?);
                record.insert(target.name.clone(), value);
            }
            Ok((row.text(0)?, record))
        })
    }
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

fn unsupported(message: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
        .with_scope(Scope::Table)
        .with_operation("read back")
        .with_advice("replicate into a table that s3rep has created")
}

fn operation(targets: &[Target]) -> Result<String> {
    let target = targets.iter().find(|target| target.role == Role::Operation);
    Dialect::Sqlite.quote(target.map_or(s3rep_sql::OPERATION, |target| &target.name))
}

/// A name of the row number that no column hides.
fn rowid(shape: &TableShape) -> Option<&'static str> {
    let is_free = |name: &&str| !shape.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "oid", "_rowid_"].into_iter().find(is_free)
}

/// The shape that schema synchronisation would give the table.
fn planned_shape(table: &Table) -> Result<TableShape> {
    let layout = Layout::of(Dialect::Sqlite, table)?;
    let columns = layout.columns.into_iter().map(|column| ColumnShape {
        primary_key: column.role == Role::Key,
        name: column.name,
        type_name: column.type_name.to_owned(),
        nullable: column.nullable,
    });
    Ok(TableShape { columns: columns.collect() })
}

#[async_trait]
impl Readback for LibsqlSink {
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
