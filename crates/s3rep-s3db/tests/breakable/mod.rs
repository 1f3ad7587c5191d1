//! A store that can be out of reach, and one whose writer dies.

#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use s3rep_core::{Context, Error, ErrorKind, Result, Scope};
use s3rep_s3db::{BodyChange, Listing, ObjectMeta, ObjectStore, PutCondition, StoredObject};

/// Everything goes through, until it does not.
#[derive(Debug)]
pub(crate) struct Breakable {
    inner: Arc<dyn ObjectStore>,
    /// Calls that still work; less than nothing for all of them.
    left: AtomicI64,
}

impl Breakable {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, left: AtomicI64::new(-1) }
    }

    pub(crate) fn break_down(&self) {
        self.break_after(0);
    }

    /// Only so many more calls that write reach the store.
    pub(crate) fn break_after(&self, writes: i64) {
        self.left.store(writes, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    fn unreachable() -> Error {
        Error::new(ErrorKind::Unavailable, "the store cannot be reached")
            .temporary()
            .with_scope(Scope::Sink)
            .with_advice("mend it")
    }

    fn read(&self) -> Result<()> {
        if self.left.load(Ordering::SeqCst) == 0 { Err(Self::unreachable()) } else { Ok(()) }
    }

    fn write(&self) -> Result<()> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            0 => None,
            left if left < 0 => Some(left),
            left => Some(left - 1),
        });
        left.map(drop).map_err(|_| Self::unreachable())
    }
}

#[async_trait]
impl ObjectStore for Breakable {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn place(&self, key: &str) -> String {
        self.inner.place(key)
    }
    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        self.read()?;
        self.inner.get(cx, key).await
    }
    async fn get_many(&self, cx: &Context, keys: &[String]) -> Vec<Result<Option<StoredObject>>> {
        match self.read() {
            Ok(()) => self.inner.get_many(cx, keys).await,
            Err(_) => keys.iter().map(|_| Err(Self::unreachable())).collect(),
        }
    }
    async fn head(&self, cx: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        self.read()?;
        self.inner.head(cx, key).await
    }
    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()> {
        self.write()?;
        self.inner.put(cx, key, object, condition).await
    }
    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        self.write()?;
        self.inner.modify(cx, key, change).await
    }
    async fn delete(&self, cx: &Context, key: &str) -> Result<()> {
        self.write()?;
        self.inner.delete(cx, key).await
    }
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        self.read()?;
        self.inner.list(prefix, after)
    }
    fn metadata_limit(&self) -> usize {
        self.inner.metadata_limit()
    }
    fn parallelism(&self) -> usize {
        self.inner.parallelism()
    }
    fn has_lock_objects(&self) -> bool {
        self.inner.has_lock_objects()
    }
}
