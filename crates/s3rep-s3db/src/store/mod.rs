//! Object stores that carry user metadata.

mod file;
mod file_io;
mod file_list;
mod memory;
#[cfg(feature = "s3")]
mod s3;
mod sidecar;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
pub use file::{FileOptions, FileStore};
pub(crate) use file::{blocking, panicked, stopped};
pub use memory::MemoryStore;
#[cfg(feature = "s3")]
pub use s3::{S3Options, S3Store};
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

    /// Replaces the body of an object by what `change` makes of it, with no other writer in between: when one
    /// came first, `change` is called again with what that one wrote. It gets `None` when there is no object,
    /// and returns `None` to leave it as it is. The object keeps no metadata.
    ///
    /// Between processes on one file store, only those that use this method are kept apart.
    ///
    /// # Errors
    /// What `change` says; a temporary [`ErrorKind::Contention`] when others are always first; otherwise as
    /// [`ObjectStore::put`].
    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses it.
    async fn delete(&self, cx: &Context, key: &str) -> Result<()>;

    /// Removes several objects, each with its own outcome. Stores override it with whatever makes many cheap.
    async fn delete_many(&self, cx: &Context, keys: &[String]) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            outcomes.push(self.delete(cx, key).await);
        }
        outcomes
    }

    /// Starts a listing of the keys that begin with `prefix`, after the key `after`. Reads nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when the prefix leads out of the store.
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>>;

    /// Bytes of metadata that an object of this store holds, as s3db.js counts them: 2,047 as on AWS.
    fn metadata_limit(&self) -> usize {
        2047
    }

    /// Calls that are worth making at once: 64 by default.
    fn parallelism(&self) -> usize {
        64
    }

    /// Whether s3db.js takes turns at `s3db.json` and sequences through lock objects here, as it does on S3.
    fn has_lock_objects(&self) -> bool {
        false
    }

    /// The requests made so far, where they cost money.
    fn requests(&self) -> Option<Requests> {
        None
    }
}

/// What [`ObjectStore::modify`] does to a body.
pub type BodyChange<'a> = dyn Fn(Option<Bytes>) -> Result<Option<Bytes>> + Send + Sync + 'a;

/// Requests made to a store that bills them, tries again included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Requests {
    /// `LIST`, billed like writes.
    pub lists: u64,
    /// `GET` and `HEAD`.
    pub reads: u64,
    /// `PUT` and `COPY`.
    pub writes: u64,
    /// `DELETE`, which costs nothing.
    pub deletes: u64,
}

impl Requests {
    /// What they cost in US dollars at the list price of S3 Standard in us-east-1: $0.005 a thousand for `PUT`,
    /// `COPY` and `LIST`, $0.0004 a thousand for `GET` and `HEAD`.
    pub fn cost(self) -> f64 {
        ((self.lists + self.writes) as f64 * 0.005 + self.reads as f64 * 0.0004) / 1000.0
    }
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
    fn a_day_of_listing_a_page_a_second() {
        let day = Requests { lists: 86_400, reads: 1_000, ..Requests::default() };
        assert!((day.cost() - 0.4324).abs() < 1e-9);
    }

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
