//! s3db.js's file layout: the body of key `K` in the file `K`, everything else in `K.meta.json`.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use s3rep_core::{Context, Error, ErrorKind, Result};

use super::{
    BodyChange, Listing, ObjectMeta, ObjectStore, PutCondition, file_io::Files, file_list::FileListing,
    normalize_prefix,
};
use crate::format::StoredObject;

/// Objects in the files of a directory, in s3db.js's layout. Cheap to clone.
///
/// - A write is a rename of a complete file (from `.s3rep-tmp` in the directory itself): readers, s3db.js
///   among them, never see half of one. The body is renamed before the sidecar.
/// - A reader that meets a writer between the two reads again for some milliseconds and then returns a
///   temporary error of kind [`ErrorKind::Contention`].
/// - Writes of one key are in line within one process. Two processes that replace the same body at the same
///   moment can leave body and sidecar of different writes, as s3db.js can: write the record again.
/// - Files that are no objects (s3db.js's own temporary files, a body whose sidecar never came, a sidecar
///   whose body is gone) are left out.
///
/// File work runs on tokio's blocking threads, in batches.
#[derive(Clone, Debug)]
pub struct FileStore {
    files: Arc<Files>,
}

/// How a [`FileStore`] works.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Writes are on the device when they return (`fsync` of both files and their directory). Off by default,
    /// as in s3db.js: a crash of the machine, not of the process, can lose the last writes.
    pub durable: bool,
    /// How long after a change a file's times may still stand where another change would put them: an object
    /// younger than this is listed as not settled. 20 ms by default: kernels stamp files with the time of
    /// their last tick, 1 to 10 ms. Raise it for network file systems to what their clocks can be apart.
    pub resolution: Duration,
    /// Threads that one listing or one batch of reads is spread over; the number of processors by default.
    pub threads: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            durable: false,
            resolution: Duration::from_millis(20),
            threads: thread::available_parallelism().map_or(2, usize::from),
        }
    }
}

impl FileStore {
    /// The store in a directory, which need not exist yet: the first write makes it.
    ///
    /// ```
    /// use s3rep_s3db::{FileStore, ObjectStore};
    /// let store = FileStore::new("some/database");
    /// assert_eq!(store.place("s3db.json"), "some/database/s3db.json");
    /// ```
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self::with_options(base, FileOptions::default())
    }

    /// As [`FileStore::new`], with options.
    pub fn with_options(base: impl Into<PathBuf>, options: FileOptions) -> Self {
        Self { files: Arc::new(Files::new(base.into(), options)) }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    fn location(&self) -> String {
        self.files.base.display().to_string()
    }

    fn place(&self, key: &str) -> String {
        self.files.base.join(key).display().to_string()
    }

    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        let mut objects = self.get_many(cx, &[key.to_owned()]).await;
        objects.pop().unwrap_or(Ok(None))
    }

    async fn get_body(&self, cx: &Context, key: &str) -> Result<Option<Bytes>> {
        match self.get(cx, key).await {
            Ok(Some(object)) => Ok(Some(object.body)),
            Err(error) if error.kind() != ErrorKind::Contention => Err(error),
            _ => {
                let (files, key) = (self.files.clone(), key.to_owned());
                tokio::task::spawn_blocking(move || files.read_body(&key))
                    .await
                    .unwrap_or_else(|_| Err(stopped()))
            }
        }
    }

    async fn get_many(&self, _: &Context, keys: &[String]) -> Vec<Result<Option<StoredObject>>> {
        let chunk = keys.len().div_ceil(self.files.options.threads.max(1)).max(16);
        let tasks: Vec<_> = keys
            .chunks(chunk)
            .map(|chunk| {
                let (files, chunk) = (self.files.clone(), chunk.to_vec());
                (chunk.len(), tokio::task::spawn_blocking(move || files.read(&chunk)))
            })
            .collect();
        let mut objects = Vec::with_capacity(keys.len());
        for (count, task) in tasks {
            match task.await {
                Ok(part) => objects.extend(part),
                Err(_) => objects.extend((0..count).map(|_| Err(stopped()))),
            }
        }
        objects
    }

    async fn head(&self, _: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        let (files, key) = (self.files.clone(), key.to_owned());
        blocking(move || files.head(&key)).await
    }

    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()> {
        let (files, key, object, now) = (self.files.clone(), key.to_owned(), object.clone(), cx.now());
        blocking(move || files.write(&key, &object, condition, now)).await
    }

    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        let files = self.files.clone();
        let alone = blocking(move || files.lock()).await?;
        let Some(body) = change(self.get_body(cx, key).await?)? else { return Ok(()) };
        let (files, key, now) = (self.files.clone(), key.to_owned(), cx.now());
        blocking(move || {
            // Held by the work itself, which goes on when nobody waits for it any more.
            let _alone = alone;
            files.write(&key, &StoredObject::json(body), PutCondition::Always, now)
        })
        .await
    }

    async fn delete(&self, _: &Context, key: &str) -> Result<()> {
        let (files, key) = (self.files.clone(), key.to_owned());
        blocking(move || files.remove(&key)).await
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        let prefix = normalize_prefix(prefix)?;
        Ok(Box::new(FileListing::new(self.files.clone(), prefix, after.map(str::to_owned))))
    }
}

/// Runs file work on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

pub(crate) fn panicked(_: tokio::task::JoinError) -> Error {
    stopped()
}

pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "file work was stopped: the process is shutting down").temporary()
}
