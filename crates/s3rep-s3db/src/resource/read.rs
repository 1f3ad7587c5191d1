//! Reading many records: keys are listed, objects read and decoded in batches.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use s3rep_core::{Error, Record, Result, SourceRow};
use serde::de::DeserializeOwned;

use super::{Query, Resource};
use crate::{
    format::{StoredObject, id_of_key, record_key},
    hooks::{Action, When},
    store::{Listing, ObjectMeta},
};

/// Keys asked for at once when nothing else bounds a page.
const PAGE: usize = 8192;
/// Objects and bytes read at once: what one page of records may hold in memory.
const BATCH: usize = 1024;
pub(crate) const BATCH_BYTES: u64 = 8 << 20;
/// With a filter nobody knows how many objects there are to read for a record: batches begin with so many and
/// double, so that a small answer costs few reads and a large one few rounds.
const FIRST_BATCH: usize = 64;
/// Records decoded in one task of the blocking threads.
const DECODE_CHUNK: usize = 256;

impl Resource {
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
        match after {
            Some(id) => self.list().after(id).rows(),
            None => self.list().rows(),
        }
    }

    /// The records of these ids in their order, `None` where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`](s3rep_core::ErrorKind::InvalidValue) when an id cannot stand in a key or a record
    /// is no `T`; [`ErrorKind::Corrupt`](s3rep_core::ErrorKind::Corrupt) when one cannot be decoded; both name it.
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        ids: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Vec<Option<T>>> {
        let ids: Vec<Arc<str>> = ids.into_iter().map(|id| Arc::from(id.as_ref())).collect();
        let mut records = Vec::with_capacity(ids.len());
        for id in ids.iter().filter(|_| self.hooks.has(When::Before, Action::Get)) {
            let call = self.call(Action::Get, Some(id.clone()), Record::new(), None);
            self.hooked(When::Before, call).await?;
        }
        for batch in ids.chunks(BATCH) {
            let found = self.read_many(batch.to_vec()).await?;
            for (id, found) in batch.iter().zip(found) {
                let Some(found) = found else {
                    records.push(None);
                    continue;
                };
                let record = found.record.map_err(|failed| self.about(failed.into(), "read", id))?;
                let record = self.read_hooked(Action::Get, id, record).await?;
                records.push(Some(self.typed(id, record)?));
            }
        }
        Ok(records)
    }

    /// The record as the hooks after reading leave it.
    pub(super) async fn read_hooked(&self, action: Action, id: &Arc<str>, record: Record) -> Result<Record> {
        if !self.hooks.has(When::After, action) {
            return Ok(record);
        }
        self.hooked(When::After, self.call(action, Some(id.clone()), record, None)).await
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

/// Keys of records, or of references to them, page by page.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) listing: Box<dyn Listing>,
    pub(super) query: Query,
}

impl Keys {
    /// The next keys that can lead to a record that is wanted, at most `max`; empty at the end.
    pub(super) async fn page(&mut self, max: usize) -> Result<Vec<ObjectMeta>> {
        loop {
            let mut page = self.listing.page(self.query.resource().cx(), max.min(PAGE)).await?;
            let end = page.is_empty();
            page.retain(|meta| self.query.wants_key(&meta.key));
            if end || !page.is_empty() {
                return Ok(page);
            }
        }
    }
}

/// Records of a [`Query`], page by page, one that cannot be decoded as its error.
#[derive(Debug)]
pub struct Records {
    keys: Keys,
    /// Listed and not read yet.
    waiting: VecDeque<ObjectMeta>,
    /// Read and not given out yet, with their keys.
    ready: VecDeque<(String, SourceRow)>,
    /// The last key that was looked at.
    looked_at: Option<String>,
    /// How many the query still wants.
    left: usize,
    batch: usize,
}

impl Records {
    pub(super) fn new(query: Query, keys: Keys) -> Self {
        Self {
            left: query.most(),
            batch: if query.has_filter() { FIRST_BATCH } else { BATCH },
            keys,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            looked_at: None,
        }
    }

    /// The next records, at most `max`; empty at the end. A record that cannot be decoded stands there as its
    /// error; one that is deleted meanwhile is left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&mut self, max: usize) -> Result<Vec<SourceRow>> {
        let max = max.max(1).min(self.left);
        let mut rows = Vec::new();
        while rows.len() < max {
            match self.take() {
                Some(row) => rows.push(row),
                None if self.read(max - rows.len(), max).await? => {}
                None => break,
            }
        }
        Ok(rows)
    }

    /// The records one by one, read ahead by `page`. An error of the store ends the stream, one of a record does
    /// not.
    pub fn into_stream(self, page: usize) -> impl Stream<Item = Result<SourceRow>> + Send {
        stream::unfold(Some(self), move |records| async move {
            let mut records = records?;
            loop {
                if let Some(row) = records.take() {
                    return Some((Ok(row), Some(records)));
                }
                match records.read(page, PAGE).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
    }

    fn take(&mut self) -> Option<SourceRow> {
        if self.left == 0 {
            return None;
        }
        let (key, row) = self.ready.pop_front()?;
        self.looked_at = Some(key);
        self.left -= 1;
        Some(row)
    }

    /// Lists the next keys, so that [`Records::end`] needs no listing of its own.
    pub(super) async fn look_ahead(&mut self, keys: usize) -> Result<()> {
        if self.waiting.is_empty() {
            self.waiting = self.keys.page(keys).await?.into();
        }
        Ok(())
    }

    /// The key after which there is more; none at the end.
    pub(super) async fn end(&mut self) -> Result<Option<String>> {
        if self.ready.is_empty() {
            self.look_ahead(1).await?;
        }
        let more = !(self.ready.is_empty() && self.waiting.is_empty());
        Ok(self.looked_at.clone().filter(|_| more))
    }

    /// Reads the next objects, as many as `wanted` records may need, `keys` of them listed at once; false at the
    /// end.
    async fn read(&mut self, wanted: usize, keys: usize) -> Result<bool> {
        let wanted = wanted.min(self.left);
        if wanted == 0 {
            return Ok(false);
        }
        let filtered = self.keys.query.has_filter();
        self.look_ahead(if filtered { PAGE } else { keys.min(self.left) }).await?;
        let most = if filtered { self.batch } else { self.batch.min(wanted) };
        let (mut bytes, mut ids, mut keys) = (0, Vec::new(), Vec::new());
        while ids.len() < most
            && bytes < BATCH_BYTES
            && let Some(meta) = self.waiting.pop_front()
        {
            bytes += meta.size;
            if let Some(id) = id_of_key(&meta.key) {
                ids.push(Arc::from(id));
                keys.push(meta.key);
            }
        }
        self.batch = (self.batch * 2).min(BATCH);
        let Some(last) = keys.last().cloned() else { return Ok(false) };
        let query = &self.keys.query;
        let read = query.resource().read_many(ids).await?;
        for (found, key) in read.into_iter().zip(keys) {
            let Some(Decoded { id, record }) = found else { continue };
            if record.as_ref().is_ok_and(|record| !query.wants(&key, &id, record)) {
                continue;
            }
            let about = |failed: Failed| query.resource().about(failed.into(), "read", &id);
            self.ready
                .push_back((key, SourceRow { record: record.map(Arc::new).map_err(about), id: id.clone() }));
        }
        if self.ready.is_empty() {
            self.looked_at = Some(last);
        }
        Ok(true)
    }
}
