//! Keeping a destination's tables in the shape of the resources: look, plan, execute.

use std::collections::BTreeMap;

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
    /// What the plan leaves alone and the user may want to declare: wider columns, possible renames.
    pub notes: Vec<String>,
}

impl SchemaPlan {
    /// What the statements do to the table; `None` when there are none, because it fits.
    pub fn kind(&self) -> Option<SyncKind> {
        match (self.statements.is_empty(), self.creates, self.destructive) {
            (true, ..) => None,
            (false, true, false) => Some(SyncKind::Created),
            (false, true, true) => Some(SyncKind::Recreated),
            (false, false, _) => Some(SyncKind::Altered),
        }
    }
}

/// What becomes of a table by a [`SchemaPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncKind {
    /// It was absent and is made.
    Created,
    /// Its columns change. Its rows stay.
    Altered,
    /// It is dropped and made anew. Every row is lost, so that somebody has to agree first.
    Recreated,
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
    /// Columns that were renamed, by table, from the old name to the new one. Default none: a rename is never
    /// guessed, as it looks like one attribute gone and one come.
    pub rename_columns: BTreeMap<String, BTreeMap<String, String>>,
    /// Give columns the type asked for where that is narrower. Default false: wider columns hold every value.
    pub narrow_columns: bool,
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
            rename_columns: BTreeMap::new(),
            narrow_columns: false,
        }
    }
}

/// What schema synchronisation may do to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaStrategy {
    /// Create tables, add columns and make them wider.
    Alter,
    /// Drop and create anew what does not fit. Loses every row, and is done only when somebody agrees beside the
    /// configuration.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_becomes_of_the_table() {
        let plan = |statements: &[&str], creates, destructive| SchemaPlan {
            statements: statements.iter().map(|&text| text.to_owned()).collect(),
            creates,
            destructive,
            ..SchemaPlan::default()
        };
        assert_eq!(plan(&[], false, false).kind(), None);
        assert_eq!(plan(&["CREATE"], true, false).kind(), Some(SyncKind::Created));
        assert_eq!(plan(&["ADD"], false, false).kind(), Some(SyncKind::Altered));
        assert_eq!(plan(&["DROP COLUMN"], false, true).kind(), Some(SyncKind::Altered));
        assert_eq!(plan(&["DROP", "CREATE"], true, true).kind(), Some(SyncKind::Recreated));
    }
}
