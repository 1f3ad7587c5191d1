//! Queries: filters, partitions, pages, streams, typed records; and records that are refused.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use common::{both, config, spoil};
use futures::{StreamExt, TryStreamExt};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use s3rep_core::{Error, ErrorKind, Record};
use s3rep_s3db::{Action, Database, MemoryStore, Page, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn cars() -> Value {
    json!({
        "name": "cars",
        "behavior": "body-overflow",
        "attributes": {"model": "string|optional", "year": "number|optional", "origin": "string|optional",
                       "used": "boolean|optional", "engine": {"hp": "number|optional"},
                       "tags": "array|items:string|optional"},
        "partitions": {"byOrigin": {"fields": {"origin": "string"}},
                       "byOriginYear": {"fields": {"origin": "string", "year": "number"}}},
    })
}

async fn insert(cars: &Resource, records: impl IntoIterator<Item = Value>) {
    for record in records {
        cars.insert(record).await.unwrap();
    }
}

fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

/// The pages of a query, one after the other.
async fn pages(query: &s3rep_s3db::Query, size: usize) -> Vec<Vec<Record>> {
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let page: Page<Record> = query.page(size, cursor.as_deref()).await.unwrap();
        pages.push(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return pages;
        }
    }
}

// What is wanted, said a second time and naively.

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4_i32).prop_map(Value::from),
        prop::sample::select(vec![json!("US"), json!("USA"), json!("us"), json!("")]),
        prop::sample::select(vec![json!(null), json!(true), json!(1.5), json!(["a"]), json!([])]),
    ]
}

fn car() -> impl Strategy<Value = Record> {
    let origin = prop::option::of(prop::sample::select(vec!["US", "USA", "U", "us/x", "a=b", "é", "."]));
    let tags = prop::option::of(prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..2));
    (prop::option::of(0..4_i32), origin, prop::option::of(any::<bool>()), prop::option::of(0..3_i32), tags)
        .prop_map(|(year, origin, used, hp, tags)| {
            let mut car = Record::new();
            car.extend(year.map(|year| ("year".to_owned(), json!(year))));
            car.extend(origin.map(|origin| ("origin".to_owned(), json!(origin))));
            car.extend(used.map(|used| ("used".to_owned(), json!(used))));
            car.extend(hp.map(|hp| ("engine".to_owned(), json!({"hp": hp}))));
            car.extend(tags.map(|tags| ("tags".to_owned(), json!(tags))));
            car
        })
}

fn filter() -> impl Strategy<Value = Value> {
    let path = || prop::sample::select(vec!["year", "origin", "used", "engine.hp", "tags", "gone", "engine"]);
    let operator = prop::sample::select(vec![
        "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$regex",
    ]);
    let test = (operator, value(), prop::collection::vec(value(), 0..3), any::<bool>()).prop_map(
        |(operator, value, list, flag)| match operator {
            "$in" | "$nin" => json!({operator: list}),
            "$exists" => json!({operator: flag}),
            "$regex" => json!({operator: "^us", "$options": if flag { "i" } else { "" }}),
            "$gt" | "$gte" | "$lt" | "$lte" if !(value.is_number() || value.is_string()) => {
                json!({operator: 1})
            }
            _ => json!({operator: value}),
        },
    );
    let test = (test, any::<bool>()).prop_map(|(test, not)| if not { json!({"$not": test}) } else { test });
    let leaf = (path(), prop_oneof![value(), test]).prop_map(|(path, test)| json!({path: test}));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|filters| json!({"$and": filters})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|filters| json!({"$or": filters})),
            inner.prop_map(|filter| json!({"$not": filter})),
        ]
    })
}

fn wants(filter: &Value, car: &Value) -> bool {
    filter.as_object().unwrap().iter().all(|(name, wanted)| match name.as_str() {
        "$and" => wanted.as_array().unwrap().iter().all(|filter| wants(filter, car)),
        "$or" => wanted.as_array().unwrap().iter().any(|filter| wants(filter, car)),
        "$not" => !wants(wanted, car),
        path => is(car.pointer(&format!("/{}", path.replace('.', "/"))), wanted),
    })
}

