//! Objects on S3 and on servers that speak its protocol.

mod client;
mod condition;
mod error;
mod list;
mod metadata;
mod object;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use s3rep_core::{Context, Error, ErrorKind, Result, Scope};
use tokio::sync::OnceCell;

use self::{
    client::{Clients, Counters},
    condition::Preconditions,
};
use super::{
    BodyChange, Listing, ObjectMeta, ObjectStore, PutCondition, Requests, normalize, normalize_prefix,
};
use crate::{
    format::StoredObject,
    url::{S3Connection, S3Credentials},
};

/// The longest key that S3 takes, in bytes.
const LONGEST_KEY: usize = 1024;

/// Objects in a bucket, with s3db.js's keys. Cheap to clone; clones share connections and counts.
///
/// - Nothing is connected before the first call. Opening, reading and listing never write.
/// - Times are the server's: [`ObjectMeta::settled`] compares an object's `Last-Modified` with the `Date` of the
///   very answer that carried it.
/// - [`PutCondition::IfAbsent`] and [`ObjectStore::modify`] use the preconditions of S3 (`If-None-Match`,
///   `If-Match`). On AWS they are known to work; another server is asked once, with an object under
///   `plugin=s3rep/probe/` that is deleted again. One that ignores them is warned about and looked at before
///   each write instead, which keeps writers apart only when they are not at it in the same moment.
/// - Keys that s3db.js could not have written (`a//b`, `a/../b`, `dir/`) are left out of listings.
/// - Ceph gives `_` in metadata keys back as `-`: s3db.js's own keys are put right.
/// - Metadata is ASCII on the wire. What others wrote in UTF-8, Latin-1 or RFC 2047 is read.
#[derive(Clone)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// How an [`S3Store`] works.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// Requests at once in [`ObjectStore::get_many`] and the like; 64 by default: at the 20 to 50 ms that S3
    /// takes for a small object that is 1,300 to 3,200 a second, well below the 5,500 a prefix allows.
    pub parallelism: usize,
    /// How far `Last-Modified` must lie before the server's own time for an object to count as settled. 3 s by
    /// default: AWS stamps in whole seconds, and a write becomes visible a little after its stamp. Shorter
    /// than 2 s means changes can be overlooked.
    pub resolution: Duration,
    /// Keys a listing asks for at once; 1,000 by default, which is the most that S3 gives.
    pub page: usize,
    /// How often one call is tried, the first included; 5 by default, some seconds in all. What outlasts that
    /// is the caller's to wait for.
    pub attempts: u32,
    /// What the first pause between two attempts is at most; 250 ms by default. Each further one may be twice as
    /// long, up to 5 s, and every pause is random below its limit, so that many writers do not come back at once.
    pub backoff: Duration,
    /// How long a connection may take to come about; 3 s by default: one lost packet costs 1 s.
    pub connect_timeout: Duration,
    /// How long one attempt may take, the body of the answer included; 30 s by default. S3 answers small
    /// requests within some 100 ms; records of many megabytes over a slow line need more.
    pub attempt_timeout: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            parallelism: 64,
            resolution: Duration::from_secs(3),
            page: 1000,
            attempts: 5,
            backoff: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(30),
        }
    }
}

/// What the clones of a store share.
struct Bucket {
    connection: S3Connection,
    /// Empty, or what every key begins with: it ends in `/`.
    prefix: String,
    options: S3Options,
    /// Bytes of metadata that the server takes.
    metadata_capacity: usize,
    clients: OnceCell<Clients>,
    requests: Arc<Counters>,
    preconditions: Preconditions,
}

impl S3Store {
    /// The store in a bucket.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when the prefix leads out of the bucket.
    pub fn new(connection: &S3Connection, options: S3Options) -> Result<Self> {
        Ok(Self {
            bucket: Arc::new(Bucket {
                prefix: full_prefix(&connection.prefix)?,
                preconditions: Preconditions::new(connection.endpoint.is_none()),
                metadata_capacity: if is_r2(connection) { 8192 } else { 2048 },
                connection: connection.clone(),
                options,
                clients: OnceCell::new(),
                requests: Arc::default(),
            }),
        })
    }
}

/// Cloudflare's store takes more metadata than the others.
fn is_r2(connection: &S3Connection) -> bool {
    let endpoint = connection.endpoint.as_deref().and_then(|endpoint| url::Url::parse(endpoint).ok());
    endpoint
        .as_ref()
        .and_then(url::Url::host_str)
        .is_some_and(|host| host.ends_with(".r2.cloudflarestorage.com"))
}

