//! The tail source: what it captures, and what it does not take for a change.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{fs, path::Path, sync::Arc};

use async_trait::async_trait;
use common::{Log, all, both, config, creating, cx, open_data, operations, record, spoil};
use s3rep_core::{
    Context, ErrorKind, Operation, Result, SnapshotRows, Source, SourceState, StateWrite, Timestamp,
};
use s3rep_s3db::{
    BodyChange, Database, DatabaseOptions, FileOptions, FileStore, Followed, Listing, MemoryStore,
    ObjectMeta, ObjectStore, PutCondition, Resource, StoredObject, TailOptions, TailSource,
};
use serde_json::json;

use Operation::{Delete, Insert, Read, Update};

async fn notes(database: &Database) -> Resource {
    let attributes = json!({"text": "string|required", "n": "number|optional"});
    let notes = json!({"name": "notes", "attributes": attributes, "behavior": "body-overflow"});
    database.create_resource(&config(notes)).await.unwrap()
}

fn tail(database: &Database) -> TailSource {
    TailSource::new(database.clone(), TailOptions::default())
}

fn is(expected: &[(Operation, &str)]) -> Vec<(Operation, String)> {
    expected.iter().map(|(operation, id)| (*operation, (*id).to_owned())).collect()
}

async fn put(resource: &Resource, id: &str, text: &str) {
    if resource.exists(id).await.unwrap() {
        resource.update(id, record(json!({"text": text}))).await.unwrap();
    } else {
        resource.insert(record(json!({"id": id, "text": text}))).await.unwrap();
    }
}

#[tokio::test]
async fn the_real_database_is_captured_once_and_then_followed() {
    let (_directory, base) = open_data();
    let database = Database::open(Arc::new(FileStore::new(&base)), DatabaseOptions::default()).await.unwrap();
    let tail = tail(&database);
    let mut log = Log::default();
    let first = log.report(&tail).await.unwrap();
    assert_eq!((first.seen, first.captured, first.undecodable), (5_243, 5_243, 0));
    assert!(log.changes.iter().all(|change| change.operation == Read && change.target.is_none()));
    for name in database.resources() {
        assert_eq!(log.rows(&name), all(&database.resource(&name).unwrap()).await, "{name}");
    }
    let second = log.report(&tail).await.unwrap();
    assert_eq!((second.seen, second.captured), (5_243, 0));

    let cars = database.resource("cars").unwrap();
    let before = cars.get("car-007").await.unwrap();
    let after = cars.update("car-007", record(json!({"name": "other"}))).await.unwrap();
    cars.delete("car-010").await.unwrap();
    cars.insert(record(
        json!({"id": "car-0101", "name": "n", "cylinders": 4, "weight_lbs": 1, "acceleration": 1,
        "year": "1970-01-01", "origin": "USA"}),
    ))
    .await
    .unwrap();
    let now = log.pass(&tail).await.unwrap();
    assert_eq!(operations(&now), is(&[(Update, "car-007"), (Delete, "car-010"), (Insert, "car-0101")]));
    assert_eq!((now[0].before.as_deref(), now[0].data.as_deref()), (Some(&before), Some(&after)));
    assert_eq!(&*now[0].schema_version, "v1");
    assert!(Timestamp(0) < now[0].timestamp && now[0].timestamp <= cx().now());
    assert_eq!(tail.resources(&cx()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_happens_between_two_passes_is_one_change() {
    for (name, _directory, database) in both().await {
        let notes = notes(&database).await;
        let (tail, mut log) = (tail(&database), Log::default());
        for id in ["a", "b", "c", "d"] {
            put(&notes, id, "1").await;
        }
        assert_eq!(log.pass(&tail).await.unwrap().len(), 4);
        // Deleted and back with other content: an update. With the same content: nothing.
        notes.delete("a").await.unwrap();
        put(&notes, "a", "2").await;
        notes.delete("b").await.unwrap();
        put(&notes, "b", "1").await;
        // There and back: nothing.
        put(&notes, "c", "2").await;
        put(&notes, "c", "1").await;
        notes.delete("d").await.unwrap();
        put(&notes, "e", "1").await;
        notes.delete("e").await.unwrap();
        let now = log.pass(&tail).await.unwrap();
        assert_eq!(operations(&now), is(&[(Update, "a"), (Delete, "d")]), "{name}");
        // Back after its delete was seen; a change id of its own although the content is an old one.
        put(&notes, "d", "1").await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Insert, "d")]));
        assert_eq!(log.pass(&tail).await.unwrap(), []);
        assert_eq!(log.rows("notes"), all(&notes).await);
    }
}

