//! Reading tables back, for `verify`.

use async_trait::async_trait;
use s3rep_core::{
    ColumnShape, Context, Error, ErrorKind, Readback, Record, Result, RouteMode, Scope, Table, TableShape,
};
use s3rep_sql::{
    ColumnType, Dialect, Fit, KEY, Layout, Role, Target, canonical, canonical_decimal, expected,
};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_postgres::Row;

use crate::{
    encode::{Raw, Wire},
    error::from_postgres,
    pool::Session,
    sink::PostgresSink,
    table,
};

const POSTGRES: Dialect = Dialect::Postgres;

/// A scan over one table, kept open between pages: sorted once, and a comparison sees one moment.
#[derive(Default)]
pub(crate) struct Reader {
    scan: Mutex<Option<Scan>>,
    targets: std::sync::Mutex<Vec<(Table, std::sync::Arc<[Target]>)>>,
}

struct Scan {
    session: Session,
    table: Table,
    /// The last key that was returned.
    last: Option<String>,
}

impl Reader {
    pub(crate) async fn refresh(&self) {
        *self.scan.lock().await = None;
        self.targets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    fn targets(&self, table: &Table) -> Option<std::sync::Arc<[Target]>> {
        let targets = self.targets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        targets.iter().find(|(known, _)| known == table).map(|(_, targets)| targets.clone())
    }

    fn remember(&self, table: &Table, fit: &Fit) -> std::sync::Arc<[Target]> {
        let targets: std::sync::Arc<[Target]> =
            fit.columns.iter().map(|column| Target::new(POSTGRES, column, &table.schema)).collect();
        let mut all = self.targets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.retain(|(known, _)| known != table);
        all.push((table.clone(), targets.clone()));
        targets
    }
}

impl PostgresSink {
    /// Looks at the table anew and begins to read it. `None` when it is absent.
    async fn scan(&self, table: &Table, after: Option<&str>) -> Result<Option<Scan>> {
        let mut session = self.pool().session().await?;
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Sorting a large table takes longer than a write may.
        session.run("SET LOCAL statement_timeout TO 0").await?;
        let Some(look) = table::look(session.client()?, table).await? else { return Ok(None) };
        let fit = POSTGRES.fit(table, &look.shape, self.options().on_mismatch)?;
        let targets = self.reader().remember(table, &fit);
        let sql = select(table, &targets, look.counter.as_deref())?;
        session
            .client()?
            .execute(&format!("DECLARE s3rep_scan NO SCROLL CURSOR FOR {sql}"), &[])
            .await
            .map_err(from_postgres)?;
        if let Some(after) = after {
            // Whoever begins in the middle: what stands before is passed over.
            let quoted = after.replace('\'', "''");
            session.run("CLOSE s3rep_scan").await?;
            let sql = format!(
                "SELECT * FROM ({sql}) AS s WHERE s.key COLLATE \"C\" > '{quoted}' ORDER BY s.key COLLATE \"C\""
            );
            session
                .client()?
                .execute(&format!("DECLARE s3rep_scan NO SCROLL CURSOR FOR {sql}"), &[])
                .await
                .map_err(from_postgres)?;
        }
        Ok(Some(Scan { session, table: table.clone(), last: after.map(str::to_owned) }))
    }
}

impl Scan {
    async fn page(&mut self, targets: &[Target], max: usize) -> Result<Vec<(String, Record)>> {
        let rows = self.session.client()?.query(&format!("FETCH {max} FROM s3rep_scan"), &[]).await;
        let page = rows
            .map_err(from_postgres)?
            .iter()
            .map(|row| record(row, targets))
            .collect::<Result<Vec<_>>>()?;
        if let Some((key, _)) = page.last() {
            self.last = Some(key.clone());
        }
        Ok(page)
    }
}

/// Keys in the order of their bytes, then every attribute. An append table is folded in the order of the column that
/// counts its rows. One that has none gives what is known: changes of one record came in the order of their
/// transactions, and within one mostly in that of their places. Their times say less: a pass over the source sees a
/// delete later than it was made.
fn select(table: &Table, targets: &[Target], counter: Option<&str>) -> Result<String> {
    let key = targets.iter().find(|target| target.role == Role::Key).map_or(KEY, |target| &target.name);
    let key = POSTGRES.quote(key)?;
    let mut columns = vec![format!("{key}::text AS key")];
    for target in targets.iter().filter(|target| matches!(target.role, Role::Attribute(_))) {
        columns.push(reading(&POSTGRES.quote(&target.name)?, target.column_type));
    }
    let (columns, name) = (columns.join(", "), POSTGRES.quote_table(&table.name)?);
    Ok(match table.mode {
        RouteMode::Upsert => format!("SELECT {columns} FROM {name} ORDER BY {key}::text COLLATE \"C\""),
        RouteMode::Append => {
            let operation = targets.iter().find(|target| target.role == Role::Operation);
            let operation = POSTGRES.quote(&operation.ok_or_else(|| missing(table))?.name)?;
            let newest = match counter {
                Some(counter) => format!("{} DESC", POSTGRES.quote(counter)?),
                None => "age(xmin), ctid DESC".to_owned(),
            };
            format!(
                "SELECT {columns} FROM (SELECT DISTINCT ON ({key}::text COLLATE \"C\") * FROM {name} \
                 ORDER BY {key}::text COLLATE \"C\", {newest}) AS last \
                 WHERE {operation} <> 'delete' ORDER BY {key}::text COLLATE \"C\""
            )
        }
    })
}

/// The expression that reads a column so that every value is told from every other.
fn reading(column: &str, column_type: ColumnType) -> String {
    match column_type {
        ColumnType::Integer { .. } => format!("{column}::int8"),
        ColumnType::Double | ColumnType::Single => format!("{column}::float8"),
        ColumnType::Boolean | ColumnType::Date | ColumnType::Time { .. } => column.to_owned(),
        ColumnType::Timestamp { .. } => format!("{column}::timestamptz"),
        // A host is printed without the length of its prefix.
        ColumnType::Address => format!("abbrev({column}::inet)"),
        ColumnType::Text { padded: true, .. } => format!("rtrim({column}::text)"),
        _ => format!("{column}::text"),
    }
}

fn record(row: &Row, targets: &[Target]) -> Result<(String, Record)> {
    let key: Option<String> = row.try_get(0).map_err(from_postgres)?;
    let mut record = Record::new();
    let attributes = targets.iter().filter(|target| matches!(target.role, Role::Attribute(_)));
    for (target, index) in attributes.zip(1..) {
        record.insert(target.name.clone(), value(row, index, target.column_type).map_err(from_postgres)?);
    }
    Ok((key.unwrap_or_default(), record))
}

fn value(row: &Row, index: usize, column_type: ColumnType) -> Result<Value, tokio_postgres::Error> {
    let text = || row.try_get::<_, Option<String>>(index);
    Ok(match column_type {
        ColumnType::Integer { .. } => row.try_get::<_, Option<i64>>(index)?.into(),
        ColumnType::Double | ColumnType::Single => double(row.try_get(index)?),
        ColumnType::Boolean => row.try_get::<_, Option<bool>>(index)?.into(),
        ColumnType::Timestamp { .. } | ColumnType::Date | ColumnType::Time { .. } => {
            let raw: Option<Raw> = row.try_get(index)?;
            let wire = Wire::of(column_type).unwrap_or(Wire::Timestamp);
            raw.map_or(Value::Null, |raw| raw.cell(wire).into_json())
        }
        ColumnType::Decimal { .. } => text()?.map(|text| canonical_decimal(&text)).into(),
        ColumnType::Json | ColumnType::JsonBinary => match text()? {
            // A number beyond doubles was not written by s3rep; its digits are told from every value that was.
            Some(text) => serde_json::from_str(&text).map_or(Value::String(text), canonical),
            None => Value::Null,
        },
        _ => text()?.into(),
    })
}

/// NaN and infinities were not written by s3rep; they are told as text.
fn double(double: Option<f64>) -> Value {
    match double {
        Some(double) if double.is_finite() => canonical(double.into()),
        Some(double) => double.to_string().into(),
        None => Value::Null,
    }
}

fn missing(table: &Table) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "the table lacks a column that s3rep writes itself")
        .with_scope(Scope::Table)
        .with_context("table", &table.name)
}

