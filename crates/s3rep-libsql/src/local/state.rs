//! The open database, and the proof that it is still the one at its path.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libsql::{Statement, Value};
use s3rep_core::{Error, ErrorKind, OnMismatch, Result, RouteMode, Scope, Table};

use super::{
    connection::{Access, Connection},
    error::from_io,
    schema,
};
use crate::table::{self, Fitted};

/// A database file and what is known of it. Calls take turns.
pub(crate) struct Place {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// The file that the cursors were read from or written to. Survives a lost connection, so that rows never
    /// go into another file under the belief that the earlier ones are there.
    known: Option<Identity>,
}

/// An open database.
pub(crate) struct Open {
    pub(crate) connection: Connection,
    tables: HashMap<(Arc<str>, RouteMode), Prepared>,
    /// The schema that `tables` was prepared for, `None` for none.
    schema_version: Option<i64>,
}

/// A table with the statements that write to it.
pub(crate) struct Prepared {
    pub(crate) fitted: Fitted,
    pub(crate) write: Statement,
    pub(crate) delete: Statement,
}

/// What a caller needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The file, if there is one.
    Existing,
    /// The file; it is created when it is absent.
    Created,
}

impl Place {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Works with the database. `None` when it is absent and need not be there.
    pub(crate) fn with<T>(&self, need: Need, work: impl FnOnce(&mut Open) -> Result<T>) -> Result<Option<T>> {
        let mut state = self.lock();
        state.check_identity(&self.path)?;
        if state.open.is_none() {
            state.open = Open::at(&self.path, need)?;
            if state.open.is_some() {
                state.known = Identity::of(&self.path)?;
            }
        }
        let Some(open) = state.open.as_mut() else { return Ok(None) };
        let worked = work(open);
        if let Err(error) = &worked {
            // What a failed transaction made of the schema is not known.
            open.forget_tables();
            let is_connection_fine = error.scope() < Scope::Sink
                || matches!(error.kind(), ErrorKind::Contention | ErrorKind::StorageFull | ErrorKind::Fenced);
            if !is_connection_fine || !open.connection.is_autocommit() {
                state.open = None;
            }
        }
        worked.map(Some)
    }

    /// Takes whatever file is there now for the right one.
    pub(crate) fn recognise(&self) {
        let mut state = self.lock();
        if state.check_identity(&self.path).is_err() {
            *state = State::default();
        }
    }

    /// Closes the database if it is open.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if let Some(open) = state.open.take() {
            // Leaves one file behind instead of three. Another connection may prevent it; nothing is lost.
            let checkpoint = open.connection.query("PRAGMA wal_checkpoint(TRUNCATE)", Vec::new(), |_| Ok(()));
            if let Err(error) = checkpoint {
                tracing::debug!(error = %error.report(), "the write-ahead log stays");
            }
        }
        state.known = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            // A panic may have left a transaction open: only a new connection is known to be clean.
            self.state.clear_poison();
            let mut state: MutexGuard<'_, State> = poisoned.into_inner();
            state.open = None;
            state
        })
    }
}

impl State {
    /// Proves that the path still leads to the known file: SQLite goes on writing into a file that was
    /// deleted, and every row would be lost in silence.
    fn check_identity(&mut self, path: &Path) -> Result<()> {
        let Some(known) = self.known else { return Ok(()) };
        let (message, advice) = match Identity::of(path)? {
            Some(found) if found == known => return Ok(()),
            Some(_) => {
                self.open = None;
                (
                    "the database was replaced by another file while s3rep was writing it",
                    "restart s3rep, so that it begins with the cursors of the new file, or put the old one back",
                )
            }
            None => (
                "the database was deleted or moved away while s3rep was writing it",
                "put it back, or restart s3rep to begin a new one",
            ),
        };
        Err(Error::new(ErrorKind::Unavailable, message)
            .temporary()
            .with_scope(Scope::Sink)
            .with_context("file", path.display())
            .with_advice(advice))
    }
}

impl Open {
    fn at(path: &Path, need: Need) -> Result<Option<Self>> {
        let exists = path.try_exists().map_err(|error| from_io(&error, path))?;
        let access = match (exists, need) {
            (true, _) => Access::Write,
            (false, Need::Created) => Access::Create,
            (false, Need::Existing) => return Ok(None),
        };
        if !exists {
            check_directory(path)?;
        }
        let connection = Connection::open(path, access)?;
        Ok(Some(Self { connection, tables: HashMap::new(), schema_version: None }))
    }

    pub(crate) fn forget_tables(&mut self) {
        self.schema_version = None;
    }

    /// The statements for a table as it is now. Part of the caller's transaction.
    pub(crate) fn prepared(&mut self, table: &Table, on_mismatch: OnMismatch) -> Result<&Prepared> {
        // Anyone may alter the table between two batches; SQLite counts that.
        let version = self.connection.query("PRAGMA schema_version", Vec::new(), |mut row| row.integer(0))?;
        let version = version.first().copied();
        if version.is_none() || version != self.schema_version {
            self.tables.clear();
            self.schema_version = version;
        }
        let key = (table.name.clone(), table.mode);
        let is_current = self.tables.get(&key).is_some_and(|prepared| prepared.fitted.is_for(&table.schema));
        if !is_current {
            let prepared = Prepared::new(&self.connection, table, on_mismatch)?;
            self.tables.insert(key.clone(), prepared);
        }
        self.tables.get(&key).ok_or_else(|| Error::new(ErrorKind::Unexpected, "a prepared table is gone"))
    }
}

impl Prepared {
    fn new(connection: &Connection, table: &Table, on_mismatch: OnMismatch) -> Result<Self> {
        let shape = schema::inspect(connection, &table.name)?;
        let name = vec![Value::from(&*table.name)];
        let is_ordered = connection.query(table::IS_ORDERED, name, |mut row| row.integer(0))? != [0];
        let fitted = Fitted::new(table, shape, is_ordered, on_mismatch)?;
        let prepare = |sql: Result<String>| {
            sql.and_then(|sql| connection.prepare(&sql))
                .map_err(|error: Error| error.with_context("table", &table.name))
        };
        Ok(Self { write: prepare(fitted.write(1))?, delete: prepare(fitted.delete(1))?, fitted })
    }
}

/// Proves that a file could be made in the directory of `path`. Writes nothing.
pub(crate) fn check_directory(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let is_directory = std::fs::metadata(directory).map_err(|error| from_io(&error, directory))?.is_dir();
    if !is_directory {
        return Err(Error::new(ErrorKind::ConfigInvalid, "the directory of the database is a file")
            .with_scope(Scope::Sink)
            .with_context("file", directory.display())
            .with_advice("name another path in url"));
    }
    accessible(directory)
}

/// Proves that the process may read and write a file, or make files in a directory.
pub(crate) fn accessible(path: &Path) -> Result<()> {
    use rustix::fs::{Access, access};
    access(path, Access::READ_OK | Access::WRITE_OK).map_err(|error| from_io(&error.into(), path))
}

/// What tells a file from another one that took its path.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &Path) -> Result<Option<Self>> {
        use std::{io::ErrorKind as K, os::unix::fs::MetadataExt};
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self(metadata.dev(), metadata.ino()))),
            Err(error) if matches!(error.kind(), K::NotFound | K::NotADirectory) => Ok(None),
            Err(error) => Err(from_io(&error, path)),
        }
    }
}
