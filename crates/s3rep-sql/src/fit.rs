//! How a table that exists meets the layout that it should have.

use std::fmt;

use s3rep_core::{ColumnShape, Error, ErrorKind, OnMismatch, Result, Scope, Table, TableShape};

use crate::{Column, ColumnType, Dialect, Layout, Role, column_type::Match as TypeMatch};

/// The columns of an existing table that rows are written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// In the order of the layout.
    pub columns: Vec<FittedColumn>,
    /// The column that an update sets to the time of the database, where there is one and no attribute has it.
    pub updated_at: Option<String>,
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
    Missing {
        column: Column,
    },
    WrongType {
        attribute: String,
        have: ColumnShape,
        wanted: Column,
    },
    /// A wider type would hold more values.
    TooNarrow {
        attribute: String,
        have: ColumnShape,
        wanted: Column,
    },
    NotNullable {
        attribute: String,
        have: ColumnShape,
    },
    ExtraRequired {
        column: String,
    },
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
                write!(f, "the column '{name}' of '{attribute}' has {have} instead of {}", wanted.type_name)
            }
            Self::TooNarrow { attribute, have: ColumnShape { name, type_name, .. }, wanted } => {
                let wanted = &wanted.type_name;
                write!(
                    f,
                    "the column '{name}' of '{attribute}' has {type_name}, which is narrower than {wanted}"
                )
            }
            Self::NotNullable { attribute, have: ColumnShape { name, .. } } => {
                write!(
                    f,
                    "the column '{name}' accepts no null, and the attribute '{attribute}' may have none"
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
    pub(crate) updated_at: Option<String>,
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
        let Comparison { fitted, updated_at, mut differences, .. } = self.compare(&layout, have);
        // What a narrow column does not hold is refused record by record.
        differences.retain(|difference| !matches!(difference, Difference::TooNarrow { .. }));
        let warnings = tolerate(table, &differences, on_mismatch)?;
        Ok(Fit { columns: fitted, updated_at, warnings })
    }

    pub(crate) fn compare(self, layout: &Layout, have: &TableShape) -> Comparison {
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
        let mut comparison =
            Comparison { fitted: Vec::new(), updated_at: None, differences: Vec::new(), extra: Vec::new() };
        for (place, column) in taken.into_iter().zip(&layout.columns) {
            let shape = place.map(|i| have.columns[i].clone());
            if column.role.is_automatic() {
                if column.role == Role::UpdatedAt {
                    comparison.updated_at = shape.map(|shape| shape.name);
                }
                continue;
            }
            let Some(shape) = shape else {
                comparison.differences.push(Difference::Missing { column: column.clone() });
                continue;
            };
            self.compare_column(column, &shape, &mut comparison.differences);
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

    fn compare_column(self, column: &Column, shape: &ColumnShape, differences: &mut Vec<Difference>) {
        let (attribute, have, wanted) = (column.name.clone(), shape.clone(), column.clone());
        match ColumnType::of(self, shape).holds(self, column) {
            TypeMatch::Holds => {}
            TypeMatch::TooNarrow => differences.push(Difference::TooNarrow { attribute, have, wanted }),
            TypeMatch::Wrong => differences.push(Difference::WrongType { attribute, have, wanted }),
        }
        if column.nullable && !shape.nullable {
            let (attribute, have) = (column.name.clone(), shape.clone());
            differences.push(Difference::NotNullable { attribute, have });
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
