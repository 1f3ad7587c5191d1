//! A connection whose calls are plain functions.
//!
//! libSQL's local calls block inside futures that are ready at once, so they are driven by one poll, on a
//! thread that may block.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libsql::{Builder, OpenFlags, Statement, Value, params::Params};
use s3rep_core::{Error, ErrorKind, Result, Scope};

use super::error::from_libsql;
use crate::row::Row;

/// Waiting is the engine's business; this only bridges the moment that another connection needs to commit.
const BUSY_TIMEOUT: Duration = Duration::from_millis(50);

/// 16 MiB: keys of appended changes are random, and an index that does not fit is read again and again.
const CACHE: &str = "PRAGMA cache_size = -16384";
/// 16,000 pages, 64 MB: pages that several batches change are copied back once. With random keys every batch
/// changes most pages of the index.
const CHECKPOINT: &str = "PRAGMA wal_autocheckpoint = 16000";

/// How a database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Create,
}

/// An open database. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: libsql::Connection,
    path: PathBuf,
}

impl Connection {
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self> {
        let fail = |error| from_libsql(error, path);
        let flags = match access {
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Create => OpenFlags::default(),
        };
        let database = now(Builder::new_local(path).flags(flags).build()).map_err(fail)?;
        let inner = database.connect().map_err(fail)?;
        inner.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
        let connection = Self { inner, path: path.to_owned() };
        let utf8 = "SELECT 1 FROM pragma_encoding WHERE encoding = 'UTF-8'";
        if connection.query(utf8, Vec::new(), |_| Ok(()))?.is_empty() {
            // Its text sorts, compares and casts differently.
            return Err(utf16(path));
        }
        if access == Access::Read {
            // Sorting for `verify` may need more room than memory.
            connection.run("PRAGMA temp_store = FILE")?;
        } else {
            connection.query("PRAGMA journal_mode = WAL", Vec::new(), |_| Ok(()))?;
            connection.run("PRAGMA synchronous = FULL")?;
            connection.run(CACHE)?;
            connection.query(CHECKPOINT, Vec::new(), |_| Ok(()))?;
        }
        Ok(connection)
    }

    /// Runs one statement without parameters or rows.
    pub(crate) fn run(&self, sql: &str) -> Result<()> {
        now(self.inner.execute(sql, ())).map(drop).map_err(|error| self.error(error))
    }

    /// Runs one statement without rows.
    pub(crate) fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64> {
        now(self.inner.execute(sql, Params::Positional(params))).map_err(|error| self.error(error))
    }

    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement> {
        now(self.inner.prepare(sql)).map_err(|error| self.error(error))
    }

    /// Runs a prepared statement without rows. It can be run again whatever comes of it.
    pub(crate) fn step(&self, statement: &Statement, params: Vec<Value>) -> Result<()> {
        let done = now(statement.execute(Params::Positional(params)));
        statement.reset();
        done.map(drop).map_err(|error| self.error(error))
    }

    /// Calls `each` with every row. Text has to be selected as a blob ([`text_of`](crate::row::text_of)).
    pub(crate) fn query<T>(
        &self,
        sql: &str,
        params: Vec<Value>,
        mut each: impl FnMut(Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let fail = |error| self.error(error);
        let mut rows = now(self.inner.query(sql, Params::Positional(params))).map_err(fail)?;
        let mut taken = Vec::new();
        while let Some(row) = now(rows.next()).map_err(fail)? {
            let values = (0..row.column_count()).map(|index| row.get_value(index));
            let row = Row::new(values.collect::<libsql::Result<_>>().map_err(fail)?);
            taken.push(each(row).map_err(|error| error.with_context("file", self.path.display()))?);
        }
        Ok(taken)
    }

    /// Whether no transaction is open.
    pub(crate) fn is_autocommit(&self) -> bool {
        self.inner.is_autocommit()
    }

    /// Runs `work` in one transaction that excludes other writers; an error undoes all of it.
    pub(crate) fn transaction<T>(&self, work: impl FnOnce() -> Result<Transacted<T>>) -> Result<T> {
        self.run("BEGIN IMMEDIATE")?;
        let worked = work().and_then(|transacted| match transacted {
            Transacted::Commit(value) => self.run("COMMIT").map(|()| value),
            Transacted::Undo(value) => self.run("ROLLBACK").map(|()| value),
        });
        if !self.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            // The caller sees the open transaction and gives the connection up, which rolls back too.
            tracing::debug!(error = %error.report(), "rollback failed");
        }
        worked
    }

    fn error(&self, error: libsql::Error) -> Error {
        from_libsql(error, &self.path)
    }
}

/// How a transaction ends.
pub(crate) enum Transacted<T> {
    Commit(T),
    Undo(T),
}

/// A database that holds its text in a form that is not supported.
pub(crate) fn utf16(path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "the database holds its text as UTF-16")
        .with_scope(Scope::Sink)
        .with_context("file", path.display())
        .with_advice("use a database with PRAGMA encoding = 'UTF-8', which is SQLite's default")
}

fn now<T>(future: impl Future<Output = libsql::Result<T>>) -> libsql::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(libsql::Error::Misuse("a local call did not complete at once".into())),
    }
}