fn is(value: Option<&Value>, wanted: &Value) -> bool {
    let operators = wanted.as_object().filter(|members| members.keys().any(|name| name.starts_with('$')));
    let Some(operators) = operators else { return value == Some(wanted) };
    let compared = |wanted: &Value| match (value?, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    operators.iter().all(|(operator, wanted)| match operator.as_str() {
        "$eq" => value == Some(wanted),
        "$ne" => value != Some(wanted),
        "$gt" => compared(wanted).is_some_and(|order| order.is_gt()),
        "$gte" => compared(wanted).is_some_and(|order| order.is_ge()),
        "$lt" => compared(wanted).is_some_and(|order| order.is_lt()),
        "$lte" => compared(wanted).is_some_and(|order| order.is_le()),
        "$in" => value.is_some_and(|value| wanted.as_array().unwrap().contains(value)),
        "$nin" => !value.is_some_and(|value| wanted.as_array().unwrap().contains(value)),
        "$exists" => value.is_some() == wanted.as_bool().unwrap(),
        "$regex" => value.and_then(Value::as_str).is_some_and(|text| match operators["$options"].as_str() {
            Some("i") => text.to_lowercase().starts_with("us"),
            _ => text.starts_with("us"),
        }),
        "$options" => true,
        "$not" => !is(value, wanted),
        operator => panic!("{operator}"),
    })
}

/// Runs a property; a failure prints the seed of its smallest case.
fn check<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand_seed);
    let config = Config {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(strategy, property) {
        panic!("SEED={seed}: {error}");
    }
}

fn rand_seed() -> u64 {
    common::cx().random()
}

#[test]
fn a_query_finds_what_a_look_at_every_record_finds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let databases = runtime.block_on(both());
    let resources: Vec<_> = databases
        .iter()
        .map(|(_, _, it)| runtime.block_on(it.create_resource(&config(cars()))).unwrap())
        .collect();
    let case = std::cell::Cell::new(0);
    let strategy = (prop::collection::vec(car(), 0..14), filter(), 1..5_usize);
    check(150, &strategy, |(cars_in, filter, size)| {
        case.set(case.get() + 1);
        runtime.block_on(async {
            // Files are slow: one case of many.
            for cars in resources.iter().skip(usize::from(case.get() % 15 > 0)) {
                for id in cars.list_ids().await.unwrap() {
                    cars.delete(&id).await.unwrap();
                }
                let mut stored = BTreeMap::new();
                for (n, car) in cars_in.iter().enumerate() {
                    let mut car = car.clone();
                    car.insert("id".into(), json!(format!("c{n:02}")));
                    let car = cars.insert(car).await.unwrap();
                    stored.insert(format!("c{n:02}"), Value::Object(car));
                }
                let naive = |keep: &dyn Fn(&Value) -> bool| {
                    let kept = stored.iter().filter(|(_, car)| keep(car));
                    kept.map(|(id, _)| id.clone()).collect::<Vec<_>>()
                };
                let query = cars.query(&filter).unwrap();
                let expected = naive(&|car| wants(&filter, car));
                let found: Vec<Record> = query.records().await.unwrap();
                prop_assert_eq!(ids(&found), expected.clone(), "{}", filter);
                prop_assert_eq!(query.ids().await.unwrap(), expected.clone());
                prop_assert_eq!(query.count().await.unwrap(), expected.len() as u64);
                let streamed: Vec<Record> = query.stream().try_collect().await.unwrap();
                prop_assert_eq!(ids(&streamed), expected.clone());
                let paged = pages(&query, size).await;
                prop_assert!(paged.iter().rev().skip(1).all(|page| page.len() == size));
                prop_assert_eq!(ids(&paged.concat()), expected.clone());
                let limited: Vec<Record> = query.clone().limit(size).after("c03").records().await.unwrap();
                let after = expected.iter().filter(|id| id.as_str() > "c03").take(size).cloned();
                prop_assert_eq!(ids(&limited), after.collect::<Vec<_>>());

                for origin in ["US", "U", "us/x", "us", "a=b", "a", "é", ".", ""] {
                    let within = cars.by_partition("byOrigin", json!({"origin": origin})).unwrap();
                    let expected = naive(&|car| car.get("origin") == Some(&json!(origin)));
                    let found: Vec<Record> = within.records().await.unwrap();
                    prop_assert_eq!(ids(&found), expected.clone(), "origin {}", origin);
                    prop_assert_eq!(ids(&pages(&within, size).await.concat()), expected.clone());
                    prop_assert_eq!(within.count().await.unwrap(), expected.len() as u64);
                    let both = within.filter(&filter).unwrap();
                    let expected =
                        naive(&|car| car.get("origin") == Some(&json!(origin)) && wants(&filter, car));
                    prop_assert_eq!(both.ids().await.unwrap(), expected);
                    let leading = cars.by_partition("byOriginYear", json!({"origin": origin})).unwrap();
                    let mut found = leading.after("c02").ids().await.unwrap();
                    found.sort();
                    let expected =
                        naive(&|car| car.get("origin") == Some(&json!(origin)) && car.get("year").is_some());
                    let expected: Vec<_> = expected.into_iter().filter(|id| id.as_str() > "c02").collect();
                    if !["us", "a"].contains(&origin) {
                        prop_assert_eq!(found, expected);
                    }
                }
            }
            Ok(())
        })
    });
}

