//! Every state that a crash, a full disk or a hand can leave.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use common::*;
use proptest::prelude::*;
use s3rep_core::{ErrorKind, Operation, Record, Scope, Seq};
use serde_json::{Value, json};

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_temporary_and_leaves_nothing_half() {
    let bench = Bench::new(json!({"maxRecords": 2}));
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    let temporary = bench.lines().join("_s3rep_cursor.json.tmp");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    for _ in 0..3 {
        let error = bench.apply(&cars(), inserts(2..=5)).await.unwrap_err();
        assert_error(&error, ErrorKind::StorageFull, true, Scope::Sink);
        assert_eq!(bench.rows(&cars()).await.len(), 1);
        assert_eq!(bench.names("cars").len(), 1, "tries do not pile up");
    }
    fs::remove_file(&temporary).unwrap();
    bench.apply(&cars(), inserts(2..=5)).await.unwrap();
    assert_eq!(bench.all_lines("cars").len(), 5);
}

#[tokio::test]
async fn a_kill_between_any_two_steps_changes_nothing_in_the_end() {
    let places =
        [("files.data", false), ("files.cursor", false), ("files.committed", true), ("files.closed", true)];
    for options in [json!({}), json!({"maxRecords": 2}), json!({"maxRecords": 5})] {
        let calm = Bench::new(options.clone());
        calm.apply(&cars(), inserts(1..=3)).await.unwrap();
        calm.apply(&cars(), inserts(4..=9)).await.unwrap();
        for (place, is_committed) in places {
            let mut bench = Bench::new(options.clone());
            bench.apply(&cars(), inserts(1..=3)).await.unwrap();
            let second = batch(&cars(), inserts(4..=9));
            bench.apply_and_fail_at(place, &second).await;
            bench.restart();
            let seq = if is_committed { 9 } else { 3 };
            assert_eq!(bench.seq().await, Some(Seq(seq)), "{place}");
            assert_eq!(bench.all_lines("cars").len() as u64, seq, "{place} {options}");
            bench.sink.apply(&bench.cx, &second).await.unwrap();
            bench.sink.apply(&bench.cx, &second).await.unwrap();
            let orphans = |name: &String, _: &mut String| !name.contains(".orphan");
            let mut files = bench.files("cars");
            files.retain(orphans);
            assert_eq!(files, calm.files("cars"), "the same files with the same bytes: {place} {options}");
        }
    }
}

#[tokio::test]
async fn a_kill_while_files_are_closed_is_mended() {
    for place in ["files.cursor", "files.committed"] {
        let mut bench = Bench::new(json!({}));
        bench.apply(&cars(), inserts(1..=3)).await.unwrap();
        let cx = bench.cx.clone().with_failpoints(Arc::new(FailOnce(Mutex::new(Some(place)))));
        bench.sink.close(&cx).await.unwrap_err();
        bench.restart();
        bench.apply(&cars(), inserts(1..=4)).await.unwrap();
        bench.sink.close(&bench.cx).await.unwrap();
        assert_eq!(bench.all_lines("cars").len(), 4, "{place}");
        assert!(bench.names("cars").iter().all(|name| name.ends_with(".jsonl")));
    }
}

#[tokio::test]
async fn an_uncommitted_tail_of_any_length_is_cut_off() {
    let mut bench = Bench::new(json!({}));
    bench.apply(&cars(), inserts(1..=2)).await.unwrap();
    let path = bench.lines().join("cars/cars-3f2a91c0-0000000000000001.jsonl.part");
    let committed = fs::read(&path).unwrap();
    let cursor = fs::read(bench.lines().join("_s3rep_cursor.json")).unwrap();
    bench.apply(&cars(), vec![insert(3)]).await.unwrap();
    let full = fs::read(&path).unwrap();
    for length in committed.len()..=full.len() {
        bench.sink = sink(Path::new("/dev/null/x"), &bench.options, false);
        fs::write(&path, &full[..length]).unwrap();
        fs::write(bench.lines().join("_s3rep_cursor.json"), &cursor).unwrap();
        bench.restart();
        assert_eq!(bench.rows(&cars()).await.len(), 2, "readers see what is committed");
        assert_eq!(bench.seq().await, Some(Seq(2)));
        assert_eq!(fs::read(&path).unwrap(), committed);
        bench.apply(&cars(), vec![insert(3)]).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), full);
    }
    // Less than what was committed is damage.
    bench.sink = sink(Path::new("/dev/null/x"), &bench.options, false);
    fs::write(&path, &full[..full.len() - 1]).unwrap();
    bench.restart();
    let error = bench.apply(&cars(), vec![insert(4)]).await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, false, Scope::Table);
}

