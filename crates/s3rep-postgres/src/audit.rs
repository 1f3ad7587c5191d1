//! `logTable`: a row for each change that was written.

use deadpool_postgres::Object;
use s3rep_core::{Error, Result, RowChange, Scope, Table};
use s3rep_sql::Dialect;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{error::from_postgres, pool::Session};

/// The table, with s3db.js's columns.
#[derive(Debug)]
pub(crate) struct Audit {
    name: String,
    is_made: OnceCell<()>,
}

impl Audit {
    pub(crate) fn new(name: String) -> Self {
        Self { name, is_made: OnceCell::new() }
    }

    /// Makes the table, unless it is there.
    pub(crate) async fn create(&self, session: &mut Session) -> Result<()> {
        let create = async {
            let name = Dialect::Postgres.quote_table(&self.name)?;
            let exists = session.client()?.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await;
            if exists.and_then(|row| row.try_get(0)).map_err(from_postgres)? {
                return Ok(());
            }
            session
                .run(&format!(
                    "CREATE TABLE IF NOT EXISTS {name} (\n  id BIGSERIAL PRIMARY KEY,\n  resource_name TEXT NOT NULL,\n  \
                     operation TEXT NOT NULL,\n  record_id TEXT NOT NULL,\n  data JSONB,\n  \
                     timestamp TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),\n  source TEXT NOT NULL\n)"
                ))
                .await?;
            session.settled();
            Ok(())
        };
        self.is_made.get_or_try_init(|| create).await.map(drop).map_err(|error| self.failed(error))
    }

    /// Tells of changes. Part of the caller's transaction.
    pub(crate) async fn write(&self, client: &Object, table: &Table, changes: &[&RowChange]) -> Result<()> {
        self.insert(client, table, changes).await.map_err(|error| self.failed(error))
    }

    /// What this table refuses is no fault of a record.
    fn failed(&self, error: Error) -> Error {
        if error.scope() > Scope::Table {
            return error;
        }
        error.with_scope(Scope::Table).with_context("logTable", &self.name)
    }

    async fn insert(&self, client: &Object, table: &Table, changes: &[&RowChange]) -> Result<()> {
        let sql = format!(
            "INSERT INTO {} (resource_name, operation, record_id, data, timestamp, source) \
             SELECT $1, o, i, d::jsonb, to_timestamp(t / 1000.0), 's3rep' \
             FROM unnest($2::text[], $3::text[], $4::text[], $5::int8[]) AS r(o, i, d, t)",
            Dialect::Postgres.quote_table(&self.name)?
        );
        let statement = client.prepare_cached(&sql).await.map_err(from_postgres)?;
        let operations: Vec<_> = changes.iter().map(|change| change.operation.as_str()).collect();
        let keys: Vec<_> = changes.iter().map(|change| &*change.key).collect();
        let data: Vec<_> = changes.iter().map(|change| data(change)).collect();
        let times: Vec<_> = changes.iter().map(|change| change.timestamp.0).collect();
        let resource = &*table.schema.name;
        client
            .execute(&statement, &[&resource, &operations, &keys, &data, &times])
            .await
            .map(drop)
            .map_err(from_postgres)
    }
}

/// The record as JSON text. `jsonb` takes no NUL: such a record is told without its data.
fn data(change: &RowChange) -> Option<String> {
    let text = Value::Object(change.record.as_deref()?.clone()).to_string();
    (!text.contains("\\u0000")).then_some(text)
}
