//! The one place where errors of the file system become ours.

use std::{io, path::Path};

use s3rep_core::{Error, ErrorKind, Scope};

/// What an error of the file system means to the engine.
pub(crate) fn from_io(error: &io::Error, path: &Path) -> Error {
    use io::ErrorKind as K;
    let (kind, is_temporary, message, advice) = match error.kind() {
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
            (ErrorKind::StorageFull, true, "there is no space for the file", "free space on the disk")
        }
        K::PermissionDenied | K::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            false,
            "the file or directory may not be accessed",
            "give the process the right to read and write it",
        ),
        K::NotFound => (
            ErrorKind::NotFound,
            false,
            "a file or directory is not there",
            "put it back, or restart s3rep after removing _s3rep_cursor.json to synchronise anew",
        ),
        K::NotADirectory | K::IsADirectory | K::InvalidFilename => {
            (ErrorKind::ConfigInvalid, false, "the path cannot be used", "name another path")
        }
        _ => (ErrorKind::Unavailable, true, "the file system failed", "look at the system's log"),
    };
    let ours = Error::new(kind, format!("{message}: {error}"))
        .with_scope(Scope::Sink)
        .with_context("file", path.display())
        .with_advice(advice);
    if is_temporary { ours.temporary() } else { ours }
}

/// Adds the path to results of the file system.
pub(crate) trait At<T> {
    /// The error says which path it is about.
    fn at(self, path: &Path) -> s3rep_core::Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> s3rep_core::Result<T> {
        self.map_err(|error| from_io(&error, path))
    }
}

/// The error of a blocking task that did not end by itself.
pub(crate) fn from_join(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::new(ErrorKind::Cancelled, "the runtime is shutting down").with_scope(Scope::Process);
    }
    Error::new(ErrorKind::Unexpected, "the file task panicked").with_source(error)
}

/// A file whose content is not what was committed.
pub(crate) fn corrupt(message: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, message)
        .with_scope(Scope::Table)
        .with_context("file", path.display())
        .with_advice("restore the file, or move the directory away and synchronise anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do() {
        use ErrorKind as K;
        use io::ErrorKind as I;
        for (io, kind, is_temporary) in [
            (I::StorageFull, K::StorageFull, true),
            (I::QuotaExceeded, K::StorageFull, true),
            (I::PermissionDenied, K::PermissionDenied, false),
            (I::ReadOnlyFilesystem, K::PermissionDenied, false),
            (I::NotFound, K::NotFound, false),
            (I::NotADirectory, K::ConfigInvalid, false),
            (I::Other, K::Unavailable, true),
        ] {
            let error = from_io(&io.into(), Path::new("lines"));
            assert_eq!(
                (error.kind(), error.is_temporary(), error.scope()),
                (kind, is_temporary, Scope::Sink)
            );
            assert!(error.to_string().contains("file: lines") && error.advice().is_some());
        }
    }
}
