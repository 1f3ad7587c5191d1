//! The one place where libSQL's errors become ours.

use std::path::Path;

use s3rep_core::{Error, ErrorKind, Scope};

/// SQLite's primary result codes that are told apart.
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const ABORT: i32 = 4;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const SCHEMA: i32 = 17;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const AUTH: i32 = 23;
    pub(super) const NOTADB: i32 = 26;
    /// The extended code of a `RAISE` in a trigger: its text is the user's and may quote the row.
    pub(super) const CONSTRAINT_TRIGGER: i32 = 1811;
}

/// What an error of libSQL means to the engine.
pub(crate) fn from_libsql(error: libsql::Error, path: &Path) -> Error {
    use libsql::Error as E;
    let mapped = match &error {
        E::SqliteFailure(code, message) => from_code(*code, message),
        // Says the path and the code, and comes only from opening.
        E::ConnectionFailed(_) => from_code(code::CANTOPEN, ""),
        _ => Error::new(ErrorKind::Unexpected, "the database library failed").with_source(error),
    };
    mapped.with_context("file", path.display())
}

fn from_code(extended: i32, message: &str) -> Error {
    let said = |kind, what: &'static str| {
        let text = if message.is_empty() { what.to_owned() } else { format!("{what}: {message}") };
        Error::new(kind, text)
    };
    let sink = |error: Error| error.with_scope(Scope::Sink);
    match extended & 0xff {
        code::BUSY | code::LOCKED | code::PROTOCOL | code::INTERRUPT | code::SCHEMA => {
            sink(said(ErrorKind::Contention, "another connection holds the database"))
                .temporary()
                .with_advice("end long transactions of other programs on this file")
        }
        code::FULL => sink(said(ErrorKind::StorageFull, "there is no space for the database"))
            .temporary()
            .with_advice("free space on the disk, or raise max_page_count"),
        code::READONLY | code::PERM | code::AUTH => {
            sink(said(ErrorKind::PermissionDenied, "the database cannot be written"))
                .with_advice("give the process the right to write the file and its directory")
        }
        code::CANTOPEN => sink(said(ErrorKind::NotFound, "the database cannot be opened"))
            .with_advice("create the directory and give the process the right to write it"),
        code::CORRUPT => sink(said(ErrorKind::Corrupt, "the database is damaged"))
            .with_advice("restore it from a backup, or move it away and synchronise anew"),
        code::NOTADB => sink(Error::new(ErrorKind::Corrupt, "the file is not a SQLite database"))
            .with_advice("name another file, or move this one away"),
        code::NOMEM => sink(said(ErrorKind::Unavailable, "there is no memory for the database")).temporary(),
        code::IOERR => sink(said(ErrorKind::Unavailable, "the disk failed under the database"))
            .temporary()
            .with_advice("look at the system's log for errors of the disk"),
        code::CONSTRAINT if extended == code::CONSTRAINT_TRIGGER => {
            Error::new(ErrorKind::Conflict, "a trigger of the table refused the row")
                .with_scope(Scope::Record)
        }
        code::CONSTRAINT => {
            said(ErrorKind::Conflict, "a constraint refused the row").with_scope(Scope::Record)
        }
        code::MISMATCH => {
            said(ErrorKind::InvalidValue, "a value does not fit its column").with_scope(Scope::Record)
        }
        code::TOOBIG => said(ErrorKind::TooLarge, "a value is too large").with_scope(Scope::Record),
        code::ERROR if message.starts_with("ON CONFLICT clause does not match") => {
            Error::new(ErrorKind::SchemaMismatch, "the table has no unique constraint on its key column")
                .with_scope(Scope::Table)
                .with_advice("make id the primary key, or _change_id unique in an append table")
        }
        code::ERROR | code::ABORT => said(ErrorKind::Unexpected, "the database refused a statement"),
        _ => said(ErrorKind::Unexpected, "the database failed").with_context("code", extended),
    }
}

/// The error of a blocking task that did not end by itself.
pub(crate) fn from_join(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::new(ErrorKind::Cancelled, "the runtime is shutting down").with_scope(Scope::Process);
    }
    Error::new(ErrorKind::Unexpected, "the database task panicked").with_source(error)
}

/// An error of the file system.
pub(crate) fn from_io(error: &std::io::Error, path: &Path) -> Error {
    use std::io::ErrorKind as K;
    let (kind, message, advice) = match error.kind() {
        K::NotFound => (ErrorKind::NotFound, "there is no such file or directory", "create it"),
        K::PermissionDenied | K::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            "the file or directory cannot be accessed",
            "give the process the right",
        ),
        _ => (ErrorKind::Unavailable, "the file system failed", "look at the system's log"),
    };
    Error::new(kind, format!("{message}: {error}"))
        .with_scope(Scope::Sink)
        .with_context("file", path.display())
        .with_advice(advice)
}

#[cfg(test)]
mod tests {
    use s3rep_core::Retry;

    use super::*;

    #[test]
    fn every_code_says_what_to_do() {
        use ErrorKind as K;
        for (code, kind, is_temporary, scope) in [
            (5, K::Contention, true, Scope::Sink),
            (6, K::Contention, true, Scope::Sink),
            (5 | (2 << 8), K::Contention, true, Scope::Sink),
            (13, K::StorageFull, true, Scope::Sink),
            (7, K::Unavailable, true, Scope::Sink),
            (10 | (4 << 8), K::Unavailable, true, Scope::Sink),
            (8, K::PermissionDenied, false, Scope::Sink),
            (8 | (4 << 8), K::PermissionDenied, false, Scope::Sink),
            (14, K::NotFound, false, Scope::Sink),
            (11, K::Corrupt, false, Scope::Sink),
            (26, K::Corrupt, false, Scope::Sink),
            (19, K::Conflict, false, Scope::Record),
            (1299, K::Conflict, false, Scope::Record),
            (2067, K::Conflict, false, Scope::Record),
            (20, K::InvalidValue, false, Scope::Record),
            (18, K::TooLarge, false, Scope::Record),
            (1, K::Unexpected, false, Scope::Batch),
            (99, K::Unexpected, false, Scope::Batch),
        ] {
            let failure = libsql::Error::SqliteFailure(code, "the library's words".into());
            let error = from_libsql(failure, Path::new("out.db"));
            let found = (error.kind(), error.is_temporary(), error.scope());
            assert_eq!(found, (kind, is_temporary, scope), "{code}");
            assert!(error.to_string().contains("file: out.db"), "{error}");
        }
    }

    #[test]
    fn the_words_of_a_trigger_are_not_repeated() {
        let failure = libsql::Error::SqliteFailure(1811, "bad row hunter2".into());
        assert!(!from_libsql(failure, Path::new("x")).report().contains("hunter2"));
    }

    #[test]
    fn a_key_without_constraint_is_a_matter_of_the_table() {
        let text = "ON CONFLICT clause does not match any PRIMARY KEY or UNIQUE constraint";
        let error = from_libsql(libsql::Error::SqliteFailure(1, text.into()), Path::new("x"));
        let found = (error.kind(), error.scope(), error.retry());
        assert_eq!(found, (ErrorKind::SchemaMismatch, Scope::Table, Retry::Permanent));
    }
}
