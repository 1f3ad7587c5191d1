//! Lock objects: how writers of one bucket take turns, those of s3db.js included.
//!
//! A lock is an object that says who holds it and until when. What it guards is written with a condition on top
//! ([`ObjectStore::modify`]), so that nothing is lost where a lock expires under a slow holder.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use s3rep_core::{Context, Error, ErrorKind, Result, Timestamp};
use serde_json::{Map, Value, json};

use crate::{context::ContextEntropy, format::new_id, store::ObjectStore};

/// The lock that s3db.js holds while it writes `s3db.json`.
const METADATA_LOCK: &str = "plugin=s3db-core/locks/namespace=metadata/s3db-metadata.json";
/// A lock that ends sooner is left to expire: somebody else may have it before a delete arrives.
const RELEASE_MARGIN: Duration = Duration::from_secs(2);

/// Tries before it is told that somebody else is waited for.
const PATIENCE: u32 = 3;

/// The members of a lock object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockShape {
    /// `{lockId, holderId, acquiredAt, expiresAt, _expiresAt}`; the object itself is litter a minute later.
    Metadata,
    /// `{workerId, token, acquiredAt, _expiresAt}`.
    Sequence,
}

impl LockShape {
    fn token(self) -> &'static str {
        match self {
            Self::Metadata => "lockId",
            Self::Sequence => "token",
        }
    }

    fn holder(self) -> &'static str {
        match self {
            Self::Metadata => "holderId",
            Self::Sequence => "workerId",
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Metadata => "expiresAt",
            Self::Sequence => "_expiresAt",
        }
    }

    fn body(self, holder: &str, token: &str, now: Timestamp, ttl: Duration) -> Bytes {
        let end = later(now, ttl);
        let body = match self {
            Self::Metadata => {
                let litter = later(now, ttl + Duration::from_secs(60));
                json!({"lockId": token, "holderId": holder, "acquiredAt": now.0, "expiresAt": end.0,
                       "_expiresAt": litter.0})
            }
            Self::Sequence => {
                json!({"workerId": holder, "token": token, "acquiredAt": now.0, "_expiresAt": end.0})
            }
        };
        body.to_string().into()
    }
}

/// How a lock is asked for.
#[derive(Clone, Debug)]
pub(crate) struct LockOptions {
    pub(crate) shape: LockShape,
    /// How long it is held at most.
    pub(crate) ttl: Duration,
    /// How long it is waited for at most.
    pub(crate) wait: Duration,
    /// The pause after the first try; it doubles up to `max_pause`.
    pub(crate) pause: Duration,
    pub(crate) max_pause: Duration,
}

impl LockOptions {
    /// As s3db.js asks for the lock of `s3db.json`, but for longer: s3db.js tries three times within a second,
    /// here a lock whose holder died is waited for.
    pub(crate) fn metadata() -> Self {
        Self {
            shape: LockShape::Metadata,
            ttl: Duration::from_secs(30),
            wait: Duration::from_secs(33),
            pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(1),
        }
    }

    /// As s3db.js asks for the lock of a sequence.
    pub(crate) fn sequence() -> Self {
        Self {
            shape: LockShape::Sequence,
            ttl: Duration::from_secs(10),
            wait: Duration::from_secs(5),
            pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(1),
        }
    }
}

/// A lock that is held. Dropped without [`ObjectLock::release`], it ends with its time.
#[derive(Debug)]
pub(crate) struct ObjectLock {
    key: String,
    shape: LockShape,
    token: String,
    /// By the monotonic clock: the other one may jump.
    end: Duration,
}

/// What a try found.
#[derive(Debug, Default)]
struct Found {
    ours: bool,
    holder: Option<String>,
    until: Option<Timestamp>,
}

/// The lock that has to be held while `s3db.json` is written, on stores that have lock objects.
///
/// # Errors
/// As [`ObjectLock::acquire`].
pub(crate) async fn metadata_lock(store: &dyn ObjectStore, cx: &Context) -> Result<ObjectLock> {
    ObjectLock::acquire(store, cx, METADATA_LOCK, &LockOptions::metadata()).await
}

