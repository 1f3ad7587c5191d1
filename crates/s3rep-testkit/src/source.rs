//! A database in memory that is followed: the source of the engine's tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use s3rep_core::{
    Capture, Change, ChangeId, Context, Error, ErrorKind, Operation, PassReport, Record, ResourceSchema,
    Result, Scope, SnapshotRows, Source, SourceCapability, SourceRow, SourceState, StateWrite,
};
use serde_json::Value;

/// A database in memory. Cheap to clone: one clone is the source, another the handle that writes.
///
/// Sees what a listing shows: the latest version of each record at each pass, deletes by absence. What it has
/// seen is remembered in the log's source state, so a new process (another clone over the same log) goes on
/// where the last one was cut off.
///
/// ```
/// use s3rep_testkit::source::MemorySource;
/// use serde_json::json;
/// let db = MemorySource::new();
/// db.create("cars", &json!({"model": "string|required", "year": "number"}));
/// db.insert("cars", "car-1", json!({"model": "Fiesta", "year": 1976}));
/// db.update("cars", "car-1", json!({"model": "Fiesta", "year": 1977}));
/// db.delete("cars", "car-1");
/// ```
#[derive(Clone)]
pub struct MemorySource {
    database: Arc<Mutex<Database>>,
    interval: Duration,
    page: usize,
}

#[derive(Default)]
struct Database {
    resources: BTreeMap<String, Resource>,
    /// Grows with every write: the version token of a record.
    version: u64,
    failures: VecDeque<Error>,
    passes: u64,
}

struct Resource {
    schema: Arc<ResourceSchema>,
    rows: BTreeMap<String, Row>,
    undecodable: BTreeSet<String>,
}

#[derive(Clone)]
struct Row {
    version: u64,
    record: Arc<Record>,
}

/// What the state remembers of a record: its version and the last change captured of it.
struct Known {
    version: u64,
    last: ChangeId,
}

impl Known {
    fn read(bytes: &[u8]) -> Result<Self> {
        let version = bytes.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let last = bytes.get(8..).and_then(|b| b.try_into().ok()).map(ChangeId);
        version
            .zip(last)
            .map(|(version, last)| Self { version, last })
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the state of the source cannot be read"))
    }

