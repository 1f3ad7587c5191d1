//! The one place where errors of SQLite and of the file system become ours.

use std::io;

use s3rep_core::{Error, ErrorKind, Scope};

use crate::files::Files;

const RESTART: &str = "restart s3rep: it sets the damaged file aside, begins a new log and synchronises the \
                       destinations anew; then have the disk checked";
const SPACE: &str = "free space on the disk that holds the state directory, or lower the retention of the log; \
                     it goes on by itself";
const PERMISSION: &str = "let the user that runs s3rep write to the state directory, or choose another one \
                          with `state:`";

/// What SQLite said about the log.
pub(crate) fn from_sqlite(cause: libsql::Error, files: &Files) -> Error {
    let code = match &cause {
        libsql::Error::SqliteFailure(code, _) => *code,
        libsql::Error::ConnectionFailed(text) => {
            text.rsplit(": ").next().and_then(|code| code.parse().ok()).unwrap_or(14)
        }
        libsql::Error::InvalidUTF8Path => {
            return Error::new(ErrorKind::ConfigInvalid, "the path of the state directory is not UTF-8")
                .with_context("directory", files.dir.display())
                .with_advice("choose another directory with `state:`");
        }
        _ => 21,
    };
    // The low byte is the class; https://sqlite.org/rescode.html.
    let error = match (code & 0xff, code) {
        // All SQL here is fixed, so 1 (no such table …), 19 (constraint), 20 (mismatch) and 25 (range) mean that
        // the schema or the trees are not what this crate wrote.
        (1 | 11 | 19 | 20 | 25 | 26, _) => {
            return corrupt(files, "the log file is damaged").with_source(cause);
        }
        (13, _) | (10, 4874) => full(files),
        (3 | 8, _) => denied(files, "the log file cannot be written"),
        (14, _) => denied(files, "the log file cannot be opened"),
        (5 | 6, _) => Error::new(ErrorKind::Contention, "another program keeps the log file locked")
            .temporary()
            .with_advice("close the program that has the file open for writing, such as sqlite3"),
        (10, _) => Error::new(ErrorKind::Unavailable, "the disk failed to read or write the log file")
            .temporary()
            .with_advice("have the disk that holds the state directory checked"),
        (7, _) => {
            Error::new(ErrorKind::Unavailable, "there is no memory left to use the log file").temporary()
        }
        _ => Error::new(ErrorKind::Unexpected, "the log file cannot be used"),
    };
    error.with_context("file", files.db().display()).with_source(cause)
}

/// The log file is damaged. Leaves a mark beside it, so that the next start does not trust it.
pub(crate) fn corrupt(files: &Files, message: &'static str) -> Error {
    files.suspect(message);
    Error::new(ErrorKind::Corrupt, message)
        .with_scope(Scope::Process)
        .with_context("file", files.db().display())
        .with_advice(RESTART)
}

fn full(files: &Files) -> Error {
    let _ = files;
    Error::new(ErrorKind::StorageFull, "there is no space left for the log").temporary().with_advice(SPACE)
}

fn denied(files: &Files, message: &'static str) -> Error {
    let _ = files;
    Error::new(ErrorKind::PermissionDenied, message).with_scope(Scope::Process).with_advice(PERMISSION)
}

/// What the file system said about something in the state directory.
pub(crate) fn from_io(cause: io::Error, files: &Files, message: &'static str) -> Error {
    let error = match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => denied(files, message),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(files),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::ConfigInvalid, message).with_advice("`state:` has to name a directory")
        }
        _ => Error::new(ErrorKind::Unavailable, message)
            .with_advice("look whether the state directory is there and its disk is sound"),
    };
    error.with_context("directory", files.dir.display()).with_source(cause)
}