#[tokio::test]
async fn a_first_pass_that_is_cut_off_goes_on_and_ends_the_snapshot_once() {
    for (_, _directory, database) in both().await {
        let notes = notes(&database).await;
        for n in 0..2600 {
            put(&notes, &format!("{n:04}"), "1").await;
        }
        let (tail, mut log) = (tail(&database), Log { fail_after: Some(2), ..Log::default() });
        assert_eq!(log.pass(&tail).await.unwrap_err().kind(), ErrorKind::StorageFull);
        let taken = log.changes.len();
        assert!((900..2600).contains(&taken), "{taken}");
        // Another process goes on, with the state alone.
        let tail = TailSource::new(database.clone(), TailOptions { batch: 100, ..TailOptions::default() });
        assert_eq!(log.pass(&tail).await.unwrap().len(), 2600 - taken);
        assert!(log.changes.iter().all(|change| change.operation == Read));
        put(&notes, "new", "1").await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Insert, "new")]));
    }
}

#[tokio::test]
async fn resources_come_and_go() {
    for (_, _directory, database) in both().await {
        let log_config = config(json!({"name": "plg_log", "attributes": {"text": "string"}}));
        let plugin = database.create_resource(&log_config).await.unwrap();
        plugin.insert(record(json!({"id": "x", "text": "t"}))).await.unwrap();
        let (tail, mut log) = (tail(&database), Log::default());
        assert_eq!(log.pass(&tail).await.unwrap(), []);
        assert_eq!(tail.resources(&cx()).await.unwrap(), []);
        // Created while it is followed: its records are inserts.
        let notes = notes(&database).await;
        put(&notes, "a", "1").await;
        put(&notes, "b", "1").await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Insert, "a"), (Insert, "b")]));
        // Gone from a document that is whole: so are its records.
        let mut document = database.document();
        assert!(document.remove_resource("notes"));
        let body = StoredObject { body: document.to_bytes().into(), ..StoredObject::default() };
        database.store().put(&cx(), "s3db.json", &body, PutCondition::Always).await.unwrap();
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Delete, "a"), (Delete, "b")]));
        assert_eq!(log.pass(&tail).await.unwrap(), []);
        // One that is named is followed, whatever its name; it was there before.
        let named = TailOptions {
            followed: Followed::Named(["plg_log".to_owned()].into()),
            ..TailOptions::default()
        };
        let named = TailSource::new(database.clone(), named);
        assert_eq!(operations(&log.pass(&named).await.unwrap()), is(&[(Read, "x")]));
    }
}

