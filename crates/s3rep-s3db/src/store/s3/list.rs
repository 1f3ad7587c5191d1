//! Listings: pages of the server, one of them fetched ahead.

use std::{collections::VecDeque, fmt, sync::Arc};

use async_trait::async_trait;
use aws_sdk_s3::{operation::list_objects_v2::ListObjectsV2Output, types::EncodingType};
use s3rep_core::{Context, Error, ErrorKind, Result};
use tokio::task::JoinHandle;

use super::{Bucket, client::dated, object::Listed};
use crate::store::{Listing, ObjectMeta, normalize};

/// The most keys that a page of S3 has.
const LARGEST_PAGE: usize = 1000;

/// A listing of the keys that begin with a prefix. While the caller works on a page, the next one is fetched;
/// there is never more than one on the way, and it is given up when the listing is dropped.
pub(super) struct S3Listing {
    bucket: Arc<Bucket>,
    /// What the listed keys begin with, in the bucket.
    prefix: String,
    next: Next,
    /// Keys up to this one are left out: the server begins a little earlier where it cannot be named.
    after: Option<String>,
    /// Fetched and not yet given to the caller.
    ready: VecDeque<ObjectMeta>,
    ahead: Option<Ahead>,
    /// Somebody who asked for one page may not want another: nothing is fetched ahead of the second.
    pages: u64,
}

/// Where the listing goes on.
#[derive(Clone)]
enum Next {
    /// After this key of the bucket, or from the beginning.
    Start(Option<String>),
    Token(String),
    End,
}

struct Page {
    objects: Vec<ObjectMeta>,
    next: Next,
}

