//! One object: reading, writing and deleting it; and deleting many.

use std::{collections::HashMap, time::Duration};

use aws_sdk_s3::{
    Client,
    operation::{get_object::GetObjectOutput, put_object::builders::PutObjectFluentBuilder},
    primitives::{ByteStream, DateTime},
    types::{Delete, ObjectIdentifier},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use s3rep_core::{Context, Error, ErrorKind, Result, Scope, Timestamp};

use super::{
    Bucket,
    client::{LONGEST_PAUSE, dated},
    error::Failure,
    metadata,
};
use crate::{format::StoredObject, store::ObjectMeta};

/// Keys that one `DeleteObjects` takes.
const DELETE_MANY: usize = 1000;

/// An object as it was read.
pub(super) struct Fetched {
    pub(super) object: StoredObject,
    /// Its ETag without quotes.
    pub(super) etag: String,
}

impl Bucket {
    pub(super) async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        let full = self.key(key)?;
        Ok(self.fetch(cx, &full).await?.map(|fetched| fetched.object))
    }

    /// The object under a key of the bucket. The SDK tries again until an answer begins; one that breaks off
    /// in its body is asked for again here.
    pub(super) async fn fetch(&self, cx: &Context, full: &str) -> Result<Option<Fetched>> {
        let mut attempt = 1;
        loop {
            match self.fetch_once(full).await {
                Err(Broken(error)) if attempt < self.options.attempts => {
                    tracing::debug!(%error, attempt, "the body of an object is read again");
                    self.pause(cx, attempt).await;
                    attempt += 1;
                }
                Err(Broken(error)) => return Err(error),
                Ok(outcome) => return outcome,
            }
        }
    }

    async fn fetch_once(&self, full: &str) -> Result<Result<Option<Fetched>>, Broken> {
        let client = &self.clients().await.retrying;
        let answer = Box::pin(client.get_object().bucket(self.name()).key(full).send()).await;
        let mut output = match answer.map_err(|error| self.failure(error, "read", full)) {
            Ok(output) => output,
            Err(failure) if failure.is_absent() => return Ok(Ok(None)),
            Err(failure) => return Ok(Err(failure.error)),
        };
        // Records live in metadata: most bodies are empty, and waiting for nothing has its cost too.
        let body = match output.content_length() {
            Some(0) => Bytes::new(),
            _ => self.body(&mut output, full).await?,
        };
        Ok(self.object(output, body, full).map(Some))
    }

    async fn body(&self, output: &mut GetObjectOutput, full: &str) -> Result<Bytes, Broken> {
        let body = std::mem::take(&mut output.body);
        let broken = |kind, message: &'static str| {
            let error = Error::new(kind, message).temporary().with_operation("read");
            Broken(error.with_context("at", self.place(full)))
        };
        match tokio::time::timeout(self.options.attempt_timeout, body.collect()).await {
            Ok(Ok(body)) => Ok(body.into_bytes()),
            Ok(Err(_)) => {
                Err(broken(ErrorKind::Unavailable, "the connection ended in the middle of the object"))
            }
            Err(_) => Err(broken(ErrorKind::Timeout, "the object's body did not arrive in time")),
        }
    }

    fn object(&self, output: GetObjectOutput, body: Bytes, full: &str) -> Result<Fetched> {
        if let Some(missing) = output.missing_meta().filter(|missing| *missing > 0) {
            return Err(Error::new(ErrorKind::InvalidValue, "the server leaves out metadata of the object")
                .with_scope(Scope::Record)
                .with_operation("read")
                .with_context("at", self.place(full))
                .with_context("members left out", missing)
                .with_advice("they cannot be sent as HTTP headers; write the record again"));
        }
        let mut metadata: Vec<_> = output
            .metadata
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (metadata::name(key), metadata::decode(value)))
            .collect();
        // Headers have no order that could be kept.
        metadata.sort_unstable();
        Ok(Fetched {
            object: StoredObject {
                metadata,
                body,
                content_type: output.content_type.filter(|content_type| !content_type.is_empty()),
            },
            etag: bare(output.e_tag.as_deref()).to_owned(),
        })
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let full = self.key(key)?;
        let client = &self.clients().await.retrying;
        let call = client.head_object().bucket(self.name()).key(&full).send();
        let (answer, date) = Box::pin(dated(call)).await;
        match answer.map_err(|error| self.failure(error, "look at", &full)) {
            Ok(output) => {
                let listed = Listed {
                    etag: output.e_tag(),
                    modified: output.last_modified(),
                    size: output.content_length(),
                };
                Ok(Some(self.meta(full[self.prefix.len()..].to_owned(), &listed, date)))
            }
            Err(failure) if failure.is_absent_without_body() => Ok(None),
            Err(failure) => Err(failure.error),
        }
    }

    /// What an answer of that date says about an object.
    pub(super) fn meta(&self, key: String, listed: &Listed<'_>, date: Option<i64>) -> ObjectMeta {
        // Lists have milliseconds on some servers, headers never: the tokens of both must be equal.
        let seconds = listed.modified.map_or(0, DateTime::secs);
        let size = u64::try_from(listed.size.unwrap_or_default()).unwrap_or_default();
        let resolution = i64::try_from(self.options.resolution.as_secs()).unwrap_or(i64::MAX);
        let etag = bare(listed.etag).as_bytes();
        ObjectMeta {
            key,
            version: [&seconds.to_le_bytes()[..], &size.to_le_bytes(), etag].concat(),
            settled: date.is_some_and(|date| date.saturating_sub(seconds) > resolution),
            modified: Timestamp(seconds.saturating_mul(1000)),
            size,
        }
    }

    pub(super) async fn put(&self, key: &str, object: &StoredObject) -> Result<()> {
        let full = self.key(key)?;
        self.check_metadata(&object.metadata)?;
        let request = self.request(&self.clients().await.retrying, &full, object);
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(error, "write", &full).error),
        }
    }

    /// A request to write an object.
    pub(super) fn request(
        &self,
        client: &Client,
        full: &str,
        object: &StoredObject,
    ) -> PutObjectFluentBuilder {
        let metadata: HashMap<_, _> = object.metadata.iter().cloned().collect();
        client
            .put_object()
            .bucket(self.name())
            .key(full)
            .set_metadata(Some(metadata))
            .set_content_type(object.content_type.clone())
            .body(ByteStream::from(object.body.clone()))
    }

    pub(super) async fn delete(&self, full: &str) -> Result<()> {
        let client = &self.clients().await.retrying;
        let answer = Box::pin(client.delete_object().bucket(self.name()).key(full).send()).await;
        match answer.map_err(|error| self.failure(error, "delete", full)) {
            Err(failure) if !failure.is_absent() => Err(failure.error),
            _ => Ok(()),
        }
    }

    pub(super) async fn delete_many(&self, keys: &[String]) -> Vec<Result<()>> {
        let fulls: Vec<Result<String>> = keys.iter().map(|key| self.key(key)).collect();
        let mut failed: HashMap<&str, Error> = HashMap::new();
        let (together, mut alone): (Vec<&str>, Vec<&str>) =
            fulls.iter().flatten().map(String::as_str).partition(|full| is_plain(full));
        for chunk in together.chunks(DELETE_MANY) {
            match self.delete_together(chunk).await {
                Ok(errors) => failed.extend(errors),
                // Not every server has it.
                Err(failure) if failure.is_not_implemented() => alone.extend(chunk),
                Err(failure) => failed.extend(chunk.iter().map(|full| (*full, self.again(&failure, full)))),
            }
        }
        let deletes: Vec<_> = alone.iter().map(|full| self.delete(full)).collect();
        let outcomes: Vec<_> =
            stream::iter(deletes).buffered(self.options.parallelism.max(1)).collect().await;
        failed.extend(alone.into_iter().zip(outcomes).filter_map(|(full, done)| Some((full, done.err()?))));
        let outcome = |full: &str| match failed.get(full) {
            Some(error) => Err(copy(error)),
            None => Ok(()),
        };
        fulls
            .iter()
            .map(|full| match full {
                Ok(full) => outcome(full),
                Err(error) => Err(copy(error)),
            })
            .collect()
    }

    /// Deletes up to 1,000 keys in one request; returns those that it did not.
    async fn delete_together<'a>(&self, fulls: &[&'a str]) -> Result<Vec<(&'a str, Error)>, Failure> {
        let objects = fulls.iter().filter_map(|full| ObjectIdentifier::builder().key(*full).build().ok());
        let request = Delete::builder().set_objects(Some(objects.collect())).quiet(true).build();
        let client = &self.clients().await.retrying;
        let call = client.delete_objects().bucket(self.name()).set_delete(request.ok()).send();
        let answer = Box::pin(call).await.map_err(|error| self.failure(error, "delete", ""))?;
        let mut failed = Vec::new();
        for error in answer.errors() {
            let outcome = |full: &str| {
                let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
                self.outcome(code, message, "delete", full)
            };
            if error.code() == Some("NoSuchKey") {
                continue;
            }
            // An error of a key that nobody asked about could be that of any.
            let named: Vec<_> = fulls.iter().filter(|full| error.key() == Some(**full)).collect();
            let meant = if named.is_empty() { fulls.iter().collect() } else { named };
            failed.extend(meant.into_iter().map(|full| (*full, outcome(full))));
        }
        Ok(failed)
    }

    fn again(&self, failure: &Failure, full: &str) -> Error {
        copy(&failure.error).with_context("key", full)
    }

    /// Waits before another attempt, as the SDK does before its own.
    pub(super) async fn pause(&self, cx: &Context, attempt: u32) {
        let most = self.options.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_PAUSE);
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        cx.sleep(Duration::from_micros(cx.random() % most.max(1))).await;
    }
}

/// The body of an answer did not come whole.
struct Broken(Error);

/// What an answer says about an object.
pub(super) struct Listed<'a> {
    pub(super) etag: Option<&'a str>,
    pub(super) modified: Option<&'a DateTime>,
    pub(super) size: Option<i64>,
}

/// An ETag without quotes: servers differ in where they put them.
pub(super) fn bare(etag: Option<&str>) -> &str {
    etag.unwrap_or_default().trim_matches('"')
}

/// Whether a key comes through XML unchanged.
fn is_plain(full: &str) -> bool {
    !full.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
        && full.trim().len() == full.len()
}

/// Errors have no copies; what the caller acts on is the same.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.to_string()).with_scope(error.scope());
    copy = match error.retry() {
        s3rep_core::Retry::Permanent => copy,
        s3rep_core::Retry::Temporary { after: None } => copy.temporary(),
        s3rep_core::Retry::Temporary { after: Some(after) } => copy.retry_after(after),
    };
    match error.advice() {
        Some(advice) => copy.with_advice(advice.to_owned()),
        None => copy,
    }
}