#[tokio::test]
async fn a_damaged_s3db_json_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let open = |options| Database::open(Arc::new(FileStore::new(directory.path())), options);
    let database = open(creating()).await.unwrap();
    let notes = notes(&database).await;
    put(&notes, "a", "1").await;
    let mut log = Log::default();
    log.pass(&tail(&database)).await.unwrap();

    let (file, sidecar) = (directory.path().join("s3db.json"), directory.path().join("s3db.json.meta.json"));
    let (text, beside) = (fs::read(&file).unwrap(), fs::read(&sidecar).unwrap());
    let whole = String::from_utf8(text.clone()).unwrap();
    let cut_before = whole.find("\"notes\"").unwrap();
    for damaged in ["", "no json", &whole[..cut_before], &whole[..whole.len() / 2]] {
        fs::write(&file, damaged).unwrap();
        // A writer without a sidecar of its own: the store cannot know that it is not whole.
        fs::write(&sidecar, json!({"metadata": {}}).to_string()).unwrap();
        // The process that knew the whole document, and one that never saw it.
        let fresh = open(DatabaseOptions::default()).await;
        for database in [Some(database.clone()), fresh.ok()].into_iter().flatten() {
            match log.pass(&tail(&database)).await {
                Ok(changes) => assert_eq!(changes, [], "{damaged:?}"),
                Err(error) => assert!(error.to_string().contains("s3db.json"), "{error}"),
            }
        }
        // Written in place, with the sidecar of before: somebody is writing it.
        fs::write(&sidecar, &beside).unwrap();
        let error = log.pass(&tail(&database)).await.unwrap_err();
        assert!(error.to_string().contains("s3db.json"), "{error}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(log.pass(&tail(&database)).await.unwrap_err().kind(), ErrorKind::NotFound);
    fs::write(&file, &text).unwrap();
    assert_eq!(log.pass(&tail(&database)).await.unwrap(), []);
    put(&notes, "a", "2").await;
    assert_eq!(operations(&log.pass(&tail(&database)).await.unwrap()), is(&[(Update, "a")]));
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_reported_and_the_others_go_on() {
    for (_, _directory, database) in both().await {
        let notes = notes(&database).await;
        for id in ["a", "b", "c"] {
            put(&notes, id, "1").await;
        }
        spoil(&database, "notes", "b").await;
        let (tail, mut log) = (tail(&database), Log::default());
        for _ in 0..2 {
            let report = log.report(&tail).await.unwrap();
            assert_eq!((report.seen, report.undecodable), (3, 1));
        }
        assert_eq!(operations(&log.changes), is(&[(Read, "a"), (Read, "c")]));
        assert_eq!(log.undecodable.len(), 2);
        let (_, id, error) = &log.undecodable[0];
        assert!(id == "b" && error.contains("id=b"), "{error}");
        // One that was readable before is kept as it was, not deleted.
        spoil(&database, "notes", "c").await;
        put(&notes, "a", "2").await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Update, "a")]));
        for id in ["b", "c"] {
            notes.delete(id).await.unwrap();
            put(&notes, id, "3").await;
        }
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Insert, "b"), (Update, "c")]));
    }
}

#[tokio::test]
async fn an_object_that_is_being_written_is_left_to_the_next_pass_and_reported_when_it_stays() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(Arc::new(FileStore::new(directory.path())), creating()).await.unwrap();
    let notes = notes(&database).await;
    put(&notes, "a", "1").await;
    put(&notes, "b", "1").await;
    let (tail, mut log) = (tail(&database), Log::default());
    log.pass(&tail).await.unwrap();
    let sidecar = directory.path().join("resource=notes/data/id=a.meta.json");
    let whole = fs::read(&sidecar).unwrap();
    fs::write(&sidecar, &whole[..40]).unwrap();
    put(&notes, "b", "2").await;
    assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Update, "b")]));
    assert_eq!(log.undecodable, []);
    fs::write(&sidecar, String::from_utf8(whole.clone()).unwrap().replace("\"1\"", "\"5\"")).unwrap();
    assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Update, "a")]));

    fs::write(&sidecar, b"").unwrap();
    for pass in 1..=10 {
        assert_eq!(log.pass(&tail).await.unwrap(), []);
        assert_eq!(log.undecodable.len(), usize::from(pass == 10), "{pass}");
    }
    assert!(log.undecodable[0].2.contains("being written"), "{:?}", log.undecodable);
    // A body that does not belong to its sidecar, likewise.
    fs::write(&sidecar, &whole).unwrap();
    fs::write(directory.path().join("resource=notes/data/id=a"), "{}").unwrap();
    assert_eq!(log.pass(&tail).await.unwrap(), []);
    assert_eq!(log.undecodable.len(), 1);
}

