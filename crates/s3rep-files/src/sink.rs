//! The sink.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Error, ErrorKind, Outcome, Progress, Readback, Result, Scope,
    Sink, StoredCursors,
};

use crate::{
    config::{FilesOptions, JsonlConfig},
    directory::{Directory, Need, Place, explain},
    error::{At, from_join},
    format::Format,
    ledger::Ledger,
    readback::Fold,
};

/// A directory of files as a destination. Cheap to clone; clones share the directory.
#[derive(Clone)]
pub(crate) struct FilesSink(Arc<Inner>);

struct Inner {
    place: Place,
    options: FilesOptions,
    format: Format,
    fold: Fold,
}

impl FilesSink {
    pub(crate) fn new(path: PathBuf, options: FilesOptions, format: Format) -> Self {
        Self(Arc::new(Inner { place: Place::new(path), options, format, fold: Fold::default() }))
    }

    pub(crate) fn format(&self) -> Format {
        self.0.format
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.place.path()
    }

    pub(crate) fn fold(&self) -> &Fold {
        &self.0.fold
    }

    /// Runs `work` where it may block: files are synced.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let sink = self.clone();
        tokio::task::spawn_blocking(move || work(&sink)).await.map_err(from_join)?
    }

    /// As [`Self::blocking`], with the directory, which is created when it is absent.
    async fn writing<T: Send + 'static>(
        &self,
        progress: Progress,
        work: impl FnOnce(&mut Directory, &FilesOptions, Format) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let worked = self.blocking(move |sink| {
            let Inner { place, options, format, .. } = &*sink.0;
            place
                .with(Need::Created, |directory| work(directory, options, *format))
                .map_err(|error| explain(error, place.path(), &progress))
        });
        worked.await?.ok_or_else(|| Error::new(ErrorKind::Unexpected, "the directory was not created"))
    }
}

impl fmt::Debug for FilesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, path) = (self.format(), self.path());
        f.debug_struct("FilesSink").field("format", &format).field("directory", &path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn capability(&self) -> Capability {
        JsonlConfig::capability()
    }

    async fn check(&self, _: &Context) -> Result<()> {
        self.blocking(|sink| check_directory(sink.path())).await
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        let replicator = replicator.to_owned();
        let stored = self.blocking(move |sink| {
            // Whoever asks for the cursors begins with what is there now.
            sink.0.place.recognise();
            sink.0.place.with(Need::Existing, |directory| Ok(directory.ledger().cursors(&replicator)))
        });
        Ok(stored.await?.flatten())
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        let (cx, batch) = (cx.clone(), batch.clone());
        let progress = batch.progress.clone();
        self.writing(progress, move |directory, options, format| {
            directory.apply(&cx, &batch, options, format)
        })
        .await
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        let (cx, progress) = (cx.clone(), progress.clone());
        self.writing(progress.clone(), move |directory, _, _| directory.advance(&cx, &progress)).await
    }

    async fn flush(&self, cx: &Context) -> Result<()> {
        let cx = cx.clone();
        self.blocking(move |sink| {
            let Inner { place, options, .. } = &*sink.0;
            place.with(Need::Existing, |directory| directory.rotate(&cx, options, false)).map(drop)
        })
        .await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        let cx = cx.clone();
        self.blocking(move |sink| {
            let Inner { place, options, fold, .. } = &*sink.0;
            fold.forget();
            let closed = place.with(Need::Existing, |directory| directory.rotate(&cx, options, true));
            place.release();
            closed.map(drop)
        })
        .await
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}

/// Proves that files can be made in the directory, or that it can be made itself.
fn check_directory(path: &Path) -> Result<()> {
    use rustix::fs::{Access, access};
    let mut existing = path;
    while !existing.try_exists().at(existing)? {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    if !existing.is_dir() {
        return Err(Error::new(ErrorKind::ConfigInvalid, "the path of the directory leads to a file")
            .with_scope(Scope::Sink)
            .with_context("file", existing.display())
            .with_advice("name another path"));
    }
    access(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
        .map_err(std::io::Error::from)
        .at(existing)?;
    if existing == path {
        Ledger::load(path)?;
    }
    Ok(())
}
