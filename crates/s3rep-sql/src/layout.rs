//! The columns that a table should have.

use std::borrow::Cow;

use s3rep_core::{Attribute, Error, ErrorKind, Result, RouteMode, Scope, Table};

use crate::{Dialect, TypeClass, mysql};

/// The column of the key.
pub const KEY: &str = "id";
/// The column of append tables with the operation: `insert`, `update`, `delete`, `read`.
pub const OPERATION: &str = "_operation";
/// The column of append tables with the identity of the change, to deduplicate on.
pub const CHANGE_ID: &str = "_change_id";
/// The column of append tables with the time of the change, RFC 3339 in UTC with milliseconds.
pub const CHANGED_AT: &str = "_changed_at";

/// The column of upsert tables with the time at which the database first saw the row. Made as in the reference;
/// s3rep never writes it.
pub const CREATED_AT: &str = "created_at";
/// The column of upsert tables with the time at which the database last saw the row written.
pub const UPDATED_AT: &str = "updated_at";

/// The column of append tables that counts the rows as they come: the order of a record's changes, which times do
/// not tell. The database fills it. In SQLite every row has such a number without a column.
pub const ROW: &str = "_row";

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
    pub type_name: Cow<'static, str>,
    /// The class of its attribute's values.
    pub class: Option<TypeClass>,
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
    /// The place of the row among all. Nobody writes it.
    Row,
    /// When the database first saw the row. Nobody writes it.
    CreatedAt,
    /// When the database last saw the row written.
    UpdatedAt,
}

impl Role {
    /// Columns that every table of its mode must have.
    pub fn is_essential(self) -> bool {
        !matches!(self, Self::Attribute(_)) && !self.is_automatic()
    }

    /// Columns that the database fills by itself, and that a table may lack.
    pub fn is_automatic(self) -> bool {
        matches!(self, Self::Row | Self::CreatedAt | Self::UpdatedAt)
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
        let service = |name: &str, role| Column {
            name: name.to_owned(),
            role,
            type_name: dialect.service_type(role),
            class: None,
            nullable: role.is_automatic(),
        };
        let mut columns = vec![service(KEY, Role::Key)];
        for (index, attribute) in table.schema.attributes.iter().enumerate() {
            if attribute.name == KEY {
                continue;
            }
            dialect.quote(&attribute.name).map_err(at)?;
            let class = TypeClass::of(attribute);
            columns.push(Column {
                name: attribute.name.clone(),
                role: Role::Attribute(index),
                type_name: dialect.type_name(class),
                class: Some(class),
                nullable: table.mode == RouteMode::Append || !attribute.required,
            });
        }
        match table.mode {
            RouteMode::Append => {
                columns.push(service(OPERATION, Role::Operation));
                columns.push(service(CHANGE_ID, Role::ChangeId));
                columns.push(service(CHANGED_AT, Role::ChangedAt));
                let is_taken = columns.iter().any(|column| dialect.same_column(&column.name, ROW));
                if dialect != Dialect::Sqlite && !is_taken {
                    columns.push(service(ROW, Role::Row));
                }
            }
            RouteMode::Upsert if dialect == Dialect::Sqlite => {}
            RouteMode::Upsert => {
                for (name, camel, role) in
                    [(CREATED_AT, "createdAt", Role::CreatedAt), (UPDATED_AT, "updatedAt", Role::UpdatedAt)]
                {
                    let declares =
                        |column: &Column| column.name == camel || dialect.same_column(&column.name, name);
                    if !columns.iter().any(declares) {
                        columns.push(service(name, role));
                    }
                }
            }
        }
        let layout = Self { columns };
        layout.check_collisions(dialect).map_err(at)?;
        Ok(layout)
    }

    fn check_collisions(&self, dialect: Dialect) -> Result<()> {
        for (i, column) in self.columns.iter().enumerate() {
            let twin = self.columns[..i].iter().find(|other| dialect.same_column(&other.name, &column.name));
            let Some(twin) = twin else { continue };
            let is_own = |column: &Column| !matches!(column.role, Role::Attribute(_));
            let message = if is_own(twin) || is_own(column) {
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

impl Dialect {
    /// The types of the columns that s3rep writes itself.
    fn service_type(self, role: Role) -> Cow<'static, str> {
        match (self, role) {
            (Self::Postgres, Role::Key) => "VARCHAR(255)".into(),
            (Self::Postgres, Role::ChangedAt | Role::CreatedAt | Role::UpdatedAt) => {
                "TIMESTAMP WITH TIME ZONE".into()
            }
            (Self::Postgres, Role::Row) => "BIGINT".into(),
            (Self::Sqlite | Self::Postgres, _) => "TEXT".into(),
            (Self::Mysql | Self::Mariadb, Role::Key) => mysql::key_type(self).into(),
            (Self::Mysql | Self::Mariadb, Role::ChangeId) => {
                "CHAR(32) CHARACTER SET ascii COLLATE ascii_bin".into()
            }
            (Self::Mysql | Self::Mariadb, Role::ChangedAt) => "DATETIME(6)".into(),
            (Self::Mysql | Self::Mariadb, Role::Row) => "BIGINT".into(),
            (Self::Mysql | Self::Mariadb, Role::CreatedAt | Role::UpdatedAt) => "DATETIME".into(),
            (Self::Mysql | Self::Mariadb, _) => "VARCHAR(16)".into(),
        }
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
