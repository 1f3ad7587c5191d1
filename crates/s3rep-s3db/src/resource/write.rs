//! Writing records.

use std::sync::Arc;

use futures::{StreamExt, future::try_join_all, stream};
use s3rep_core::{Error, ErrorKind, Operation, Record, Result, Scope};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::Resource;
use crate::{
    context::SecureEntropy,
    events::DatabaseEvent,
    format::{Encoded, Stamps, id_of_key, record_key, record_prefix},
    hooks::{Action, When},
    outbox::{Found, Intent, OpenIntent, Outbox},
    store::PutCondition,
};

/// Records listed at once when all are deleted.
const DELETED_AT_ONCE: usize = 1000;

/// A write of one record.
struct Write {
    operation: &'static str,
    id: Arc<str>,
    key: String,
    /// The record as it is.
    found: Found,
    /// The writer's place in line.
    in_line: OwnedMutexGuard<()>,
}

/// The store says that it has not written. After any other error it may have: the open intent finds out.
fn is_refusal(error: &Error) -> bool {
    use ErrorKind::{AlreadyExists, InvalidValue, PermissionDenied, TooLarge, Unauthenticated};
    matches!(error.kind(), AlreadyExists | InvalidValue | PermissionDenied | TooLarge | Unauthenticated)
}

/// A write that is made, and whose change is not in the log yet. Its intent is.
struct Unsettled {
    resource: Resource,
    intent: OpenIntent,
    after: Option<Arc<Record>>,
    _in_line: OwnedMutexGuard<()>,
}

impl Unsettled {
    async fn settle(self) {
        let version = self.resource.schema().version.clone();
        self.intent.settle(self.resource.cx(), self.after, version).await;
    }
}

/// Runs a write. One that is captured runs to its end, also when nobody waits for it any more: a request that is
/// under way cannot be called back, and what comes of it has to be told. Its caller waits no longer than until it
/// cannot be lost.
async fn to_its_end<T: Send + 'static>(
    is_captured: bool,
    work: impl Future<Output = Result<(T, Option<Unsettled>)>> + Send + 'static,
) -> Result<T> {
    if !is_captured {
        return work.await.map(|(outcome, _)| outcome);
    }
    let (told, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let (outcome, unsettled) = match work.await {
            Ok((outcome, unsettled)) => (Ok(outcome), unsettled),
            Err(error) => (Err(error), None),
        };
        // Nobody waits when the caller was cancelled.
        let _ = told.send(outcome);
        if let Some(unsettled) = unsettled {
            unsettled.settle().await;
        }
    });
    outcome.await.unwrap_or_else(|_| Err(crate::store::stopped()))
}

impl Resource {
    /// Stores a new record and returns it as a later [`Resource::get`] does. Without an `id` it gets one from
    /// the resource's generator: 22 random characters unless the resource says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is a record of that id; [`ErrorKind::InvalidValue`] with every
    /// problem of a record that does not fit the attributes. An error that names a `partition reference` means
    /// that the record itself is stored.
    pub async fn insert(&self, record: impl Serialize) -> Result<Record> {
        let record = self.record_of(&record)?;
        let id = record.get("id").and_then(Value::as_str).map(Arc::from);
        let mut record = self.hooked(When::Before, self.call(Action::Insert, id, record, None)).await?;
        let id = self.id_of(&mut record).await?;
        let key = record_key(self.name(), &id)?;
        let in_line = self.database.in_line(&key).await;
        self.resolve(&id).await?;
        let encoded = self.encode_whole("insert", &id, record, Stamps::New).await?;
        let write = Write { operation: "insert", id: id.as_str().into(), key, found: Found::Absent, in_line };
        let stored = self.store_record(write, encoded, PutCondition::IfAbsent, Vec::new()).await?;
        self.written(Action::Insert, &id, stored, None).await
    }

