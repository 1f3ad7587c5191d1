//! SQLite through libsql, made synchronous: its local calls never wait for anything but the disk.
//!
//! Two habits of libsql decide how statements are written here. It reads text up to the first NUL and panics
//! when text is not UTF-8, which a flipped bit can cause: every text and blob column is selected as
//! `CAST(… AS BLOB)`. And it leaves a finished statement open, which would keep the write-ahead log from being
//! reused: every statement is reset as soon as its rows are read.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use libsql::{Builder, OpenFlags, Statement, Value, params::Params};
use s3rep_core::{Error, ErrorKind, Result};

use crate::{error, files::Files};

/// A connection with its prepared statements.
pub(crate) struct Db {
    // Before the connection, so that they are finalised first.
    statements: HashMap<&'static str, Statement>,
    connection: libsql::Connection,
    files: Arc<Files>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Create,
    Write,
    Read,
}

impl Db {
    /// Opens a file and checks that it is a database.
    pub(crate) fn open(files: &Arc<Files>, path: &Path, access: Access) -> Result<Self> {
        let flags = match access {
            Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let opened = ready(async { Builder::new_local(path).flags(flags).build().await?.connect() })?;
        let connection = opened.map_err(|cause| error::from_sqlite(cause, files))?;
        let mut db = Self { statements: HashMap::new(), connection, files: Arc::clone(files) };
        db.connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(|cause| error::from_sqlite(cause, files))?;
        // A read of the first page. Damaged bytes in the tree are looked for whenever a page is loaded.
        db.once("PRAGMA cell_size_check = ON")?;
        db.once("PRAGMA schema_version")?;
        Ok(db)
    }

    /// Runs a statement that is kept for the next time.
    pub(crate) fn run(&mut self, sql: &'static str, params: Vec<Value>) -> Result<()> {
        self.rows(sql, params, |_| Ok(ControlFlow::Break(())))
    }

    /// Runs a statement that is kept for the next time, and hands out its rows until `each` has enough.
    pub(crate) fn rows(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
        each: impl FnMut(&Cells<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if !self.statements.contains_key(sql) {
            let prepared = ready(self.connection.prepare(sql))?
                .map_err(|cause| error::from_sqlite(cause, &self.files))?;
            self.statements.insert(sql, prepared);
        }
        let statement = &self.statements[sql];
        let done = drive(statement, params, &self.files, each);
        statement.reset();
        done
    }

    /// The first row, read by `read`.
    pub(crate) fn first<T>(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
        read: impl Fn(&Cells<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut first = None;
        self.rows(sql, params, |row| {
            first = Some(read(row)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// Runs a statement that is not needed again, such as a pragma, and drops its rows.
    pub(crate) fn once(&mut self, sql: &str) -> Result<()> {
        let statement =
            ready(self.connection.prepare(sql))?.map_err(|cause| error::from_sqlite(cause, &self.files))?;
        drive(&statement, Vec::new(), &self.files, |_| Ok(ControlFlow::Continue(())))
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.run("BEGIN IMMEDIATE", Vec::new())
    }

    /// Begins a transaction that sees one state of the file.
    pub(crate) fn begin_reading(&mut self) -> Result<()> {
        self.run("BEGIN", Vec::new())
    }

    /// Ends the transaction; what it wrote is durable.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.run("COMMIT", Vec::new())
    }

    /// Ends the transaction and leaves nothing of it.
    pub(crate) fn rollback(&mut self) {
        // After some errors SQLite has done so itself.
        if !self.connection.is_autocommit() {
            let _ = self.run("ROLLBACK", Vec::new());
        }
    }
}

fn drive(
    statement: &Statement,
    params: Vec<Value>,
    files: &Files,
    mut each: impl FnMut(&Cells<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut rows = ready(statement.query(Params::Positional(params)))?
        .map_err(|cause| error::from_sqlite(cause, files))?;
    while let Some(row) = ready(rows.next())?.map_err(|cause| error::from_sqlite(cause, files))? {
        if each(&Cells { row: &row, files })?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The cells of a row.
pub(crate) struct Cells<'a> {
    row: &'a libsql::Row,
    files: &'a Files,
}

impl Cells<'_> {
    /// A number that is never negative.
    pub(crate) fn number(&self, at: i32) -> Result<u64> {
        self.integer(at).map(|number| u64::try_from(number).unwrap_or(0))
    }

    /// A number.
    pub(crate) fn integer(&self, at: i32) -> Result<i64> {
        match self.row.get_value(at).map_err(|cause| error::from_sqlite(cause, self.files))? {
            Value::Integer(number) => Ok(number),
            _ => Err(self.mismatch()),
        }
    }

    /// Bytes; a NULL that a flipped bit made is an empty blob, which no check sum fits.
    pub(crate) fn blob(&self, at: i32) -> Result<Vec<u8>> {
        self.optional_bytes(at).map(Option::unwrap_or_default)
    }

    /// Bytes or NULL.
    pub(crate) fn optional_bytes(&self, at: i32) -> Result<Option<Vec<u8>>> {
        match self.row.get_value(at).map_err(|cause| error::from_sqlite(cause, self.files))? {
            Value::Null => Ok(None),
            Value::Blob(bytes) => Ok(Some(bytes)),
            _ => Err(self.mismatch()),
        }
    }

    fn mismatch(&self) -> Error {
        error::corrupt(self.files, "a cell of the log file has the wrong type")
    }
}

/// A number as SQLite holds it.
pub(crate) fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Text as SQLite holds it.
pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The result of a future that never waits.
fn ready<F: Future>(future: F) -> Result<F::Output> {
    match pin!(future).poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(Error::new(ErrorKind::Unexpected, "libsql waited in a local call")),
    }
}
