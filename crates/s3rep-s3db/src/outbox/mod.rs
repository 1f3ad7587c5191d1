//! Captures writes through [`Database`](crate::Database) without a window in which a crash loses one.
//!
//! Before an object is written, an *intent* is durable in the log's state; after it, one transaction appends the
//! change and takes the intent out. Whoever is cut off in between leaves an open intent behind. It is resolved by
//! reading the object: where it is not as it was before the intent, that is a change, and where it is, nothing
//! happened. The record's partition references are put in step on the way.
//!
//! [`TailSource`](crate::TailSource) works beside it over the same log: what was settled here it knows, and it
//! leaves alone what is being written.

mod claims;
mod intent;
mod resolve;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use s3rep_core::{Change, ChangeId, ChangeLog, Context, Operation, Record, Result, StateWrite};

use self::{
    claims::Claims,
    intent::{SPACE, forget, key_of},
};
pub(crate) use self::{
    claims::{Key, PageClaim},
    intent::{Found, Intent},
};
use crate::tail::remembered;

/// Open intents read from the state at once.
const SCAN: usize = 4096;

/// Which resources of a database are replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Followed {
    /// All that users created: not those of plugins (`createdBy` other than `user`, names that begin with
    /// `plg_`).
    #[default]
    OfUsers,
    /// These.
    Named(HashSet<String>),
}

impl Followed {
    pub(crate) fn has(&self, name: &str, created_by: Option<&str>) -> bool {
        match self {
            Self::Named(names) => names.contains(name),
            Self::OfUsers => !name.starts_with("plg_") && created_by.is_none_or(|by| by == "user"),
        }
    }
}

/// The outbox of a database: see [`Database::capture`](crate::Database::capture).
///
/// A write waits for one append to the log, of its intent, and is followed by another one; those of concurrent
/// writers share their syncs to the device. What "durable" means is the log's option.
pub struct Outbox {
    log: Arc<dyn ChangeLog>,
    followed: Followed,
    claims: Claims,
    /// Takes no more writes.
    closed: AtomicBool,
}

impl Outbox {
    /// The outbox over a log. Reads the intents that an earlier process left open; nothing is resolved yet.
    ///
    /// # Errors
    /// When the log's state cannot be read.
    pub async fn open(cx: &Context, log: Arc<dyn ChangeLog>, followed: Followed) -> Result<Self> {
        let outbox = Self { log, followed, claims: Claims::default(), closed: AtomicBool::new(false) };
        let mut after = None;
        loop {
            let entries = outbox.log.scan(cx, SPACE, after.as_deref(), SCAN).await?;
            for (key, value) in &entries {
                Intent::read(value)?;
                outbox.claims.cut_off(&key_of(key)?);
            }
            match entries.into_iter().last() {
                Some((last, _)) => after = Some(last),
                None => return Ok(outbox),
            }
        }
    }

    /// How many writes were cut off whose outcome has not been looked up yet.
    pub fn unresolved(&self) -> usize {
        self.claims.all_unresolved().len()
    }

    /// Takes no more writes. Passes of the tail go on leaving alone what those before are at.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until the changes of all writes that were made before the call are in the log. Those that cannot be
    /// logged now are counted by [`Outbox::unresolved`]. Cancel-safe.
    pub async fn settled(&self) {
        self.claims.settled().await;
    }

    /// An intent as it was written down.
    async fn intent(&self, cx: &Context, key: &Key) -> Result<Option<Intent>> {
        let value = self.log.get(cx, SPACE, &intent::state_key(key)).await?;
        value.map(|value| Intent::read(&value)).transpose()
    }