impl ObjectLock {
    /// Takes a lock that nobody holds, or whose time is up.
    ///
    /// # Errors
    /// A temporary [`ErrorKind::Contention`] that names who holds it and until when, and what the store says.
    pub(crate) async fn acquire(
        store: &dyn ObjectStore,
        cx: &Context,
        key: &str,
        options: &LockOptions,
    ) -> Result<Self> {
        let (start, mut attempt) = (cx.monotonic(), 0);
        let (shape, ttl) = (options.shape, options.ttl);
        let holder = holder(cx);
        let token = format!("{holder}-{}-{}", cx.now().0, new_id(&mut ContextEntropy(cx), 22));
        loop {
            // Before the request, so that we never think to hold it longer than others do.
            let end = cx.monotonic() + ttl;
            let body = |now| shape.body(&holder, &token, now, ttl);
            let found = attempt_once(store, cx, key, shape, &body, &token).await?;
            if found.ours {
                return Ok(Self { key: key.to_owned(), shape, token, end });
            }
            let pause = options.pause.saturating_mul(1 << attempt.min(16)).min(options.max_pause);
            // Half a pause more or less, so that those who wait do not ask all at once.
            let pause = pause + jitter(cx, options.pause / 2);
            if cx.monotonic() - start + pause > options.wait {
                return Err(held(store, key, found));
            }
            if attempt == PATIENCE {
                let (place, holder, until) = (store.place(key), &found.holder, &found.until);
                tracing::warn!(
                    lock = place,
                    ?holder,
                    ?until,
                    "waiting for another writer, or for the end of its lock"
                );
            }
            cx.sleep(pause).await;
            attempt += 1;
        }
    }

    /// Gives the lock back, unless it is another's by now.
    ///
    /// # Errors
    /// What the store says. The lock ends with its time all the same.
    pub(crate) async fn release(self, store: &dyn ObjectStore, cx: &Context) -> Result<()> {
        let ours = |body: &Bytes| {
            members(body).is_some_and(|lock| lock.get(self.shape.token()) == Some(&json!(self.token)))
        };
        let held = store.get_body(cx, &self.key).await?.is_some_and(|body| ours(&body));
        if held && cx.monotonic() + RELEASE_MARGIN < self.end {
            store.delete(cx, &self.key).await?;
        }
        Ok(())
    }
}