#[tokio::test]
async fn objects_younger_than_the_resolution_are_looked_at_again_and_bring_no_change_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let resolution = std::time::Duration::from_secs(600);
    let options = FileOptions { resolution, ..FileOptions::default() };
    let store = Arc::new(FileStore::with_options(directory.path(), options));
    let database = Database::open(store, creating()).await.unwrap();
    let notes = notes(&database).await;
    put(&notes, "a", "1").await;
    let (tail, mut log) = (tail(&database), Log::default());
    assert_eq!(log.pass(&tail).await.unwrap().len(), 1);
    for _ in 0..3 {
        assert_eq!(log.pass(&tail).await.unwrap(), []);
    }
    put(&notes, "a", "2").await;
    assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Update, "a")]));
}

/// A store whose tokens say nothing while `settled` is false, as S3's within one second.
#[derive(Debug)]
struct Coarse(MemoryStore);

#[derive(Debug)]
struct CoarseListing(Box<dyn Listing>);

#[async_trait]
impl Listing for CoarseListing {
    async fn page(&mut self, cx: &Context, max: usize) -> Result<Vec<ObjectMeta>> {
        let page = self.0.page(cx, max).await?;
        Ok(page.into_iter().map(|meta| ObjectMeta { version: vec![1], settled: false, ..meta }).collect())
    }
}

#[async_trait]
impl ObjectStore for Coarse {
    fn location(&self) -> String {
        self.0.location()
    }
    fn place(&self, key: &str) -> String {
        self.0.place(key)
    }
    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        self.0.get(cx, key).await
    }
    async fn head(&self, cx: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        self.0.head(cx, key).await
    }
    async fn put(&self, cx: &Context, key: &str, object: &StoredObject, on: PutCondition) -> Result<()> {
        self.0.put(cx, key, object, on).await
    }
    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        self.0.modify(cx, key, change).await
    }
    async fn delete(&self, cx: &Context, key: &str) -> Result<()> {
        self.0.delete(cx, key).await
    }
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        Ok(Box::new(CoarseListing(self.0.list(prefix, after)?)))
    }
}

#[tokio::test]
async fn equal_tokens_hide_no_change_and_make_no_equal_ids() {
    let database = Database::open(Arc::new(Coarse(MemoryStore::new())), creating()).await.unwrap();
    let notes = notes(&database).await;
    let (tail, mut log) = (tail(&database), Log::default());
    // The same contents again and again, deletes in between: the log asserts that every id is new.
    for (text, operation) in [("1", Read), ("2", Update), ("1", Update), ("2", Update)] {
        put(&notes, "a", text).await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(operation, "a")]));
        assert_eq!(log.pass(&tail).await.unwrap(), []);
    }
    for _ in 0..3 {
        notes.delete("a").await.unwrap();
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Delete, "a")]));
        assert_eq!(log.pass(&tail).await.unwrap(), []);
        put(&notes, "a", "2").await;
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Insert, "a")]));
    }
}

#[tokio::test]
async fn a_new_definition_is_applied_to_records_that_nobody_wrote() {
    for (_, _directory, database) in both().await {
        let notes = notes(&database).await;
        notes.insert(record(json!({"id": "a", "text": "1", "n": 7}))).await.unwrap();
        let (tail, mut log) = (tail(&database), Log::default());
        log.pass(&tail).await.unwrap();
        let attributes = json!({"text": "string|required", "n": "string|optional"});
        let changed = json!({"name": "notes", "attributes": attributes, "behavior": "body-overflow"});
        let notes = database.create_resource(&config(changed)).await.unwrap();
        let now = log.pass(&tail).await.unwrap();
        assert_eq!(operations(&now), is(&[(Update, "a")]));
        assert_eq!(&*now[0].schema_version, "v2");
        assert_eq!(log.rows("notes"), all(&notes).await);
        assert_eq!(log.pass(&tail).await.unwrap(), []);
    }
}

