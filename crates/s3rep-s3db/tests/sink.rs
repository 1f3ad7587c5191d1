//! The sink into another s3db database.
#![allow(clippy::unwrap_used, reason = "a test")]

mod breakable;
mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use breakable::Breakable;
use common::{all, config, creating, cx, keys, open_data, record};
use s3rep_core::{
    Batch, ChangeId, DriverConfig, ErrorKind, Mapping, Operation, Outcome, Partition, Progress, Record,
    ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink, Source, Table, Timestamp,
};
use s3rep_engine::{Pipeline, Replicator, verify};
use s3rep_s3db::{
    Database, DatabaseOptions, FileStore, MemoryStore, ObjectStore, Resource, S3dbConfig, TailOptions,
    TailSource, primitives,
};
use s3rep_testkit::log::MemoryLog;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const HASH: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

fn sink_with(store: &Arc<dyn ObjectStore>, mut options: Value) -> Arc<dyn Sink> {
    options["connectionString"] = "memory://".into();
    serde_json::from_value::<S3dbConfig>(options).unwrap().over(store.clone()).unwrap()
}

fn sink(store: &Arc<dyn ObjectStore>) -> Arc<dyn Sink> {
    sink_with(store, json!({}))
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new())
}

async fn open(store: &Arc<dyn ObjectStore>) -> Database {
    Database::open(store.clone(), creating()).await.unwrap()
}

fn change(seq: u64, key: &str, operation: Operation, record: Option<Record>) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.map(Arc::new),
        change_id: ChangeId::derive("t", key, operation, &seq.to_le_bytes(), None),
        timestamp: Timestamp(0),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

fn put(key: &str, members: Value) -> RowChange {
    change(1, key, Operation::Update, Some(record(members)))
}

fn delete(key: &str) -> RowChange {
    change(1, key, Operation::Delete, None)
}

fn table(schema: &Arc<ResourceSchema>, name: &str) -> Arc<Table> {
    Arc::new(Table { name: name.into(), mode: RouteMode::Upsert, schema: schema.clone() })
}

fn schema_of(attributes: &Value) -> Arc<ResourceSchema> {
    Arc::new(ResourceSchema::parse("t", "v1", attributes.as_object().unwrap()).unwrap())
}

async fn apply(
    sink: &Arc<dyn Sink>,
    table: &Arc<Table>,
    changes: Vec<RowChange>,
) -> s3rep_core::Result<Outcome> {
    let progress = Progress { replicator: "r".into(), log: "l".into(), fence: 1, cursors: Vec::new() };
    sink.apply(&cx(), &Batch { table: table.clone(), changes, progress }).await
}

async fn take(sink: &Arc<dyn Sink>, table: &Arc<Table>, changes: Vec<RowChange>) {
    let outcome = apply(sink, table, changes).await.unwrap();
    assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
}

/// The references among the keys of a database.
async fn references(database: &Database) -> Vec<String> {
    keys(database).await.into_iter().filter(|key| key.contains("/partition=")).collect()
}

fn entry(database: &Database, name: &str) -> Value {
    Value::Object(database.document().resource(name).unwrap().current().unwrap().clone())
}

/// Every kind of thing that a definition says.
fn people() -> Value {
    json!({
        "name": "people", "behavior": "body-overflow", "timestamps": true, "paranoid": false, "idSize": 9,
        "attributes": {
            "name": "string|required|maxlength:40", "city": "string|optional", "pin": "secret|optional",
            "password": "password|optional", "home": "geo:lat|optional", "profile": {"bio": "string|optional"},
        },
        "partitions": {"byCity": {"fields": {"city": "string"}}},
    })
}

async fn source_of(configs: &[Value]) -> (Database, Arc<TailSource>) {
    let database = open(&memory()).await;
    for one in configs {
        database.create_resource(&config(one.clone())).await.unwrap();
    }
    let options = TailOptions { interval: Some(Duration::from_millis(20)), ..TailOptions::default() };
    (database.clone(), Arc::new(TailSource::new(database, options)))
}

fn replicator(sink: Arc<dyn Sink>, resources: Value) -> Replicator {
    Replicator::new("copy", Mapping::parse(&resources).unwrap(), sink).unwrap()
}

