//! The real database: every record equals what s3db.js reads back, and what is written is what s3db.js wrote.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use common::{all, data, open_data, record};
use flate2::read::GzDecoder;
use s3rep_core::Record;
use s3rep_s3db::{Database, DatabaseOptions, FileStore, ObjectStore, PutCondition};
use serde_json::{Value, json};

/// What s3db.js reads, by resource and id.
fn expected() -> BTreeMap<String, BTreeMap<String, Record>> {
    let lines =
        BufReader::new(GzDecoder::new(File::open(data("open-data.records.jsonl.gz")).unwrap())).lines();
    let mut expected: BTreeMap<String, BTreeMap<String, Record>> = BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let read = record(line["record"].clone());
        let id = read["id"].as_str().unwrap().to_owned();
        expected.entry(line["resource"].as_str().unwrap().to_owned()).or_default().insert(id, read);
    }
    expected
}

async fn open(base: &Path) -> Database {
    Database::open(Arc::new(FileStore::new(base)), DatabaseOptions::default()).await.unwrap()
}

#[tokio::test]
async fn the_real_database_is_read_and_written_as_s3db_js_does() {
    // Unpacked once: 18,840 files take longer than all the rest.
    let (_directory, base) = open_data();
    opening_and_reading_write_nothing(&base).await;
    every_record_is_what_s3db_js_reads(&base).await;
    partitions_find_what_is_in_them(&base).await;
    every_object_written_again_has_the_bytes_that_s3db_js_wrote(&base).await;
    a_record_written_again_has_the_bytes_that_s3db_js_wrote(&base).await;
}

async fn every_record_is_what_s3db_js_reads(base: &Path) {
    let database = open(base).await;
    let expected = expected();
    assert!(database.repairs().is_empty());
    assert_eq!(database.resources(), ["airports", "weather", "cars"]);
    let mut count = 0;
    for (name, expected) in &expected {
        let resource = database.resource(name).unwrap();
        let read = all(&resource).await;
        assert_eq!(read.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (id, record) in &read {
            assert_eq!(record, &expected[id], "{name} {id}");
        }
        assert_eq!(resource.count().await.unwrap(), expected.len() as u64);
        assert_eq!(resource.list_ids().await.unwrap(), expected.keys().cloned().collect::<Vec<_>>());
        count += read.len();
    }
    assert_eq!(count, 5_243);
    let cars = database.resource("cars").unwrap();
    assert_eq!(&cars.get::<s3rep_core::Record>("car-007").await.unwrap(), &expected["cars"]["car-007"]);
    assert!(cars.exists("car-007").await.unwrap() && !cars.exists("car-999").await.unwrap());
    let page = cars.page(Some("car-400"), 3).await.unwrap();
    assert_eq!(page.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["car-401", "car-402", "car-403"]);
}

async fn partitions_find_what_is_in_them(base: &Path) {
    let airports = open(base).await.resource("airports").unwrap();
    let mut states: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, record) in &expected()["airports"] {
        if let Some(state) = record.get("state").and_then(Value::as_str) {
            states.entry(state.to_owned()).or_default().insert(id.clone());
        }
    }
    assert!(states.len() > 50);
    for (state, ids) in &states {
        let in_state = airports.by_partition("byState", json!({"state": state})).unwrap();
        let found: Vec<s3rep_core::Record> = in_state.records().await.unwrap();
        let found = found.iter().map(|airport| airport["id"].as_str().unwrap().to_owned());
        assert_eq!(&found.collect::<BTreeSet<_>>(), ids, "{state}");
        assert_eq!(in_state.count().await.unwrap(), ids.len() as u64);
    }
    // `W` is the beginning of states, and no state.
    let none = airports.by_partition("byState", json!({"state": "W"})).unwrap();
    assert_eq!(none.count().await.unwrap(), 0);
    let error = airports.by_partition("byCity", json!({})).unwrap_err();
    assert!(error.advice().unwrap().contains("byState"), "{error:?}");
    assert!(airports.by_partition("byState", json!({"city": "x"})).is_err());
}

/// A sidecar without the time of its writing.
fn timeless(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with("  \"lastModified\"")).collect::<Vec<_>>().join("\n")
}

async fn a_record_written_again_has_the_bytes_that_s3db_js_wrote(base: &Path) {
    let database = open(base).await;
    for (resource, id, files) in [
        ("airports", "00M", &["data/id=00M", "partition=byState/state=MS/id=00M"][..]),
        ("airports", "SEA", &["data/id=SEA", "partition=byState/state=WA/id=SEA"]),
        ("weather", "2012-01-01", &["data/id=2012-01-01"]),
    ] {
        let resource = database.resource(resource).unwrap();
        let record: s3rep_core::Record = resource.get(id).await.unwrap();
        let files: Vec<_> =
            files.iter().map(|file| base.join(format!("resource={}/{file}", resource.name()))).collect();
        let sidecar = |file: &Path| {
            file.with_file_name(format!("{}.meta.json", file.file_name().unwrap().to_str().unwrap()))
        };
        let look = || {
            files.iter().map(|file| (fs::read(file).unwrap(), timeless(&sidecar(file)))).collect::<Vec<_>>()
        };
        let theirs = look();
        resource.delete(id).await.unwrap();
        for file in &files {
            assert!(!file.exists() && !sidecar(file).exists(), "{}", file.display());
        }
        assert_eq!(resource.insert(record.clone()).await.unwrap(), record);
        assert_eq!(look(), theirs, "{id}");
        // Written again in place.
        assert_eq!(resource.update(id, Record::new()).await.unwrap(), record);
        assert_eq!(look(), theirs, "{id}");
    }
}

async fn every_object_written_again_has_the_bytes_that_s3db_js_wrote(base: &Path) {
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (FileStore::new(base), FileStore::new(copy.path()));
    let cx = common::cx();
    let mut listing = from.list("", None).unwrap();
    let mut count = 0;
    loop {
        let page = listing.page(&cx, 5000).await.unwrap();
        if page.is_empty() {
            break;
        }
        for meta in page.iter().step_by(7) {
            let object = from.get(&cx, &meta.key).await.unwrap().unwrap();
            to.put(&cx, &meta.key, &object, PutCondition::IfAbsent).await.unwrap();
            let sidecar = format!("{}.meta.json", meta.key);
            assert_eq!(timeless(&copy.path().join(&sidecar)), timeless(&base.join(&sidecar)), "{sidecar}");
            assert_eq!(
                fs::read(copy.path().join(&meta.key)).unwrap(),
                fs::read(base.join(&meta.key)).unwrap()
            );
            count += 1;
        }
    }
    assert!(count > 1300, "{count}");
}

async fn opening_and_reading_write_nothing(base: &Path) {
    let times = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = fs::read_dir(base).unwrap().map(|entry| times(&entry.unwrap().path())).collect();
    let database = open(base).await;
    all(&database.resource("cars").unwrap()).await;
    database.refresh().await.unwrap();
    let after: Vec<_> = fs::read_dir(base).unwrap().map(|entry| times(&entry.unwrap().path())).collect();
    assert_eq!(before, after);
    assert!(!base.join(".s3rep-tmp").exists());
}