#[tokio::test]
async fn files_that_nobody_knows_are_set_aside() {
    let mut bench = Bench::new(json!({}));
    let place = bench.lines().join("cars");
    fs::create_dir_all(&place).unwrap();
    let strangers = ["cars-3f2a91c0-0000000000000001.jsonl.part", "cars-3f2a91c0-0000000000000009.csv.part"];
    for round in 0..2 {
        for name in strangers {
            fs::write(place.join(name), format!("{round}")).unwrap();
        }
        for name in ["notes.txt", "notes.part"] {
            fs::write(place.join(name), "mine").unwrap();
        }
        bench.restart();
        bench.sink.flush(&bench.cx).await.unwrap();
        let files = bench.files("cars");
        let expected = if round == 0 { vec!["0"] } else { vec!["0", "1"] };
        for name in strangers {
            let found: Vec<_> =
                files.iter().filter(|(have, _)| have.starts_with(name)).map(|(_, t)| t).collect();
            assert_eq!(found, expected, "{files:?}");
            assert!(!files.contains_key(name));
        }
        assert_eq!(files["notes.part"], "mine");
    }
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    assert_eq!(bench.rows(&cars()).await.len(), 1);
}

#[tokio::test]
async fn a_second_replicator_on_the_same_directory_is_refused() {
    let bench = Bench::new(json!({}));
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    let second = sink(&bench.lines(), &json!({}), true);
    for error in [
        second.apply(&bench.cx, &batch(&cars(), vec![insert(2)])).await.unwrap_err(),
        second.cursors(&bench.cx, "r").await.unwrap_err(),
    ] {
        assert_error(&error, ErrorKind::Contention, true, Scope::Sink);
        assert!(error.to_string().contains("lines"), "{error}");
    }
    // Looking is allowed: `verify` beside a replicator that runs.
    let reader = sink(&bench.lines(), &json!({}), false);
    reader.check(&bench.cx).await.unwrap();
    assert_eq!(reader.readback().unwrap().rows(&bench.cx, &cars(), None, 9).await.unwrap().len(), 1);
    bench.sink.close(&bench.cx).await.unwrap();
    second.apply(&bench.cx, &batch(&cars(), vec![insert(2)])).await.unwrap();
}

#[tokio::test]
async fn what_is_taken_away_is_noticed() {
    let mut bench = Bench::new(json!({}));
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    let part = bench.lines().join("cars/cars-3f2a91c0-0000000000000001.jsonl.part");
    let away = bench.directory.path().join("away");
    fs::rename(&part, &away).unwrap();
    for _ in 0..2 {
        let error = bench.apply(&cars(), vec![insert(2)]).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
        assert!(error.to_string().contains("0000000000000001.jsonl.part"), "{error}");
        bench.restart();
    }
    bench.apply(&table_of("planes", json!({})), vec![insert(1)]).await.unwrap();
    fs::rename(&away, &part).unwrap();
    bench.apply(&cars(), vec![insert(2)]).await.unwrap();
    // Another file under the name, while the first is open.
    let copy = fs::read(&part).unwrap();
    fs::remove_file(&part).unwrap();
    fs::write(&part, &copy).unwrap();
    assert_error(
        &bench.apply(&cars(), vec![insert(3)]).await.unwrap_err(),
        ErrorKind::NotFound,
        false,
        Scope::Table,
    );

    fs::rename(bench.lines(), &away).unwrap();
    for _ in 0..2 {
        let error = bench.apply(&cars(), vec![insert(3)]).await.unwrap_err();
        assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
        assert!(!bench.lines().exists());
    }
    fs::create_dir(bench.lines()).unwrap();
    bench.apply(&cars(), vec![insert(3)]).await.unwrap_err();
    fs::remove_dir(bench.lines()).unwrap();
    fs::rename(&away, bench.lines()).unwrap();
    bench.apply(&cars(), vec![insert(3)]).await.unwrap();
    assert_eq!(bench.all_lines("cars").len(), 3);

    // Complete files are the user's to take.
    bench.sink.close(&bench.cx).await.unwrap();
    fs::remove_dir_all(bench.lines().join("cars")).unwrap();
    bench.apply(&cars(), vec![insert(4)]).await.unwrap();
    assert_eq!(bench.rows(&cars()).await.len(), 1);
}

