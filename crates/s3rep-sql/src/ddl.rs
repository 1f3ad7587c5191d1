//! Statements that make and change tables.

use std::collections::BTreeMap;

use s3rep_core::{
    ColumnShape, Error, ErrorKind, Result, RouteMode, SchemaPlan, SchemaStrategy, SchemaSyncOptions, Scope,
    Table, TableShape,
};

use crate::{
    Column, Dialect, FittedColumn, Layout, Role,
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
        let tail = match self {
            Self::Sqlite | Self::Postgres => "",
            Self::Mysql | Self::Mariadb => {
                " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
            }
        };
        Ok(format!(
            "CREATE TABLE IF NOT EXISTS {} (\n  {}\n){tail}",
            self.quote_table(&table.name)?,
            columns.join(",\n  ")
        ))
    }

    /// The statements that bring a table into its layout. Empty when it fits.
    ///
    /// Added columns are nullable even for required attributes, as the rows that are there have no value for
    /// them. Columns are made wider, and made to accept null, where the attributes ask for it; nothing is made
    /// narrower or renamed unless the options say so, but the plan's notes tell what could be.
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
        let renames = options.rename_columns.get(&*table.name);
        let (mut statements, have) = match options.strategy {
            SchemaStrategy::Alter => self.renames(table, &layout, have, renames)?,
            _ => (Vec::new(), have.clone()),
        };
        let comparison = self.compare(&layout, &have);
        if options.strategy == SchemaStrategy::DropCreate && !comparison.differences.is_empty() {
            return Ok(SchemaPlan {
                statements: vec![
                    format!("DROP TABLE IF EXISTS {}", self.quote_table(&table.name)?),
                    self.create_table(table)?,
                ],
                creates: true,
                destructive: true,
                ..SchemaPlan::default()
            });
        }
        let mut plan = SchemaPlan::default();
        plan.statements.append(&mut statements);
        let left = self.mend(table, &comparison, options, &mut plan)?;
        self.narrow(table, &layout, &comparison, options, &mut plan)?;
        plan.warnings = tolerate(table, &left, options.on_mismatch)?;
        if options.strategy == SchemaStrategy::Alter && options.auto_create_columns {
            plan.notes.extend(note_of_rename(&comparison));
        }
        Ok(plan)
    }

    /// Renames what the options say was renamed, as long as the old name is there and the new one is not.
    fn renames(
        self,
        table: &Table,
        layout: &Layout,
        have: &TableShape,
        renames: Option<&BTreeMap<String, String>>,
    ) -> Result<(Vec<String>, TableShape)> {
        let (mut statements, mut have) = (Vec::new(), have.clone());
        for (old, new) in renames.into_iter().flatten() {
            let is_wanted = layout.columns.iter().any(|column| column.name == *new);
            let is_there = have.columns.iter().any(|shape| self.same_column(&shape.name, new));
            let old = have.columns.iter_mut().find(|shape| shape.name == *old);
            if let (true, false, Some(shape)) = (is_wanted, is_there, old) {
                statements.push(format!(
                    "ALTER TABLE {} RENAME COLUMN {} TO {}",
                    self.quote_table(&table.name)?,
                    self.quote(&shape.name)?,
                    self.quote(new)?
                ));
                shape.name.clone_from(new);
            }
        }
        Ok((statements, have))
    }

    /// Adds to the plan what the options let it mend; returns what is left.
    fn mend(
        self,
        table: &Table,
        comparison: &Comparison,
        options: &SchemaSyncOptions,
        plan: &mut SchemaPlan,
    ) -> Result<Vec<Difference>> {
        let may_alter = options.strategy == SchemaStrategy::Alter;
        let drops = may_alter && options.drop_missing_columns;
        let mut left = Vec::new();
        for difference in &comparison.differences {
            match difference {
                Difference::Missing { column }
                    if may_alter && options.auto_create_columns && !column.role.is_essential() =>
                {
                    plan.statements.push(self.add_column(&table.name, column)?);
                }
                Difference::TooNarrow { have, wanted, .. } if may_alter && self.can_retype() => {
                    let nullable = have.nullable || wanted.nullable;
                    let shape =
                        ColumnShape { type_name: wanted.type_name.to_string(), nullable, ..have.clone() };
                    plan.statements.push(self.retype(&table.name, &shape)?);
                }
                Difference::NotNullable { have, .. } if may_alter && self.can_retype() => {
                    let is_retyped = comparison.differences.iter().any(|other| {
                        matches!(other, Difference::TooNarrow { have: shape, .. } if shape.name == have.name)
                    });
                    plan.statements.extend(self.drop_not_null(&table.name, have, is_retyped)?);
                }
                Difference::ExtraRequired { .. } if drops => {}
                other => left.push(other.clone()),
            }
        }
        if drops {
            for shape in comparison.extra.iter().filter(|shape| !shape.primary_key) {
                plan.statements.push(format!(
                    "ALTER TABLE {} DROP COLUMN {}",
                    self.quote_table(&table.name)?,
                    self.quote(&shape.name)?
                ));
                plan.destructive = true;
            }
        }
        Ok(left)
    }

    /// Makes columns narrower that are wider than asked for, or notes that they are.
    fn narrow(
        self,
        table: &Table,
        layout: &Layout,
        comparison: &Comparison,
        options: &SchemaSyncOptions,
        plan: &mut SchemaPlan,
    ) -> Result<()> {
        for FittedColumn { role, shape } in &comparison.fitted {
            let Some(column) = layout.columns.iter().find(|column| column.role == *role) else { continue };
            if !self.is_wider(column, shape) {
                continue;
            }
            if options.narrow_columns && options.strategy == SchemaStrategy::Alter && self.can_retype() {
                let shape = ColumnShape { type_name: column.type_name.to_string(), ..shape.clone() };
                plan.statements.push(self.retype(&table.name, &shape)?);
                plan.destructive = true;
            } else {
                plan.notes.push(format!(
                    "the column '{}' has {}, which is wider than {}: it stays as it is unless schemaSync.narrowColumns is \
                     true",
                    shape.name, shape.type_name, column.type_name
                ));
            }
        }
        Ok(())
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
        Ok(SchemaPlan { statements: vec![create], creates: true, ..SchemaPlan::default() })
    }

    fn column(self, column: &Column, mode: RouteMode) -> Result<String> {
        let Column { name, role, type_name, nullable, .. } = column;
        let constraint = match (role, mode) {
            (Role::CreatedAt | Role::UpdatedAt, _) => self.automatic(*role),
            (Role::Row, _) if self == Self::Postgres => " GENERATED ALWAYS AS IDENTITY",
            // Rows lie in its order: new ones are added at the end.
            (Role::Row, _) => " NOT NULL AUTO_INCREMENT PRIMARY KEY",
            // SQLite accepts null in primary keys that do not say otherwise.
            (Role::Key, RouteMode::Upsert) => " NOT NULL PRIMARY KEY",
            (Role::ChangeId, _) => " NOT NULL UNIQUE",
            _ if *nullable => " NULL",
            _ => " NOT NULL",
        };
        Ok(format!("{} {type_name}{constraint}", self.quote(name)?))
    }

    fn automatic(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::Mysql | Self::Mariadb, Role::UpdatedAt) => {
                " DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"
            }
            (Self::Mysql | Self::Mariadb | Self::Sqlite, _) => " DEFAULT CURRENT_TIMESTAMP",
            (Self::Postgres, _) => " DEFAULT NOW()",
        }
    }

    fn add_column(self, table: &str, column: &Column) -> Result<String> {
        let (table, name) = (self.quote_table(table)?, self.quote(&column.name)?);
        let type_name = &column.type_name;
        Ok(match self {
            Self::Postgres | Self::Mariadb => {
                format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {type_name} NULL")
            }
            Self::Sqlite | Self::Mysql => format!("ALTER TABLE {table} ADD COLUMN {name} {type_name} NULL"),
        })
    }

    /// SQLite changes no column that exists; its columns hold what they are given anyway.
    fn can_retype(self) -> bool {
        self != Self::Sqlite
    }

    /// Gives a column this type. In MySQL it loses its default and its comment, which the shape does not have.
    fn retype(self, table: &str, shape: &ColumnShape) -> Result<String> {
        let (table, name) = (self.quote_table(table)?, self.quote(&shape.name)?);
        let type_name = &shape.type_name;
        Ok(match self {
            Self::Sqlite | Self::Postgres => {
                format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {type_name}")
            }
            Self::Mysql | Self::Mariadb => {
                let null = if shape.nullable { "NULL" } else { "NOT NULL" };
                format!("ALTER TABLE {table} MODIFY COLUMN {name} {type_name} {null}")
            }
        })
    }

    fn drop_not_null(self, table: &str, shape: &ColumnShape, is_retyped: bool) -> Result<Option<String>> {
        let (name, table_name) = (self.quote(&shape.name)?, self.quote_table(table)?);
        Ok(match self {
            Self::Sqlite | Self::Postgres => {
                Some(format!("ALTER TABLE {table_name} ALTER COLUMN {name} DROP NOT NULL"))
            }
            // MODIFY says both at once.
            Self::Mysql | Self::Mariadb if is_retyped => None,
            Self::Mysql | Self::Mariadb => {
                Some(self.retype(table, &ColumnShape { nullable: true, ..shape.clone() })?)
            }
        })
    }
}

/// A column that is missing and one that nobody has may be one that was renamed. Only the user knows.
fn note_of_rename(comparison: &Comparison) -> Option<String> {
    let missing = comparison.differences.iter().find_map(|difference| match difference {
        Difference::Missing { column } if !column.role.is_essential() => Some(&column.name),
        _ => None,
    })?;
    let extra = &comparison.extra.first()?.name;
    Some(format!(
        "if the attribute '{missing}' is what the column '{extra}' holds, say so in schemaSync.renameColumns before \
         the column is added"
    ))
}