async fn once(source: &Arc<TailSource>, log: &MemoryLog, sink: &Arc<dyn Sink>, resources: Value) {
    let replicators = vec![replicator(sink.clone(), resources)];
    let pipeline = Pipeline::new(cx(), source.clone(), Arc::new(log.clone()), replicators).unwrap();
    pipeline.run_once().await.unwrap();
}

async fn assert_equal(source: &Arc<TailSource>, sink: &Arc<dyn Sink>, resources: Value) -> u64 {
    let mut drifts = Vec::new();
    let replicator = replicator(sink.clone(), resources);
    let reports =
        verify(&cx(), &**source, &replicator, &mut |drift| drifts.push(drift), &mut |_| {}).await.unwrap();
    assert!(drifts.is_empty(), "{drifts:?}");
    assert!(reports.iter().all(s3rep_engine::RouteReport::is_equal));
    reports.iter().map(|report| report.compared).sum()
}

#[tokio::test]
async fn a_database_is_copied_with_everything_that_it_is() {
    let (source, tail) = source_of(&[people()]).await;
    let people = source.resource("people").unwrap();
    people
        .insert(json!({
            "id": "ana", "name": "Ana", "city": "Lima", "pin": "1234", "password": "S3cure!pass",
            "home": -23.55052, "profile": {"bio": "x".repeat(3000)},
        }))
        .await
        .unwrap();
    people.insert(json!({"id": "bo", "name": "Bo"})).await.unwrap();
    let store = memory();
    let copy = sink_with(&store, json!({"passphrase": "another"}));
    once(&tail, &MemoryLog::new(), &copy, json!({"people": "folk"})).await;
    assert_eq!(assert_equal(&tail, &copy, json!({"people": "folk"})).await, 2);

    let options = DatabaseOptions { passphrase: "another".into(), ..DatabaseOptions::default() };
    let database = Database::open(store.clone(), options).await.unwrap();
    let (was, is) = (entry(&source, "people"), entry(&database, "folk"));
    assert_eq!(was["hash"], is["hash"], "the definition is the same");
    for member in ["attributes", "behavior", "timestamps", "partitions", "paranoid", "autoDecrypt", "idSize"]
    {
        assert_eq!(was[member], is[member], "{member}");
    }
    let folk = database.resource("folk").unwrap();
    let (old, new) = (all(&people).await, all(&folk).await);
    assert_eq!(old, new, "timestamps and all");
    assert_eq!(new["ana"]["pin"], "1234");
    assert!(primitives::verify("S3cure!pass", new["ana"]["password"].as_str().unwrap()));
    assert_eq!(references(&database).await, references_of(&source).await);
    let closed = open(&store).await.resource("folk").unwrap().get::<Record>("ana").await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::ConfigInvalid, "another passphrase: {closed}");
}

/// The references of `people` as they would be in `folk`.
async fn references_of(source: &Database) -> Vec<String> {
    references(source)
        .await
        .into_iter()
        .map(|key| key.replace("resource=people/", "resource=folk/"))
        .collect()
}

#[tokio::test]
async fn real_data_is_copied_and_behaviours_are_kept() {
    let (_directory, base) = open_data();
    let source = Database::open(Arc::new(FileStore::new(base)), DatabaseOptions::default()).await.unwrap();
    let tail = Arc::new(TailSource::new(source.clone(), TailOptions::default()));
    let names: Vec<Value> =
        tail.resources(&cx()).await.unwrap().iter().map(|schema| (*schema.name).into()).collect();
    let store = memory();
    let copy = sink(&store);
    once(&tail, &MemoryLog::new(), &copy, Value::Array(names.clone())).await;
    assert!(assert_equal(&tail, &copy, Value::Array(names.clone())).await > 1_000);
    let database = open(&store).await;
    for name in names.iter().filter_map(Value::as_str) {
        assert_eq!(entry(&source, name)["hash"], entry(&database, name)["hash"], "{name}");
    }
}