    fn write(&self) -> Vec<u8> {
        [&self.version.to_le_bytes()[..], &self.last.0].concat()
    }
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySource {
    /// An empty database, to be looked at every 10 ms, handed over in pages of 100.
    pub fn new() -> Self {
        Self { database: Arc::default(), interval: Duration::from_millis(10), page: 100 }
    }

    /// The same with another interval between passes.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The same with pages of at most `page` changes.
    #[must_use]
    pub fn with_page(mut self, page: usize) -> Self {
        self.page = page.max(1);
        self
    }

    /// Creates a resource, or changes its definition: the version grows, the records stay.
    ///
    /// # Panics
    /// When `attributes` is not a definition.
    pub fn create(&self, resource: &str, attributes: &Value) {
        let mut database = self.lock();
        let known = database.resources.remove(resource);
        let version = known.as_ref().map_or(1, |known| {
            known.schema.version.trim_start_matches('v').parse::<u32>().expect("a version such as v1") + 1
        });
        let attributes = attributes.as_object().expect("a definition is an object");
        let schema =
            ResourceSchema::parse(resource, &format!("v{version}"), attributes).expect("a valid definition");
        let (rows, undecodable) = known.map(|known| (known.rows, known.undecodable)).unwrap_or_default();
        database
            .resources
            .insert(resource.to_owned(), Resource { schema: Arc::new(schema), rows, undecodable });
    }

    /// Inserts a record, or replaces the one that is there.
    ///
    /// # Panics
    /// When there is no such resource or the record is not an object.
    pub fn insert(&self, resource: &str, id: &str, record: Value) {
        let Value::Object(record) = record else { panic!("a record is an object") };
        self.put(resource, id, record);
    }

    /// As [`MemorySource::insert`]: a source of listings cannot tell them apart.
    ///
    /// # Panics
    /// As [`MemorySource::insert`].
    pub fn update(&self, resource: &str, id: &str, record: Value) {
        self.insert(resource, id, record);
    }

    /// Inserts or replaces a record.
    ///
    /// # Panics
    /// When there is no such resource.
    pub fn put(&self, resource: &str, id: &str, record: Record) {
        let mut database = self.lock();
        database.version += 1;
        let row = Row { version: database.version, record: Arc::new(record) };
        database.resource(resource).rows.insert(id.to_owned(), row);
    }

    /// Deletes a record if it is there.
    ///
    /// # Panics
    /// When there is no such resource.
    pub fn delete(&self, resource: &str, id: &str) {
        self.lock().resource(resource).rows.remove(id);
    }

    /// From now on a record cannot be decoded, or can be again.
    ///
    /// # Panics
    /// When there is no such resource.
    pub fn set_undecodable(&self, resource: &str, id: &str, undecodable: bool) {
        let mut database = self.lock();
        let broken = &mut database.resource(resource).undecodable;
        if undecodable {
            broken.insert(id.to_owned())
        } else {
            broken.remove(id)
        };
    }

    /// The next call that reads the database ends with `error`; several queue up.
    pub fn fail_next(&self, error: Error) {
        self.lock().failures.push_back(error);
    }

    /// The current records of a resource, for comparison.
    pub fn rows(&self, resource: &str) -> BTreeMap<String, Arc<Record>> {
        let database = self.lock();
        let rows = database.resources.get(resource).into_iter().flat_map(|resource| &resource.rows);
        rows.map(|(id, row)| (id.clone(), row.record.clone())).collect()
    }

    /// The schema of a resource.
    pub fn schema(&self, resource: &str) -> Option<Arc<ResourceSchema>> {
        self.lock().resources.get(resource).map(|resource| resource.schema.clone())
    }

    /// How many passes were completed.
    pub fn passes(&self) -> u64 {
        self.lock().passes
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `max` rows after an id, each with its content or `None` when it cannot be decoded.
    fn list(&self, resource: &str, after: Option<&str>, max: usize) -> Result<Vec<(String, Row, bool)>> {
        let mut database = self.lock();
        if let Some(error) = database.failures.pop_front() {
            return Err(error);
        }
        let Some(resource) = database.resources.get(resource) else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such resource")
                .with_context("resource", resource));
        };
        Ok(resource
            .rows
            .range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded))
            .take(max)
            .map(|(id, row)| (id.clone(), row.clone(), !resource.undecodable.contains(id)))
            .collect())
    }
}

impl Database {
    fn resource(&mut self, name: &str) -> &mut Resource {
        self.resources.get_mut(name).unwrap_or_else(|| panic!("there is no resource {name}"))
    }
}

fn space(resource: &str) -> String {
    format!("memory:{resource}")
}

fn undecodable() -> Error {
    Error::new(ErrorKind::Corrupt, "the record cannot be decoded")
        .with_scope(Scope::Record)
        .with_advice("write it again")
}

/// The change that a difference between listing and state amounts to, with the write that remembers it.
fn difference(
    cx: &Context,
    schema: &ResourceSchema,
    id: &str,
    row: Option<&Row>,
    known: Option<&Known>,
) -> Option<(Change, StateWrite, ChangeId)> {
    let operation = match (row, known) {
        (Some(row), Some(known)) if row.version == known.version => return None,
        (Some(_), Some(_)) => Operation::Update,
        (Some(_), None) => Operation::Insert,
        (None, Some(_)) => Operation::Delete,
        (None, None) => return None,
    };
    let version = row.map_or(0, |row| row.version);
    let change_id =
        ChangeId::derive(&schema.name, id, operation, &version.to_le_bytes(), known.map(|known| known.last));
    let write = StateWrite {
        space: space(&schema.name),
        key: id.to_owned(),
        value: row.map(|row| Known { version: row.version, last: change_id }.write()),
    };
    Some((change(cx, schema, id, operation, change_id, row), write, change_id))
}

fn change(
    cx: &Context,
    schema: &ResourceSchema,
    id: &str,
    operation: Operation,
    change_id: ChangeId,
    row: Option<&Row>,
) -> Change {
    Change {
        change_id,
        resource: schema.name.clone(),
        id: id.into(),
        operation,
        data: row.map(|row| row.record.clone()),
        before: None,
        timestamp: cx.now(),
        schema_version: schema.version.clone(),
        target: None,
    }
}