    pub(crate) fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Writes down that a record is about to be written. Its writer holds the record's place in line.
    ///
    /// # Errors
    /// When the log cannot be written: nothing may be written then.
    pub(crate) async fn intend(
        self: Arc<Self>,
        cx: &Context,
        key: Key,
        operation: Operation,
        found: Found,
    ) -> Result<OpenIntent> {
        self.claims.claim(&key).await;
        let mut open = OpenIntent { outbox: self, key, intent: None };
        let (resource, id) = &open.key;
        // Nobody else has seen this change: its id need not be found again.
        let token = [cx.random().to_le_bytes(), cx.random().to_le_bytes()].concat();
        let change = ChangeId::derive(resource, id, operation, &token, None);
        let undecodable = found == Found::Undecodable;
        let intent = Intent { change, operation, before: found.record(), undecodable, timestamp: cx.now() };
        let write = intent.write(&open.key)?;
        cx.failpoint("s3db.intend")?;
        // From here on it may be in the log, also when this future is dropped.
        open.intent = Some(intent);
        if let Err(error) = open.outbox.log.append(cx, &[], &[write]).await {
            open.intent = None;
            return Err(error);
        }
        cx.failpoint("s3db.intended")?;
        Ok(open)
    }

    /// Appends a change, remembers the record for the tail and takes the intent out, in one transaction.
    async fn conclude(&self, cx: &Context, key: &Key, change: Option<Change>) -> Result<()> {
        let mut writes: Vec<StateWrite> = vec![forget(key)];
        if let Some(change) = &change {
            writes.push(remembered::write(change)?);
        }
        cx.failpoint("s3db.settle")?;
        self.log.append(cx, change.as_slice(), &writes).await?;
        match change {
            Some(_) => self.claims.settle(key),
            None => self.claims.nothing_came_of(key),
        }
        cx.failpoint("s3db.settled")
    }

    pub(crate) fn begin_pass(&self) -> Pass<'_> {
        self.claims.begin_pass();
        Pass(&self.claims)
    }

    pub(crate) async fn claim_page(&self, keys: &HashSet<Key>, rows: &HashSet<Key>) -> PageClaim<'_> {
        self.claims.claim_page(keys, rows).await
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("unresolved", &self.unresolved()).finish_non_exhaustive()
    }
}

/// A pass of the tail, while it lasts.
pub(crate) struct Pass<'a>(&'a Claims);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.end_pass();
    }
}

/// A write between its intent and its settlement. Dropped before that, it is resolved later.
pub(crate) struct OpenIntent {
    outbox: Arc<Outbox>,
    key: Key,
    /// `None` when there is nothing to resolve.
    intent: Option<Intent>,
}

impl OpenIntent {
    /// The write is made, and this is the record now (`None`: deleted).
    ///
    /// A log that cannot be written does not undo the write: the intent stays open.
    pub(crate) async fn settle(mut self, cx: &Context, after: Option<Arc<Record>>, version: Arc<str>) {
        let Some(intent) = &self.intent else { return };
        let change = change_of(&self.key, intent, after, version);
        match self.outbox.conclude(cx, &self.key, Some(change)).await {
            Ok(()) => self.intent = None,
            Err(error) => {
                let (resource, id) = &self.key;
                tracing::warn!(%resource, %id, "a write is captured later: {}", error.report());
            }
        }
    }

    /// The store has refused the write: nothing happened.
    pub(crate) async fn withdraw(mut self, cx: &Context) {
        if self.outbox.log.append(cx, &[], &[forget(&self.key)]).await.is_ok() {
            self.intent = None;
        }
    }
}

impl Drop for OpenIntent {
    fn drop(&mut self) {
        match self.intent.take() {
            Some(_) => self.outbox.claims.cut_off(&self.key),
            None => self.outbox.claims.release(&self.key),
        }
    }
}

fn change_of((resource, id): &Key, intent: &Intent, after: Option<Arc<Record>>, version: Arc<str>) -> Change {
    let is_delete = after.is_none();
    Change {
        change_id: intent.change,
        resource: resource.clone(),
        id: id.clone(),
        operation: intent.operation,
        data: after.or_else(|| intent.before.clone()),
        before: intent.before.clone().filter(|_| !is_delete),
        timestamp: intent.timestamp,
        schema_version: version,
        target: None,
    }
}