/// The shape that schema synchronisation would give the table.
fn planned_shape(table: &Table) -> Result<TableShape> {
    let layout = Layout::of(POSTGRES, table)?;
    let columns = layout.columns.into_iter().map(|column| ColumnShape {
        primary_key: column.role == Role::Key,
        name: column.name,
        type_name: column.type_name.into_owned(),
        nullable: column.nullable,
    });
    Ok(TableShape { columns: columns.collect() })
}

#[async_trait]
impl Readback for PostgresSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        let at = |error: Error| error.with_context("table", &table.name).with_context("key", key);
        let targets = match self.reader().targets(table) {
            Some(targets) => targets,
            // No row was read yet: the table is absent, or has the shape of its layout.
            None => {
                let fit = POSTGRES.fit(table, &planned_shape(table)?, self.options().on_mismatch)?;
                fit.columns.iter().map(|column| Target::new(POSTGRES, column, &table.schema)).collect()
            }
        };
        expected(&targets, &table.schema, record).map_err(at)
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let mut scan = self.reader().scan.lock().await;
        let goes_on = scan
            .as_ref()
            .is_some_and(|scan| after.is_some() && scan.table == *table && scan.last.as_deref() == after);
        if !goes_on {
            *scan = None;
            *scan = self.scan(table, after).await?;
        }
        let Some(open) = scan.as_mut() else { return Ok(Vec::new()) };
        let targets = self.reader().targets(table).ok_or_else(|| missing(table))?;
        let page = open.page(&targets, max).await;
        if page.as_ref().map_or(true, Vec::is_empty) {
            *scan = None;
        }
        page
    }
}
