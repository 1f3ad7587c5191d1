//! The columns that a table should have.

use s3rep_core::{Attribute, Error, ErrorKind, Result, RouteMode, Scope, Table};

use crate::Dialect;

/// The column of the key.
pub const KEY: &str = "id";
/// The column of append tables with the operation: `insert`, `update`, `delete`, `read`.
pub const OPERATION: &str = "_operation";
/// The column of append tables with the identity of the change, to deduplicate on.
pub const CHANGE_ID: &str = "_change_id";
/// The column of append tables with the time of the change, RFC 3339 in UTC with milliseconds.
pub const CHANGED_AT: &str = "_changed_at";

/// The columns that a table should have, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// In order.
    pub columns: Vec<Column>,
}

/// One column that a table should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub role: Role,
    /// Its type, as the dialect spells it.
    pub type_name: &'static str,
    /// Accepts null.
    pub nullable: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The key.
    Key,
    /// The attribute at this index of the schema.
    Attribute(usize),
    /// The operation.
    Operation,
    /// The identity of the change.
    ChangeId,
    /// The time of the change.
    ChangedAt,
}

impl Role {
    /// Columns that every table of its mode must have.
    pub fn is_essential(self) -> bool {
        !matches!(self, Self::Attribute(_))
    }
}

impl Layout {
    /// The columns of a table.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`] when two attributes would be the same column, and
    /// [`ErrorKind::ConfigInvalid`] for names that cannot be used.
    pub fn of(dialect: Dialect, table: &Table) -> Result<Self> {
        let at = |error: Error| error.with_context("table", &table.name);
        dialect.check_table_name(&table.name)?;
        let text = |name: &str, role| Column {
            name: name.to_owned(),
            role,
            type_name: dialect.type_name(crate::TypeClass::Text(None)),
            nullable: false,
        };
        let mut columns = vec![text(KEY, Role::Key)];
        for (index, attribute) in table.schema.attributes.iter().enumerate() {
            if attribute.name == KEY {
                continue;
            }
            dialect.quote(&attribute.name).map_err(at)?;
            columns.push(Column {
                name: attribute.name.clone(),
                role: Role::Attribute(index),
                type_name: dialect.type_of(attribute),
                nullable: table.mode == RouteMode::Append || !attribute.required,
            });
        }
        if table.mode == RouteMode::Append {
            columns.push(text(OPERATION, Role::Operation));
            columns.push(text(CHANGE_ID, Role::ChangeId));
            columns.push(text(CHANGED_AT, Role::ChangedAt));
        }
        let layout = Self { columns };
        layout.check_collisions(dialect).map_err(at)?;
        Ok(layout)
    }

    fn check_collisions(&self, dialect: Dialect) -> Result<()> {
        for (i, column) in self.columns.iter().enumerate() {
            let twin = self.columns[..i].iter().find(|other| dialect.same_column(&other.name, &column.name));
            let Some(twin) = twin else { continue };
            let message = if twin.role.is_essential() || column.role.is_essential() {
                "an attribute has the name of a column that s3rep writes itself"
            } else {
                "two attributes are the same column to the database, which ignores case"
            };
            return Err(Error::new(ErrorKind::SchemaMismatch, message)
                .with_scope(Scope::Table)
                .with_context("columns", format!("'{}' and '{}'", twin.name, column.name))
                .with_advice("rename one of them in the mapping or leave it out"));
        }
        Ok(())
    }
}

impl Column {
    /// The attribute that the column holds.
    pub fn attribute<'a>(&self, table: &'a Table) -> Option<&'a Attribute> {
        match self.role {
            Role::Attribute(index) => table.schema.attributes.get(index),
            _ => None,
        }
    }
}