/// The prefix as s3db.js joins it with keys: `/` at its beginning stays, others are collapsed.
fn full_prefix(prefix: &str) -> Result<String> {
    if prefix.split('/').all(|part| part.is_empty() || part == ".") {
        return Ok(if prefix.starts_with('/') { "/".to_owned() } else { String::new() });
    }
    let root = if prefix.starts_with('/') { "/" } else { "" };
    Ok(format!("{root}{}/", normalize(prefix)?))
}

impl Bucket {
    fn name(&self) -> &str {
        &self.connection.bucket
    }

    /// The key in the bucket.
    fn key(&self, key: &str) -> Result<String> {
        let full = format!("{}{}", self.prefix, normalize(key)?);
        if full.len() > LONGEST_KEY {
            return Err(Error::new(ErrorKind::TooLarge, "S3 takes no key of more than 1,024 bytes")
                .with_scope(Scope::Record)
                .with_context("bytes", full.len())
                .with_advice("use shorter ids and partition values: both are parts of keys"));
        }
        Ok(full)
    }

    /// Where a key of the bucket, or the bucket itself, is; for messages.
    fn place(&self, full: &str) -> String {
        let base = match &self.connection.endpoint {
            Some(endpoint) => format!("{endpoint}/{}", self.name()),
            None => format!("s3://{}", self.name()),
        };
        if full.is_empty() { base } else { format!("{base}/{full}") }
    }

    /// Texts that no message may hold.
    fn secrets(&self) -> Vec<&str> {
        match &self.connection.credentials {
            S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
                [Some(access_key_id), Some(secret_access_key), session_token.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(s3rep_core::Secret::expose)
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Store").field(&self.location()).finish()
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn location(&self) -> String {
        self.bucket.place(self.bucket.prefix.strip_suffix('/').unwrap_or_default())
    }

    fn place(&self, key: &str) -> String {
        self.bucket.place(&format!("{}{key}", self.bucket.prefix))
    }

    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        self.bucket.get(cx, key).await
    }

    async fn get_many(&self, cx: &Context, keys: &[String]) -> Vec<Result<Option<StoredObject>>> {
        let reads: Vec<_> = keys.iter().map(|key| self.bucket.get(cx, key)).collect();
        stream::iter(reads).buffered(self.parallelism()).collect().await
    }

    async fn head(&self, _: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        self.bucket.head(key).await
    }

    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()> {
        match condition {
            PutCondition::Always => self.bucket.put(key, object).await,
            PutCondition::IfAbsent => self.bucket.create(cx, key, object).await,
        }
    }

    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        self.bucket.modify(cx, key, change).await
    }

    async fn delete(&self, _: &Context, key: &str) -> Result<()> {
        let full = self.bucket.key(key)?;
        self.bucket.delete(&full).await
    }

    async fn delete_many(&self, _: &Context, keys: &[String]) -> Vec<Result<()>> {
        self.bucket.delete_many(keys).await
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        Ok(Box::new(list::S3Listing::new(self.bucket.clone(), &normalize_prefix(prefix)?, after)))
    }

    fn metadata_limit(&self) -> usize {
        // s3db.js stays a byte below AWS's limit, and at that of R2.
        match self.bucket.metadata_capacity {
            2048 => 2047,
            capacity => capacity,
        }
    }

    fn parallelism(&self) -> usize {
        self.bucket.options.parallelism.max(1)
    }

    fn has_lock_objects(&self) -> bool {
        true
    }

    fn requests(&self) -> Option<Requests> {
        Some(self.bucket.requests.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Connection;

    fn store(url: &str) -> S3Store {
        match url.parse().unwrap() {
            Connection::S3(connection) => S3Store::new(&connection, S3Options::default()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_have_the_prefix_and_no_credentials() {
        let aws = store("s3://KEY:hunter2@b//p//q/?region=eu-west-1");
        assert_eq!(aws.location(), "s3://b//p/q");
        assert_eq!(aws.bucket.key("a//b/../c").unwrap(), "/p/q/a/c");
        assert_eq!(store("s3://b/app%20one").place("k"), "s3://b/app%20one/k");
        let other = store("http://KEY:hunter2@localhost:9000/bkt");
        assert_eq!(other.place("k"), "http://localhost:9000/bkt/k");
        assert_eq!(other.location(), "http://localhost:9000/bkt");
        assert!(!format!("{aws:?} {other:?}").contains("hunter2"));
    }

    #[test]
    fn limits_are_those_of_the_server() {
        assert_eq!(store("s3://b").metadata_limit(), 2047);
        assert_eq!(store("https://acc.r2.cloudflarestorage.com/b").metadata_limit(), 8192);
        assert_eq!(store("https://xr2.cloudflarestorage.com.evil/b").metadata_limit(), 2047);
        let error = store("s3://b/p").bucket.key(&"x".repeat(1023)).unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::TooLarge, Scope::Record));
        assert!(store("s3://b/p").bucket.key(&"x".repeat(1022)).is_ok());
    }
}
