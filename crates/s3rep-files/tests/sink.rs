//! What the conformance suite cannot know: lines, files and their names.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, atomic::Ordering},
};

use common::*;
use s3rep_core::{ErrorKind, Operation, Record, RouteMode, Scope, Table};
use serde_json::{Value, json};

#[tokio::test]
async fn lines_of_json() {
    let bench = Bench::new(json!({}));
    let record =
        json!({"z": 1, "id": "a", "name": "x\n\u{1f600}", "n": {"b": [null, 1e300]}, "big": u64::MAX});
    let changes = vec![
        change(1, "a", Operation::Insert, Some(record.clone())),
        change(2, "a\"b", Operation::Read, Some(json!({}))),
        change(3, "a", Operation::Delete, Some(json!({"name": "last"}))),
        change(4, "c", Operation::Delete, None),
    ];
    bench.apply(&cars(), changes).await.unwrap();
    let files = bench.files("cars");
    let expected = "\
{\"_operation\":\"insert\",\"_change_id\":\"00000000000000000000000000000001\",\"_changed_at\":\"2023-11-14T22:13:20.000Z\",\"id\":\"a\",\"z\":1,\"name\":\"x\\n\u{1f600}\",\"n\":{\"b\":[null,1e+300]},\"big\":18446744073709551615}
{\"_operation\":\"read\",\"_change_id\":\"00000000000000000000000000000002\",\"_changed_at\":\"2023-11-14T22:13:20.000Z\",\"id\":\"a\\\"b\"}
{\"_operation\":\"delete\",\"_change_id\":\"00000000000000000000000000000003\",\"_changed_at\":\"2023-11-14T22:13:20.000Z\",\"id\":\"a\",\"name\":\"last\"}
{\"_operation\":\"delete\",\"_change_id\":\"00000000000000000000000000000004\",\"_changed_at\":\"2023-11-14T22:13:20.000Z\",\"id\":\"c\"}
";
    assert_eq!(files, [("cars-3f2a91c0-0000000000000001.jsonl.part".to_owned(), expected.to_owned())].into());
    bench.sink.close(&bench.cx).await.unwrap();
    assert_eq!(bench.names("cars"), ["cars-3f2a91c0-0000000000000001.jsonl"]);
    assert_eq!(bench.rows(&cars()).await, [("a\"b".to_owned(), Record::new())]);
}

#[tokio::test]
async fn lines_of_csv() {
    let mut bench = Bench::with(json!({}), true);
    let record =
        json!({"name": "a \"b\", c\nd", "price": 1.5, "tags": ["x", 1], "sold": true, "undeclared": 1});
    let empty = json!({"name": "", "price": null, "tags": [], "sold": false});
    let changes = vec![
        change(1, "a", Operation::Insert, Some(record.clone())),
        change(2, "b,", Operation::Update, Some(empty.clone())),
        change(3, "c", Operation::Delete, None),
    ];
    bench.apply(&cars(), changes).await.unwrap();
    let text = bench.files("cars").into_values().next().unwrap();
    let id = |n| format!("{n:032},2023-11-14T22:13:20.000Z");
    let expected = format!(
        "_operation,_change_id,_changed_at,id,name,price,tags,sold\n\
         insert,{},a,\"a \"\"b\"\", c\nd\",1.5,\"[\"\"x\"\",1]\",true\n\
         update,{},\"b,\",\"\",,[],false\n\
         delete,{},c,,,,\n",
        id(1),
        id(2),
        id(3)
    );
    assert_eq!(text, expected);
    let readback = bench.sink.readback().unwrap();
    let said = |key: &str, record: &Value| {
        (key.to_owned(), readback.expected(&cars(), key, record.as_object().unwrap()).unwrap())
    };
    let expected = vec![said("a", &record), said("b,", &empty)];
    assert_eq!(expected[0].1["price"], json!("1.5"));
    assert_eq!(bench.rows(&cars()).await, expected);

    // Other attributes: a new file, after a restart too.
    bench.restart();
    bench.apply(&cars(), vec![insert(4)]).await.unwrap();
    assert_eq!(bench.names("cars").len(), 1);
    let other = table_of("cars", json!({"name": "string", "colour": "string"}));
    bench
        .apply(&other, vec![change(5, "a", Operation::Update, Some(json!({"colour": "red"})))])
        .await
        .unwrap();
    let names = ["cars-3f2a91c0-0000000000000001.csv", "cars-3f2a91c0-0000000000000005.csv.part"];
    assert_eq!(bench.names("cars"), names);
    assert!(bench.files("cars")[names[1]].starts_with("_operation,_change_id,_changed_at,id,name,colour\n"));
    let rows: BTreeMap<_, _> = bench.rows(&other).await.into_iter().collect();
    assert_eq!(rows["a"], *json!({"colour": "red"}).as_object().unwrap());
    assert_eq!(rows["k4"], *json!({"name": "n4"}).as_object().unwrap());
}

#[tokio::test]
async fn what_cannot_be_a_line_is_refused() {
    let bench = Bench::new(json!({}));
    let changes = vec![
        insert(1),
        change(2, "b", Operation::Insert, Some(json!({"_change_id": "s3cr3t"}))),
        change(3, "c", Operation::Update, None),
    ];
    let outcome = bench.apply(&cars(), changes).await.unwrap();
    let listed: Vec<_> =
        outcome.rejected.iter().map(|r| (r.index, r.error.kind(), r.error.scope())).collect();
    let refused = (ErrorKind::InvalidValue, Scope::Record);
    assert_eq!(listed, [(1, refused.0, refused.1), (2, refused.0, refused.1)]);
    let text = format!("{:?}", outcome.rejected[0].error);
    assert!(text.contains("_change_id") && !text.contains("s3cr3t"), "{text}");
    assert_eq!(bench.all_lines("cars"), Vec::<String>::new());

    for name in ["../up", "a/b", "..", ".hidden", "a\0b", "", "_s3rep_cursor.json"] {
        let error = bench.apply(&table_of(name, json!({})), vec![insert(1)]).await.unwrap_err();
        assert_error(&error, ErrorKind::ConfigInvalid, false, Scope::Table);
    }
    let upsert = Arc::new(Table { mode: RouteMode::Upsert, ..(*cars()).clone() });
    let error = bench.apply(&upsert, vec![insert(1)]).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, false, Scope::Table);
    let csv = Bench::with(json!({}), true);
    let error =
        csv.apply(&table_of("t", json!({"_operation": "string"})), vec![insert(1)]).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    assert!(!bench.directory.path().join("up").exists());
}

#[tokio::test]
async fn files_rotate_by_count_size_and_age() {
    let bench = Bench::new(json!({"maxRecords": 3}));
    bench.apply(&cars(), inserts(1..=8)).await.unwrap();
    let name = |n: u64, end: &str| format!("cars-3f2a91c0-{n:016}.jsonl{end}");
    assert_eq!(bench.names("cars"), [name(1, ""), name(4, ""), name(7, ".part")]);
    bench.apply(&cars(), inserts(9..=10)).await.unwrap();
    assert_eq!(bench.names("cars"), [name(1, ""), name(4, ""), name(7, ""), name(10, ".part")]);

    let bench = Bench::new(json!({"maxBytes": 300}));
    let mut changes = inserts(1..=4);
    changes.push(change(5, "long", Operation::Insert, Some(json!({"name": "x".repeat(1_000)}))));
    changes.push(insert(6));
    bench.apply(&cars(), changes).await.unwrap();
    assert_eq!(bench.names("cars"), [name(1, ""), name(3, ""), name(5, ""), name(6, ".part")]);
    let sizes: Vec<_> = bench.files("cars").values().map(String::len).collect();
    assert!(sizes[0] <= 300 && sizes[1] <= 300 && sizes[2] > 1_000, "{sizes:?}");

    let bench = Bench::new(json!({"maxAgeSeconds": 60}));
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    bench.now.fetch_add(59_999, Ordering::SeqCst);
    bench.sink.flush(&bench.cx).await.unwrap();
    bench.apply(&cars(), vec![insert(2)]).await.unwrap();
    assert_eq!(bench.names("cars"), [name(1, ".part")]);
    bench.now.fetch_add(1, Ordering::SeqCst);
    bench.sink.flush(&bench.cx).await.unwrap();
    assert_eq!(bench.names("cars"), [name(1, "")]);
    bench.apply(&cars(), vec![insert(3)]).await.unwrap();
    bench.now.fetch_add(60_000, Ordering::SeqCst);
    bench.apply(&cars(), vec![insert(4)]).await.unwrap();
    assert_eq!(bench.names("cars"), [name(1, ""), name(3, ""), name(4, ".part")]);
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_named() {
    for csv in [false, true] {
        let bench = Bench::with(json!({}), csv);
        bench.apply(&cars(), inserts(1..=2)).await.unwrap();
        bench.sink.close(&bench.cx).await.unwrap();
        let path = fs::read_dir(bench.lines().join("cars")).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("k2", "k\"2")).unwrap();
        let error = bench.sink.readback().unwrap().rows(&bench.cx, &cars(), None, 9).await.unwrap_err();
        assert_error(&error, ErrorKind::Corrupt, false, Scope::Table);
        assert!(error.to_string().contains(if csv { "line: 3" } else { "line: 2" }), "{error}");
    }
}
