//! How a table that exists meets the layout that it should have.

use std::fmt;

use s3rep_core::{ColumnShape, Error, ErrorKind, OnMismatch, Result, Scope, Table, TableShape};

use crate::{Affinity, Column, Dialect, Layout, Role};

/// The columns of an existing table that rows are written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// In the order of the layout.
    pub columns: Vec<FittedColumn>,
    /// Differences that `onMismatch` says to live with.
    pub warnings: Vec<String>,
}

/// A column that is written.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedColumn {
    /// What it holds.
    pub role: Role,
    /// The column, as it exists.
    pub shape: ColumnShape,
}

/// Something about an existing table that is not as its layout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Difference {
    Missing { column: Column },
    WrongType { attribute: String, have: ColumnShape, wanted: &'static str },
    NotNullable { attribute: String, column: String },
    ExtraRequired { column: String },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { column: Column { name, role: Role::Attribute(_), .. } } => {
                write!(f, "there is no column for the attribute '{name}'")
            }
            Self::Missing { column: Column { name, .. } } => write!(f, "there is no column '{name}'"),
            Self::WrongType { attribute, have: ColumnShape { name, type_name, .. }, wanted } => {
                let have = if type_name.is_empty() { "no type" } else { type_name };
                write!(f, "the column '{name}' of '{attribute}' has {have} instead of {wanted}")
            }
            Self::NotNullable { attribute, column } => {
                write!(
                    f,
                    "the column '{column}' accepts no null, and the attribute '{attribute}' may have none"
                )
            }
            Self::ExtraRequired { column } => {
                write!(f, "the column '{column}' has no attribute and accepts no null")
            }
        }
    }
}

/// Whether a column of a layout is found in a column that exists.
type Match<'a> = dyn Fn(&Column, &ColumnShape) -> bool + 'a;

/// Layout and table side by side.
pub(crate) struct Comparison {
    pub(crate) fitted: Vec<FittedColumn>,
    pub(crate) differences: Vec<Difference>,
    /// Existing columns that no part of the layout claims.
    pub(crate) extra: Vec<ColumnShape>,
}

impl Dialect {
    /// Which columns of an existing table take which part of a row, without changing the table.
    ///
    /// Columns are found by name, then by name without case, then by the attribute's name in snake case, so
    /// that tables made by hand work. Columns that no attribute has are left alone.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`], scope table: an essential column is missing, or there is another
    /// difference and `on_mismatch` says error.
    pub fn fit(self, table: &Table, have: &TableShape, on_mismatch: OnMismatch) -> Result<Fit> {
        let layout = Layout::of(self, table)?;
        let Comparison { fitted, differences, .. } = self.compare(table, &layout, have);
        let warnings = tolerate(table, &differences, on_mismatch)?;
        Ok(Fit { columns: fitted, warnings })
    }

    pub(crate) fn compare(self, table: &Table, layout: &Layout, have: &TableShape) -> Comparison {
        let mut taken: Vec<Option<usize>> = vec![None; layout.columns.len()];
        let mut free: Vec<bool> = vec![true; have.columns.len()];
        let passes: [&Match<'_>; 3] = [
            &|column, shape| column.name == shape.name,
            &|column, shape| self.same_column(&column.name, &shape.name),
            &|column, shape| {
                !column.role.is_essential() && self.same_column(&snake_case(&column.name), &shape.name)
            },
        ];
        for matches in passes {
            for (place, column) in taken.iter_mut().zip(&layout.columns) {
                if place.is_none()
                    && let Some(i) = (0..free.len()).find(|&i| free[i] && matches(column, &have.columns[i]))
                {
                    (*place, free[i]) = (Some(i), false);
                }
            }
        }
        let mut comparison = Comparison { fitted: Vec::new(), differences: Vec::new(), extra: Vec::new() };
        for (place, column) in taken.into_iter().zip(&layout.columns) {
            let Some(shape) = place.map(|i| have.columns[i].clone()) else {
                comparison.differences.push(Difference::Missing { column: column.clone() });
                continue;
            };
            if !self.carries(&shape.type_name, column) {
                comparison.differences.push(Difference::WrongType {
                    attribute: column.name.clone(),
                    have: shape.clone(),
                    wanted: column.type_name,
                });
            }
            if column.nullable && !shape.nullable {
                comparison.differences.push(Difference::NotNullable {
                    attribute: column.name.clone(),
                    column: shape.name.clone(),
                });
            }
            debug_assert!(column.attribute(table).is_some() || column.role.is_essential());
            comparison.fitted.push(FittedColumn { role: column.role, shape });
        }
        for (shape, _) in have.columns.iter().zip(free).filter(|(_, free)| *free) {
            if !shape.nullable && !shape.primary_key {
                comparison.differences.push(Difference::ExtraRequired { column: shape.name.clone() });
            }
            comparison.extra.push(shape.clone());
        }
        comparison
    }

    fn carries(self, have: &str, column: &Column) -> bool {
        match self {
            // Keys are compared as bytes: a numeric column would turn '007' into 7.
            Self::Sqlite if column.role == Role::Key => {
                matches!(Affinity::of(have), Affinity::Text | Affinity::Blob)
            }
            Self::Sqlite => Affinity::of(have).carries(Affinity::of(column.type_name)),
        }
    }
}

/// What is left to say of differences that nothing will mend.
pub(crate) fn tolerate(
    table: &Table,
    differences: &[Difference],
    on_mismatch: OnMismatch,
) -> Result<Vec<String>> {
    let is_fatal = |difference: &Difference| match difference {
        Difference::Missing { column } => column.role.is_essential(),
        Difference::WrongType { attribute, .. } => attribute == crate::KEY,
        _ => false,
    };
    let fatal: Vec<_> = differences.iter().filter(|difference| is_fatal(difference)).collect();
    let told: Vec<_> = match on_mismatch {
        OnMismatch::Error => differences.iter().collect(),
        _ => fatal,
    };
    if !told.is_empty() {
        let list = told.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(Error::new(ErrorKind::SchemaMismatch, format!("the table does not fit: {list}"))
            .with_scope(Scope::Table)
            .with_context("table", &table.name)
            .with_advice(
                "enable schemaSync with autoCreateColumns, alter the table, leave the attributes out of the \
                 mapping, or set schemaSync.onMismatch to warn",
            ));
    }
    Ok(match on_mismatch {
        OnMismatch::Warn => differences.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    })
}

/// `createdAt` as `created_at`, `HTTPPort` as `http_port`.
fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, &character) in characters.iter().enumerate() {
        if character.is_ascii_uppercase() && i > 0 {
            let before = characters[i - 1];
            let ends_word = characters.get(i + 1).is_some_and(char::is_ascii_lowercase);
            if before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && ends_word)
            {
                snake.push('_');
            }
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_is_what_people_write() {
        for (name, snake) in [
            ("createdAt", "created_at"),
            ("HTTPPort", "http_port"),
            ("a1B", "a1_b"),
            ("already_snake", "already_snake"),
            ("ID", "id"),
            ("éA", "éa"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }
}
