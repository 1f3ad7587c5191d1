//! A database file, written through libSQL's SQLite.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use libsql::Value;
use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Error, ErrorKind, Outcome, Progress, Readback, Result,
    SchemaSync, SchemaSyncOptions, Scope, Sink, StoredCursors,
};
use s3rep_sql::{StoredCursor, stored_cursors};

use super::{
    connection::{Connection, utf16},
    error::{from_io, from_join},
    readback::Reader,
    state::{Need, Open, Place, accessible, check_directory},
    writer,
};
use crate::{LibsqlConfig, cursor};

/// A database file as a destination. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub(crate) struct LocalSink(Arc<Inner>);

struct Inner {
    place: Place,
    reader: Reader,
    options: SchemaSyncOptions,
}

impl LocalSink {
    pub(crate) fn new(path: PathBuf, options: SchemaSyncOptions) -> Self {
        Self(Arc::new(Inner { place: Place::new(path), reader: Reader::default(), options }))
    }

    pub(crate) fn options(&self) -> &SchemaSyncOptions {
        &self.0.options
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.place.path()
    }

    /// Runs `work` where it may block. SQLite's calls last as long as the disk takes.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner.place)).await.map_err(from_join)?
    }

    /// As [`Self::blocking`], with the database, which is created when it is absent.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Open) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let worked = self.blocking(|place| place.with(Need::Created, work)).await?;
        worked.ok_or_else(|| Error::new(ErrorKind::Unexpected, "the database was not created"))
    }
}

impl fmt::Debug for LocalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSink").field("file", &self.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for LocalSink {
    fn capability(&self) -> Capability {
        LibsqlConfig::capability()
    }

    async fn check(&self, _: &Context) -> Result<()> {
        self.blocking(|place| check_file(place.path())).await
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        let replicator = replicator.to_owned();
        let stored = self.blocking(move |place| {
            // Whoever asks for the cursors begins with what is there now.
            place.recognise();
            place.with(Need::Existing, |open| cursors(&open.connection, &replicator))
        });
        Ok(stored_cursors(stored.await?.unwrap_or_default()))
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        let (cx, batch, on_mismatch) = (cx.clone(), batch.clone(), self.options().on_mismatch);
        self.writing(move |open| writer::apply(open, &cx, &batch, on_mismatch)).await
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        let (cx, progress) = (cx.clone(), progress.clone());
        self.writing(move |open| writer::advance(open, &cx, &progress)).await
    }

    async fn close(&self, _: &Context) -> Result<()> {
        let sink = self.clone();
        self.blocking(move |place| {
            sink.reader().refresh();
            place.close();
            Ok(())
        })
        .await
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.options().enabled.then_some(self as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}

/// Every cursor of a replicator. None when the database has no cursors at all.
fn cursors(connection: &Connection, replicator: &str) -> Result<Vec<StoredCursor>> {
    if connection.query(&cursor::exists(), Vec::new(), |_| Ok(()))?.is_empty() {
        return Ok(Vec::new());
    }
    connection.query(&cursor::select(), vec![Value::from(replicator)], cursor::decode)
}

/// Proves that the database can be opened or made. SQLite itself would make files to find out.
fn check_file(path: &Path) -> Result<()> {
    let io = |error: std::io::Error| from_io(&error, path);
    check_directory(path)?;
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(metadata) if metadata.is_dir() => {
            return Err(Error::new(ErrorKind::ConfigInvalid, "the path of the database is a directory")
                .with_scope(Scope::Sink)
                .with_context("file", path.display())
                .with_advice("name a file in url"));
        }
        Ok(_) => accessible(path)?,
    }
    let mut header = Vec::with_capacity(100);
    File::open(path).and_then(|file| file.take(100).read_to_end(&mut header)).map_err(io)?;
    let wrong = |kind, message: &'static str, advice: &'static str| {
        Err(Error::new(kind, message)
            .with_scope(Scope::Sink)
            .with_context("file", path.display())
            .with_advice(advice))
    };
    // An empty file is an empty database. At offset 18 stands the version that is needed to write it.
    match header.get(18) {
        None if header.is_empty() => Ok(()),
        Some(1 | 2) if header.starts_with(b"SQLite format 3\0") => match header.get(56..60) {
            Some([0, 0, 0, 2 | 3]) => Err(utf16(path)),
            _ => Ok(()),
        },
        Some(_) if header.starts_with(b"SQLite format 3\0") => wrong(
            ErrorKind::PermissionDenied,
            "the database can only be read: it was written by a newer version of SQLite",
            "name another file in url",
        ),
        _ => wrong(
            ErrorKind::Corrupt,
            "the file is not a SQLite database",
            "name another file in url, or move this one away",
        ),
    }
}
