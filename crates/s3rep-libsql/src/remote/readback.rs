//! Reading tables back, for `verify`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use libsql::Value;
use s3rep_core::{
    Context, Error, ErrorKind, OnMismatch, Readback, Record, Result, RouteMode, Table, TableShape,
};

use super::{http::Http, known, sink::RemoteSink};
use crate::{
    encode::{self, Target},
    page::{Page, readable, row_number},
    row::{Row, text_of},
    table::{planned_shape, targets},
};

/// Keys of an append table that are looked for at a time. Each time the whole table is read, as it has no index on
/// its keys; the answer has to stay below the 10 MB of a server.
const KEYS: usize = 20_000;

/// Where the values of records are found, by table and mode.
type Tables = HashMap<(Arc<str>, RouteMode), Arc<[Target]>>;

/// What is known of the tables that are read.
#[derive(Default)]
pub(crate) struct Reader {
    targets: Mutex<Tables>,
    fold: tokio::sync::Mutex<Fold>,
}

/// Which rows of an append table are the last of their key, as far as they were looked for.
#[derive(Default)]
struct Fold {
    table: Option<Arc<str>>,
    rows: VecDeque<i64>,
    /// The last key of them.
    last: Vec<u8>,
    /// There are no more.
    is_all: bool,
    /// The last key that was handed out.
    handed: String,
}

impl Reader {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the tables, so that the next call looks at them anew.
    pub(crate) fn refresh(&self) {
        self.lock().clear();
    }

    /// Where each value of a record is found in a table of this shape.
    fn targets(&self, table: &Table, shape: &TableShape, on_mismatch: OnMismatch) -> Result<Arc<[Target]>> {
        let targets: Arc<[Target]> = targets(table, shape, on_mismatch)?.into();
        self.lock().insert((table.name.clone(), table.mode), targets.clone());
        Ok(targets)
    }

    /// Where each value of a record is expected: in the table as it was read last, or else as it would be made.
    fn expected(&self, table: &Table, on_mismatch: OnMismatch) -> Result<Arc<[Target]>> {
        if let Some(targets) = self.lock().get(&(table.name.clone(), table.mode)) {
            return Ok(targets.clone());
        }
        Ok(targets(table, &planned_shape(table)?, on_mismatch)?.into())
    }
}

/// Asks for at most `max` rows, and for fewer when they would be too many bytes for the server. Returns for how many.
async fn ask(
    server: &Http,
    sql: &str,
    max: usize,
    args: impl Fn(usize) -> Vec<Value>,
) -> Result<(Vec<Row>, usize)> {
    let mut max = max;
    loop {
        match server.query(sql, args(max)).await {
            Err(error) if error.kind() == ErrorKind::TooLarge && max > 1 => max = max.div_ceil(2),
            answer => return Ok((answer?, max)),
        }
    }
}

fn limit(max: usize) -> Value {
    Value::Integer(i64::try_from(max).unwrap_or(i64::MAX))
}

/// A page of an upsert table.
async fn upserted(server: &Http, page: &Page<'_>, after: &str, max: usize) -> Result<Vec<(String, Record)>> {
    let mut after = after.as_bytes().to_vec();
    loop {
        let args = |max| vec![Value::Blob(after.clone()), limit(max)];
        let (rows, _) = ask(server, &page.upserted(), max, args).await?;
        match readable(rows.into_iter().map(|row| page.decode(row)).collect::<Result<_>>()?) {
            Ok(rows) => return Ok(rows),
            Err(last) => after = last,
        }
    }
}

impl Fold {
    /// A page of an append table: the last change of each key, deleted ones left out.
    async fn page(
        &mut self,
        server: &Http,
        page: &Page<'_>,
        place: &str,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let sql = format!(
            "SELECT {} FROM json_each(?1) AS f JOIN {} AS t ON t.{place} = f.value ORDER BY f.key",
            page.columns, page.name
        );
        loop {
            if self.rows.is_empty() && !self.is_all {
                self.look_for_more(server, page, place).await?;
            }
            let max = max.min(self.rows.len());
            if max == 0 {
                return Ok(Vec::new());
            }
            let args = |max| {
                let places: Vec<i64> = self.rows.iter().take(max).copied().collect();
                vec![Value::Text(serde_json::json!(places).to_string())]
            };
            let (rows, asked) = ask(server, &sql, max, args).await?;
            self.rows.drain(..asked);
            let rows = rows.into_iter().map(|row| page.decode(row)).collect::<Result<_>>()?;
            // Rows may have gone since they were looked for, or have keys that nobody can read.
            if let Ok(rows) = readable(rows)
                && let Some((key, _)) = rows.last()
            {
                self.handed.clone_from(key);
                return Ok(rows);
            }
        }
    }

    async fn look_for_more(&mut self, server: &Http, page: &Page<'_>, place: &str) -> Result<()> {
        let Page { name, key, .. } = page;
        let sql = format!(
            "SELECT {id}, f.place FROM (SELECT {key} AS id, max(t.{place}) AS place FROM {name} AS t \
             WHERE typeof({key}) = 'text' AND {key} COLLATE BINARY > CAST(?1 AS TEXT) GROUP BY {key} COLLATE BINARY) AS f \
             JOIN {name} AS t ON t.{place} = f.place WHERE {operation} <> 'delete' \
             ORDER BY f.id COLLATE BINARY LIMIT ?2",
            id = text_of("f.id"),
            operation = page.operation()?,
        );
        let args = |max| vec![Value::Blob(self.last.clone()), limit(max)];
        let (rows, asked) = ask(server, &sql, KEYS, args).await?;
        self.is_all = rows.len() < asked;
        for mut row in rows {
            self.last = row.bytes(0)?;
            self.rows.push_back(row.integer(1)?);
        }
        Ok(())
    }
}

#[async_trait]
impl Readback for RemoteSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        let at = |error: Error| error.with_context("table", &table.name).with_context("key", key);
        let targets = self.reader.expected(table, self.options.on_mismatch)?;
        encode::expected(&targets, &table.schema, record).map_err(at)
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        if after.is_none() {
            self.reader.refresh();
        }
        let Some(shape) = known::inspect(&self.server, table).await? else { return Ok(Vec::new()) };
        let targets = self.reader.targets(table, &shape, self.options.on_mismatch)?;
        let page = Page::of(table, &targets)?;
        // Every key is after the empty text but the empty key itself, which no record has.
        let after_text = after.unwrap_or_default();
        if table.mode == RouteMode::Upsert {
            return upserted(&self.server, &page, after_text, max).await;
        }
        let mut fold = self.reader.fold.lock().await;
        let goes_on =
            after.is_some() && fold.table.as_ref() == Some(&table.name) && fold.handed == after_text;
        if !goes_on {
            *fold = Fold { table: Some(table.name.clone()), last: after_text.into(), ..Fold::default() };
        }
        fold.page(&self.server, &page, row_number(&shape)?, max).await
    }
}