/// Writes the lock object if nobody holds it.
async fn attempt_once(
    store: &dyn ObjectStore,
    cx: &Context,
    key: &str,
    shape: LockShape,
    body: &(dyn Fn(Timestamp) -> Bytes + Sync),
    token: &str,
) -> Result<Found> {
    let found = Mutex::new(Found::default());
    let take = |stored: Option<Bytes>| {
        let now = cx.now();
        let lock = stored.as_ref().and_then(members);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Found { ours: true, ..Found::default() };
        // What is no lock holds nothing.
        let Some(lock) = lock else { return Ok(Some(body(now))) };
        // A write of ours whose answer was lost.
        if lock.get(shape.token()) == Some(&json!(token)) {
            return Ok(None);
        }
        let until = lock.get(shape.end()).and_then(Value::as_f64).map(|end| Timestamp(end as i64));
        if until.is_some_and(|until| until <= now) || !lock.contains_key(shape.token()) {
            return Ok(Some(body(now)));
        }
        let holder = lock.get(shape.holder()).and_then(Value::as_str).map(str::to_owned);
        *found = Found { ours: false, holder, until };
        Ok(None)
    };
    match store.modify(cx, key, &take).await {
        // Others were faster, again and again.
        Err(error) if error.kind() == ErrorKind::Contention => Ok(Found::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn members(body: &Bytes) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

fn held(store: &dyn ObjectStore, key: &str, found: Found) -> Error {
    let error = Error::new(ErrorKind::Contention, "another writer holds the lock")
        .temporary()
        .with_context("lock", store.place(key))
        .with_context("holder", found.holder.as_deref().unwrap_or("unknown"))
        .with_advice("try again; delete the lock object if its holder is gone and the lock has no end");
    match found.until {
        Some(until) => error.with_context("until", until),
        None => error,
    }
}

/// A name for who holds a lock, as s3db.js makes it: that of the pod or host where there is one.
fn holder(cx: &Context) -> String {
    let name = ["POD_NAME", "HOSTNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let name = name.filter(|name| !name.is_empty());
    format!("holder-{}", name.unwrap_or_else(|| new_id(&mut ContextEntropy(cx), 12)))
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

fn jitter(cx: &Context, most: Duration) -> Duration {
    most.mul_f64((cx.random() >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use s3rep_core::{BoxFuture, Clock, Random};

    use super::*;
    use crate::{MemoryStore, PutCondition, StoredObject};

    /// Time that goes on when somebody sleeps, or is set.
    #[derive(Clone, Default)]
    struct Time(Arc<AtomicI64>);

    impl Clock for Time {
        fn now(&self) -> Timestamp {
            Timestamp(1_000_000 + self.0.load(Ordering::SeqCst))
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
        }
        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            self.0.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
            Box::pin(async {})
        }
    }

    impl Random for Time {
        fn next_u64(&self) -> u64 {
            rand::random()
        }
    }

    fn simulation() -> (Time, Context, MemoryStore) {
        let time = Time::default();
        let cx = Context::new(Arc::new(time.clone()), Arc::new(time.clone()));
        (time, cx, MemoryStore::new())
    }

    async fn stored(store: &MemoryStore, cx: &Context, key: &str) -> Value {
        serde_json::from_slice(&store.get_body(cx, key).await.unwrap().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one_and_given_back() {
        let (time, cx, store) = simulation();
        let lock = metadata_lock(&store, &cx).await.unwrap();
        let body = stored(&store, &cx, METADATA_LOCK).await;
        let names: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["lockId", "holderId", "acquiredAt", "expiresAt", "_expiresAt"]);
        assert_eq!(body["expiresAt"], 1_030_000);
        assert_eq!(body["_expiresAt"], 1_090_000);

        lock.release(&store, &cx).await.unwrap();
        assert_eq!(store.get_body(&cx, METADATA_LOCK).await.unwrap(), None);

        // One whose holder died is waited for.
        metadata_lock(&store, &cx).await.unwrap();
        metadata_lock(&store, &cx).await.unwrap();
        let waited = time.0.load(Ordering::SeqCst);
        assert!((30_000..32_000).contains(&waited), "{waited}");
    }

    #[tokio::test]
    async fn an_expired_lock_is_taken_over_and_its_holder_leaves_it_alone() {
        let (time, cx, store) = simulation();
        let key = "resource=r/sequence=id/lock";
        let slow = ObjectLock::acquire(&store, &cx, key, &LockOptions::sequence()).await.unwrap();
        let body = stored(&store, &cx, key).await;
        let names: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["workerId", "token", "acquiredAt", "_expiresAt"]);
        let error = ObjectLock::acquire(&store, &cx, key, &LockOptions::sequence()).await.unwrap_err();
        assert!(error.is_temporary() && error.kind() == ErrorKind::Contention);
        let (text, holder) = (error.to_string(), body["workerId"].as_str().unwrap());
        assert!(text.contains(holder) && text.contains("until: 1970-01-01T00:16:50"), "{text}");
        assert!((4000..=5000).contains(&time.0.load(Ordering::SeqCst)), "five seconds at most");
        time.0.store(10_000, Ordering::SeqCst);
        let quick = ObjectLock::acquire(&store, &cx, key, &LockOptions::sequence()).await.unwrap();
        slow.release(&store, &cx).await.unwrap();
        assert_eq!(stored(&store, &cx, key).await["token"], quick.token);
        quick.release(&store, &cx).await.unwrap();
        assert_eq!(store.get_body(&cx, key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_others_left_is_understood() {
        let (_, cx, store) = simulation();
        for (body, free) in [
            ("no json", true),
            ("{}", true),
            (r#"{"lockId":"x","holderId":"holder-web-1","acquiredAt":1,"expiresAt":2,"_expiresAt":3}"#, true),
            (
                r#"{"lockId":"x","holderId":"holder-web-1","acquiredAt":1,"expiresAt":9e15,"_expiresAt":9e15}"#,
                false,
            ),
            (r#"{"lockId":"x","holderId":"holder-web-1","acquiredAt":1}"#, false),
        ] {
            let object = StoredObject::json(body.into());
            store.put(&cx, METADATA_LOCK, &object, PutCondition::Always).await.unwrap();
            let outcome = metadata_lock(&store, &cx).await;
            assert_eq!(outcome.is_ok(), free, "{body}");
            assert!(free || outcome.unwrap_err().to_string().contains("holder-web-1"));
        }
    }
}