#[tokio::test]
async fn partitions_are_kept_in_step() {
    let store = memory();
    let database = open(&store).await;
    database
        .create_resource(&config(json!({
            "name": "t", "attributes": {"a": "string|optional", "b": "string|optional"},
            "partitions": {"byA": {"fields": {"a": "string"}}, "byAB": {"fields": {"a": "string", "b": "string"}}},
        })))
        .await
        .unwrap();
    let copy = sink(&store);
    let t = table(&schema_of(&json!({"a": "string|optional", "b": "string|optional"})), "t");
    take(&copy, &t, vec![put("x", json!({"a": "1", "b": "1"})), put("y", json!({"a": "1"}))]).await;
    let by_a = |a: &str, id: &str| format!("resource=t/partition=byA/a={a}/id={id}");
    let by_ab = |a: &str, b: &str, id: &str| format!("resource=t/partition=byAB/a={a}/b={b}/id={id}");
    assert_eq!(references(&database).await, [by_a("1", "x"), by_a("1", "y"), by_ab("1", "1", "x")]);
    take(&copy, &t, vec![put("x", json!({"a": "2", "b": "1"})), put("y", json!({"b": "1"}))]).await;
    assert_eq!(references(&database).await, [by_a("2", "x"), by_ab("2", "1", "x")]);
    // One that another program spoilt tells nothing of its references: they are looked for.
    let broken = s3rep_s3db::StoredObject {
        metadata: vec![("_overflow".into(), "true".into()), ("_v".into(), "v1".into())],
        body: "{\"half".into(),
        content_type: None,
    };
    store.put(&cx(), "resource=t/data/id=x", &broken, s3rep_s3db::PutCondition::Always).await.unwrap();
    take(&copy, &t, vec![put("x", json!({"a": "3"}))]).await;
    assert_eq!(references(&database).await, [by_a("3", "x")]);
    take(&copy, &t, vec![delete("x"), delete("y"), delete("never"), delete("no/id")]).await;
    assert!(references(&database).await.is_empty());
    assert_eq!(database.resource("t").unwrap().count().await.unwrap(), 0);
}

#[tokio::test]
async fn whoever_is_cut_off_at_any_write_does_the_rest_when_the_batch_comes_again() {
    let definition = json!({
        "name": "t", "attributes": {"a": "string|optional"}, "partitions": {"byA": {"fields": {"a": "string"}}},
    });
    let schema = {
        let (_, tail) = source_of(&[definition]).await;
        tail.resources(&cx()).await.unwrap().remove(0)
    };
    let t = table(&schema, "t");
    for writes in 0..24 {
        let inner = memory();
        let breakable = Arc::new(Breakable::new(inner.clone()));
        let store: Arc<dyn ObjectStore> = breakable.clone();
        let first: Vec<_> = ["x", "y", "z"].map(|id| put(id, json!({"a": "1"}))).into();
        take(&sink(&store), &t, first).await;
        breakable.break_after(writes);
        let second =
            vec![put("x", json!({"a": "2"})), put("y", json!({})), delete("z"), put("n", json!({"a": "3"}))];
        let cut_off = apply(&sink(&store), &t, second.clone()).await;
        if let Err(error) = &cut_off {
            assert!(error.is_temporary() && error.scope() == Scope::Sink, "{error:?}");
        }
        breakable.mend();
        // A process that knows nothing of the first try.
        take(&sink(&store), &t, second).await;
        let database = open(&inner).await;
        let wanted: Vec<_> =
            [("2", "x"), ("3", "n")].map(|(a, id)| format!("resource=t/partition=byA/a={a}/id={id}")).into();
        assert_eq!(references(&database).await, wanted, "cut off after {writes} writes");
        let ids: Vec<_> = all(&database.resource("t").unwrap()).await.into_keys().collect();
        assert_eq!(ids, ["n", "x", "y"]);
        if cut_off.is_ok() {
            return;
        }
    }
    panic!("the batch is never done");
}

#[tokio::test]
async fn a_record_that_is_there_already_is_not_written_again() {
    let store = memory();
    let breakable = Arc::new(Breakable::new(store.clone()));
    let counted: Arc<dyn ObjectStore> = breakable.clone();
    let definition = json!({
        "name": "t", "attributes": {"a": "string|optional"}, "partitions": {"byA": {"fields": {"a": "string"}}},
    });
    let (_, tail) = source_of(&[definition]).await;
    let t = table(&tail.resources(&cx()).await.unwrap().remove(0), "t");
    let copy = sink(&counted);
    let batch = vec![put("x", json!({"a": "1"})), put("y", json!({"a": "2"}))];
    take(&copy, &t, batch.clone()).await;
    // A reference of each is; one write is left then.
    breakable.break_after(3);
    take(&copy, &t, batch).await;
    let spent = apply(&copy, &t, vec![put("y", json!({"a": "3"}))]).await;
    assert!(spent.is_err(), "one write was left");
}

