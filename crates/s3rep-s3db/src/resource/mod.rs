//! Operations on the records of one resource.

mod read;

use std::{fmt, sync::Arc};

pub use read::Records;
pub(crate) use read::{BATCH_BYTES, Decoded, Failed};
use s3rep_core::{Context, Error, ErrorKind, Record, ResourceSchema, Result, Scope};
use serde_json::Value;

use crate::{
    context::{ContextEntropy, SecureEntropy},
    database::Inner,
    format::{Encoded, ResourceFormat, StoredObject, new_id, record_key},
    store::{ObjectStore, PutCondition},
};

/// A collection of records: `resource=NAME/data/id=…` and its partition references. Cheap to clone.
///
/// Records are JSON objects with an `id`. Writers of one record in one process are in line; between processes
/// the last writer wins, as in s3db.js.
#[derive(Clone)]
pub struct Resource {
    database: Arc<Inner>,
    format: Arc<ResourceFormat>,
    /// Encoding and decoding derive keys from passwords: too slow for a thread of the runtime.
    slow: bool,
}

impl Resource {
    pub(crate) fn new(database: Arc<Inner>, format: Arc<ResourceFormat>) -> Self {
        let slow = format.schema().attributes.iter().any(|attribute| {
            let definition = attribute.definition.to_string();
            definition.contains("secret") || definition.contains("password")
        });
        Self { database, format, slow }
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        self.format.name()
    }

    /// The attributes of the current version.
    pub fn schema(&self) -> &Arc<ResourceSchema> {
        self.format.schema()
    }

    /// How records are stored, for whatever this type does not say.
    pub fn format(&self) -> &Arc<ResourceFormat> {
        &self.format
    }

    /// The record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; an error naming the attribute when it cannot be decoded.
    pub async fn get(&self, id: &str) -> Result<Record> {
        self.find(id).await?.ok_or_else(|| self.missing(id))
    }

