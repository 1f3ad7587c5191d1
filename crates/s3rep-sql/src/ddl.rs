//! Statements that make and change tables.

use s3rep_core::{
    Error, ErrorKind, Result, RouteMode, SchemaPlan, SchemaStrategy, SchemaSyncOptions, Scope, Table,
    TableShape,
};

use crate::{
    Column, Dialect, Layout, Role,
    fit::{Comparison, Difference, tolerate},
};

impl Dialect {
    /// Creates the table in its whole layout, unless there is one of its name.
    ///
    /// # Errors
    /// When the table has no valid layout.
    pub fn create_table(self, table: &Table) -> Result<String> {
        let layout = Layout::of(self, table)?;
        let columns = layout
            .columns
            .iter()
            .map(|column| self.column(column, table.mode))
            .collect::<Result<Vec<_>>>()?;
        Ok(format!(
            "CREATE TABLE IF NOT EXISTS {} (\n  {}\n)",
            self.quote(&table.name)?,
            columns.join(",\n  ")
        ))
    }

    /// The statements that bring a table into its layout. Empty when it fits.
    ///
    /// Added columns are nullable even for required attributes, as the rows that are there have no value for
    /// them. Nothing is ever renamed or retyped.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`], scope table, when the options forbid what would be needed.
    pub fn plan(
        self,
        table: &Table,
        have: Option<&TableShape>,
        options: &SchemaSyncOptions,
    ) -> Result<SchemaPlan> {
        let Some(have) = have else { return self.plan_absent(table, options) };
        let layout = Layout::of(self, table)?;
        let Comparison { differences, extra, .. } = self.compare(table, &layout, have);
        if options.strategy == SchemaStrategy::DropCreate && !differences.is_empty() {
            return Ok(SchemaPlan {
                statements: vec![
                    format!("DROP TABLE IF EXISTS {}", self.quote(&table.name)?),
                    self.create_table(table)?,
                ],
                creates: true,
                destructive: true,
                warnings: Vec::new(),
            });
        }
        let may_alter = options.strategy == SchemaStrategy::Alter;
        let mut plan = SchemaPlan::default();
        let mut left = Vec::new();
        let drops = may_alter && options.drop_missing_columns;
        for difference in differences {
            match difference {
                Difference::Missing { column }
                    if may_alter && options.auto_create_columns && !column.role.is_essential() =>
                {
                    plan.statements.push(self.add_column(&table.name, &column)?);
                }
                Difference::ExtraRequired { .. } if drops => {}
                other => left.push(other),
            }
        }
        if drops {
            for shape in extra.iter().filter(|shape| !shape.primary_key) {
                plan.statements.push(format!(
                    "ALTER TABLE {} DROP COLUMN {}",
                    self.quote(&table.name)?,
                    self.quote(&shape.name)?
                ));
                plan.destructive = true;
            }
        }
        plan.warnings = tolerate(table, &left, options.on_mismatch)?;
        Ok(plan)
    }

    /// An absent table is created or is an error: there are no columns to go on with.
    fn plan_absent(self, table: &Table, options: &SchemaSyncOptions) -> Result<SchemaPlan> {
        let create = self.create_table(table)?;
        if options.strategy == SchemaStrategy::ValidateOnly || !options.auto_create_table {
            let reason = if options.auto_create_table {
                "schemaSync.strategy is validate-only"
            } else {
                "schemaSync.autoCreateTable is false"
            };
            return Err(Error::new(ErrorKind::SchemaMismatch, "there is no such table")
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_context("because", reason)
                .with_advice("create the table or let schema synchronisation do it"));
        }
        Ok(SchemaPlan { statements: vec![create], creates: true, destructive: false, warnings: Vec::new() })
    }

    fn column(self, column: &Column, mode: RouteMode) -> Result<String> {
        let Column { name, role, type_name, nullable } = column;
        let constraint = match (role, mode) {
            // SQLite accepts null in primary keys that do not say otherwise.
            (Role::Key, RouteMode::Upsert) => " NOT NULL PRIMARY KEY",
            (Role::ChangeId, _) => " NOT NULL UNIQUE",
            _ if *nullable => " NULL",
            _ => " NOT NULL",
        };
        Ok(format!("{} {type_name}{constraint}", self.quote(name)?))
    }

    fn add_column(self, table: &str, column: &Column) -> Result<String> {
        let (table, name) = (self.quote(table)?, self.quote(&column.name)?);
        Ok(match self {
            Self::Sqlite => format!("ALTER TABLE {table} ADD COLUMN {name} {} NULL", column.type_name),
        })
    }
}