#[tokio::test]
async fn resources_made_at_once_by_two_sinks_are_both_there() {
    for round in 0..10 {
        let store = memory();
        let attributes = json!({"a": "string|optional", "b": "number|optional"});
        let one = schema_of(&json!({"a": "string|optional", "c": "string|optional"}));
        let two = schema_of(&attributes);
        let mut tasks = Vec::new();
        for at in 0..6 {
            let (copy, schema) = (sink(&store), if at % 2 == 0 { &one } else { &two });
            let (shared, own) = (table(schema, "shared"), table(schema, &format!("own{at}")));
            tasks.push(tokio::spawn(async move {
                let id = format!("r{at}");
                let rows = || vec![put(&id, json!({"a": "1"}))];
                take(&copy, &shared, rows()).await;
                take(&copy, &own, rows()).await;
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let database = open(&store).await;
        assert_eq!(database.resources().len(), 7, "round {round}");
        let shared = entry(&database, "shared");
        for name in ["a", "b", "c"] {
            assert!(shared["attributes"].get(name).is_some(), "{name} is lost");
        }
        assert_eq!(database.resource("shared").unwrap().count().await.unwrap(), 6);
    }
}

#[tokio::test]
async fn a_resource_of_somebody_else_is_left_alone_unless_told() {
    let store = memory();
    let database = open(&store).await;
    database.create_resource(&config(json!({"name": "t", "attributes": {"a": "string"}}))).await.unwrap();
    let before = database.document();
    let t = table(&schema_of(&json!({"a": "string", "tall": "number|optional"})), "t");
    let rows = || vec![put("x", json!({"a": "1"})), put("y", json!({"a": "1", "tall": 1.5}))];
    let outcome = apply(&sink(&store), &t, rows()).await.unwrap();
    assert_eq!(outcome.rejected.len(), 1);
    let error = &outcome.rejected[0].error;
    assert_eq!((outcome.rejected[0].index, error.scope()), (1, Scope::Record));
    assert!(error.to_string().contains("'tall' is not declared"), "{error}");
    database.refresh().await.unwrap();
    assert_eq!(database.document(), before);

    let told = sink_with(&store, json!({"schemaSync": {"enabled": true}}));
    take(&told, &t, rows()).await;
    database.refresh().await.unwrap();
    assert_eq!(entry(&database, "t")["attributes"], json!({"a": "string", "tall": "number|optional"}));
    let strict = sink_with(&store, json!({"schemaSync": {"enabled": true, "strategy": "validate-only"}}));
    let missing = apply(&strict, &table(&t.schema, "u"), rows()).await.unwrap_err();
    assert_eq!((missing.kind(), missing.scope()), (ErrorKind::SchemaMismatch, Scope::Table));
}

#[tokio::test]
async fn drop_create_begins_anew() {
    let store = memory();
    let database = open(&store).await;
    let t = database
        .create_resource(&config(json!({
            "name": "t", "attributes": {"a": "number"}, "partitions": {"byA": {"fields": {"a": "number"}}},
        })))
        .await
        .unwrap();
    t.insert(json!({"id": "old", "a": 1})).await.unwrap();
    let copy = sink_with(&store, json!({"schemaSync": {"enabled": true, "strategy": "drop-create"}}));
    let wanted = table(&schema_of(&json!({"a": "string"})), "t");
    let sync = copy.schema_sync().unwrap();
    let have = sync.inspect(&cx(), &wanted).await.unwrap();
    let plan = sync.plan(&wanted, have.as_ref()).unwrap();
    assert!(plan.destructive && plan.creates);
    sync.execute(&cx(), &plan).await.unwrap();
    take(&copy, &wanted, vec![put("new", json!({"a": "text"}))]).await;
    database.refresh().await.unwrap();
    let ids: Vec<_> = all(&database.resource("t").unwrap()).await.into_keys().collect();
    assert_eq!((ids, references(&database).await), (vec!["new".to_owned()], Vec::new()));
}

#[tokio::test]
async fn a_copy_takes_what_became_required_later_and_no_plain_password() {
    let store = memory();
    let copy = sink(&store);
    let t =
        table(&schema_of(&json!({"a": "string|required", "b": "string|default:x", "p": "password"})), "t");
    let rows = vec![
        put("old", json!({"a": " spaces "})),
        put("hashed", json!({"p": HASH})),
        put("plain", json!({"p": "hunter2"})),
    ];
    let outcome = apply(&copy, &t, rows).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [2]);
    assert!(!outcome.rejected[0].error.report().contains("hunter2"));
    let rows: BTreeMap<_, _> =
        copy.readback().unwrap().rows(&cx(), &t, None, 10).await.unwrap().into_iter().collect();
    assert_eq!(rows["old"], record(json!({"id": "old", "a": " spaces "})));
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn secrets_that_the_source_does_not_open_stay_closed() {
    let definition = json!({"name": "t", "attributes": {"pin": "secret|optional"}, "autoDecrypt": false});
    let (source, tail) = source_of(&[definition]).await;
    let t = source.resource("t").unwrap();
    t.insert(json!({"id": "x", "pin": "1234"})).await.unwrap();
    let store = memory();
    let copy = sink_with(&store, json!({"passphrase": "another"}));
    once(&tail, &MemoryLog::new(), &copy, json!(["t"])).await;
    assert_equal(&tail, &copy, json!(["t"])).await;
    let copied = open(&store).await.resource("t").unwrap();
    assert_eq!(all(&copied).await, all(&t).await);
}

#[tokio::test]
async fn check_writes_nothing_and_a_damaged_destination_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/not/there", directory.path().display());
    let config = json!({"connectionString": url, "keyPrefix": "yet"});
    let copy = serde_json::from_value::<S3dbConfig>(config).unwrap().build().unwrap();
    copy.check(&cx()).await.unwrap();
    assert!(!directory.path().join("not").exists());
    let t = table(&schema_of(&json!({"a": "string"})), "t");
    take(&copy, &t, vec![delete("x")]).await;
    assert!(!directory.path().join("not").exists(), "a delete makes no database");
    take(&copy, &t, vec![put("x", json!({"a": "1"}))]).await;
    let file = directory.path().join("not/there/yet/s3db.json");
    std::fs::write(&file, "no JSON at all").unwrap();
    let copy = sink(&(Arc::new(FileStore::new(file.parent().unwrap())) as Arc<dyn ObjectStore>));
    for error in
        [copy.check(&cx()).await.unwrap_err(), apply(&copy, &t, vec![put("y", json!({}))]).await.unwrap_err()]
    {
        assert_eq!((error.kind(), error.scope()), (ErrorKind::Corrupt, Scope::Sink));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no JSON at all");
}

async fn until_equal(source: &Resource, store: &Arc<dyn ObjectStore>, name: &str) {
    for _ in 0..500 {
        let database = open(store).await;
        if let Ok(copy) = database.resource(name)
            && all(&copy).await == all(source).await
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the copy never becomes equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pipeline_carries_changes_and_a_new_attribute() {
    let definition = |more: Value| {
        let mut attributes = json!({"n": "number", "kind": "string|optional"});
        attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({
            "name": "t", "attributes": attributes, "timestamps": true,
            "partitions": {"byKind": {"fields": {"kind": "string"}}},
        })
    };
    let (source, tail) = source_of(&[definition(json!({}))]).await;
    let t = source.resource("t").unwrap();
    for n in 0..200 {
        t.insert(json!({"id": format!("r{n:03}"), "n": n, "kind": format!("k{}", n % 3)})).await.unwrap();
    }
    let store = memory();
    let copy = sink(&store);
    let log = Arc::new(MemoryLog::new());
    let pipeline =
        Pipeline::new(cx(), tail.clone(), log, vec![replicator(copy.clone(), json!(["t"]))]).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { pipeline.follow(stop).await }
    });
    until_equal(&t, &store, "t").await;
    for n in 0..200 {
        let id = format!("r{n:03}");
        match n % 4 {
            0 => t.delete(&id).await.unwrap(),
            1 => drop(t.update(&id, json!({"kind": "moved", "n": -n})).await.unwrap()),
            _ => {}
        }
    }
    until_equal(&t, &store, "t").await;
    let t = source.create_resource(&config(definition(json!({"color": "string|optional"})))).await.unwrap();
    t.update("r001", json!({"color": "red"})).await.unwrap();
    t.insert(json!({"id": "new", "n": 1, "color": "blue"})).await.unwrap();
    until_equal(&t, &store, "t").await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(assert_equal(&tail, &copy, json!(["t"])).await, 151);
    let database = open(&store).await;
    assert_eq!(references(&database).await, references(&source).await);
    assert_eq!(entry(&source, "t")["hash"], entry(&database, "t")["hash"]);
}