    /// Merges `changes` into a record and returns the whole: dotted names set deep members, objects are merged
    /// one level deep, everything else is replaced. References of partitions that it leaves are removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::InvalidValue`] with every problem when the
    /// outcome does not fit the attributes. An error that names a `partition reference` means that the record
    /// itself is stored.
    pub async fn update(&self, id: &str, changes: impl Serialize) -> Result<Record> {
        self.merge(Action::Update, id, self.record_of(&changes)?).await
    }

    /// As [`Resource::update`], with the hooks of [`Action::Patch`]. s3db.js patches some records without
    /// checking them and without telling anybody; here a patch is checked, told and replicated like any update.
    ///
    /// # Errors
    /// As [`Resource::update`].
    pub async fn patch(&self, id: &str, changes: impl Serialize) -> Result<Record> {
        self.merge(Action::Patch, id, self.record_of(&changes)?).await
    }

    async fn merge(&self, action: Action, id: &str, changes: Record) -> Result<Record> {
        let operation = if action == Action::Patch { "patch" } else { "update" };
        let changes = self.hooked_write(action, id, changes).await?;
        let key = record_key(self.name(), id)?;
        let in_line = self.database.in_line(&key).await;
        self.resolve(id).await?;
        let (previous, object) = self.load(id).await?.ok_or_else(|| self.missing(id))?;
        let previous = Arc::new(previous);
        // A record of another program may have partition values that make no key: it has no references then.
        let old = self.format.partition_keys(id, &previous).unwrap_or_default();
        let (now, before) = (self.cx().now(), previous.clone());
        let encoded = self
            .run(move |format| format.encode_update(&before, &changes, &object, &mut SecureEntropy, now))
            .await
            .map_err(|error| self.about(error, operation, id))?;
        let write = Write { operation, id: id.into(), key, found: Found::Record(previous.clone()), in_line };
        let stored = self.store_record(write, encoded, PutCondition::Always, old).await?;
        self.written(action, id, stored, Some(previous)).await
    }

    /// Stores a record in place of whatever was there, or as a new one, and returns it. `createdAt` is taken
    /// from the record if it is there.
    ///
    /// # Errors
    /// As [`Resource::insert`], but for a record that exists.
    pub async fn replace(&self, id: &str, record: impl Serialize) -> Result<Record> {
        let mut record = self.hooked_write(Action::Replace, id, self.record_of(&record)?).await?;
        record.insert("id".to_owned(), Value::from(id));
        let key = record_key(self.name(), id)?;
        let in_line = self.database.in_line(&key).await;
        self.resolve_or_overtake(id).await?;
        let found = self.look_up(id).await?;
        let (old, before) = (self.references(id, &found).await?, found.record());
        let encoded = self.encode_whole("replace", id, record, Stamps::Replaced).await?;
        let write = Write { operation: "replace", id: id.into(), key, found, in_line };
        let stored = self.store_record(write, encoded, PutCondition::Always, old).await?;
        self.written(Action::Replace, id, stored, before).await
    }

    /// Inserts a record, or updates the one of its id.
    ///
    /// # Errors
    /// As [`Resource::insert`] and [`Resource::update`].
    pub async fn upsert(&self, record: impl Serialize) -> Result<Record> {
        let record = self.record_of(&record)?;
        let id = record.get("id").and_then(Value::as_str).map(str::to_owned);
        match (self.insert(&record).await, id) {
            (Err(error), Some(id)) if error.kind() == ErrorKind::AlreadyExists => {
                self.update(&id, record).await
            }
            (outcome, _) => outcome,
        }
    }

