//! Copies of another database's records: written and removed as they come, without hooks or events.
//!
//! A record is written last and removed last, its partition references before it. Whoever is cut off in between
//! finds the older record and does the same again: no reference stays behind.

use std::sync::Arc;

use s3rep_core::{Context, Error, ErrorKind, Record, Result, Scope};

use super::Resource;
use crate::{
    context::SecureEntropy,
    database::Database,
    format::{Encoded, ResourceFormat, Stamps, StoredObject, record_key},
    store::PutCondition,
};

/// Records encoded in one task of the blocking threads; fewer where keys are derived from passwords.
const CHUNK: usize = 256;
const SLOW_CHUNK: usize = 4;

/// A resource as a copy of another one.
#[derive(Debug)]
pub(crate) struct Replica {
    resource: Resource,
    /// Reads partition fields of records that are there. Leaves secrets closed where none is such a field:
    /// opening them takes time.
    glance: Arc<ResourceFormat>,
}

/// What is there where a copy is to be written or removed.
#[derive(Debug)]
pub(crate) struct There {
    /// `None` when it cannot be decoded.
    record: Option<Record>,
    is_current: bool,
    references: Vec<String>,
}

impl Replica {
    /// `format` is the destination's, `glance` the same with closed secrets.
    pub(crate) fn new(database: &Database, format: ResourceFormat, glance: ResourceFormat) -> Self {
        let resource = Resource::new(database.inner.clone(), Arc::new(format), None);
        let glance = if partitions_by_secret(&glance) { resource.format.clone() } else { Arc::new(glance) };
        Self { resource, glance }
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    fn has_partitions(&self) -> bool {
        !self.resource.format.partitions().is_empty()
    }

    /// Encodes records under their ids, each with its own outcome.
    pub(crate) async fn encode(&self, rows: Vec<(Arc<str>, Arc<Record>)>) -> Result<Vec<Result<Encoded>>> {
        let now = self.resource.cx().now();
        let chunk = if self.resource.slow { SLOW_CHUNK } else { CHUNK };
        let tasks: Vec<_> = rows
            .chunks(chunk)
            .map(|chunk| {
                let (format, chunk) = (self.resource.format.clone(), chunk.to_vec());
                tokio::task::spawn_blocking(move || {
                    let encode = |(id, record): (Arc<str>, Arc<Record>)| {
                        let record = with_id(&id, &record);
                        format.encode_whole(&record, Stamps::Given, &mut SecureEntropy, now)
                    };
                    chunk.into_iter().map(encode).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut encoded = Vec::with_capacity(rows.len());
        for task in tasks {
            encoded.extend(task.await.map_err(crate::store::panicked)?);
        }
        Ok(encoded)
    }

    /// What is there under these ids, as far as it matters: nothing is read for a resource without partitions.
    pub(crate) async fn look(&self, cx: &Context, ids: &[Arc<str>]) -> Vec<Result<Option<There>>> {
        if !self.has_partitions() || ids.is_empty() {
            return ids.iter().map(|_| Ok(None)).collect();
        }
        let keys: Vec<_> = ids.iter().map(|id| record_key(self.resource.name(), id)).collect();
        let wanted: Vec<String> = keys.iter().flatten().cloned().collect();
        let mut objects = self.resource.store().get_many(cx, &wanted).await.into_iter();
        let mut found = Vec::with_capacity(ids.len());
        for (id, key) in ids.iter().zip(keys) {
            found.push(match key.and_then(|_| objects.next().unwrap_or(Ok(None))) {
                Ok(Some(object)) => self.there(id, object).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            });
        }
        found
    }

    async fn there(&self, id: &str, object: StoredObject) -> Result<There> {
        let version = self.resource.format.version();
        let is_current = object.metadata.iter().any(|(name, value)| name == "_v" && value == version);
        let (glance, name) = (self.glance.clone(), Arc::<str>::from(id));
        let decode = move || glance.decode(&name, &object);
        let slow = self.resource.slow && Arc::ptr_eq(&self.glance, &self.resource.format);
        let decoded = if slow { crate::store::blocking(decode).await } else { decode() };
        let Ok(record) = decoded else {
            let references = self.resource.find_references(id).await?;
            return Ok(There { record: None, is_current, references });
        };
        // One whose values make no key has no references.
        let references = self.resource.format.partition_keys(id, &record).unwrap_or_default();
        Ok(There { record: Some(record), is_current, references })
    }

    /// Writes a record over what is there. One that is there as it should be is not written again. Its references
    /// are: an earlier batch that was cut off may have moved them for a value that was overtaken since.
    pub(crate) async fn write(
        &self,
        cx: &Context,
        id: &str,
        encoded: &Encoded,
        there: Option<&There>,
    ) -> Result<()> {
        let (store, format) = (self.resource.store(), &self.resource.format);
        let key = record_key(self.resource.name(), id)?;
        let references = format.partition_keys(id, &encoded.record)?;
        let reference = format.reference();
        for key in &references {
            store.put(cx, key, &reference, PutCondition::Always).await?;
        }
        for key in there.into_iter().flat_map(|there| &there.references) {
            if !references.contains(key) {
                store.delete(cx, key).await?;
            }
        }
        if there.is_some_and(|there| self.is_there(encoded, there)) {
            return Ok(());
        }
        store.put(cx, &key, &encoded.object, PutCondition::Always).await
    }

    /// The same record, written under the current version: then its references are of that version too.
    /// Secrets are closed at a glance, so that a record with some is always written.
    fn is_there(&self, encoded: &Encoded, there: &There) -> bool {
        !self.resource.slow && there.is_current && there.record.as_ref() == Some(&encoded.record)
    }

    /// Removes records with their references, each with its own outcome. One that is not there, or cannot be
    /// anywhere, is removed already.
    pub(crate) async fn remove(&self, cx: &Context, ids: &[Arc<str>]) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(ids.len());
        let (mut references, mut reference_owners) = (Vec::new(), Vec::new());
        for (at, there) in self.look(cx, ids).await.into_iter().enumerate() {
            if let Ok(Some(there)) = &there {
                references.extend(there.references.iter().cloned());
                reference_owners.extend(there.references.iter().map(|_| at));
            }
            outcomes.push(there.map(drop));
        }
        self.delete(cx, &references, &reference_owners, &mut outcomes).await;
        let (mut keys, mut owners) = (Vec::new(), Vec::new());
        for (at, id) in ids.iter().enumerate() {
            if outcomes.get(at).is_none_or(Result::is_err) {
                continue;
            }
            match record_key(self.resource.name(), id) {
                Ok(key) => {
                    keys.push(key);
                    owners.push(at);
                }
                Err(_) => continue,
            }
        }
        self.delete(cx, &keys, &owners, &mut outcomes).await;
        outcomes.into_iter().map(|outcome| outcome.or_else(cannot_be_there)).collect()
    }

    async fn delete(&self, cx: &Context, keys: &[String], owners: &[usize], outcomes: &mut [Result<()>]) {
        if keys.is_empty() {
            return;
        }
        let deleted = self.resource.store().delete_many(cx, keys).await;
        for (at, outcome) in owners.iter().zip(deleted) {
            if let (Some(place), Err(error)) = (outcomes.get_mut(*at), outcome) {
                *place = Err(error);
            }
        }
    }
}

/// The record under its id, whatever it says itself.
pub(crate) fn with_id(id: &str, record: &Record) -> Record {
    let mut record = record.clone();
    record.insert("id".to_owned(), id.into());
    record
}

/// A key that the store cannot hold has no object.
fn cannot_be_there(error: Error) -> Result<()> {
    let impossible = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::TooLarge);
    if impossible && error.scope() == Scope::Record && !error.is_temporary() { Ok(()) } else { Err(error) }
}

fn partitions_by_secret(format: &ResourceFormat) -> bool {
    let fields = format.partitions().iter().flat_map(|partition| partition.fields());
    fields.map(|(field, _)| field.split('.').next().unwrap_or(field)).any(|field| {
        let attribute = format.schema().attribute(field);
        attribute.is_some_and(|attribute| attribute.definition.to_string().contains("secret"))
    })
}
