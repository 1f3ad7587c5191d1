//! Listing, paging, counting and reading by partition.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use s3rep_core::{Error, ErrorKind, Record, Result, SourceRow};
use serde_json::Value;

use super::Resource;
use crate::{
    format::{StoredObject, id_of_key, partition_prefix, record_key, record_prefix},
    store::{Listing, ObjectMeta, normalize},
};

/// Keys asked for at once when nothing else bounds a page.
const PAGE: usize = 8192;
/// Objects and bytes read at once: what one page of records may hold in memory.
const BATCH: usize = 1024;
pub(crate) const BATCH_BYTES: u64 = 8 << 20;
/// Records decoded in one task of the blocking threads.
const DECODE_CHUNK: usize = 256;

impl Resource {
    /// Every id, in the order of their bytes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut listing = self.database.store.list(&record_prefix(self.name())?, None)?;
        loop {
            let page = listing.page(self.cx(), PAGE).await?;
            if page.is_empty() {
                return Ok(ids);
            }
            ids.extend(page.iter().filter_map(|meta| id_of_key(&meta.key)).map(str::to_owned));
        }
    }

    /// How many records there are.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn count(&self) -> Result<u64> {
        self.count_keys(&record_prefix(self.name())?).await
    }

    /// Up to `max` records with ids after `after`, in the order of the ids' bytes; empty at the end. A record
    /// that cannot be decoded stands in the page as its error.
    ///
    /// For all records use [`Resource::records`]: it does not list anew for every page.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&self, after: Option<&str>, max: usize) -> Result<Vec<SourceRow>> {
        self.records(after)?.page(max).await
    }

    /// All records with ids after `after`, page by page.
    ///
    /// # Errors
    /// When `after` cannot stand in a key.
    pub fn records(&self, after: Option<&str>) -> Result<Records> {
        let after = after.map(|id| record_key(self.name(), id)).transpose()?;
        let listing = self.database.store.list(&record_prefix(self.name())?, after.as_deref())?;
        Ok(Records { resource: self.clone(), listing, by_partition: false, waiting: VecDeque::new() })
    }

    /// The records of a partition, by the values of its fields: all of them, or those that come first in the
    /// order of the partition's fields (their names' order). Values are compared as the partition's rules
    /// write them, and whole: `US` does not find `USA`.
    ///
    /// A record that left the partition while its reference stayed (a crash, another program) is left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such partition, [`ErrorKind::InvalidValue`] when a field is none
    /// of its fields or a value cannot stand in a key.
    pub fn by_partition(&self, partition: &str, values: &Record) -> Result<Records> {
        let prefix = self.partition_prefix(partition, values)?;
        let listing = self.database.store.list(&prefix, None)?;
        Ok(Records { resource: self.clone(), listing, by_partition: true, waiting: VecDeque::new() })
    }

    /// How many references a partition has, as [`Resource::by_partition`] without reading the records.
    ///
    /// # Errors
    /// As [`Resource::by_partition`], and when the store cannot be read.
    pub async fn count_partition(&self, partition: &str, values: &Record) -> Result<u64> {
        self.count_keys(&self.partition_prefix(partition, values)?).await
    }

    async fn count_keys(&self, prefix: &str) -> Result<u64> {
        let mut count = 0;
        let mut listing = self.database.store.list(prefix, None)?;
        loop {
            let page = listing.page(self.cx(), PAGE).await?;
            if page.is_empty() {
                return Ok(count);
            }
            count += page.len() as u64;
        }
    }

    fn partition_prefix(&self, name: &str, values: &Record) -> Result<String> {
        let partition = self.format.partition(name).ok_or_else(|| {
            let names: Vec<_> = self.format.partitions().iter().map(|partition| partition.name()).collect();
            Error::new(ErrorKind::NotFound, format!("there is no partition '{name}'"))
                .with_context("resource", self.name())
                .with_advice(format!("its partitions: [{}]", names.join(", ")))
        })?;
        let mut given: Vec<(&str, &Value)> = Vec::with_capacity(values.len());
        for (field, _) in partition.fields() {
            given.extend(values.get_key_value(field).map(|(field, value)| (field.as_str(), value)));
        }
        let leading = partition.fields().zip(&given).all(|((field, _), (given, _))| field == *given);
        if given.len() != values.len() || !leading {
            let fields: Vec<_> = partition.fields().map(|(field, _)| field).collect();
            return Err(Error::new(ErrorKind::InvalidValue, "these fields do not lead into the partition")
                .with_context("resource", self.name())
                .with_context("partition", name)
                .with_advice(format!("give values for [{}], or for the first of them", fields.join(", "))));
        }
        partition_prefix(self.name(), partition, &given)
    }

    /// Reads and decodes the records of some ids, in their order, `None` where there is none.
    pub(crate) async fn read_many(&self, ids: Vec<Arc<str>>) -> Result<Vec<Option<Decoded>>> {
        // A name that is no id, put there by somebody else, is that object's trouble alone.
        let keys: Vec<_> = ids.iter().map(|id| record_key(self.name(), id)).collect();
        let wanted: Vec<String> = keys.iter().flatten().cloned().collect();
        let mut objects = self.database.store.get_many(self.cx(), &wanted).await.into_iter();
        let mut work: Vec<_> = ids
            .into_iter()
            .zip(keys)
            .map(|(id, key)| (id, key.and_then(|_| objects.next().unwrap_or(Ok(None)))))
            .collect();
        let mut tasks = Vec::new();
        while !work.is_empty() {
            let rest = work.split_off(work.len().min(DECODE_CHUNK));
            let chunk = std::mem::replace(&mut work, rest);
            let format = self.format.clone();
            tasks.push(tokio::task::spawn_blocking(move || {
                let decode = |(id, object): (Arc<str>, Result<Option<StoredObject>>)| {
                    let record = match object {
                        Ok(None) => return None,
                        Ok(Some(object)) => format.decode(&id, &object).map_err(Failed::Undecodable),
                        Err(error) => Err(Failed::Unreadable(error)),
                    };
                    Some(Decoded { id, record })
                };
                chunk.into_iter().map(decode).collect::<Vec<_>>()
            }));
        }
        let mut decoded = Vec::new();
        for task in tasks {
            decoded.extend(task.await.map_err(crate::store::panicked)?);
        }
        Ok(decoded)
    }
}