    /// The record, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub async fn find(&self, id: &str) -> Result<Option<Record>> {
        let key = record_key(self.name(), id)?;
        match self.database.store.get(self.cx(), &key).await? {
            Some(object) => Ok(Some(self.decode(id, object).await?.0)),
            None => Ok(None),
        }
    }

    /// Whether there is a record of that id, without reading it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn exists(&self, id: &str) -> Result<bool> {
        let key = record_key(self.name(), id)?;
        Ok(self.database.store.head(self.cx(), &key).await?.is_some())
    }

    /// Stores a new record and returns it as a later [`Resource::get`] does. Without an `id` it gets one of 22
    /// random characters (or as many as the resource's `idSize` says).
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is a record of that id; [`ErrorKind::InvalidValue`] when the
    /// record does not fit the attributes. An error that names a `partition reference` means that the record
    /// itself is stored.
    pub async fn insert(&self, mut record: Record) -> Result<Record> {
        let id = match record.get("id") {
            None | Some(Value::Null) => {
                let id = new_id(&mut ContextEntropy(self.cx()), self.format.id_size());
                record.insert("id".to_owned(), Value::String(id.clone()));
                id
            }
            Some(Value::String(id)) => id.clone(),
            Some(_) => {
                return Err(Error::new(ErrorKind::InvalidValue, "the id of a record is not text")
                    .with_scope(Scope::Record)
                    .with_context("resource", self.name())
                    .with_advice("write it as text, or leave it out for a random one"));
            }
        };
        let key = record_key(self.name(), &id)?;
        let now = self.cx().now();
        let encoded = self
            .encode(move |format| format.encode_insert(&record, &mut SecureEntropy, now))
            .await
            .map_err(|error| self.about(error, "insert", &id))?;
        let references = self.format.partition_keys(&id, &encoded.record)?;

        let _in_line = self.database.stripe(&key).lock().await;
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
        self.refer(&references, "insert", &id).await?;
        Ok(encoded.record)
    }

    /// Merges `changes` into a record and returns the whole: dotted names set deep members, objects are merged
    /// one level deep, everything else is replaced. References of partitions that it leaves are removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::InvalidValue`] when the outcome does not fit
    /// the attributes. An error that names a `partition reference` means that the record itself is stored.
    pub async fn update(&self, id: &str, changes: Record) -> Result<Record> {
        let key = record_key(self.name(), id)?;
        let (store, cx) = (&self.database.store, self.cx());

        let _in_line = self.database.stripe(&key).lock().await;
        let object = store.get(cx, &key).await?.ok_or_else(|| self.missing(id))?;
        let (previous, object) = self.decode(id, object).await?;
        // A record of another program may have partition values that make no key: it has no references then.
        let old = self.format.partition_keys(id, &previous).unwrap_or_default();
        let now = cx.now();
        let encoded = self
            .encode(move |format| format.encode_update(&previous, &changes, &object, &mut SecureEntropy, now))
            .await
            .map_err(|error| self.about(error, "update", id))?;
        let new = self.format.partition_keys(id, &encoded.record)?;
        store
            .put(cx, &key, &encoded.object, PutCondition::Always)
            .await
            .map_err(|error| self.about(error, "update", id))?;
        self.refer(&new, "update", id).await?;
        for reference in old.iter().filter(|old| !new.contains(old)) {
            store.delete(cx, reference).await.map_err(|error| self.about_reference(error, "update", id))?;
        }
        Ok(encoded.record)
    }

    /// Removes a record and its partition references.
    ///
    /// One that cannot be decoded is removed too: its references are then looked for in every partition.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let key = record_key(self.name(), id)?;
        let (store, cx) = (&self.database.store, self.cx());

        let _in_line = self.database.stripe(&key).lock().await;
        let object = store.get(cx, &key).await?.ok_or_else(|| self.missing(id))?;
        let references = match self.decode(id, object).await {
            Ok((record, _)) => self.format.partition_keys(id, &record).unwrap_or_default(),
            Err(_) => self.find_references(id).await?,
        };
        store.delete(cx, &key).await.map_err(|error| self.about(error, "delete", id))?;
        for reference in references {
            store.delete(cx, &reference).await.map_err(|error| self.about_reference(error, "delete", id))?;
        }
        Ok(())
    }

    async fn refer(&self, references: &[String], operation: &'static str, id: &str) -> Result<()> {
        let object = self.format.reference();
        for key in references {
            let put = self.database.store.put(self.cx(), key, &object, PutCondition::Always).await;
            put.map_err(|error| self.about_reference(error, operation, id))?;
        }
        Ok(())
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

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.database.store
    }

    fn cx(&self) -> &Context {
        &self.database.context
    }

    /// Decodes a record, and hands its object back.
    async fn decode(&self, id: &str, object: StoredObject) -> Result<(Record, StoredObject)> {
        let id = id.to_owned();
        self.run(move |format| Ok((format.decode(&id, &object)?, object))).await
    }

    async fn encode(
        &self,
        work: impl FnOnce(&ResourceFormat) -> Result<Encoded> + Send + 'static,
    ) -> Result<Encoded> {
        self.run(work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ResourceFormat) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.slow {
            let format = self.format.clone();
            crate::store::blocking(move || work(&format)).await
        } else {
            work(&self.format)
        }
    }

    fn missing(&self, id: &str) -> Error {
        Error::new(ErrorKind::NotFound, "there is no such record")
            .with_scope(Scope::Record)
            .with_context("resource", self.name())
            .with_context("id", id)
    }

    fn about(&self, error: Error, operation: &'static str, id: &str) -> Error {
        error.with_operation(operation).with_context("resource", self.name()).with_context("id", id)
    }

    fn about_reference(&self, error: Error, operation: &'static str, id: &str) -> Error {
        self.about(error, operation, id)
            .with_context("partition reference", "not in step, the record itself is stored")
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name()).finish_non_exhaustive()
    }
}