fn progress(id: &str) -> StateWrite {
    StateWrite { space: "progress".into(), key: "r".into(), value: Some(id.as_bytes().to_vec()) }
}

async fn snapshot(log: &mut Log, tail: &TailSource, after: Option<&str>, max: usize) -> Option<String> {
    let state = log.state.clone();
    let rows = SnapshotRows { resource: "notes", after, max, target: &"lite".into(), progress: &progress };
    let last = tail.snapshot(&cx(), &*state, log, rows).await.unwrap();
    if let Some(last) = &last {
        let remembered = state.get(&cx(), "progress", "r").await.unwrap();
        assert_eq!(remembered.as_deref(), Some(last.as_bytes()));
    }
    last
}

#[tokio::test]
async fn a_snapshot_brings_live_changes_before_its_rows() {
    for (_, _directory, database) in both().await {
        let notes = notes(&database).await;
        for n in 0..2500 {
            put(&notes, &format!("{n:04}"), "1").await;
        }
        let (tail, mut log) = (tail(&database), Log::default());
        log.pass(&tail).await.unwrap();
        put(&notes, "0003", "2").await;
        put(&notes, "0004x", "2").await;
        notes.delete("0005").await.unwrap();
        let before = log.changes.len();
        let mut after = None;
        let mut pages = 0;
        while let Some(last) = snapshot(&mut log, &tail, after.as_deref(), 1200).await {
            after = Some(last);
            pages += 1;
        }
        assert_eq!(pages, 3);
        let taken = &log.changes[before..];
        let live: Vec<_> = taken.iter().filter(|change| change.target.is_none()).cloned().collect();
        assert_eq!(operations(&live), is(&[(Update, "0003"), (Insert, "0004x")]));
        let rows: Vec<_> = taken.iter().filter(|change| change.target.is_some()).collect();
        assert_eq!(rows.len(), 2500);
        assert!(rows.iter().all(|row| row.operation == Read && row.target.as_deref() == Some("lite")));
        assert_eq!(operations(&log.pass(&tail).await.unwrap()), is(&[(Delete, "0005")]));
        // Again: new rows, as `Log` asserts.
        assert_eq!(snapshot(&mut log, &tail, None, 10).await.as_deref(), Some("0009"));
    }
}

#[tokio::test]
async fn records_are_paged_and_looked_up() {
    for (_, _directory, database) in both().await {
        let notes = notes(&database).await;
        for id in ["a", "b", "c", "d", "e"] {
            put(&notes, id, "1").await;
        }
        spoil(&database, "notes", "b").await;
        let tail = tail(&database);
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = tail.records(&cx(), "notes", after.as_deref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.to_string());
            seen.extend(page.iter().map(|row| (row.id.to_string(), row.record.is_ok())));
        }
        let expected = [("a", true), ("b", false), ("c", true), ("d", true), ("e", true)];
        assert_eq!(seen, expected.map(|(id, ok)| (id.to_owned(), ok)));
        assert_eq!(tail.record(&cx(), "notes", "a").await.unwrap().unwrap()["text"], "1");
        assert_eq!(tail.record(&cx(), "notes", "x").await.unwrap(), None);
        assert!(tail.record(&cx(), "notes", "b").await.is_err());
        assert!(tail.record(&cx(), "nothing", "b").await.is_err());
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_is_an_error_and_no_delete() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("db");
    let database = Database::open(Arc::new(FileStore::new(&base)), creating()).await.unwrap();
    let notes = notes(&database).await;
    put(&notes, "a", "1").await;
    let (tail, mut log) = (tail(&database), Log::default());
    log.pass(&tail).await.unwrap();
    fs::rename(&base, Path::new(&directory.path().join("away"))).unwrap();
    let error = log.pass(&tail).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("s3db.json"), "{error}");
}