#[tokio::test]
async fn pages_go_on_past_a_thousand_and_past_what_happens_in_between() {
    for (name, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        insert(&cars, (0..1300).map(|n| json!({"id": format!("{n:04}"), "year": n % 3, "origin": "US"})))
            .await;
        assert_eq!(cars.list().ids().await.unwrap().len(), 1300);
        assert_eq!(cars.query(json!({"year": 1})).unwrap().count().await.unwrap(), 433);
        assert_eq!(cars.list().records::<Record>().await.unwrap().len(), 1300);
        let within = cars.by_partition("byOrigin", json!({"origin": "US"})).unwrap();
        assert_eq!(within.count().await.unwrap(), 1300);
        for query in [cars.list(), within, cars.query(json!({"year": {"$in": [0, 1, 2]}})).unwrap()] {
            let pages = pages(&query, 650).await;
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [650, 650], "{name}");
        }

        let young = cars.query(json!({"year": 2})).unwrap();
        let first: Page<Record> = young.page(3, None).await.unwrap();
        assert_eq!(ids(&first.items), ["0002", "0005", "0008"]);
        // Before the cursor, at it, after it.
        insert(&cars, [json!({"id": "0001a", "year": 2}), json!({"id": "0008a", "year": 2})]).await;
        for id in ["0002", "0008", "0011"] {
            cars.delete(id).await.unwrap();
        }
        let second: Page<Record> = young.page(3, first.next.as_deref()).await.unwrap();
        assert_eq!(ids(&second.items), ["0008a", "0014", "0017"]);
        let again: Page<Record> = young.page(3, first.next.as_deref()).await.unwrap();
        assert_eq!(again, second);
    }
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let database = Database::open(Arc::new(MemoryStore::new()), common::creating()).await.unwrap();
    let cars = database.create_resource(&config(cars())).await.unwrap();
    let others = json!({"name": "car", "attributes": {"model": "string"}});
    let others = database.create_resource(&config(others)).await.unwrap();
    insert(&cars, (0..5).map(|n| json!({"id": format!("{n}"), "origin": "US"}))).await;
    let next = cars.list().page::<Record>(2, None).await.unwrap().next.unwrap();
    let within = cars.by_partition("byOrigin", json!({"origin": "US"})).unwrap();
    for (query, size, cursor) in [
        (others.list(), 2, next.as_str()),
        (within, 2, &next),
        (cars.list(), 3, &next),
        (cars.list(), 2, "no cursor"),
        (cars.list(), 2, ""),
        (cars.list(), 2, &next[..20]),
    ] {
        let error = query.page::<Record>(size, Some(cursor)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(error.to_string().contains("cursor") && error.advice().is_some(), "{error}");
    }
    assert!(cars.list().page::<Record>(0, None).await.is_err());
    assert!(cars.list().limit(5).page::<Record>(2, None).await.is_err());
    let empty = others.list().page::<Record>(2, None).await.unwrap();
    assert_eq!((empty.items.len(), empty.next), (0, None));
    let whole = cars.list().page::<Record>(5, None).await.unwrap();
    assert_eq!(
        (whole.items.len(), whole.next),
        (5, None),
        "nothing comes after a page that ends with the last"
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Car {
    id: String,
    year: u32,
    engine: Option<Engine>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Engine {
    hp: f64,
}

#[derive(Serialize)]
struct Of {
    origin: &'static str,
}

#[tokio::test]
async fn records_come_as_the_callers_types() {
    for (_, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        insert(
            &cars,
            [
                json!({"id": "a", "year": 1, "origin": "US", "engine": {"hp": 40}}),
                json!({"id": "b", "year": 2, "origin": "US"}),
                json!({"id": "c", "origin": "US"}),
            ],
        )
        .await;
        let a = || Car { id: "a".into(), year: 1, engine: Some(Engine { hp: 40.0 }) };
        let b = || Car { id: "b".into(), year: 2, engine: None };
        let with_year = cars.by_partition("byOrigin", Of { origin: "US" }).unwrap();
        let with_year = with_year.filter(json!({"year": {"$exists": true}})).unwrap();
        assert_eq!(with_year.records::<Car>().await.unwrap(), [a(), b()]);
        assert_eq!(
            cars.get_many::<Car>(["b", "nobody", "a", "b"]).await.unwrap(),
            [Some(b()), None, Some(a()), Some(b())]
        );
        assert_eq!(cars.get_many::<Car>(Vec::<String>::new()).await.unwrap(), []);

        // What does not fit is named, whichever way it is read.
        let rows: Vec<_> = cars.list().stream::<Car>().collect().await;
        assert!(rows[0].is_ok() && rows[1].is_ok());
        for error in [
            rows.into_iter().nth(2).unwrap().unwrap_err(),
            cars.list().records::<Car>().await.unwrap_err(),
            cars.list().page::<Car>(3, None).await.unwrap_err(),
            cars.get_many::<Car>(["c"]).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
            assert!(error.to_string().contains("id: c") && error.to_string().contains("year"), "{error}");
        }
        assert_eq!(cars.get_many::<Car>(["a/b"]).await.unwrap_err().kind(), ErrorKind::InvalidValue);
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_never_left_out_in_silence() {
    let database = Database::open(Arc::new(MemoryStore::new()), common::creating()).await.unwrap();
    let cars = database.create_resource(&config(cars())).await.unwrap();
    insert(&cars, ["a", "b", "c"].map(|id| json!({"id": id, "origin": "US", "year": 1}))).await;
    spoil(&database, "cars", "b").await;
    let filtered = cars.query(json!({"year": 1})).unwrap();
    let within = cars.by_partition("byOrigin", json!({"origin": "US"})).unwrap();
    for query in [cars.list(), filtered.clone(), within.clone()] {
        for error in [
            query.records::<Record>().await.unwrap_err(),
            query.page::<Record>(3, None).await.unwrap_err(),
            query.stream::<Record>().try_collect::<Vec<_>>().await.unwrap_err(),
        ] {
            assert!(error.report().contains("id: b"), "{error}");
        }
        let rows: Vec<_> = query.stream::<Record>().collect().await;
        assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(query.clone().limit(1).records::<Record>().await.unwrap().len(), 1);
    }
    assert!(filtered.count().await.is_err() && filtered.ids().await.is_err());
    assert_eq!(within.count().await.unwrap(), 3, "the references are counted");
    assert!(cars.get_many::<Record>(["a", "b"]).await.unwrap_err().report().contains("id: b"));
}

#[tokio::test]
async fn streams_read_ahead_within_bounds_and_stop_when_dropped() {
    for (_, _directory, database) in both().await {
        let cars = database.create_resource(&config(cars())).await.unwrap();
        insert(&cars, (0..700).map(|n| json!({"id": format!("{n:04}"), "year": n}))).await;
        let mut stream = cars.query(json!({"year": {"$gte": 10}})).unwrap().stream::<Record>();
        for n in 10..300 {
            assert_eq!(stream.next().await.unwrap().unwrap()["year"], n);
        }
        drop(stream);
        // Half way through a read.
        let mut stream = cars.list().stream::<Record>();
        let first = tokio::time::timeout(std::time::Duration::ZERO, stream.next()).await;
        drop((first, stream));
        assert_eq!(cars.count().await.unwrap(), 700);
        let streamed: Vec<Record> = cars.list().after("0600").stream().try_collect().await.unwrap();
        assert_eq!(streamed.len(), 99);
        let bad: Vec<_> = cars.list().after("a/b").stream::<Record>().collect().await;
        assert_eq!((bad.len(), bad[0].is_err()), (1, true));
    }
}

#[tokio::test]
async fn wrong_partitions_and_filters_say_what_there_is() {
    let database = Database::open(Arc::new(MemoryStore::new()), common::creating()).await.unwrap();
    let cars = database.create_resource(&config(cars())).await.unwrap();
    let error = cars.by_partition("byOrigni", json!({"origin": "US"})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.advice(), Some("did you mean 'byOrigin'?"));
    for values in [
        json!({"year": 1}),
        json!({"colour": 1}),
        json!({"origin": null}),
        json!(["US"]),
        json!({"origin": "x/../../.."}),
    ] {
        let error = cars.by_partition("byOriginYear", &values).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{values}");
    }
    let error = cars.query(json!({"year": {"$gtr": 1}, "origin": {"$in": "US"}})).unwrap_err().to_string();
    assert!(
        error.contains("year.$gtr") && error.contains("'$gt'") && error.contains("origin.$in"),
        "{error}"
    );
    assert!(cars.query(7).is_err());
}

#[tokio::test]
async fn hooks_stand_around_queries() {
    let database = Database::open(Arc::new(MemoryStore::new()), common::creating()).await.unwrap();
    let cars = database.create_resource(&config(cars())).await.unwrap();
    insert(&cars, ["a", "b"].map(|id| json!({"id": id, "year": 1}))).await;
    let before = Arc::new(std::sync::Mutex::new(Vec::new()));
    for action in [Action::List, Action::Count, Action::Get] {
        let before = before.clone();
        cars.before(action, move |call| {
            before.lock().unwrap().push(call.action);
            async { Ok(call) }
        });
    }
    for action in [Action::List, Action::Get] {
        cars.after(action, |mut call| async {
            call.record.insert("year".into(), json!(7));
            Ok(call)
        });
    }
    let found: Vec<Record> = cars.list().records().await.unwrap();
    assert!(found.iter().all(|car| car["year"] == 7));
    assert_eq!(cars.list().page::<Record>(2, None).await.unwrap().items, found);
    assert_eq!(cars.count().await.unwrap(), 2);
    assert_eq!(cars.get_many::<Record>(["a"]).await.unwrap()[0].as_ref().unwrap()["year"], 7);
    use Action::{Count, Get, List};
    assert_eq!(*before.lock().unwrap(), [List, List, Count, Get]);
    cars.before(List, |_| async { Err(Error::new(ErrorKind::PermissionDenied, "not for you")) });
    assert!(cars.list().ids().await.is_err());
    assert_eq!(cars.list().stream::<Record>().collect::<Vec<_>>().await.len(), 1);
}
