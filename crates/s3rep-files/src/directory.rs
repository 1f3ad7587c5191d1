//! The directory that a sink writes to, and the proof that it is its own.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use s3rep_core::{Batch, Context, Error, ErrorKind, Outcome, Progress, Rejected, Result, RouteMode, Scope};

use crate::{
    config::FilesOptions,
    error::At,
    format::Format,
    ledger::{Ledger, Move},
    names,
    recovery::{finish, recover},
    stage::{Handles, Lines, Uncommitted, make_directory},
};

const LOCK: &str = "_s3rep.lock";

/// A directory and what is known of it. Calls take turns.
pub(crate) struct Place {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Directory>,
    /// The directory that the cursors were read from or written to. Survives an error, so that lines never go
    /// into another directory under the belief that the earlier ones are there.
    known: Option<Identity>,
}

/// An open directory. Its lock is held.
pub(crate) struct Directory {
    path: PathBuf,
    ledger: Ledger,
    handles: Handles,
    _lock: File,
}

/// What tells a lock file from another one that took its path.
type Identity = (u64, u64);

/// What a caller needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The directory, if there is one.
    Existing,
    /// The directory; it is created when it is absent.
    Created,
}

impl Place {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Works with the directory. `None` when it is absent and need not be there.
    pub(crate) fn with<T>(
        &self,
        need: Need,
        work: impl FnOnce(&mut Directory) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut state = self.lock();
        state.check_identity(&self.path)?;
        if state.open.is_none() {
            state.open = Directory::open(&self.path, need)?;
            if state.open.is_some() {
                state.known = identity(&self.path)?;
            }
        }
        let Some(open) = state.open.as_mut() else { return Ok(None) };
        let worked = work(open);
        if worked.is_err() {
            // What is on the disk now is what counts: it is read anew.
            state.open = None;
        }
        worked.map(Some)
    }

    /// Takes whatever directory is there now for the right one.
    pub(crate) fn recognise(&self) {
        let mut state = self.lock();
        if state.check_identity(&self.path).is_err() {
            *state = State::default();
        }
    }

    /// Gives the directory up.
    pub(crate) fn release(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.state.clear_poison();
            let mut state: MutexGuard<'_, State> = poisoned.into_inner();
            state.open = None;
            state
        })
    }
}

impl State {
    fn check_identity(&mut self, path: &Path) -> Result<()> {
        let Some(known) = self.known else { return Ok(()) };
        let message = match identity(path)? {
            Some(found) if found == known => return Ok(()),
            Some(_) => "the directory was replaced by another one while s3rep was writing it",
            None => "the directory was deleted or moved away while s3rep was writing it",
        };
        Err(Error::new(ErrorKind::Unavailable, message)
            .temporary()
            .with_scope(Scope::Sink)
            .with_context("directory", path.display())
            .with_advice("put it back, or restart s3rep, so that it begins with what is there now"))
    }
}

