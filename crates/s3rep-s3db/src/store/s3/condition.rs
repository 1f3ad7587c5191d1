//! Writes that depend on what is there: creating, and changing in one step.

use std::sync::atomic::{AtomicBool, Ordering};

use s3rep_core::{Context, Error, ErrorKind, Result, Scope};
use tokio::sync::OnceCell;

use super::{Bucket, error::Failure, object::bare};
use crate::{
    format::StoredObject,
    store::{BodyChange, already_exists},
};

/// How often a change is tried that others were faster than.
const MODIFY_ATTEMPTS: u32 = 10;
/// An ETag that no object has.
const NO_ETAG: &str = "00000000000000000000000000000000";

/// What is known of the server's preconditions. Asked once, before the first write that needs them.
pub(super) struct Preconditions {
    /// AWS documents them: no need to ask.
    is_aws: bool,
    if_absent: OnceCell<bool>,
    if_match: OnceCell<Option<Etag>>,
    warned: AtomicBool,
}

/// How an ETag is written in `If-Match`. The standard has quotes, Ceph wants none, AWS takes either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Etag {
    Bare,
    Quoted,
}

impl Etag {
    fn write(self, etag: &str) -> String {
        match self {
            Self::Bare => etag.to_owned(),
            Self::Quoted => format!("\"{etag}\""),
        }
    }
}

/// When a write happens.
#[derive(Clone, Debug)]
enum When {
    Absent,
    Matches(String),
}

impl Preconditions {
    pub(super) fn new(is_aws: bool) -> Self {
        Self { is_aws, if_absent: OnceCell::new(), if_match: OnceCell::new(), warned: AtomicBool::new(false) }
    }
}

impl Bucket {
    /// Writes an object that is not there.
    pub(super) async fn create(&self, cx: &Context, key: &str, object: &StoredObject) -> Result<()> {
        let full = self.key(key)?;
        self.check_metadata(&object.metadata)?;
        if !self.has_if_absent(cx).await? {
            // The best that can be done without.
            return match self.head(key).await? {
                Some(_) => Err(already_exists(key)),
                None => self.put(key, object).await,
            };
        }
        // After an attempt whose answer was lost, a refusal can be the echo of our own success.
        let mut unknown = false;
        let mut attempt = 1;
        loop {
            let Err(failure) = self.put_when(&full, object, &When::Absent).await else { return Ok(()) };
            if failure.is_refused() {
                if !unknown {
                    return Err(already_exists(key));
                }
                match self.fetch(cx, &full).await? {
                    Some(there) if is_same(&there.object, object) => return Ok(()),
                    Some(_) => return Err(already_exists(key)),
                    // It was there and is gone again.
                    None => {}
                }
            } else if !failure.error.is_temporary() {
                return Err(failure.error);
            }
            unknown |= failure.unknown;
            if attempt >= self.options.attempts {
                return Err(failure.error);
            }
            self.pause(cx, attempt).await;
            attempt += 1;
        }
    }

