//! A row that was read, from a file or from a server.

use std::mem;

use libsql::Value;
use s3rep_core::{Error, ErrorKind, Result, Scope};

/// A row of a query.
pub(crate) struct Row(Vec<Value>);

impl Row {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values)
    }

    /// Takes a value out of the row. Nothing is left of it there.
    pub(crate) fn take(&mut self, index: usize) -> Value {
        self.0.get_mut(index).map_or(Value::Null, |value| mem::replace(value, Value::Null))
    }

    pub(crate) fn integer(&mut self, index: usize) -> Result<i64> {
        match self.take(index) {
            Value::Integer(number) => Ok(number),
            _ => Err(odd()),
        }
    }

    /// Text that was selected as a blob, see [`text_of`].
    pub(crate) fn text(&mut self, index: usize) -> Result<String> {
        let text = String::from_utf8(self.bytes(index)?);
        Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// As [`Self::text`], of text that may be none.
    pub(crate) fn bytes(&mut self, index: usize) -> Result<Vec<u8>> {
        match self.take(index) {
            Value::Blob(bytes) => Ok(bytes),
            Value::Null => Ok(Vec::new()),
            _ => Err(odd()),
        }
    }
}

/// The expression that selects text so that it can be read whole. In a file libSQL cuts text at a NUL and panics
/// when it is not UTF-8, and a server refuses the whole request then.
pub(crate) fn text_of(expression: &str) -> String {
    format!("CAST({expression} AS BLOB)")
}

fn odd() -> Error {
    Error::new(ErrorKind::Corrupt, "the database answers with a value of another type")
        .with_scope(Scope::Sink)
        .with_advice("look whether the table _s3rep_cursor was changed by hand")
}
