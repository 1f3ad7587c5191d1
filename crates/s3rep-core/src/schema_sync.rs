//! Keeping a destination's tables in the shape of the resources: look, plan, execute.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Context, Result, Table};

/// Schema synchronisation. Only [`SchemaSync::plan`] thinks, and it is pure.
#[async_trait]
pub trait SchemaSync: Send + Sync {
    /// The table's columns in the destination, `None` when it is absent.
    ///
    /// # Errors
    /// When the destination cannot be read.
    async fn inspect(&self, cx: &Context, table: &Table) -> Result<Option<TableShape>>;

    /// The statements that bring the table into the shape of its schema, under the sink's
    /// [`SchemaSyncOptions`]. Empty when it fits.
    ///
    /// # Errors
    /// [`SchemaMismatch`](crate::ErrorKind::SchemaMismatch) when the options forbid what would be needed.
    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan>;

    /// Runs a plan; safe to run again after a crash in the middle.
    ///
    /// # Errors
    /// When a statement fails; those before it stay.
    async fn execute(&self, cx: &Context, plan: &SchemaPlan) -> Result<()>;
}

/// The columns of an existing table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Columns in order.
    pub columns: Vec<ColumnShape>,
}

/// One existing column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type, as the destination spells it.
    pub type_name: String,
    /// Accepts null.
    pub nullable: bool,
    /// Part of the primary key.
    pub primary_key: bool,
}

/// Statements in order, each idempotent or guarded, in the destination's dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaPlan {
    /// The statements.
    pub statements: Vec<String>,
    /// The table is created by them.
    pub creates: bool,
    /// Some statement loses data.
    pub destructive: bool,
    /// Differences that the options say to live with.
    pub warnings: Vec<String>,
}

/// `schemaSync` of the configuration, with s3db.js's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SchemaSyncOptions {
    /// Look after the schema at all. Default false, as in s3db.js.
    pub enabled: bool,
    /// What may be done to a table that does not fit. Default `alter`.
    pub strategy: SchemaStrategy,
    /// What a difference that the strategy does not mend leads to. Default `error`.
    pub on_mismatch: OnMismatch,
    /// Create absent tables. Default true.
    pub auto_create_table: bool,
    /// Add absent columns. Default true.
    pub auto_create_columns: bool,
    /// Drop columns that the resource does not have. Default false: it loses data.
    pub drop_missing_columns: bool,
}

impl Default for SchemaSyncOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            strategy: SchemaStrategy::Alter,
            on_mismatch: OnMismatch::Error,
            auto_create_table: true,
            auto_create_columns: true,
            drop_missing_columns: false,
        }
    }
}

/// What schema synchronisation may do to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaStrategy {
    /// Create tables and add columns.
    Alter,
    /// Drop and create anew. Loses every row.
    DropCreate,
    /// Report differences and change nothing.
    ValidateOnly,
}

/// What a difference leads to that the strategy does not mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMismatch {
    /// The replicator stops before it writes.
    Error,
    /// It is reported, and replication goes on with the columns there are.
    Warn,
    /// Replication goes on with the columns there are.
    Ignore,
}
