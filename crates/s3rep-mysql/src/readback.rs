//! Reading tables back, for `verify`.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use mysql_async::{
    Row, Value as Sql,
    prelude::{Query, WithParams},
};
use s3rep_core::{Context, Error, ErrorKind, Readback, Record, Result, RouteMode, Scope, Table};
use s3rep_sql::{CHANGED_AT, OPERATION, Role};
use tokio::sync::Mutex;

use crate::{
    connection::{Raw, Session},
    encode::json_of,
    error::from_mysql,
    sink::MysqlSink,
    table::Prepared,
};

/// A reader may take its time with the rows of a stream: other programs' patience is a minute.
const PATIENCE: &str = "SET SESSION net_write_timeout = 3600";

/// The scan that pages of an append table are cut from.
#[derive(Default)]
pub(crate) struct Reader {
    scan: Mutex<Option<Scan>>,
}

impl Reader {
    /// Ends the scan, if there is one.
    pub(crate) async fn close(&self) {
        *self.scan.lock().await = None;
    }
}

/// The columns of a select, quoted: the key, what tells the order of changes, and the attributes.
struct Select {
    table: String,
    /// The key as bytes.
    key: String,
    columns: Vec<String>,
}

impl Select {
    fn of(session: &Session, table: &Table, prepared: &Prepared) -> Result<Self> {
        let dialect = session.server()?.dialect;
        let key = dialect.quote(&prepared.key)?;
        let mut columns = vec![key.clone()];
        if table.mode == RouteMode::Append {
            columns.push(dialect.quote(prepared.name_of(Role::Operation).unwrap_or(OPERATION))?);
            let changed_at = prepared.name_of(Role::ChangedAt).unwrap_or(CHANGED_AT);
            columns.push(dialect.quote(prepared.counter.as_deref().unwrap_or(changed_at))?);
        }
        for target in prepared.targets.iter().filter(|target| matches!(target.role, Role::Attribute(_))) {
            columns.push(dialect.quote(&target.name)?);
        }
        // An index in the order of the bytes is used as it is.
        let key = if prepared.key_is_bytes { key } else { format!("BINARY {key}") };
        Ok(Self { table: dialect.quote_table(&table.name)?, key, columns })
    }

    /// Rows after a key. Every key is after the empty text but the empty key itself, which no record has.
    fn page(&self) -> String {
        let Self { table, key, columns } = self;
        format!("SELECT {} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?", columns.join(", "))
    }

    /// Changes after a key, those of each in their order.
    fn changes(&self) -> String {
        let Self { table, key, columns } = self;
        let order = columns.get(2).map_or("", String::as_str);
        format!("SELECT {} FROM {table} WHERE {key} > ? ORDER BY {key}, {order}", columns.join(", "))
    }
}

/// The attributes of a row, whose values begin after `skip`.
fn record(prepared: &Prepared, values: impl Iterator<Item = Sql>) -> Record {
    let targets = prepared.targets.iter().filter(|target| matches!(target.role, Role::Attribute(_)));
    targets
        .zip(values)
        .map(|(target, value)| (target.name.clone(), json_of(value, target.column_type)))
        .collect()
}

fn text(value: Option<Sql>) -> String {
    match value {
        Some(Sql::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// An append table on its way, in the order of the keys and of each one's changes.
struct Scan {
    table: Table,
    prepared: Arc<Prepared>,
    rows: BoxStream<'static, Raw<Row>>,
    /// The latest change of the key that is read now.
    latest: Option<Change>,
    /// The last key that was returned.
    last: Option<String>,
}

#[derive(PartialEq)]
struct Change {
    key: String,
    operation: String,
    /// Its number or its time.
    place: Sql,
    record: Record,
    /// Another change of the same key has the same time.
    has_twin: bool,
}

impl Scan {
    async fn begin(
        mut session: Session,
        table: &Table,
        prepared: Arc<Prepared>,
        after: Option<&str>,
    ) -> Result<Self> {
        let sql = Select::of(&session, table, &prepared)?.changes();
        session.run(PATIENCE).await.map_err(from_mysql)?;
        let conn = session.into_conn().ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "the connection is gone").with_scope(Scope::Sink)
        })?;
        let rows = sql.with((after.unwrap_or_default().to_owned(),)).stream::<Row, _>(conn).await;
        let rows = rows.map_err(|error| from_mysql(error).with_context("table", &table.name))?.boxed();
        Ok(Self { table: table.clone(), prepared, rows, latest: None, last: after.map(str::to_owned) })
    }

    fn goes_on(&self, table: &Table, after: Option<&str>) -> bool {
        after.is_some() && self.last.as_deref() == after && self.table == *table
    }

    /// Up to `max` rows: the last change of each key, deleted ones left out.
    async fn page(&mut self, max: usize) -> Result<Vec<(String, Record)>> {
        let mut page = Vec::new();
        while page.len() < max {
            let next = match self.rows.next().await {
                Some(row) => Some(self.change(row.map_err(from_mysql)?)),
                None => None,
            };
            let is_end = next.is_none();
            page.extend(self.fold(next)?);
            if is_end {
                break;
            }
        }
        if let Some((key, _)) = page.last() {
            self.last = Some(key.clone());
        }
        Ok(page)
    }

    fn change(&self, row: Row) -> Change {
        let mut values = row.unwrap().into_iter();
        let (key, operation) = (text(values.next()), text(values.next()));
        let place = values.next().unwrap_or(Sql::NULL);
        Change { key, operation, place, record: record(&self.prepared, values), has_twin: false }
    }

    /// Takes the next change, and returns the row of the key that ended with it.
    fn fold(&mut self, next: Option<Change>) -> Result<Option<(String, Record)>> {
        let Some(latest) = self.latest.take() else {
            self.latest = next;
            return Ok(None);
        };
        match next {
            Some(next) if next.key == latest.key => {
                let has_twin = next.place == latest.place
                    && (latest.has_twin
                        || next.operation != latest.operation
                        || next.record != latest.record);
                self.latest = Some(Change { has_twin, ..next });
                return Ok(None);
            }
            next => self.latest = next,
        }
        if latest.has_twin && self.prepared.counter.is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "two changes of a record have the same time, and the table does not say which came last",
            )
            .with_scope(Scope::Table)
            .with_operation("read back")
            .with_context("table", &self.table.name)
            .with_context("key", &latest.key)
            .with_advice("give the table a column that counts: BIGINT NOT NULL AUTO_INCREMENT UNIQUE"));
        }
        Ok((latest.operation != "delete").then_some((latest.key, latest.record)))
    }
}

