//! `s3db.json` and the operations of resources, on files and in memory.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{fs, sync::Arc, time::Duration};

use common::{all, both, config, creating, keys, record};
use futures::StreamExt;
use s3rep_core::{ErrorKind, Record, Result};
use s3rep_s3db::{Database, DatabaseOptions, FileStore, MemoryStore, Resource};
use serde_json::{Value, json};

fn cars() -> Value {
    json!({
        "name": "cars",
        "behavior": "body-overflow",
        "attributes": {"model": "string|required", "year": "number|optional", "origin": "string|optional",
                       "engine": {"hp": "number|optional"}, "tags": "array|items:string|optional"},
        "partitions": {"byOrigin": {"fields": {"origin": "string"}},
                       "byOriginYear": {"fields": {"origin": "string", "year": "number"}}},
    })
}

#[tokio::test]
async fn records_are_inserted_read_updated_and_deleted_with_their_references() {
    for (name, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        let inserted = cars
            .insert(record(
                json!({"id": "a", "model": "Fiesta", "year": 1976, "origin": "Europe", "engine": {"hp": 40}}),
            ))
            .await
            .unwrap();
        assert_eq!(cars.get::<Record>("a").await.unwrap(), inserted, "{name}");
        let reference = |origin: &str, year: u32, id: &str| {
            [
                format!("resource=cars/partition=byOrigin/origin={origin}/id={id}"),
                format!("resource=cars/partition=byOriginYear/origin={origin}/year={year}/id={id}"),
            ]
        };
        let expect = |references: Vec<String>, ids: &[&str]| {
            let mut expected: Vec<_> = ids.iter().map(|id| format!("resource=cars/data/id={id}")).collect();
            expected.extend(references);
            expected.push("s3db.json".to_owned());
            expected
        };
        assert_eq!(keys(&database).await, expect(reference("Europe", 1976, "a").to_vec(), &["a"]));

        let updated = cars.update("a", record(json!({"origin": "USA", "engine.hp": 41}))).await.unwrap();
        assert_eq!(updated, cars.get("a").await.unwrap());
        assert_eq!((&updated["model"], &updated["engine"]["hp"]), (&json!("Fiesta"), &json!(41)));
        assert_eq!(keys(&database).await, expect(reference("USA", 1976, "a").to_vec(), &["a"]));
        // Without a value there is no reference.
        cars.update("a", record(json!({"year": null}))).await.unwrap();
        assert_eq!(keys(&database).await, expect(reference("USA", 1976, "a")[..1].to_vec(), &["a"]));

        let error = cars.insert(record(json!({"id": "a", "model": "Golf"}))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("cars") && !error.report().contains("Golf"), "{error}");
        for missing in [
            cars.get::<Record>("b").await.unwrap_err(),
            cars.update("b", Record::new()).await.unwrap_err(),
            cars.delete("b").await.unwrap_err(),
        ] {
            assert_eq!(missing.kind(), ErrorKind::NotFound);
        }
        assert_eq!(cars.find::<Record>("b").await.unwrap(), None);

        let generated = cars.insert(record(json!({"model": "Golf"}))).await.unwrap();
        let id = generated["id"].as_str().unwrap();
        assert_eq!(id.len(), 22);
        assert!(cars.exists(id).await.unwrap());
        cars.delete(id).await.unwrap();
        cars.delete("a").await.unwrap();
        assert_eq!(keys(&database).await, ["s3db.json"]);
        assert_eq!(cars.count().await.unwrap(), 0);
        for id in [json!(7), json!("a/b"), json!("a=b"), json!("a%b"), json!("a\\b")] {
            assert!(cars.insert(record(json!({"id": id, "model": "x"}))).await.is_err(), "{id}");
        }
    }
}

