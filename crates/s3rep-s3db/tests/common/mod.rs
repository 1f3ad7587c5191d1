//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]
#![allow(unreachable_pub, reason = "a module of each test binary")]

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    ops::Bound::{Excluded, Unbounded},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use s3rep_core::{
    Capture, Change, Context, Error, ErrorKind, Operation, PassReport, Record, Result, Source, SourceState,
    StateWrite,
};
use s3rep_s3db::{Database, DatabaseOptions, FileStore, MemoryStore, ObjectStore, Resource, ResourceConfig};
use serde_json::Value;

pub fn cx() -> Context {
    DatabaseOptions::default().context
}

pub fn record(value: Value) -> Record {
    match value {
        Value::Object(record) => record,
        other => panic!("no record: {other}"),
    }
}

pub fn config(value: Value) -> ResourceConfig {
    serde_json::from_value(value).expect("a resource configuration")
}

/// A file of the repository's shared test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// The real database, unpacked: keep the first, use the second.
pub fn open_data() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let packed = flate2::read::GzDecoder::new(File::open(data("open-data.tar.gz")).unwrap());
    tar::Archive::new(packed).unpack(directory.path()).unwrap();
    let base = directory.path().join("bucket/databases/open-data");
    (directory, base)
}

pub fn creating() -> DatabaseOptions {
    DatabaseOptions { create: true, ..DatabaseOptions::default() }
}

/// An empty database in files and one in memory.
pub async fn both() -> Vec<(&'static str, Option<tempfile::TempDir>, Database)> {
    let directory = tempfile::tempdir().unwrap();
    let files: Arc<dyn ObjectStore> = Arc::new(FileStore::new(directory.path()));
    let memory: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    vec![
        ("files", Some(directory), Database::open(files, creating()).await.unwrap()),
        ("memory", None, Database::open(memory, creating()).await.unwrap()),
    ]
}

/// Every key of a store.
pub async fn keys(database: &Database) -> Vec<String> {
    let mut listing = database.store().list("", None).unwrap();
    let mut keys = Vec::new();
    loop {
        let page = listing.page(&cx(), 7).await.unwrap();
        if page.is_empty() {
            return keys;
        }
        keys.extend(page.into_iter().map(|meta| meta.key));
    }
}

/// All records of a resource by id.
pub async fn all(resource: &Resource) -> BTreeMap<String, Record> {
    let mut records = resource.records(None).unwrap();
    let mut all = BTreeMap::new();
    loop {
        let page = records.page(1000).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page.into_iter().map(|row| (row.id.to_string(), (*row.record.unwrap()).clone())));
    }
}

/// State of a source in memory, written only by whole pages.
#[derive(Debug, Default)]
pub struct State(Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>);

impl State {
    fn write(&self, writes: Vec<StateWrite>) {
        let mut spaces = self.0.lock().unwrap();
        for StateWrite { space, key, value } in writes {
            let space = spaces.entry(space).or_default();
            match value {
                Some(value) => space.insert(key, value),
                None => space.remove(&key),
            };
        }
    }

    pub fn len(&self, space: &str) -> usize {
        self.0.lock().unwrap().get(space).map_or(0, BTreeMap::len)
    }
}

#[async_trait]
impl SourceState for State {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let spaces = self.0.lock().unwrap();
        let Some(space) = spaces.get(space) else { return Ok(Vec::new()) };
        let from = after.map_or(Unbounded, Excluded);
        Ok(space.range::<str, _>((from, Unbounded)).take(max).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(space).and_then(|space| space.get(key)).cloned())
    }
}

/// Takes what a source captured, and checks that it makes sense: ids are unique, every change fits on the one
/// before it, pages are bounded.
#[derive(Debug, Default)]
pub struct Log {
    pub state: Arc<State>,
    pub changes: Vec<Change>,
    pub undecodable: Vec<(String, String, String)>,
    /// The database as the changes tell it.
    pub fold: BTreeMap<(String, String), Record>,
    pub ids: HashSet<String>,
    /// Pages to take before one is refused.
    pub fail_after: Option<usize>,
}

impl Log {
    /// Makes a pass and returns its changes.
    pub async fn pass(&mut self, source: &dyn Source) -> Result<Vec<Change>> {
        let before = self.changes.len();
        self.report(source).await?;
        Ok(self.changes[before..].to_vec())
    }

    pub async fn report(&mut self, source: &dyn Source) -> Result<PassReport> {
        let before = self.changes.len();
        let state = self.state.clone();
        let report = source.pass(&cx(), &*state, self).await;
        let mut seen = HashSet::new();
        for change in &self.changes[before..] {
            assert!(seen.insert((change.resource.clone(), change.id.clone())), "twice in a pass: {change:?}");
        }
        if let Ok(report) = &report {
            assert_eq!(report.captured as usize, self.changes.len() - before);
        }
        report
    }

    fn apply(&mut self, change: &Change) {
        assert!(self.ids.insert(change.change_id.to_string()), "the id is not new: {change:?}");
        let key = (change.resource.to_string(), change.id.to_string());
        let data = change.data.as_deref().expect("data").clone();
        if change.target.is_some() {
            assert_eq!(self.fold.get(&key), Some(&data), "a row is as new as the change before it");
            return;
        }
        let before = change.before.as_deref().cloned();
        match change.operation {
            Operation::Insert | Operation::Read => {
                assert_eq!(before, None);
                assert_eq!(self.fold.insert(key, data), None, "inserted twice: {change:?}");
            }
            Operation::Update => {
                assert_ne!(before.as_ref(), Some(&data), "nothing changed: {change:?}");
                assert_eq!(self.fold.insert(key, data), before, "before: {change:?}");
            }
            Operation::Delete => assert_eq!(self.fold.remove(&key), Some(data), "{change:?}"),
        }
    }

    /// The records of a resource as the changes tell it.
    pub fn rows(&self, resource: &str) -> BTreeMap<String, Record> {
        let rows = self.fold.iter().filter(|((of, _), _)| of == resource);
        rows.map(|((_, id), record)| (id.clone(), record.clone())).collect()
    }
}

#[async_trait]
impl Capture for Log {
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()> {
        assert!(changes.len() <= 1000, "{}", changes.len());
        if let Some(pages) = &mut self.fail_after {
            if *pages == 0 {
                self.fail_after = None;
                return Err(Error::new(ErrorKind::StorageFull, "the test refuses this page"));
            }
            *pages -= 1;
        }
        for change in &changes {
            self.apply(change);
        }
        self.changes.extend(changes);
        self.state.write(state);
        Ok(())
    }

    async fn undecodable(&mut self, resource: &str, id: &str, error: Error) {
        self.undecodable.push((resource.to_owned(), id.to_owned(), error.report()));
    }
}

pub fn operations(changes: &[Change]) -> Vec<(Operation, String)> {
    changes.iter().map(|change| (change.operation, change.id.to_string())).collect()
}

/// Makes a record's object one that cannot be decoded: a body that is no JSON.
pub async fn spoil(database: &Database, resource: &str, id: &str) {
    let key = s3rep_s3db::record_key(resource, id).unwrap();
    let object = s3rep_s3db::StoredObject {
        metadata: vec![("_v".into(), "v1".into()), ("_overflow".into(), "true".into())],
        body: bytes::Bytes::from_static(b"{\"0\": no json"),
        content_type: None,
    };
    database.store().put(&cx(), &key, &object, s3rep_s3db::PutCondition::Always).await.unwrap();
}
