//! A store in memory: for tests, examples and short-lived databases.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use s3rep_core::{Context, Result, Timestamp};

use super::{
    BodyChange, Listing, ObjectMeta, ObjectStore, PutCondition, already_exists, normalize, normalize_prefix,
};
use crate::format::StoredObject;

/// Objects in memory. Clones share them; they are gone with the last clone.
///
/// Version tokens are a counter, so every write changes them: `settled` is always true.
///
/// ```
/// use s3rep_s3db::{MemoryStore, ObjectStore};
/// assert_eq!(MemoryStore::new().location(), "memory://");
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    /// Empty, or a prefix that ends in `/`.
    prefix: String,
    bucket: String,
}

#[derive(Default)]
struct Shared(Mutex<Content>);

#[derive(Default)]
struct Content {
    objects: BTreeMap<String, Stored>,
    /// Writes so far: the version of the last one.
    writes: u64,
}

impl Content {
    fn put(&mut self, key: String, object: StoredObject, now: Timestamp) {
        self.writes += 1;
        self.objects.insert(key, Stored { object, version: self.writes, modified: now });
    }
}

struct Stored {
    object: StoredObject,
    version: u64,
    modified: Timestamp,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// An empty store that nobody else sees.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store of that bucket in this process: whoever names the bucket shares its objects while one of
    /// them holds it. `prefix` is put before every key.
    ///
    /// # Errors
    /// [`InvalidValue`](s3rep_core::ErrorKind::InvalidValue) when the prefix leads out of the store.
    pub fn shared(bucket: &str, prefix: &str) -> Result<Self> {
        static BUCKETS: LazyLock<Mutex<HashMap<String, Weak<Shared>>>> = LazyLock::new(Mutex::default);
        let mut prefix = normalize_prefix(prefix)?;
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = buckets.get(bucket).and_then(Weak::upgrade).unwrap_or_default();
        buckets.retain(|_, bucket| bucket.strong_count() > 0);
        buckets.insert(bucket.to_owned(), Arc::downgrade(&shared));
        Ok(Self { shared, prefix, bucket: bucket.to_owned() })
    }

    fn full(&self, key: &str) -> Result<String> {
        Ok(format!("{}{}", self.prefix, normalize(key)?))
    }

    fn meta(&self, key: &str, stored: &Stored) -> ObjectMeta {
        ObjectMeta {
            key: key[self.prefix.len()..].to_owned(),
            version: stored.version.to_le_bytes().to_vec(),
            settled: true,
            modified: stored.modified,
            size: stored.object.body.len() as u64,
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryStore").field(&self.location()).finish()
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn location(&self) -> String {
        format!("memory://{}{}{}", self.bucket, if self.prefix.is_empty() { "" } else { "/" }, self.prefix)
    }

    fn place(&self, key: &str) -> String {
        format!("memory://{}/{}{key}", self.bucket, self.prefix)
    }

    async fn get(&self, _: &Context, key: &str) -> Result<Option<StoredObject>> {
        let key = self.full(key)?;
        Ok(self.shared.lock().objects.get(&key).map(|stored| stored.object.clone()))
    }

    async fn head(&self, _: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        let key = self.full(key)?;
        Ok(self.shared.lock().objects.get(&key).map(|stored| self.meta(&key, stored)))
    }

    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()> {
        let key = self.full(key)?;
        let mut content = self.shared.lock();
        if condition == PutCondition::IfAbsent && content.objects.contains_key(&key) {
            return Err(already_exists(&key));
        }
        content.put(key, object.clone(), cx.now());
        Ok(())
    }

    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        let key = self.full(key)?;
        let mut content = self.shared.lock();
        let body = content.objects.get(&key).map(|stored| stored.object.body.clone());
        if let Some(body) = change(body)? {
            content.put(key, StoredObject::json(body), cx.now());
        }
        Ok(())
    }

    async fn delete(&self, _: &Context, key: &str) -> Result<()> {
        let key = self.full(key)?;
        self.shared.lock().objects.remove(&key);
        Ok(())
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        Ok(Box::new(MemoryListing {
            store: self.clone(),
            prefix: format!("{}{}", self.prefix, normalize_prefix(prefix)?),
            after: after.map(|after| format!("{}{after}", self.prefix)),
        }))
    }
}

#[derive(Debug)]
struct MemoryListing {
    store: MemoryStore,
    prefix: String,
    after: Option<String>,
}

#[async_trait]
impl Listing for MemoryListing {
    async fn page(&mut self, _: &Context, max: usize) -> Result<Vec<ObjectMeta>> {
        let content = self.store.shared.lock();
        let start = match &self.after {
            Some(after) if *after >= self.prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(self.prefix.as_str()),
        };
        let page: Vec<ObjectMeta> = content
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&self.prefix))
            .take(max.max(1))
            .map(|(key, stored)| self.store.meta(key, stored))
            .collect();
        drop(content);
        if let Some(last) = page.last() {
            self.after = Some(format!("{}{}", self.store.prefix, last.key));
        }
        Ok(page)
    }
}