#[async_trait]
impl Source for MemorySource {
    fn capability(&self) -> SourceCapability {
        SourceCapability::LATEST_ONLY
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn resources(&self, _: &Context) -> Result<Vec<Arc<ResourceSchema>>> {
        let mut database = self.lock();
        match database.failures.pop_front() {
            Some(error) => Err(error),
            None => Ok(database.resources.values().map(|resource| resource.schema.clone()).collect()),
        }
    }

    async fn pass(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
    ) -> Result<PassReport> {
        let mut report = PassReport::default();
        for schema in self.resources(cx).await? {
            let rows = self.list(&schema.name, None, usize::MAX)?;
            let mut known = scan_all(cx, state, &space(&schema.name)).await?;
            let (mut changes, mut writes) = (Vec::new(), Vec::new());
            let mut found = Vec::new();
            for (id, row, decodable) in rows {
                report.seen += 1;
                let known = known.remove(&id);
                if decodable {
                    found.extend(difference(cx, &schema, &id, Some(&row), known.as_ref()));
                } else {
                    report.undecodable += 1;
                    capture.undecodable(&schema.name, &id, undecodable()).await;
                }
            }
            found.extend(known.iter().filter_map(|(id, k)| difference(cx, &schema, id, None, Some(k))));
            report.captured += found.len() as u64;
            for (change, write, _) in found {
                changes.push(change);
                writes.push(write);
                if changes.len() == self.page {
                    capture.page(std::mem::take(&mut changes), std::mem::take(&mut writes)).await?;
                }
            }
            if !changes.is_empty() {
                capture.page(changes, writes).await?;
            }
        }
        self.lock().passes += 1;
        Ok(report)
    }

    async fn snapshot(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
        rows: SnapshotRows<'_>,
    ) -> Result<Option<String>> {
        let schema = self.schema(rows.resource).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such resource")
                .with_context("resource", rows.resource)
        })?;
        let listed = self.list(rows.resource, rows.after, rows.max)?;
        let Some(last) = listed.last().map(|(id, ..)| id.clone()) else { return Ok(None) };
        let (mut changes, mut writes) = (Vec::new(), Vec::new());
        for (id, row, decodable) in listed {
            if !decodable {
                capture.undecodable(&schema.name, &id, undecodable()).await;
                continue;
            }
            let known = match state.get(cx, &space(&schema.name), &id).await? {
                Some(bytes) => Some(Known::read(&bytes)?),
                None => None,
            };
            let mut previous = known.as_ref().map(|known| known.last);
            if let Some((change, write, change_id)) = difference(cx, &schema, &id, Some(&row), known.as_ref())
            {
                changes.push(change);
                writes.push(write);
                previous = Some(change_id);
            }
            // Every snapshot reads anew: were the id the same for the same content, the log would take the rows
            // of a second snapshot for duplicates of the first.
            let token = [row.version.to_le_bytes(), cx.random().to_le_bytes()].concat();
            let change_id = ChangeId::derive(&schema.name, &id, Operation::Read, &token, previous);
            let mut read = change(cx, &schema, &id, Operation::Read, change_id, Some(&row));
            read.target = Some(rows.target.clone());
            changes.push(read);
        }
        writes.push((rows.progress)(&last));
        capture.page(changes, writes).await?;
        Ok(Some(last))
    }

    async fn records(
        &self,
        _: &Context,
        resource: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<SourceRow>> {
        let listed = self.list(resource, after, max)?;
        Ok(listed
            .into_iter()
            .map(|(id, row, decodable)| SourceRow {
                id: id.into(),
                record: if decodable { Ok(row.record) } else { Err(undecodable()) },
            })
            .collect())
    }

    async fn record(&self, cx: &Context, resource: &str, id: &str) -> Result<Option<Arc<Record>>> {
        let rows = self.records(cx, resource, None, usize::MAX).await?;
        rows.into_iter().find(|row| &*row.id == id).map(|row| row.record).transpose()
    }
}

async fn scan_all(cx: &Context, state: &dyn SourceState, space: &str) -> Result<BTreeMap<String, Known>> {
    const PAGE: usize = 1_000;
    let mut known = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = state.scan(cx, space, after.as_deref(), PAGE).await?;
        let ended = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, value) in page {
            known.insert(key, Known::read(&value)?);
        }
        if ended {
            return Ok(known);
        }
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemorySource")
    }
}
