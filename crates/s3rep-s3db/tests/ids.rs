//! Ids of new records: random, numbered, by functions; and ids and values that are hard on keys.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use common::{both, config, creating, cx};
use s3rep_core::{BoxFuture, Clock, Context, ErrorKind, Random, Record, Result, Timestamp};
use s3rep_s3db::{
    BodyChange, Database, DatabaseOptions, FileStore, Listing, MemoryStore, ObjectMeta, ObjectStore,
    PutCondition, Resource, ResourceConfig, StoredObject,
};
use serde_json::{Value, json};

fn items(generator: Value) -> ResourceConfig {
    config(json!({"name": "items", "attributes": {"n": "number|optional"}, "idGenerator": generator}))
}

async fn memory() -> Database {
    Database::open(Arc::new(MemoryStore::new()), creating()).await.unwrap()
}

async fn insert(items: &Resource) -> String {
    items.insert(json!({"n": 1})).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sequence(database: &Database) -> Value {
    let body = database.store().get_body(&cx(), "resource=items/sequence=id/value").await.unwrap();
    serde_json::from_slice(&body.expect("a sequence")).unwrap()
}

#[tokio::test]
async fn random_ids_have_their_length_and_alphabet() {
    let database = memory().await;
    for (generator, size, length) in [
        (json!(null), None, 22),
        (json!(8), None, 8),
        (json!(null), Some(9), 9),
        (json!("default"), Some(7), 7),
    ] {
        let mut config = items(generator);
        config.id_size = size;
        let items = database.create_resource(&config).await.unwrap();
        let id = insert(&items).await;
        assert_eq!(id.len(), length);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{id}");
    }
}

#[tokio::test]
async fn numbers_are_counted_as_s3db_js_counts() {
    for (_, _directory, database) in both().await {
        let items = database.create_resource(&items(json!("incremental:ORD-0100"))).await.unwrap();
        assert_eq!(insert(&items).await, "ORD-0100");
        let state = sequence(&database).await;
        let names: Vec<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((names, &state["value"]), (vec!["value", "name", "createdAt"], &json!(101)));
        // An id given by hand in the way of the sequence fails once, as in s3db.js.
        items.insert(json!({"id": "ORD-0101"})).await.unwrap();
        let error = items.insert(json!({})).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(insert(&items).await, "ORD-0102");
        let state = sequence(&database).await;
        assert_eq!((&state["value"], &state["name"]), (&json!(103), &json!("id")));
        assert!(state["updatedAt"].as_i64() >= state["createdAt"].as_i64());
        assert_eq!(items.count().await.unwrap(), 3);
    }
}

#[tokio::test]
async fn settings_of_the_object_form_and_what_a_sequence_keeps() {
    let database = memory().await;
    let generator =
        json!({"type": "incremental", "start": 10, "increment": -3, "prefix": "n_", "padding": 4});
    let store = database.store().clone();
    let items = database.create_resource(&items(generator)).await.unwrap();
    assert_eq!([insert(&items).await, insert(&items).await], ["n_0010", "n_0007"]);
    // Reset by s3db.js.
    let reset = StoredObject {
        body: r#"{"value":500,"name":"id","createdAt":1,"updatedAt":2,"resetAt":3}"#.into(),
        ..StoredObject::default()
    };
    let key = "resource=items/sequence=id/value";
    store.put(&cx(), key, &reset, PutCondition::Always).await.unwrap();
    assert_eq!(insert(&items).await, "n_0500");
    let state = sequence(&database).await;
    assert_eq!(
        (&state["value"], &state["createdAt"], &state["resetAt"]),
        (&json!(497), &json!(1), &json!(3))
    );
    for (body, kind) in [("no json", ErrorKind::Corrupt), ("{\"value\":1.5}", ErrorKind::Corrupt)] {
        let object = StoredObject { body: body.into(), ..StoredObject::default() };
        store.put(&cx(), key, &object, PutCondition::Always).await.unwrap();
        let error = items.insert(json!({})).await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains("sequence=id/value"), "{error}");
    }
}

