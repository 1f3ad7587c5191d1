//! Object stores that carry user metadata.

mod file;
mod file_io;
mod file_list;
mod memory;
mod sidecar;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
pub use file::{FileOptions, FileStore};
pub(crate) use file::{blocking, panicked};
pub use memory::MemoryStore;
use s3rep_core::{Context, Error, ErrorKind, Result, Scope, Timestamp};

use crate::format::StoredObject;

/// A store of objects with user metadata, as S3 is one.
///
/// Keys are relative to the store: its own prefix (of a connection string) is neither taken nor given. They
/// are ordered by their bytes.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug + 'static {
    /// Where the store is, for messages; never with credentials.
    fn location(&self) -> String;

    /// Where the object of a key is, for messages: a file, or a URL without credentials.
    fn place(&self, key: &str) -> String;

    /// The object, `None` when there is none.
    ///
    /// # Errors
    /// A temporary error of kind [`ErrorKind::Contention`] when somebody is writing it at this very moment.
    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>>;

    /// Several objects in the order of their keys here, each with its own error. Stores override it with
    /// whatever makes many reads cheap: batches of file reads, requests in flight.
    async fn get_many(&self, cx: &Context, keys: &[String]) -> Vec<Result<Option<StoredObject>>> {
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            objects.push(self.get(cx, key).await);
        }
        objects
    }

    /// The body of one object whose text tells whether it is whole, such as `s3db.json`. A file store takes it
    /// as it lies there, also when somebody edited it by hand and left the sidecar behind.
    ///
    /// # Errors
    /// As [`ObjectStore::get`].
    async fn get_body(&self, cx: &Context, key: &str) -> Result<Option<Bytes>> {
        Ok(self.get(cx, key).await?.map(|object| object.body))
    }

    /// What a listing says about one object, `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be read, or as [`ObjectStore::get`].
    async fn head(&self, cx: &Context, key: &str) -> Result<Option<ObjectMeta>>;

    /// Writes an object, whole or not at all for every reader.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the object exists and `condition` is [`PutCondition::IfAbsent`];
    /// otherwise when the store refuses it.
    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses it.
    async fn delete(&self, cx: &Context, key: &str) -> Result<()>;

    /// Starts a listing of the keys that begin with `prefix`, after the key `after`. Reads nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when the prefix leads out of the store.
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>>;
}

/// A listing in progress: it keeps whatever its store needs to go on (a continuation token, the sorted names
/// of a directory), so that a page costs what a page holds.
#[async_trait]
pub trait Listing: Send + Debug {
    /// The next objects in the order of their keys' bytes, at most `max`; empty at the end.
    ///
    /// An object that is created or deleted while the listing goes on may be in it or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn page(&mut self, cx: &Context, max: usize) -> Result<Vec<ObjectMeta>>;
}

/// What a listing says about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key.
    pub key: String,
    /// A token that is another one whenever the object could have changed. Compare it for equality only.
    pub version: Vec<u8>,
    /// Whether every later write is sure to change `version`. False while the object is younger than the
    /// resolution of the store's clock: look at it again later, even if `version` stays.
    pub settled: bool,
    /// When it was written last, by the store's clock.
    pub modified: Timestamp,
    /// Length of the stored body in bytes.
    pub size: u64,
}

/// When [`ObjectStore::put`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutCondition {
    /// Always: the last writer wins.
    Always,
    /// Only when there is no object of that key.
    IfAbsent,
}

/// The key with duplicate `/` collapsed and `.` and `..` resolved, as s3db.js joins paths (SPEC §1).
///
/// # Errors
/// [`ErrorKind::InvalidValue`] when the key is empty or leads out of the store.
pub(crate) fn normalize(key: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| {
                    Error::new(ErrorKind::InvalidValue, "the key leads out of the database")
                        .with_scope(Scope::Record)
                        .with_context("key", key)
                        .with_advice("a partition value with '../' in it made this key; change the value")
                })?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() || key.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidValue, "the key is empty or holds a zero byte")
            .with_scope(Scope::Record));
    }
    Ok(parts.join("/"))
}

/// A prefix normalized like a key; a trailing `/` stays, the empty prefix too.
fn normalize_prefix(prefix: &str) -> Result<String> {
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let mut text = normalize(prefix)?;
    if prefix.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

fn already_exists(key: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "the object exists already")
        .with_scope(Scope::Record)
        .with_context("key", key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_joined_as_paths_and_never_leave_the_store() {
        assert_eq!(normalize("a//b/./c/../d").unwrap(), "a/b/d");
        assert_eq!(normalize("p=x/region=../x/id=1").unwrap(), "p=x/region=../x/id=1");
        assert_eq!(normalize_prefix("a/b//").unwrap(), "a/b/");
        assert_eq!(normalize_prefix("").unwrap(), "");
        for bad in ["..", "a/../..", "a/../../b", "", "/", "a\0b"] {
            assert_eq!(normalize(bad).unwrap_err().kind(), ErrorKind::InvalidValue, "{bad:?}");
        }
    }
}
