//! `logTable`: a row for each change that was written.

use mysql_async::Value;
use s3rep_core::{Result, RowChange, Table};
use s3rep_sql::Dialect;

use crate::{
    connection::Session,
    encode::is_nested,
    error::{code, code_of, from_ddl, from_mysql},
};

/// The columns that are written; `id` counts, and `source` says s3rep by itself, so that a table of s3db.js, which
/// has no such column, is written too.
const COLUMNS: [&str; 5] = ["resource_name", "operation", "record_id", "data", "timestamp"];

/// The table, with s3db.js's columns.
#[derive(Debug)]
pub(crate) struct LogTable {
    name: String,
}

impl LogTable {
    pub(crate) fn new(name: String) -> Self {
        Self { name }
    }

    /// How it is made.
    pub(crate) fn definition(&self, dialect: Dialect) -> Result<String> {
        let name = dialect.quote_table(&self.name)?;
        Ok(format!(
            "CREATE TABLE IF NOT EXISTS {name} (\n  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\n  \
             resource_name VARCHAR(255) NOT NULL,\n  operation VARCHAR(50) NOT NULL,\n  \
             record_id VARCHAR(255) NOT NULL,\n  data JSON,\n  timestamp DATETIME(3) NOT NULL,\n  \
             source VARCHAR(255) NOT NULL DEFAULT 's3rep'\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        ))
    }

    /// Whether it is there.
    pub(crate) async fn exists(&self, session: &mut Session) -> Result<bool> {
        let name = session.server()?.dialect.quote_table(&self.name)?;
        match session.run(&format!("SELECT 1 FROM {name} LIMIT 0")).await {
            Ok(()) => Ok(true),
            Err(error) if code_of(&error) == Some(code::NO_SUCH_TABLE) => Ok(false),
            Err(error) => Err(from_mysql(error).with_context("table", &self.name)),
        }
    }

    /// Makes it, unless it is there. Ends whatever transaction is open.
    pub(crate) async fn create(&self, session: &mut Session) -> Result<()> {
        if self.exists(session).await? {
            return Ok(());
        }
        let sql = self.definition(session.server()?.dialect)?;
        session.run(&sql).await.map_err(|error| from_ddl(error).with_context("table", &self.name))
    }

    /// The statement for so many rows.
    pub(crate) fn statement(&self, dialect: Dialect, rows: usize) -> Result<String> {
        let name = dialect.quote_table(&self.name)?;
        let rows = vec!["(?, ?, ?, ?, ?)"; rows].join(", ");
        Ok(format!("INSERT INTO {name} ({}) VALUES {rows}", COLUMNS.join(", ")))
    }

    /// What it says of a change. A record that the server cannot read as JSON is told without its data.
    pub(crate) fn row(&self, table: &Table, change: &RowChange, most_nested: usize) -> Vec<Value> {
        let record = change.record.as_deref().filter(|record| {
            // The record is an object itself.
            record.values().all(|value| !is_nested(value, most_nested.saturating_sub(1)))
        });
        let data = record.and_then(|record| serde_json::to_vec(record).ok());
        vec![
            Value::from(&*table.schema.name),
            Value::from(change.operation.as_str()),
            Value::from(&*change.key),
            data.map_or(Value::NULL, Value::Bytes),
            crate::encode::timestamp(change.timestamp),
        ]
    }
}
