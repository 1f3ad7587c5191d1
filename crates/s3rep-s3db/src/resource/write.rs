//! Writing records.

use futures::future::try_join_all;
use s3rep_core::{Error, ErrorKind, Record, Result, Scope};
use serde::Serialize;
use serde_json::Value;

use super::Resource;
use crate::{
    context::{ContextEntropy, SecureEntropy},
    format::{Encoded, Stamps, new_id, record_key},
    store::PutCondition,
};

impl Resource {
    /// Stores a new record and returns it as a later [`Resource::get`] does. Without an `id` it gets one from
    /// the resource's generator: 22 random characters unless the resource says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is a record of that id; [`ErrorKind::InvalidValue`] with every
    /// problem of a record that does not fit the attributes. An error that names a `partition reference` means
    /// that the record itself is stored.
    pub async fn insert(&self, record: impl Serialize) -> Result<Record> {
        let mut record = self.record_of(&record)?;
        let id = self.id_of(&mut record).await?;
        let key = record_key(self.name(), &id)?;
        let _in_line = self.database.stripe(&key).lock().await;
        let encoded = self.encode_whole("insert", &id, record, Stamps::New).await?;
        let put = self.database.store.put(self.cx(), &key, &encoded.object, PutCondition::IfAbsent).await;
        put.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists, "the record exists already")
                .with_scope(Scope::Record)
                .with_operation("insert")
                .with_context("resource", self.name())
                .with_context("id", &id)
                .with_advice("update it, or insert it under another id"),
            _ => self.about(error, "insert", &id),
        })?;
        self.refer("insert", &id, &[], &self.format.partition_keys(&id, &encoded.record)?).await?;
        Ok(encoded.record)
    }

    /// Merges `changes` into a record and returns the whole: dotted names set deep members, objects are merged
    /// one level deep, everything else is replaced. References of partitions that it leaves are removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::InvalidValue`] with every problem when the
    /// outcome does not fit the attributes. An error that names a `partition reference` means that the record
    /// itself is stored.
    pub async fn update(&self, id: &str, changes: impl Serialize) -> Result<Record> {
        let changes = self.record_of(&changes)?;
        let key = record_key(self.name(), id)?;
        let _in_line = self.database.stripe(&key).lock().await;
        let (previous, object) = self.load(id).await?.ok_or_else(|| self.missing(id))?;
        // A record of another program may have partition values that make no key: it has no references then.
        let old = self.format.partition_keys(id, &previous).unwrap_or_default();
        let now = self.cx().now();
        let encoded = self
            .run(move |format| format.encode_update(&previous, &changes, &object, &mut SecureEntropy, now))
            .await
            .map_err(|error| self.about(error, "update", id))?;
        let new = self.format.partition_keys(id, &encoded.record)?;
        self.put(&key, &encoded, "update", id).await?;
        self.refer("update", id, &old, &new).await?;
        Ok(encoded.record)
    }

    /// Stores a record in place of whatever was there, or as a new one, and returns it. `createdAt` is taken
    /// from the record if it is there.
    ///
    /// # Errors
    /// As [`Resource::insert`], but for a record that exists.
    pub async fn replace(&self, id: &str, record: impl Serialize) -> Result<Record> {
        let mut record = self.record_of(&record)?;
        record.insert("id".to_owned(), Value::from(id));
        let key = record_key(self.name(), id)?;
        let _in_line = self.database.stripe(&key).lock().await;
        let old = self.references(id).await?;
        let encoded = self.encode_whole("replace", id, record, Stamps::Replaced).await?;
        let new = self.format.partition_keys(id, &encoded.record)?;
        self.put(&key, &encoded, "replace", id).await?;
        self.refer("replace", id, &old, &new).await?;
        Ok(encoded.record)
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
        let key = record_key(self.name(), id)?;
        let _in_line = self.database.stripe(&key).lock().await;
        if !self.exists(id).await? {
            return Err(self.missing(id));
        }
        let references = self.references(id).await?;
        let deleted = self.database.store.delete(self.cx(), &key).await;
        deleted.map_err(|error| self.about(error, "delete", id))?;
        self.refer("delete", id, &references, &[]).await
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

    /// The id of a new record, made if it has none.
    async fn id_of(&self, record: &mut Record) -> Result<String> {
        match record.get("id") {
            None | Some(Value::Null) => {
                let id = new_id(&mut ContextEntropy(self.cx()), self.format.id_size());
                record.insert("id".to_owned(), Value::String(id.clone()));
                Ok(id)
            }
            Some(Value::String(id)) => Ok(id.clone()),
            Some(_) => Err(Error::new(ErrorKind::InvalidValue, "the id of a record is not text")
                .with_scope(Scope::Record)
                .with_context("resource", self.name())
                .with_advice("write it as text, or leave it out for a generated one")),
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

    async fn put(&self, key: &str, encoded: &Encoded, operation: &'static str, id: &str) -> Result<()> {
        let put = self.database.store.put(self.cx(), key, &encoded.object, PutCondition::Always).await;
        put.map_err(|error| self.about(error, operation, id))
    }

    /// Writes the references that a record has now and removes those that it has no more.
    async fn refer(&self, operation: &'static str, id: &str, old: &[String], new: &[String]) -> Result<()> {
        let (store, cx, object) = (&self.database.store, self.cx(), self.format.reference());
        let mut puts = Vec::with_capacity(new.len());
        for key in new {
            puts.push(store.put(cx, key, &object, PutCondition::Always));
        }
        try_join_all(puts).await.map_err(|error| self.about_reference(error, operation, id))?;
        let mut deletes = Vec::new();
        for key in old.iter().filter(|old| !new.contains(old)) {
            deletes.push(store.delete(cx, key));
        }
        try_join_all(deletes).await.map_err(|error| self.about_reference(error, operation, id))?;
        Ok(())
    }

    /// The references that a stored record has. Those of one that cannot be decoded are looked for.
    async fn references(&self, id: &str) -> Result<Vec<String>> {
        match self.load(id).await {
            Ok(Some((record, _))) => Ok(self.format.partition_keys(id, &record).unwrap_or_default()),
            Ok(None) => Ok(Vec::new()),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => self.find_references(id).await,
        }
    }

    async fn find_references(&self, id: &str) -> Result<Vec<String>> {
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