#[tokio::test]
async fn partitions_are_searched_whole_and_by_leading_fields() {
    for (_, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        for (id, origin, year) in [("a", "US", 1), ("b", "USA", 1), ("c", "US", 2), ("d", "US", 10)] {
            cars.insert(record(json!({"id": id, "model": "m", "origin": origin, "year": year})))
                .await
                .unwrap();
        }
        let found = async |partition: &str, values: Value| {
            let found: Vec<Record> = cars.by_partition(partition, values).unwrap().records().await.unwrap();
            found.iter().map(|car| car["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("byOrigin", json!({"origin": "US"})).await, ["a", "c", "d"]);
        assert_eq!(found("byOriginYear", json!({"origin": "US", "year": 1})).await, ["a"]);
        assert_eq!(found("byOriginYear", json!({"origin": "US"})).await, ["a", "d", "c"]);
        assert_eq!(found("byOriginYear", json!({})).await.len(), 4);
        assert!(cars.by_partition("byOriginYear", json!({"year": 1})).is_err());

        // A reference that another program left behind.
        let stale = "resource=cars/partition=byOrigin/origin=USA/id=a";
        let object = cars.format().reference();
        database.store().put(&common::cx(), stale, &object, s3rep_s3db::PutCondition::Always).await.unwrap();
        assert_eq!(found("byOrigin", json!({"origin": "USA"})).await, ["b"]);
    }
}

#[tokio::test]
async fn listings_do_not_stop_at_a_thousand() {
    for (_, _directory, database) in both().await {
        let cars = database
            .create_resource(&config(json!({"name": "n", "attributes": {"a": "number"}})))
            .await
            .unwrap();
        for n in 0..2500 {
            cars.insert(record(json!({"id": format!("{n:04}"), "a": n}))).await.unwrap();
        }
        assert_eq!(cars.count().await.unwrap(), 2500);
        assert_eq!(cars.list_ids().await.unwrap().len(), 2500);
        assert_eq!(all(&cars).await.len(), 2500);
        let rows: Vec<_> = cars.records(Some("0999")).unwrap().into_stream(100).collect().await;
        assert_eq!(rows.len(), 1500);
        assert_eq!(&*rows[0].as_ref().unwrap().id, "1000");
    }
}

#[tokio::test]
async fn a_missing_database_is_named_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/shop", directory.path().display());
    let error = Database::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no database here") && error.to_string().contains("shop"), "{error}");
    assert!(error.advice().unwrap().contains("s3rep db create-resource"));
    assert!(!directory.path().join("shop").exists());

    let database = Database::connect_with(&url, creating()).await.unwrap();
    assert!(directory.path().join("shop/s3db.json").exists());
    assert_eq!(database.resources(), [""; 0]);
    let error = database.resource("cars").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn resources_of_other_writers_are_kept_and_seen_after_a_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Database::open(Arc::new(FileStore::new(directory.path())), creating());
    let (one, two) = (open().await.unwrap(), open().await.unwrap());
    one.create_resource(&config(cars())).await.unwrap();
    assert!(two.resource("cars").is_err());
    assert!(two.refresh().await.unwrap());
    assert!(!two.refresh().await.unwrap());
    two.resource("cars").unwrap();
    two.create_resource(&config(json!({"name": "people", "attributes": {"name": "string"}}))).await.unwrap();
    one.create_resource(&config(json!({"name": "towns", "attributes": {"name": "string"}}))).await.unwrap();
    assert_eq!(one.resources(), ["cars", "people", "towns"]);
    let error = one.resource("car").unwrap_err();
    assert!(error.advice().unwrap().contains("cars, people, towns"));
    // The same definition again changes nothing.
    let before = fs::read(directory.path().join("s3db.json")).unwrap();
    one.create_resource(&config(cars())).await.unwrap();
    assert_eq!(fs::read(directory.path().join("s3db.json")).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_s3db_json_is_healed_in_memory_and_backed_up_before_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("s3db.json");
    let damage = |text: &[u8]| {
        fs::write(&file, text).unwrap();
        let sidecar = json!({"metadata": {}, "contentType": "application/json", "size": text.len()});
        fs::write(directory.path().join("s3db.json.meta.json"), sidecar.to_string()).unwrap();
    };
    let open = || Database::open(Arc::new(FileStore::new(directory.path())), DatabaseOptions::default());
    let whole = {
        let database = Database::open(Arc::new(FileStore::new(directory.path())), creating()).await.unwrap();
        database.create_resource(&config(cars())).await.unwrap();
        fs::read(&file).unwrap()
    };
    let known = open().await.unwrap();
    damage(b"no json at all");
    let database = open().await.unwrap();
    assert!(database.repairs().iter().any(|repair| repair.unreadable));
    assert_eq!(database.resources(), [""; 0]);
    assert_eq!(fs::read(&file).unwrap(), b"no json at all", "reading does not write");
    // Who knew better keeps it.
    let error = known.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("s3db.json") && error.to_string().contains("cars"), "{error}");
    known.resource("cars").unwrap();

    database.create_resource(&config(json!({"name": "n", "attributes": {"a": "string"}}))).await.unwrap();
    assert_eq!(open().await.unwrap().resources(), ["n"]);
    let backup = keys(&database).await.into_iter().find(|key| key.contains(".corrupted.")).unwrap();
    assert!(backup.starts_with("s3db.json.corrupted.2") && backup.ends_with("Z.backup"), "{backup}");
    assert!(!backup.contains(':'));
    assert_eq!(fs::read(directory.path().join(&backup)).unwrap(), b"no json at all");

    // Half a document that becomes whole in a moment is waited for.
    damage(&whole[..whole.len() / 2]);
    let writer = std::thread::spawn({
        let directory = directory.path().to_owned();
        move || {
            std::thread::sleep(Duration::from_millis(30));
            let sidecar = json!({"metadata": {}, "size": whole.len()}).to_string();
            fs::write(directory.join("new"), sidecar).unwrap();
            fs::write(directory.join("s3db.json"), &whole).unwrap();
            fs::rename(directory.join("new"), directory.join("s3db.json.meta.json")).unwrap();
        }
    });
    let database = open().await.unwrap();
    writer.join().unwrap();
    assert_eq!(database.resources(), ["cars"]);
    assert!(database.repairs().is_empty());
}

#[tokio::test]
async fn many_writers_of_one_record_leave_it_and_its_references_in_step() {
    for (name, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        cars.insert(record(json!({"id": "a", "model": "m", "origin": "o0", "year": 0}))).await.unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let cars = cars.clone();
                tokio::spawn(async move {
                    for n in 0..20 {
                        let changes = json!({"origin": format!("o{}", (task + n) % 3), "year": task});
                        cars.update("a", record(changes)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let last: Record = cars.get("a").await.unwrap();
        let mut expected = cars.format().partition_keys("a", &last).unwrap();
        expected.sort();
        let keys = keys(&database).await;
        let references: Vec<_> = keys.into_iter().filter(|key| key.contains("/partition=")).collect();
        assert_eq!(references, expected, "{name}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_named_and_can_be_deleted() {
    let store = Arc::new(MemoryStore::new());
    let database = Database::open(store, creating()).await.unwrap();
    let cars = database.create_resource(&config(cars())).await.unwrap();
    for id in ["a", "b", "c"] {
        cars.insert(record(json!({"id": id, "model": "m", "origin": "o"}))).await.unwrap();
    }
    common::spoil(&database, "cars", "b").await;
    let page = cars.page(None, 10).await.unwrap();
    assert_eq!(page.iter().map(|row| row.record.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    let error = cars.get::<Record>("b").await.unwrap_err();
    assert!(error.report().contains('b'), "{error}");
    cars.delete("b").await.unwrap();
    assert!(keys(&database).await.iter().all(|key| !key.ends_with("id=b")));
    assert_eq!(cars.count().await.unwrap(), 2);
}

/// Wants a log of its own for each resource.
#[derive(Debug)]
struct Greedy(Database);

#[async_trait::async_trait]
impl s3rep_s3db::Plugin for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    async fn resource(&self, resource: &Resource) -> Result<()> {
        let name = format!("{}_log", resource.name());
        let definition = json!({"name": name, "attributes": {"a": "string"}});
        self.0.create_resource(&config(definition)).await.map(drop)
    }
}

#[tokio::test]
async fn a_plugin_that_changes_resources_while_it_is_shown_one_is_told_so() {
    let database = Database::open(Arc::new(MemoryStore::new()), creating()).await.unwrap();
    database.use_plugin(Greedy(database.clone())).await.unwrap();
    let error = database.create_resource(&config(cars())).await.unwrap_err();
    assert!(
        error.report().contains("while it is shown one") && error.advice().is_some(),
        "{}",
        error.report()
    );
    // Not known to anybody before the plugin has seen it.
    assert_eq!(database.resources(), [""; 0]);
}
