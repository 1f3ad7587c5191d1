//! Numbers that are given once: `resource=R/sequence=id/value`, as s3db.js counts ids.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use s3rep_core::{Context, Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use crate::{
    lock::{LockOptions, ObjectLock},
    store::ObjectStore,
};

/// JavaScript counts no further.
const LAST: i64 = 1 << 53;

/// The sequence of a resource's ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    pub(crate) resource: &'a str,
    /// The first number of all.
    pub(crate) start: i64,
    /// From one number to the next.
    pub(crate) increment: i64,
}

impl Sequence<'_> {
    /// Takes `count` numbers and returns the first of them.
    ///
    /// No number is given twice, between processes and machines: the object is changed with nobody in between.
    /// Where s3db.js takes turns through a lock object, that is held too.
    ///
    /// # Errors
    /// A temporary [`ErrorKind::Contention`] when others hold the lock or are always first;
    /// [`ErrorKind::Corrupt`] when the object is no sequence; [`ErrorKind::TooLarge`] when the numbers are used up.
    pub(crate) async fn take(&self, store: &dyn ObjectStore, cx: &Context, count: u32) -> Result<i64> {
        let lock = if store.has_lock_objects() {
            let key = format!("resource={}/sequence=id/lock", self.resource);
            Some(ObjectLock::acquire(store, cx, &key, &LockOptions::sequence()).await?)
        } else {
            None
        };
        let taken = self.take_locked(store, cx, count).await;
        if let Some(lock) = lock
            && let Err(error) = lock.release(store, cx).await
        {
            // The numbers are ours, and the lock ends with its time.
            tracing::warn!(resource = self.resource, "the lock of the ids stays: {}", error.report());
        }
        taken.map_err(|error| error.with_context("resource", self.resource))
    }

    async fn take_locked(&self, store: &dyn ObjectStore, cx: &Context, count: u32) -> Result<i64> {
        let key = format!("resource={}/sequence=id/value", self.resource);
        let taken = Mutex::new(self.start);
        let advance = |body: Option<Bytes>| {
            let now = cx.now().0;
            let mut state = match &body {
                Some(body) => serde_json::from_slice(body).map_err(|_| no_sequence(store, &key))?,
                None => Map::from_iter([("value".to_owned(), json!(self.start))]),
            };
            let first = state.get("value").and_then(integer).ok_or_else(|| no_sequence(store, &key))?;
            let next = i64::from(count).checked_mul(self.increment).and_then(|by| first.checked_add(by));
            let next = next.filter(|next| next.abs() <= LAST).ok_or_else(|| used_up(store, &key))?;
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = first;
            state.insert("value".to_owned(), json!(next));
            if body.is_none() {
                state.insert("name".to_owned(), json!("id"));
                state.insert("createdAt".to_owned(), json!(now));
            } else {
                state.insert("updatedAt".to_owned(), json!(now));
            }
            Ok(Some(Value::Object(state).to_string().into()))
        };
        store.modify(cx, &key, &advance).await?;
        Ok(taken.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn integer(value: &Value) -> Option<i64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= LAST as f64);
    value.as_i64().or_else(|| float().map(|n| n as i64))
}

fn no_sequence(store: &dyn ObjectStore, key: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "the object that counts ids has no number in it")
        .with_context("object", store.place(key))
        .with_advice("write {\"value\": N, \"name\": \"id\"} there, N being above every id in use")
}

fn used_up(store: &dyn ObjectStore, key: &str) -> Error {
    Error::new(ErrorKind::TooLarge, "the numbers for ids are used up: s3db.js counts to 2^53")
        .with_context("object", store.place(key))
        .with_advice("give records ids of your own")
}