    /// Changes an object with no other writer in between.
    ///
    /// When the answer to a write is lost and the object is another one afterwards, nobody can tell whether the
    /// write came before: the change is made again, on what is there.
    pub(super) async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        let full = self.key(key)?;
        let mut last = None;
        for attempt in 1..=MODIFY_ATTEMPTS {
            let there = self.fetch(cx, &full).await?;
            let Some(body) = change(there.as_ref().map(|there| there.object.body.clone()))? else {
                return Ok(());
            };
            let object = StoredObject::json(body);
            let when = there.map_or(When::Absent, |there| When::Matches(there.etag));
            let Err(failure) = self.replace(cx, key, &full, &object, &when).await? else { return Ok(()) };
            if !(failure.is_refused() || failure.is_absent() || failure.error.is_temporary()) {
                return Err(failure.error);
            }
            last = Some(failure);
            self.pause(cx, attempt).await;
        }
        match last {
            Some(failure) if !(failure.is_refused() || failure.is_conflict() || failure.is_absent()) => {
                Err(failure.error)
            }
            _ => Err(Error::new(ErrorKind::Contention, "others are always faster at changing this object")
                .temporary()
                .with_scope(Scope::Record)
                .with_operation("write")
                .with_context("at", self.place(&full))
                .with_context("attempts", MODIFY_ATTEMPTS)),
        }
    }

    /// Writes when the object still is what it was, with the server's preconditions or as well as without.
    async fn replace(
        &self,
        cx: &Context,
        key: &str,
        full: &str,
        object: &StoredObject,
        when: &When,
    ) -> Result<Result<(), Failure>> {
        let when = match when {
            When::Absent if self.has_if_absent(cx).await? => Some(When::Absent),
            When::Absent => None,
            When::Matches(etag) => self.if_match(cx).await?.map(|form| When::Matches(form.write(etag))),
        };
        match when {
            Some(when) => Ok(self.put_when(full, object, &when).await),
            None => self.put(key, object).await.map(Ok),
        }
    }

    /// One attempt.
    async fn put_when(&self, full: &str, object: &StoredObject, when: &When) -> Result<(), Failure> {
        let request = self.request(&self.clients().await.once, full, object);
        let request = match when {
            When::Absent => request.if_none_match("*"),
            When::Matches(etag) => request.if_match(etag),
        };
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(error, "write", full)),
        }
    }

    /// Whether the server creates an object only when there is none.
    async fn has_if_absent(&self, cx: &Context) -> Result<bool> {
        if self.preconditions.is_aws {
            return Ok(true);
        }
        let known = self.preconditions.if_absent.get_or_try_init(async || {
            let probe = self.probe(cx)?;
            let known = self.ask_if_absent(cx, &probe).await;
            self.forget(&probe).await;
            known
        });
        let known = *known.await?;
        self.warn_without(known);
        Ok(known)
    }

    /// How the server wants an ETag to replace only the object that has it; `None` when it does not care.
    async fn if_match(&self, cx: &Context) -> Result<Option<Etag>> {
        if self.preconditions.is_aws {
            return Ok(Some(Etag::Bare));
        }
        let known = self.preconditions.if_match.get_or_try_init(async || {
            let probe = self.probe(cx)?;
            let known = self.ask_if_match(cx, &probe).await;
            self.forget(&probe).await;
            known
        });
        let known = *known.await?;
        self.warn_without(known.is_some());
        Ok(known)
    }

    async fn ask_if_absent(&self, cx: &Context, probe: &str) -> Result<bool> {
        // The first write makes sure that the second has something to be refused for.
        self.try_when(cx, probe, &When::Absent).await?;
        Ok(!self.try_when(cx, probe, &When::Absent).await?)
    }

    async fn ask_if_match(&self, cx: &Context, probe: &str) -> Result<Option<Etag>> {
        let object = StoredObject::json(PROBE.into());
        let request = self.request(&self.clients().await.retrying, probe, &object);
        let answer =
            Box::pin(request.send()).await.map_err(|error| self.failure(error, "write", probe).error)?;
        let etag = bare(answer.e_tag());
        for form in [Etag::Bare, Etag::Quoted] {
            let wrong = self.try_when(cx, probe, &When::Matches(form.write(NO_ETAG))).await?;
            if !wrong && self.try_when(cx, probe, &When::Matches(form.write(etag))).await? {
                return Ok(Some(form));
            }
        }
        Ok(None)
    }

    /// Whether a conditional write of the probe was done; tried again while its outcome is unknown.
    async fn try_when(&self, cx: &Context, probe: &str, when: &When) -> Result<bool> {
        let object = StoredObject::json(PROBE.into());
        let mut attempt = 1;
        loop {
            match self.put_when(probe, &object, when).await {
                Ok(()) => return Ok(true),
                Err(failure) if failure.is_refused() || failure.is_not_implemented() => return Ok(false),
                Err(failure) if failure.error.is_temporary() && attempt < self.options.attempts => {
                    self.pause(cx, attempt).await;
                    attempt += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// A key that nobody else uses.
    fn probe(&self, cx: &Context) -> Result<String> {
        self.key(&format!("plugin=s3rep/probe/{:016x}{:016x}", cx.random(), cx.random()))
    }

    async fn forget(&self, probe: &str) {
        if let Err(error) = self.delete(probe).await {
            tracing::warn!(at = self.place(probe), %error, "an object that asked for preconditions stays behind");
        }
    }

    fn warn_without(&self, known: bool) {
        if !known && !self.preconditions.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                at = self.place(""),
                "the server ignores preconditions: two writers of one object in the same moment can both \
                 succeed; use a single writer, or another server"
            );
        }
    }
}

const PROBE: &[u8] = b"{}";

/// Whether an object is what was sent; its content type can be the server's.
fn is_same(there: &StoredObject, sent: &StoredObject) -> bool {
    let mut metadata: Vec<_> =
        sent.metadata.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect();
    metadata.sort_unstable();
    there.metadata == metadata && there.body == sent.body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_object_is_known_again() {
        let object = |members: &[(&str, &str)], body: &'static str| StoredObject {
            metadata: members.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: body.into(),
            content_type: None,
        };
        assert!(is_same(&object(&[("_v", "v1"), ("b", "")], "x"), &object(&[("B", ""), ("_v", "v1")], "x")));
        assert!(!is_same(&object(&[("_v", "v1")], "x"), &object(&[("_v", "v1")], "y")));
        assert!(!is_same(&object(&[("_v", "v1")], ""), &object(&[("_v", "v2")], "")));
    }
}