impl Directory {
    fn open(path: &Path, need: Need) -> Result<Option<Self>> {
        if !path.try_exists().at(path)? {
            if need == Need::Existing {
                return Ok(None);
            }
            make_directory(path)?;
        }
        let lock_path = path.join(LOCK);
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).at(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Contention,
                    "another replicator or another process writes to this directory",
                )
                .temporary()
                .with_scope(Scope::Sink)
                .with_context("directory", path.display())
                .with_advice("give each replicator a path of its own, and run s3rep once"));
            }
            Err(TryLockError::Error(error)) => return Err(error).at(&lock_path),
        }
        let mut ledger = Ledger::load(path)?.unwrap_or_default();
        recover(path, &mut ledger)?;
        Ok(Some(Self { path: path.to_owned(), ledger, handles: Handles::default(), _lock: lock }))
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
    pub(crate) fn apply(
        &mut self,
        cx: &Context,
        batch: &Batch,
        options: &FilesOptions,
        format: Format,
    ) -> Result<Outcome> {
        let Batch { table, changes, progress } = batch;
        names::check_table(&table.name)?;
        if table.mode != RouteMode::Append {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "files hold every change; they cannot be upserted",
            )
            .with_scope(Scope::Table)
            .with_context("table", &table.name)
            .with_advice("set the mode of the route to append"));
        }
        let mut next = self.ledger.clone();
        next.admit(progress)?;
        let header = format.header(table)?;
        let (mut bytes, mut ends, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for (index, change) in changes.iter().enumerate() {
            if next.covers(progress, &table.name, change) {
                continue;
            }
            let length = bytes.len();
            match format.push_line(&mut bytes, table, change) {
                Ok(()) => ends.push((bytes.len(), change.seq)),
                Err(error) => {
                    bytes.truncate(length);
                    let error = error
                        .with_operation("apply")
                        .with_context("table", &table.name)
                        .with_context("key", &change.key);
                    rejected.push(Rejected { index, error });
                }
            }
        }
        if !rejected.is_empty() {
            return Ok(Outcome { rejected });
        }
        let mut lines_written = Uncommitted::default();
        if !ends.is_empty() {
            let log = names::short_log(&progress.log);
            let lines = Lines { table: &table.name, log: &log, header: &header, bytes: &bytes, ends: &ends };
            let files = next.tables.entry(table.name.to_string()).or_default();
            let now = cx.now();
            files.rotate(&lines, options, format, now);
            lines_written = self.handles.write(&self.path, files, &lines, options, format, now)?;
            cx.failpoint("files.data")?;
        }
        next.store(progress, Move::Forward);
        self.commit(cx, next, lines_written)?;
        Ok(Outcome { rejected })
    }

    /// Stores cursors without lines.
    pub(crate) fn advance(&mut self, cx: &Context, progress: &Progress) -> Result<()> {
        let mut next = self.ledger.clone();
        next.admit(progress)?;
        next.store(progress, Move::Anywhere);
        self.commit(cx, next, Uncommitted::default())
    }

    /// Closes the files that are old enough, or all.
    pub(crate) fn rotate(&mut self, cx: &Context, options: &FilesOptions, all: bool) -> Result<()> {
        let mut next = self.ledger.clone();
        let now = cx.now();
        for files in next.tables.values_mut() {
            if files.part.as_ref().is_some_and(|part| all || part.is_old(options, now)) {
                files.close_part();
            }
        }
        if next == self.ledger { Ok(()) } else { self.commit(cx, next, Uncommitted::default()) }
    }

    /// From here on the lines that were written count.
    fn commit(&mut self, cx: &Context, mut next: Ledger, lines: Uncommitted) -> Result<()> {
        if next != self.ledger {
            if let Err(error) = next.write(&self.path) {
                lines.undo();
                return Err(error);
            }
            cx.failpoint("files.cursor")?;
            // Should this fail, nobody knows which file counts: nothing is taken back.
            Ledger::publish(&self.path)?;
            self.ledger = next;
        }
        cx.failpoint("files.committed")?;
        for (table, files) in &mut self.ledger.tables {
            if !files.closing.is_empty() {
                if files.part.is_none() {
                    self.handles.release(table);
                }
                finish(&self.path.join(table), files)?;
            }
        }
        cx.failpoint("files.closed")
    }
}

/// What it means that somebody else holds the directory: a replaced owner has to stop, others wait.
pub(crate) fn explain(error: Error, path: &Path, progress: &Progress) -> Error {
    if error.kind() != ErrorKind::Contention {
        return error;
    }
    match Ledger::load(path) {
        Ok(Some(mut ledger)) => ledger.admit(progress).err().unwrap_or(error),
        _ => error,
    }
}

fn identity(path: &Path) -> Result<Option<Identity>> {
    use std::io::ErrorKind as K;
    let lock = path.join(LOCK);
    match fs::metadata(&lock) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if matches!(error.kind(), K::NotFound | K::NotADirectory) => Ok(None),
        Err(error) => Err(error).at(&lock),
    }
}
