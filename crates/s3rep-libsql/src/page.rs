//! Reading rows back, as statements and records.

use s3rep_core::{Error, ErrorKind, Record, Result, Scope, Table, TableShape};
use s3rep_sql::{Dialect, KEY, OPERATION, Role};

use crate::{
    encode::{self, Target},
    row::{Row, text_of},
};

/// A table that is read in the order of its keys. In its statements the table is `t`.
pub(crate) struct Page<'a> {
    targets: &'a [Target],
    /// The table, quoted.
    pub(crate) name: String,
    /// The column of the key.
    pub(crate) key: String,
    /// What is selected of a row, for [`Page::decode`].
    pub(crate) columns: String,
}

impl<'a> Page<'a> {
    pub(crate) fn of(table: &Table, targets: &'a [Target]) -> Result<Self> {
        let key = column(targets, Role::Key, KEY)?;
        let mut columns = vec![text_of(&key)];
        for target in attributes(targets) {
            let column = format!("t.{}", Dialect::Sqlite.quote(&target.name)?);
            columns.push(text_of(&format!("typeof({column})")));
            let text = text_of(&column);
            columns.push(format!("CASE typeof({column}) WHEN 'text' THEN {text} ELSE {column} END"));
        }
        let name = format!("main.{}", Dialect::Sqlite.quote(&table.name)?);
        Ok(Self { targets, name, key, columns: columns.join(", ") })
    }

    /// The column of the operation, in append tables.
    pub(crate) fn operation(&self) -> Result<String> {
        column(self.targets, Role::Operation, OPERATION)
    }

    /// Rows of an upsert table with keys after the bytes `?1`, at most `?2`.
    pub(crate) fn upserted(&self) -> String {
        let Self { name, key, columns, .. } = self;
        format!(
            "SELECT {columns} FROM {name} AS t WHERE {key} COLLATE BINARY > CAST(?1 AS TEXT) \
             AND typeof({key}) = 'text' ORDER BY {key} COLLATE BINARY LIMIT ?2"
        )
    }

    pub(crate) fn decode(&self, mut row: Row) -> Result<RawRow> {
        let mut record = Record::new();
        for (target, index) in attributes(self.targets).zip((1..).step_by(2)) {
            let value = encode::decode_typed(&row.text(index)?, row.take(index + 1));
            record.insert(target.name.clone(), value);
        }
        Ok((row.bytes(0)?, record))
    }
}

/// A record with its key, which may be no text.
pub(crate) type RawRow = (Vec<u8>, Record);

/// The rows of a page without those whose key is no UTF-8: they are not s3rep's, and nobody could ask for what comes
/// after them.
///
/// # Errors
/// The last key, when no row is left of a page that had some: it is no end.
pub(crate) fn readable(rows: Vec<RawRow>) -> Result<Vec<(String, Record)>, Vec<u8>> {
    let last = rows.last().map(|(key, _)| key.clone());
    let text = |(key, record)| Some((String::from_utf8(key).ok()?, record));
    let readable: Vec<_> = rows.into_iter().filter_map(text).collect();
    match last {
        Some(last) if readable.is_empty() => Err(last),
        _ => Ok(readable),
    }
}

fn attributes(targets: &[Target]) -> impl Iterator<Item = &Target> {
    targets.iter().filter(|target| matches!(target.role, Role::Attribute(_)))
}

fn column(targets: &[Target], role: Role, default: &str) -> Result<String> {
    let target = targets.iter().find(|target| target.role == role);
    Ok(format!("t.{}", Dialect::Sqlite.quote(target.map_or(default, |target| &target.name))?))
}

/// A name of the row number that no column hides: changes of an append table are in its order.
pub(crate) fn row_number(shape: &TableShape) -> Result<&'static str> {
    let is_free = |name: &&str| !shape.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "oid", "_rowid_"].into_iter().find(is_free).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the table hides its row numbers, so changes have no order")
            .with_scope(Scope::Table)
            .with_operation("read back")
            .with_advice("replicate into a table that s3rep has created")
    })
}
