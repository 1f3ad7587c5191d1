//! What JSON Lines and CSV do differently.

use std::io::BufRead;

use s3rep_core::{Error, ErrorKind, Operation, Record, ResourceSchema, Result, RowChange, Scope, Table};
use serde_json::Value;

use crate::csv;

/// The column or member of the key.
pub(crate) const KEY: &str = "id";
/// What every line says about its change, before the key.
const SERVICE: [&str; 3] = ["_operation", "_change_id", "_changed_at"];

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jsonl,
    Csv,
}

/// A line as it was read.
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) is_delete: bool,
    pub(crate) record: Record,
}

impl Format {
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }

    /// The first line of a file, with its line end; empty when there is none.
    ///
    /// # Errors
    /// When an attribute has the name of a column of the line's own.
    pub(crate) fn header(self, table: &Table) -> Result<String> {
        if self == Self::Jsonl {
            return Ok(String::new());
        }
        let mut header = Vec::new();
        for name in SERVICE.into_iter().chain([KEY]).chain(columns(&table.schema)) {
            if !header.is_empty() {
                header.push(b',');
            }
            csv::push_field(&mut header, Some(name));
        }
        if let Some(name) = columns(&table.schema).find(|name| SERVICE.contains(name)) {
            return Err(Error::new(
                ErrorKind::SchemaMismatch,
                "an attribute has the name of a column that s3rep writes",
            )
            .with_scope(Scope::Table)
            .with_context("table", &table.name)
            .with_context("attribute", name)
            .with_advice("rename it in the mapping or leave it out"));
        }
        header.push(b'\n');
        String::from_utf8(header)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "a header is not UTF-8").with_source(error))
    }

    /// Appends the line of a change.
    ///
    /// # Errors
    /// When the change cannot be a line; nothing was appended then.
    pub(crate) fn push_line(self, lines: &mut Vec<u8>, table: &Table, change: &RowChange) -> Result<()> {
        if change.record.is_none() && change.operation != Operation::Delete {
            return Err(refused("the change has no record"));
        }
        let empty = Record::new();
        let record = change.record.as_deref().unwrap_or(&empty);
        self.check(record)?;
        let RowChange { key, operation, change_id, timestamp, .. } = change;
        match self {
            Self::Jsonl => {
                let service = format!(
                    r#"{{"_operation":"{operation}","_change_id":"{change_id}","_changed_at":"{timestamp}","id":"#
                );
                lines.extend_from_slice(service.as_bytes());
                push_json(lines, &**key)?;
                for (name, value) in record.iter().filter(|(name, _)| *name != KEY) {
                    lines.push(b',');
                    push_json(lines, name)?;
                    lines.push(b':');
                    push_json(lines, value)?;
                }
                lines.extend_from_slice(b"}\n");
            }
            Self::Csv => {
                lines.extend_from_slice(format!("{operation},{change_id},{timestamp},").as_bytes());
                csv::push_field(lines, Some(key));
                for column in columns(&table.schema) {
                    lines.push(b',');
                    match record.get(column) {
                        Some(Value::String(text)) => csv::push_field(lines, Some(text)),
                        value => csv::push_field(lines, value.and_then(csv::text_of).as_deref()),
                    }
                }
                lines.push(b'\n');
            }
        }
        Ok(())
    }

    fn check(self, record: &Record) -> Result<()> {
        match SERVICE.into_iter().find(|name| record.contains_key(*name)) {
            Some(name) if self == Self::Jsonl => {
                Err(refused("the record has a member of a name that s3rep writes")
                    .with_context("member", name))
            }
            _ => Ok(()),
        }
    }

    /// The record as its line reads back. Null fields of CSV are left out.
    pub(crate) fn expected(self, table: &Table, record: &Record) -> Result<Record> {
        self.check(record)?;
        let mut record = record.clone();
        record.shift_remove(KEY);
        match self {
            Self::Jsonl => Ok(record),
            Self::Csv => {
                let column = |name| Some((String::from(name), csv::text_of(record.get(name)?)?.into()));
                Ok(columns(&table.schema).filter_map(column).collect())
            }
        }
    }

    /// Leaves of a row that was read what the table has now.
    pub(crate) fn project(self, table: &Table, row: &mut Record) {
        if self == Self::Csv {
            row.retain(|name, _| table.schema.attribute(name).is_some());
        }
    }

    /// Reads the next line of a file into `text`, line end included. `false` at the end.
    pub(crate) fn read_line(self, file: &mut impl BufRead, text: &mut Vec<u8>) -> std::io::Result<bool> {
        text.clear();
        while file.read_until(b'\n', text)? > 0 {
            if self == Self::Jsonl || csv::is_complete(text) {
                return Ok(true);
            }
        }
        Ok(!text.is_empty())
    }

    /// The names of the columns in the first line of a file; none where there is no such line.
    pub(crate) fn columns_of(self, header: &[u8]) -> Option<Vec<String>> {
        let fields = csv::fields(std::str::from_utf8(header).ok()?.strip_suffix('\n')?)?;
        let names: Vec<String> = fields.into_iter().collect::<Option<_>>()?;
        let own = names.iter().take(4).map(String::as_str);
        own.eq(SERVICE.into_iter().chain([KEY])).then_some(names)
    }

    /// Whether files begin with a line that names the columns.
    pub(crate) fn has_header(self) -> bool {
        self == Self::Csv
    }

    /// Takes a line apart. `None` when it is not a line of this format.
    pub(crate) fn parse(self, line: &[u8], columns: &[String]) -> Option<Line> {
        match self {
            Self::Jsonl => {
                let mut record: Record = serde_json::from_slice(line).ok()?;
                let is_delete = record.get(SERVICE[0])?.as_str()? == "delete";
                let Some(Value::String(key)) = record.shift_remove(KEY) else { return None };
                record.retain(|name, _| !SERVICE.contains(&name.as_str()));
                Some(Line { key, is_delete, record })
            }
            Self::Csv => {
                let fields = csv::fields(std::str::from_utf8(line).ok()?.strip_suffix('\n')?)?;
                if fields.len() != columns.len() {
                    return None;
                }
                let mut fields = fields.into_iter();
                let is_delete = fields.next()?? == "delete";
                let key = fields.nth(2)??;
                let named = columns.iter().skip(4).zip(fields);
                let record = named.filter_map(|(name, field)| Some((name.clone(), field?.into()))).collect();
                Some(Line { key, is_delete, record })
            }
        }
    }
}

/// Attributes with a column of their own.
fn columns(schema: &ResourceSchema) -> impl Iterator<Item = &str> {
    schema.attributes.iter().map(|attribute| attribute.name.as_str()).filter(|name| *name != KEY)
}

fn push_json(lines: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) -> Result<()> {
    serde_json::to_writer(lines, value)
        .map_err(|error| refused("the record cannot be written as JSON").with_source(error))
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidValue, message)
        .with_scope(Scope::Record)
        .with_advice("correct the record, or rename the member in the mapping")
}