/// A page on the way.
struct Ahead(JoinHandle<Result<Page>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl S3Listing {
    pub(super) fn new(bucket: Arc<Bucket>, prefix: &str, after: Option<&str>) -> Self {
        let after = after.filter(|after| !after.is_empty());
        let start = after.map(|after| format!("{}{}", bucket.prefix, nameable(after)));
        Self {
            prefix: format!("{}{prefix}", bucket.prefix),
            next: Next::Start(start),
            after: after.map(str::to_owned),
            ready: VecDeque::new(),
            ahead: None,
            pages: 0,
            bucket,
        }
    }

    fn fetch_ahead(&mut self) {
        if self.ahead.is_none() && !matches!(self.next, Next::End) {
            let (bucket, prefix, next) = (self.bucket.clone(), self.prefix.clone(), self.next.clone());
            self.ahead = Some(Ahead(tokio::spawn(async move { bucket.page(&prefix, &next).await })));
        }
    }

    /// The next page of the server. After an error the same page is asked for again.
    async fn fetch(&mut self) -> Result<()> {
        let page = match &mut self.ahead {
            // The handle stays until it is done: this call may be given up and made again.
            Some(ahead) => {
                let outcome = (&mut ahead.0).await;
                self.ahead = None;
                outcome.unwrap_or_else(|_| Err(stopped()))
            }
            None => self.bucket.page(&self.prefix, &self.next).await,
        };
        let page = page?;
        self.next = page.next;
        let after = self.after.as_deref();
        self.ready
            .extend(page.objects.into_iter().filter(|meta| after.is_none_or(|after| *meta.key > *after)));
        Ok(())
    }
}

#[async_trait]
impl Listing for S3Listing {
    async fn page(&mut self, _: &Context, max: usize) -> Result<Vec<ObjectMeta>> {
        let max = max.max(1);
        // A page of the server can be empty, or hold nothing but keys that are left out.
        while self.ready.is_empty() && !matches!(self.next, Next::End) {
            self.fetch().await?;
        }
        self.pages += 1;
        let is_whole = self.ready.len() <= max;
        let page: Vec<_> = self.ready.drain(..self.ready.len().min(max)).collect();
        if is_whole || self.pages > 1 {
            self.fetch_ahead();
        }
        Ok(page)
    }
}

impl Bucket {
    async fn page(&self, prefix: &str, next: &Next) -> Result<Page> {
        let size = self.options.page.clamp(1, LARGEST_PAGE);
        let mut request = self
            .clients()
            .await
            .retrying
            .list_objects_v2()
            .bucket(self.name())
            .prefix(prefix)
            .max_keys(i32::try_from(size).unwrap_or(i32::MAX))
            // Not every key can be written in XML.
            .encoding_type(EncodingType::Url);
        request = match next {
            Next::Start(after) => request.set_start_after(after.clone()),
            Next::Token(token) => request.continuation_token(token),
            Next::End => return Ok(Page { objects: Vec::new(), next: Next::End }),
        };
        let (answer, date) = Box::pin(dated(request.send())).await;
        let output = answer.map_err(|error| self.failure(error, "list", prefix).error)?;
        let objects = self.objects(&output, prefix, date)?;
        let token = output.next_continuation_token.filter(|token| !token.is_empty());
        let next = match (output.is_truncated, token) {
            (Some(true), Some(token)) => Next::Token(token),
            (Some(true), None) => return Err(self.foreign("the listing goes on but says not where", prefix)),
            _ => Next::End,
        };
        Ok(Page { objects, next })
    }

    fn objects(
        &self,
        output: &ListObjectsV2Output,
        prefix: &str,
        date: Option<i64>,
    ) -> Result<Vec<ObjectMeta>> {
        let is_encoded = output.encoding_type() == Some(&EncodingType::Url);
        let mut objects = Vec::with_capacity(output.contents().len());
        for object in output.contents() {
            let listed = object.key().unwrap_or_default();
            let full = if is_encoded { decoded(listed) } else { Some(listed.to_owned()) };
            let full = full
                .filter(|full| full.starts_with(prefix))
                .ok_or_else(|| self.foreign("the listing has a key that nobody asked for", prefix))?;
            let key = &full[self.prefix.len()..];
            // Whoever writes `a//b` or `dir/` is not s3db.js, and no call of ours could name it.
            if normalize(key).ok().as_deref() != Some(key) {
                tracing::debug!(at = self.place(&full), "left out of the listing: no key of s3db.js");
                continue;
            }
            let listed =
                Listed { etag: object.e_tag(), modified: object.last_modified(), size: object.size() };
            objects.push(self.meta(key.to_owned(), &listed, date));
        }
        Ok(objects)
    }

    fn foreign(&self, message: &'static str, prefix: &str) -> Error {
        Error::new(ErrorKind::Unexpected, message)
            .with_operation("list")
            .with_context("at", self.place(prefix))
    }
}

/// The beginning of a key that can stand in XML 1.0: Ceph repeats where a listing begins as it is.
fn nameable(key: &str) -> &str {
    let is_foreign =
        |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    &key[..key.find(is_foreign).unwrap_or(key.len())]
}

/// A key of a listing with `encoding-type=url`: like the query of a URL, where `+` is a space.
fn decoded(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the listing was stopped: the process is shutting down").temporary()
}

impl fmt::Debug for S3Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Listing").field("at", &self.bucket.place(&self.prefix)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_begins_before_what_xml_cannot_hold() {
        assert_eq!(nameable("id=ü 1\t"), "id=ü 1\t");
        assert_eq!(nameable("id=a\u{ffff}b"), "id=a");
        assert_eq!(nameable("id=a\u{1}"), "id=a");
    }

    #[test]
    fn keys_of_listings_are_decoded() {
        assert_eq!(decoded("a%2Bb%26c%3Fd%23e").as_deref(), Some("a+b&c?d#e"));
        assert_eq!(decoded("with+space/with%20space").as_deref(), Some("with space/with space"));
        assert_eq!(decoded("%C3%BC-%F0%9F%98%80-%2541%01").as_deref(), Some("ü-😀-%41\u{1}"));
        assert_eq!(decoded("%zz"), None);
    }
}