impl MysqlSink {
    async fn page(
        &self,
        session: &mut Session,
        table: &Table,
        prepared: &Prepared,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let sql = Select::of(session, table, prepared)?.page();
        let params = vec![after.unwrap_or_default().into(), u64::try_from(max).unwrap_or(u64::MAX).into()];
        let rows = session.query(&sql, params).await;
        let rows = rows.map_err(|error| from_mysql(error).with_context("table", &table.name))?;
        let read = |row: Row| {
            let mut values = row.unwrap().into_iter();
            (text(values.next()), record(prepared, values))
        };
        Ok(rows.into_iter().map(read).collect())
    }
}

#[async_trait]
impl Readback for MysqlSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        let expected = || {
            let prepared = self.tables().seen(table)?;
            for column in &prepared.columns {
                column.check_key(key)?;
                column.check_member(&table.schema, record)?;
            }
            s3rep_sql::expected(&prepared.targets, &table.schema, record)
        };
        expected().map_err(|error| error.with_context("table", &table.name).with_context("key", key))
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let mut scan = self.reader().scan.lock().await;
        if !scan.as_ref().is_some_and(|scan| scan.goes_on(table, after)) {
            *scan = None;
            let mut session = self.session().await?;
            let prepared = self.tables().readable(&mut session, table, after.is_none()).await?;
            let Some(prepared) = prepared else { return Ok(Vec::new()) };
            if table.mode == RouteMode::Upsert {
                drop(scan);
                return self.page(&mut session, table, &prepared, after, max).await;
            }
            *scan = Some(Scan::begin(session, table, prepared, after).await?);
        }
        let Some(open) = scan.as_mut() else { return Ok(Vec::new()) };
        let page = open.page(max).await;
        if page.as_ref().map_or(true, Vec::is_empty) {
            *scan = None;
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(changes: &[(&str, &str, i64)]) -> Result<Vec<String>> {
        let schema = s3rep_core::ResourceSchema::parse("t", "v1", &serde_json::Map::new())?;
        let table = Table { name: "t".into(), mode: RouteMode::Append, schema: Arc::new(schema) };
        let tables = crate::table::Tables::new(s3rep_core::OnMismatch::Error, s3rep_sql::Dialect::Mariadb);
        let prepared = tables.seen(&table)?;
        let rows = futures::stream::empty().boxed();
        let mut scan = Scan { table, prepared, rows, latest: None, last: None };
        let mut folded = Vec::new();
        for &(key, operation, place) in changes {
            let change = Change {
                key: key.to_owned(),
                operation: operation.to_owned(),
                place: Sql::Int(place),
                record: Record::new(),
                has_twin: false,
            };
            folded.extend(scan.fold(Some(change))?);
        }
        folded.extend(scan.fold(None)?);
        Ok(folded.into_iter().map(|(key, _)| key).collect())
    }

    #[test]
    fn the_last_change_of_each_key_is_its_row() {
        let changes = [
            ("a", "insert", 1),
            ("a", "update", 2),
            ("b", "insert", 1),
            ("b", "delete", 3),
            ("c", "delete", 1),
            ("c", "insert", 2),
        ];
        assert_eq!(fold(&changes).unwrap(), ["a", "c"]);
        assert!(fold(&[]).unwrap().is_empty());
    }

    #[test]
    fn changes_of_one_time_are_not_guessed_about() {
        assert!(fold(&[("a", "insert", 1), ("a", "delete", 1)]).is_err());
        assert!(fold(&[("a", "insert", 1), ("a", "delete", 1), ("a", "insert", 1)]).is_err());
        // What came after them settles it, and so does that they say the same.
        assert_eq!(fold(&[("a", "insert", 1), ("a", "delete", 1), ("a", "insert", 2)]).unwrap(), ["a"]);
        assert_eq!(fold(&[("a", "update", 1), ("a", "update", 1)]).unwrap(), ["a"]);
        assert_eq!(fold(&[("a", "insert", 1), ("b", "insert", 1)]).unwrap(), ["a", "b"]);
    }
}