/// Inserts `count` records at the same time.
async fn many(items: &Resource, count: usize) -> Vec<u64> {
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let items = items.clone();
            tokio::spawn(async move { insert(&items).await.parse().unwrap() })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_inserts_at_once_get_fifty_numbers() {
    for (name, _directory, database) in both().await {
        for generator in ["incremental", "incremental:fast"] {
            let mut config = items(json!(generator));
            config.name = generator.replace(':', "-");
            let items = database.create_resource(&config).await.unwrap();
            let mut numbers = many(&items, 50).await;
            numbers.sort_unstable();
            assert_eq!(numbers, (1..=50).collect::<Vec<_>>(), "{name} {generator}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_databases_on_one_store_give_no_number_twice() {
    let directory = tempfile::tempdir().unwrap();
    let memory: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    for generator in ["incremental", "incremental:fast"] {
        for files in [true, false] {
            let mut handles = Vec::new();
            for _ in 0..2 {
                let store: Arc<dyn ObjectStore> =
                    if files { Arc::new(FileStore::new(directory.path())) } else { memory.clone() };
                let database = Database::open(store, creating()).await.unwrap();
                let mut config = items(json!(generator));
                config.name = generator.replace(':', "-");
                handles.push(database.create_resource(&config).await.unwrap());
            }
            let (a, b) = tokio::join!(many(&handles[0], 40), many(&handles[1], 40));
            let numbers: BTreeSet<_> = a.iter().chain(&b).copied().collect();
            assert_eq!(numbers.len(), 80);
            if generator == "incremental" {
                assert_eq!(numbers.last(), Some(&80), "no gaps");
            }
        }
    }
}

#[tokio::test]
async fn ulids_and_uuids_sort_by_time() {
    let database = memory().await;
    for (generator, length) in [("ulid", 26), ("uuidv7", 36)] {
        let mut config = items(json!(generator));
        config.name = generator.to_owned();
        let items = database.create_resource(&config).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(insert(&items).await);
        }
        assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == length), "{ids:?}");
        assert_eq!(items.list_ids().await.unwrap(), ids);
        assert_eq!(items.format().id_generator_kind(), "custom");
    }
}

#[tokio::test]
async fn a_function_makes_ids() {
    let database = memory().await;
    let items = database.create_resource(&items(json!("custom"))).await.unwrap();
    assert!(items.insert(json!({})).await.is_err());
    let calls = Arc::new(AtomicU32::new(0));
    items.generate_ids_with({
        let calls = calls.clone();
        move || match calls.fetch_add(1, Ordering::SeqCst) {
            0 => "first".to_owned(),
            1 => String::new(),
            _ => "a/b".to_owned(),
        }
    });
    assert_eq!(insert(&items).await, "first");
    assert_eq!(insert(&database.resource("items").unwrap()).await.len(), 22);
    let error = items.insert(json!({})).await.unwrap_err();
    assert!(error.to_string().contains("unsafe character '/'"), "{error}");
    items.insert(json!({"id": "given"})).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_reopened_database_does_not_fall_back_to_random_ids() {
    let store = Arc::new(MemoryStore::new());
    for (generator, word) in [("incremental:fast", "create_resource"), ("ulid", "ulid")] {
        let mut declared = items(json!(generator));
        declared.name = word.to_owned();
        let database = Database::open(store.clone(), creating()).await.unwrap();
        let first = insert(&database.create_resource(&declared).await.unwrap()).await;

        let database = Database::open(store.clone(), creating()).await.unwrap();
        let resource = database.resource(word).unwrap();
        let error = resource.insert(json!({"n": 1})).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        assert!(error.advice().unwrap().contains(word), "{error:?}");
        resource.insert(json!({"id": "given"})).await.unwrap();
        // Declared again it goes on, after the numbers that were reserved.
        let again = insert(&database.create_resource(&declared).await.unwrap()).await;
        assert!(if word == "ulid" { again > first } else { again == "101" }, "{again}");
    }
}

#[tokio::test]
async fn wrong_generators_are_refused_with_everything_else() {
    let database = memory().await;
    let config = config(json!({
        "name": "items", "attributes": {"n": "numbr"},
        "idGenerator": {"type": "incremental", "strat": 5, "padding": -1},
    }));
    let error = database.create_resource(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    let text = error.to_string();
    assert!(text.contains("'n'") && text.contains("'start'") && text.contains("padding"), "{text}");
    assert_eq!(database.resources(), [""; 0]);
}

#[tokio::test]
async fn hard_ids_are_kept_or_refused_and_never_lead_elsewhere() {
    let long = "x".repeat(1000);
    for (name, _directory, database) in both().await {
        let items = database.create_resource(&items(json!(null))).await.unwrap();
        for id in ["..", ".", " ", "a b", "ünï-😀", "é", "a+b&c?d#e", "-", "null", "id", "a\u{301}", "%"]
        {
            match items.insert(json!({"id": id, "n": 7})).await {
                Ok(_) => {
                    assert_eq!(items.get::<Record>(id).await.unwrap()["n"], 7, "{name} {id:?}");
                    assert!(items.list_ids().await.unwrap().iter().any(|known| known == id), "{name} {id:?}");
                    items.delete(id).await.unwrap();
                }
                Err(error) => assert_eq!((id, error.kind()), ("%", ErrorKind::InvalidValue)),
            }
        }
        for id in ["", "a/b", "a\\b", "a=b", "../x", "a\0b", &(long.clone() + "y")] {
            for error in [
                items.insert(json!({"id": id})).await.unwrap_err(),
                items.get::<Record>(id).await.unwrap_err(),
                items.update(id, json!({})).await.unwrap_err(),
                items.delete(id).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidValue, "{name} {id:?} {error}");
            }
        }
        // Names of files are shorter than keys: refused, and nothing is left of it.
        match items.insert(json!({"id": long, "n": 7})).await {
            Ok(_) => assert_eq!(items.get::<Record>(&long).await.unwrap()["n"], 7),
            Err(error) => assert!(name == "files" && error.to_string().chars().count() < 900, "{error}"),
        }
        let count = items.count().await.unwrap();
        assert_eq!(count, u64::from(name == "memory"), "{name}");
    }
}

#[tokio::test]
async fn hard_partition_values_are_found_whole_or_refused() {
    for (name, _directory, database) in both().await {
        let places = config(json!({"name": "places", "attributes": {"at": "string|optional"},
                                   "partitions": {"byAt": {"fields": {"at": "string"}}}}));
        let places = database.create_resource(&places).await.unwrap();
        let values = [
            "a", "a/b", "a=b", "a%b", "a\\b", "a/id=x", ".", "..", "a/..", "a/.", "ü 😀", "A", "id=a", "a//b",
        ];
        for (n, at) in values.iter().enumerate() {
            places.insert(json!({"id": format!("p{n:02}"), "at": at})).await.unwrap();
        }
        for (n, at) in values.iter().enumerate() {
            let found: Vec<Record> =
                places.by_partition("byAt", json!({"at": at})).unwrap().records().await.unwrap();
            let found: Vec<_> = found.iter().map(|place| place["id"].clone()).collect();
            assert_eq!(found, [json!(format!("p{n:02}"))], "{name} {at:?}");
        }
        for at in ["/../../../data", "x/../../../../.."] {
            let error = places.insert(json!({"id": "out", "at": at})).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
            assert!(places.by_partition("byAt", json!({"at": at})).is_err());
        }
        assert!(!places.exists("out").await.unwrap(), "{name}: refused before anything is written");
        let long = "v".repeat(1024);
        let error = places.insert(json!({"id": "long", "at": long})).await.unwrap_err();
        assert!(
            error.to_string().contains("too long for a partition") && !error.report().contains(&long),
            "{error}"
        );
        assert!(!places.exists("long").await.unwrap(), "{name}: refused before anything is written");
    }
}

/// Time that goes on when somebody sleeps.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Clock for Time {
    fn now(&self) -> Timestamp {
        Timestamp(cx().now().0 + i64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
        Box::pin(tokio::task::yield_now())
    }
}

impl Random for Time {
    fn next_u64(&self) -> u64 {
        cx().random()
    }
}

/// A store where s3db.js takes turns through lock objects.
#[derive(Debug)]
struct Locking {
    store: MemoryStore,
    /// Changes of the counted value.
    counted: AtomicU32,
}

const LOCK: &str = "resource=items/sequence=id/lock";

#[async_trait]
impl ObjectStore for Locking {
    fn location(&self) -> String {
        self.store.location()
    }
    fn place(&self, key: &str) -> String {
        self.store.place(key)
    }
    async fn get(&self, cx: &Context, key: &str) -> Result<Option<StoredObject>> {
        self.store.get(cx, key).await
    }
    async fn head(&self, cx: &Context, key: &str) -> Result<Option<ObjectMeta>> {
        self.store.head(cx, key).await
    }
    async fn put(
        &self,
        cx: &Context,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
    ) -> Result<()> {
        self.store.put(cx, key, object, condition).await
    }
    async fn modify(&self, cx: &Context, key: &str, change: &BodyChange<'_>) -> Result<()> {
        if key.ends_with("/value") {
            assert!(self.store.head(cx, LOCK).await?.is_some(), "the lock is held");
            self.counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        self.store.modify(cx, key, change).await
    }
    async fn delete(&self, cx: &Context, key: &str) -> Result<()> {
        self.store.delete(cx, key).await
    }
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Box<dyn Listing>> {
        self.store.list(prefix, after)
    }
    fn has_lock_objects(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn where_s3db_js_takes_turns_so_do_we() {
    let store = Arc::new(Locking { store: MemoryStore::new(), counted: AtomicU32::new(0) });
    let time = Time::default();
    let options = DatabaseOptions {
        context: Context::new(Arc::new(time.clone()), Arc::new(time.clone())),
        ..creating()
    };
    let database = Database::open(store.clone(), options).await.unwrap();
    let items = database.create_resource(&items(json!("incremental"))).await.unwrap();
    let mut numbers = many(&items, 50).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert!(store.counted.load(Ordering::SeqCst) < 10, "those who wait share a request");
    assert_eq!(store.get_body(&cx(), LOCK).await.unwrap(), None);

    let end = cx().now().0 + 3_600_000;
    let before = time.monotonic();
    let held =
        json!({"workerId": "holder-web-7", "token": "t", "acquiredAt": 1, "_expiresAt": end}).to_string();
    let held = StoredObject { body: held.into(), ..StoredObject::default() };
    store.put(&cx(), LOCK, &held, PutCondition::Always).await.unwrap();
    let error = items.insert(json!({})).await.unwrap_err();
    assert!(error.is_temporary() && error.kind() == ErrorKind::Contention);
    assert!(error.to_string().contains("holder-web-7") && error.to_string().contains("until: 20"), "{error}");
    let waited = time.monotonic() - before;
    assert!(waited > Duration::from_secs(3) && waited <= Duration::from_secs(5), "{waited:?}");
    assert!(store.get_body(&cx(), LOCK).await.unwrap().is_some(), "the lock of another stays");
    store.delete(&cx(), LOCK).await.unwrap();
    assert_eq!(insert(&items).await, "51");
}