#[tokio::test]
async fn a_damaged_cursor_file_stops_everything() {
    let mut bench = Bench::new(json!({}));
    bench.apply(&cars(), vec![insert(1)]).await.unwrap();
    let path = bench.lines().join("_s3rep_cursor.json");
    let good = fs::read_to_string(&path).unwrap();
    let outside = good.replace("cars-3f2a91c0", "../cars-3f2a91c0");
    let future = good.replace("\"version\": 1", "\"version\": 2");
    for bad in ["", "{", "[]", "{\"version\":1,\"surprise\":1}", &outside, &future] {
        bench.sink = sink(Path::new("/dev/null/x"), &bench.options, false);
        fs::write(&path, bad).unwrap();
        bench.restart();
        for error in [
            bench.sink.check(&bench.cx).await.unwrap_err(),
            bench.sink.cursors(&bench.cx, "r").await.unwrap_err(),
            bench.apply(&cars(), vec![insert(2)]).await.unwrap_err(),
        ] {
            assert_error(&error, ErrorKind::Corrupt, false, Scope::Sink);
        }
    }
    fs::write(&path, good).unwrap();
    bench.apply(&cars(), vec![insert(2)]).await.unwrap();
    // Without the cursor file nothing is known: what was unfinished is set aside, names are not given twice.
    bench.sink.close(&bench.cx).await.unwrap();
    fs::remove_file(&path).unwrap();
    bench.restart();
    assert_eq!(bench.seq().await, None);
    bench.apply(&cars(), inserts(1..=2)).await.unwrap();
    let names = ["cars-3f2a91c0-0000000000000001.jsonl", "cars-3f2a91c0-0000000000000002.jsonl.part"];
    assert_eq!(bench.names("cars"), names);
}

#[tokio::test]
async fn replays_on_purpose_come_after_what_is_there() {
    let bench = Bench::new(json!({"maxRecords": 2}));
    bench.apply(&cars(), inserts(1..=4)).await.unwrap();
    let mut back = batch(&cars(), vec![]).progress;
    back.cursors[0].seq = Seq(0);
    bench.sink.advance(&bench.cx, &back).await.unwrap();
    let mut again = inserts(1..=4);
    again[0].record = Some(Arc::new(json!({"name": "newer"}).as_object().unwrap().clone()));
    bench.apply(&cars(), again).await.unwrap();
    let numbers: Vec<_> =
        bench.names("cars").iter().map(|name| name[14..30].parse::<u64>().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5]);
    assert_eq!(bench.rows(&cars()).await[0].1["name"], json!("newer"));

    // A new log has numbers of its own, and comes later though its name may sort before.
    let mut other = batch(&cars(), vec![change(1, "k1", Operation::Update, Some(json!({"name": "newest"})))]);
    other.progress.log = "00000000".into();
    bench.sink.apply(&bench.cx, &other).await.unwrap();
    assert!(bench.names("cars").contains(&"cars-00000000-0000000000000001.jsonl.part".to_owned()));
    assert_eq!(bench.rows(&cars()).await[0].1["name"], json!("newest"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        "\\PC{0,12}|[\",\r\n\0a]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes, with crashes in between: the rows are the last of each key, as announced.
    #[test]
    fn rows_are_what_is_expected(
        csv in any::<bool>(),
        max_records in 1_u64..6,
        steps in prop::collection::vec(
            (0..4_usize, prop::collection::vec((0..5_u8, 0..4_u8, prop::collection::vec(any_value(), 4)), 1..5)),
            1..8,
        ),
    ) {
        const PLACES: [&str; 3] = ["files.data", "files.cursor", "files.committed"];
        let names = ["name", "price", "tags", "sold"];
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut bench = Bench::with(json!({"maxRecords": max_records}), csv);
            let mut expected = BTreeMap::new();
            let (mut seq, mut count) = (0, 0);
            for (crash, changes) in steps {
                let mut batch_changes = Vec::new();
                for (key, kind, values) in changes {
                    seq += 1;
                    let key = format!("k\"{key}");
                    let record: Record = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
                    let operation = if kind == 0 { Operation::Delete } else { Operation::Update };
                    if kind == 0 {
                        expected.remove(&key);
                    } else {
                        let row = bench.sink.readback().unwrap().expected(&cars(), &key, &record).unwrap();
                        expected.insert(key.clone(), row);
                    }
                    batch_changes.push(change(seq, &key, operation, Some(Value::Object(record))));
                }
                count += batch_changes.len();
                let batch = batch(&cars(), batch_changes);
                if let Some(place) = PLACES.get(crash) {
                    bench.apply_and_fail_at(place, &batch).await;
                    bench.restart();
                }
                bench.sink.apply(&bench.cx, &batch).await.unwrap();
            }
            let rows: BTreeMap<_, _> = bench.rows(&cars()).await.into_iter().collect();
            assert_eq!(rows, expected);
            bench.sink.close(&bench.cx).await.unwrap();
            let rows: BTreeMap<_, _> = bench.rows(&cars()).await.into_iter().collect();
            assert_eq!(rows, expected);
            if !csv {
                assert_eq!(bench.all_lines("cars").len(), count, "every change once");
            }
        });
    }
}