    /// Removes a record and its partition references.
    ///
    /// One that cannot be decoded is removed too: its references are then looked for in every partition.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.hooked_write(Action::Delete, id, Record::new()).await?;
        let key = record_key(self.name(), id)?;
        let in_line = self.database.in_line(&key).await;
        self.resolve_or_overtake(id).await?;
        let found = self.look_up(id).await?;
        if found == Found::Absent {
            return Err(self.missing(id));
        }
        let (references, before) = (self.references(id, &found).await?, found.record());
        self.remove_record(Write { operation: "delete", id: id.into(), key, found, in_line }, references)
            .await?;
        let record = before.as_deref().cloned().unwrap_or_default();
        self.hooked(When::After, self.call(Action::Delete, Some(id.into()), record, before)).await.map(drop)
    }

    /// Inserts records, many at once. The outcomes stand in the order of the records; one that fails does not
    /// keep the others.
    pub async fn insert_many<T: Serialize>(
        &self,
        records: impl IntoIterator<Item = T>,
    ) -> Vec<Result<Record>> {
        let mut inserts = Vec::new();
        for record in records {
            // Printed here, so that the futures do not hold the caller's type.
            let record = self.record_of(&record);
            inserts.push(async move { self.insert(record?).await });
        }
        self.at_once(inserts).await
    }

    /// Deletes records, many at once. The outcomes stand in the order of the ids.
    pub async fn delete_many<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Vec<Result<()>> {
        let mut deletes = Vec::new();
        for id in ids {
            let id = id.as_ref().to_owned();
            deletes.push(async move { self.delete(&id).await });
        }
        self.at_once(deletes).await
    }

    /// Deletes every record, with its partition references, and returns how many there were. Each is a delete
    /// like any other: hooks run, and it is replicated.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] when the resource is `paranoid`, as it is unless it was created
    /// otherwise; the first record that could not be deleted.
    pub async fn delete_all(&self) -> Result<u64> {
        if self.format.paranoid() {
            return Err(Error::new(ErrorKind::PermissionDenied, "the resource refuses to lose all records")
                .with_context("resource", self.name())
                .with_advice("create it with \"paranoid\": false, or delete the records one by one"));
        }
        let mut count = 0;
        let mut listing = self.database.store.list(&record_prefix(self.name())?, None)?;
        loop {
            let page = listing.page(self.cx(), DELETED_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(count);
            }
            for outcome in self.delete_many(page.iter().filter_map(|meta| id_of_key(&meta.key))).await {
                match outcome {
                    Ok(()) => count += 1,
                    // Somebody else was faster.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Runs futures, as many at a time as are good for the store; outcomes in their order.
    async fn at_once<T>(&self, work: Vec<impl Future<Output = T> + Send>) -> Vec<T> {
        stream::iter(work).buffered(self.database.store.parallelism()).collect().await
    }

    /// Runs the hooks before a write of a record that may be there.
    async fn hooked_write(&self, action: Action, id: &str, record: Record) -> Result<Record> {
        if !self.hooks.has(When::Before, action) {
            return Ok(record);
        }
        let before = self.look_up(id).await?.record();
        self.hooked(When::Before, self.call(action, Some(id.into()), record, before)).await
    }

    /// Runs the hooks after a write; the outcome is what the caller gets.
    async fn written(
        &self,
        action: Action,
        id: &str,
        stored: Arc<Record>,
        before: Option<Arc<Record>>,
    ) -> Result<Record> {
        let record = Arc::unwrap_or_clone(stored);
        if !self.hooks.has(When::After, action) {
            return Ok(record);
        }
        self.hooked(When::After, self.call(action, Some(id.into()), record, before)).await
    }

    /// Puts a record with its references, captured and told.
    async fn store_record(
        &self,
        write: Write,
        encoded: Encoded,
        condition: PutCondition,
        old: Vec<String>,
    ) -> Result<Arc<Record>> {
        let new = self.format.partition_keys(&write.id, &encoded.record)?;
        let (resource, outbox) = (self.clone(), self.outbox());
        let is_captured = outbox.is_some();
        let work = async move {
            let (cx, Write { operation, id, key, found, in_line }) = (resource.cx(), write);
            let before = found.record();
            let kind = if found == Found::Absent { Operation::Insert } else { Operation::Update };
            let intent = resource.intend(outbox, &id, kind, found).await?;
            if let Err(error) = resource.database.store.put(cx, &key, &encoded.object, condition).await {
                return Err(resource.not_stored(error, operation, &id, intent).await);
            }
            cx.failpoint("s3db.stored")?;
            resource.refer(operation, &id, &old, &new).await?;
            let record = Arc::new(encoded.record);
            let (name, at) = (resource.schema().name.clone(), cx.now());
            resource.database.observers.tell(|| match kind {
                Operation::Insert => DatabaseEvent::Inserted { resource: name, record: record.clone(), at },
                _ => DatabaseEvent::Updated { resource: name, before, after: record.clone(), at },
            });
            let unsettled = resource.unsettled(intent, Some(record.clone()), in_line);
            Ok((record, unsettled))
        };
        to_its_end(is_captured, work).await
    }

    /// Deletes a record with its references, captured and told.
    async fn remove_record(&self, write: Write, references: Vec<String>) -> Result<()> {
        let (resource, outbox) = (self.clone(), self.outbox());
        let is_captured = outbox.is_some();
        let work = async move {
            let (cx, Write { operation, id, key, found, in_line }) = (resource.cx(), write);
            let before = found.record();
            let intent = resource.intend(outbox, &id, Operation::Delete, found).await?;
            let deleted = resource.database.store.delete(cx, &key).await;
            deleted.map_err(|error| resource.about(error, operation, &id))?;
            cx.failpoint("s3db.stored")?;
            resource.refer(operation, &id, &references, &[]).await?;
            let (name, at) = (resource.schema().name.clone(), cx.now());
            resource.database.observers.tell(|| DatabaseEvent::Deleted { resource: name, id, before, at });
            Ok(((), resource.unsettled(intent, None, in_line)))
        };
        to_its_end(is_captured, work).await
    }

    /// The error of a record that the store did not take.
    async fn not_stored(
        &self,
        error: Error,
        operation: &'static str,
        id: &str,
        intent: Option<OpenIntent>,
    ) -> Error {
        if let Some(intent) = intent
            && is_refusal(&error)
        {
            intent.withdraw(self.cx()).await;
        }
        if error.kind() != ErrorKind::AlreadyExists {
            return self.about(error, operation, id);
        }
        Error::new(ErrorKind::AlreadyExists, "the record exists already")
            .with_scope(Scope::Record)
            .with_operation(operation)
            .with_context("resource", self.name())
            .with_context("id", id)
            .with_advice("update it, or insert it under another id")
    }

    /// The outbox, if this resource is captured.
    fn outbox(&self) -> Option<Arc<Outbox>> {
        let outbox = self.database.outbox()?;
        let is_captured = outbox.followed().has(self.name(), self.created_by.as_deref());
        (is_captured && !outbox.is_closed()).then_some(outbox)
    }

    async fn intend(
        &self,
        outbox: Option<Arc<Outbox>>,
        id: &str,
        operation: Operation,
        found: Found,
    ) -> Result<Option<OpenIntent>> {
        let Some(outbox) = outbox else { return Ok(None) };
        let key = (self.schema().name.clone(), id.into());
        let intent = outbox.intend(self.cx(), key, operation, found).await;
        intent.map(Some).map_err(|error| self.about(error, "capture", id))
    }

    fn unsettled(
        &self,
        intent: Option<OpenIntent>,
        after: Option<Arc<Record>>,
        in_line: OwnedMutexGuard<()>,
    ) -> Option<Unsettled> {
        let resource = self.clone();
        intent.map(|intent| Unsettled { resource, intent, after, _in_line: in_line })
    }

    /// Looks up what became of an earlier write of the record that was cut off.
    async fn resolve(&self, id: &str) -> Result<()> {
        match self.outbox() {
            Some(outbox) => {
                outbox.resolve(self.cx(), Some(self), &(self.schema().name.clone(), id.into())).await
            }
            None => Ok(()),
        }
    }

    /// The same before a write that takes the place of whatever is there, also of what cannot be resolved.
    async fn resolve_or_overtake(&self, id: &str) -> Result<()> {
        match self.resolve(id).await {
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
            _ => Ok(()),
        }
    }

    /// The record as it is now. One that cannot be decoded, or was left half written, is no error.
    pub(crate) async fn look_up(&self, id: &str) -> Result<Found> {
        match self.load(id).await {
            Ok(Some((record, _))) => Ok(Found::Record(Arc::new(record))),
            Ok(None) => Ok(Found::Absent),
            // The store has looked again for a while: whoever wrote it died.
            Err(error) if error.kind() == ErrorKind::Contention => Ok(Found::Undecodable),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => Ok(Found::Undecodable),
        }
    }

    /// A caller's value as a record.
    pub(crate) fn record_of(&self, value: &impl Serialize) -> Result<Record> {
        match serde_json::to_value(value) {
            Ok(Value::Object(record)) => Ok(record),
            _ => Err(Error::new(ErrorKind::InvalidValue, "a record is an object with names for its members")
                .with_scope(Scope::Record)
                .with_context("resource", self.name())
                .with_advice("pass a struct, a map with text keys or json!({…})")),
        }
    }

    async fn encode_whole(
        &self,
        operation: &'static str,
        id: &str,
        record: Record,
        stamps: Stamps,
    ) -> Result<Encoded> {
        let now = self.cx().now();
        self.run(move |format| format.encode_whole(&record, stamps, &mut SecureEntropy, now))
            .await
            .map_err(|error| self.about(error, operation, id))
    }

    /// Writes the references that a record has now and removes those that it has no more.
    async fn refer(&self, operation: &'static str, id: &str, old: &[String], new: &[String]) -> Result<()> {
        let (store, cx, object) = (&self.database.store, self.cx(), self.format.reference());
        let mut puts = Vec::with_capacity(new.len());
        for key in new {
            puts.push(async {
                store.put(cx, key, &object, PutCondition::Always).await?;
                cx.failpoint("s3db.referenced")
            });
        }
        try_join_all(puts).await.map_err(|error| self.about_reference(error, operation, id))?;
        let mut deletes = Vec::new();
        for key in old.iter().filter(|old| !new.contains(old)) {
            deletes.push(async {
                store.delete(cx, key).await?;
                cx.failpoint("s3db.unreferenced")
            });
        }
        try_join_all(deletes).await.map_err(|error| self.about_reference(error, operation, id))?;
        Ok(())
    }

    /// The references of a record that was looked up. Those of one that cannot be decoded are looked for.
    async fn references(&self, id: &str, found: &Found) -> Result<Vec<String>> {
        match found {
            Found::Record(record) => Ok(self.format.partition_keys(id, record).unwrap_or_default()),
            Found::Absent => Ok(Vec::new()),
            Found::Undecodable => self.find_references(id).await,
        }
    }

    /// Puts the references of a record in step after a write that was cut off.
    pub(crate) async fn mend_references(
        &self,
        id: &str,
        intent: &Intent,
        current: Option<&Record>,
    ) -> Result<()> {
        let keys = |record: Option<&Record>| match record {
            Some(record) => self.format.partition_keys(id, record).unwrap_or_default(),
            None => Vec::new(),
        };
        let old = match intent.undecodable {
            true => self.find_references(id).await?,
            false => keys(intent.before.as_deref()),
        };
        self.refer("resolve", id, &old, &keys(current)).await
    }

    /// Looks for the references of a record that says nothing about them.
    pub(super) async fn find_references(&self, id: &str) -> Result<Vec<String>> {
        let mut references = Vec::new();
        if self.format.partitions().is_empty() {
            return Ok(references);
        }
        let end = format!("/id={id}");
        let mut listing = self.database.store.list(&format!("resource={}/partition=", self.name()), None)?;
        loop {
            let page = listing.page(self.cx(), 8192).await?;
            if page.is_empty() {
                return Ok(references);
            }
            references.extend(page.into_iter().map(|meta| meta.key).filter(|key| key.ends_with(&end)));
        }
    }
}