/// A record that was looked for.
pub(crate) struct Decoded {
    pub(crate) id: Arc<str>,
    pub(crate) record: Result<Record, Failed>,
}

/// Why a record could not be had.
pub(crate) enum Failed {
    /// The store did not give the object.
    Unreadable(Error),
    /// It did, and the object is no record of this resource.
    Undecodable(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unreadable(error) | Failed::Undecodable(error) => error,
        }
    }
}

/// Records of a resource, page by page: of all of it or of a partition.
#[derive(Debug)]
pub struct Records {
    resource: Resource,
    listing: Box<dyn Listing>,
    by_partition: bool,
    /// Listed and not read yet.
    waiting: VecDeque<ObjectMeta>,
}

impl Records {
    /// The next records, at most `max`; empty at the end. A record that cannot be decoded stands there as its
    /// error; one that is deleted meanwhile is left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&mut self, max: usize) -> Result<Vec<SourceRow>> {
        let max = max.max(1);
        let mut rows = Vec::new();
        while rows.len() < max {
            if self.waiting.is_empty() {
                self.waiting = self.listing.page(self.resource.cx(), max.min(PAGE)).await?.into();
                if self.waiting.is_empty() {
                    break;
                }
            }
            let (mut bytes, mut ids, mut keys) = (0, Vec::new(), Vec::new());
            while ids.len() < BATCH.min(max - rows.len())
                && bytes < BATCH_BYTES
                && let Some(meta) = self.waiting.pop_front()
            {
                bytes += meta.size;
                if let Some(id) = id_of_key(&meta.key) {
                    ids.push(Arc::from(id));
                    keys.push(meta.key);
                }
            }
            let read = self.resource.read_many(ids).await?;
            for (found, key) in read.into_iter().zip(keys) {
                let Some(Decoded { id, record }) = found else { continue };
                if record.as_ref().is_ok_and(|record| !self.belongs(&key, &id, record)) {
                    continue;
                }
                rows.push(SourceRow { id, record: record.map(Arc::new).map_err(Error::from) });
            }
        }
        Ok(rows)
    }

    /// The records one by one, read ahead in pages of `page`. An error of the store ends the stream, one of a
    /// record does not.
    pub fn into_stream(self, page: usize) -> impl Stream<Item = Result<SourceRow>> + Send {
        stream::unfold(Some((self, VecDeque::new())), move |state| async move {
            let (mut records, mut rows) = state?;
            if rows.is_empty() {
                match records.page(page).await {
                    Ok(page) => rows = VecDeque::from(page),
                    Err(error) => return Some((Err(error), None)),
                }
            }
            let row = rows.pop_front()?;
            Some((Ok(row), Some((records, rows))))
        })
    }

    /// A reference can be of a value that the record has no more.
    fn belongs(&self, reference: &str, id: &str, record: &Record) -> bool {
        if !self.by_partition {
            return true;
        }
        let keys = self.resource.format.partition_keys(id, record).unwrap_or_default();
        keys.iter().any(|key| key == reference || normalize(key).is_ok_and(|key| key == reference))
    }
}
