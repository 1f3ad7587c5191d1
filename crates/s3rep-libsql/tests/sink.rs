//! What the conformance suite cannot know: SQLite's files, types and errors.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{FailOnce, any_value, assert_error, batch, cars, change, insert, table, values_that_move};
use libsql::{Builder, Connection};
use proptest::prelude::*;
use s3rep_core::{
    Context, DriverConfig, Error, ErrorKind, Operation, Outcome, Record, RouteMode, RowChange, Scope, Seq,
    Sink, Table,
};
use s3rep_libsql::LibsqlConfig;
use s3rep_testkit::context;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Bench {
    directory: TempDir,
    sink: Arc<dyn Sink>,
    cx: Context,
}

impl Bench {
    fn new(schema_sync: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sink = sink(&directory.path().join("out.db"), schema_sync);
        Self { directory, sink, cx: context::test() }
    }

    fn synced() -> Self {
        Self::new(json!({"enabled": true}))
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("out.db")
    }

    async fn sql(&self) -> Connection {
        Builder::new_local(self.path()).build().await.unwrap().connect().unwrap()
    }

    async fn run(&self, sql: &str) {
        self.sql().await.execute_batch(sql).await.unwrap();
    }

    async fn count(&self, table: &str) -> i64 {
        let mut rows = self.sql().await.query(&format!("SELECT count(*) FROM {table}"), ()).await.unwrap();
        rows.next().await.unwrap().unwrap().get(0).unwrap()
    }

    async fn sync(&self, table: &Table) -> Result<(), Error> {
        let sync = self.sink.schema_sync().unwrap();
        let have = sync.inspect(&self.cx, table).await?;
        sync.execute(&self.cx, &sync.plan(table, have.as_ref())?).await
    }

    async fn apply(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<Outcome, Error> {
        self.sink.apply(&self.cx, &batch(table, changes)).await
    }

    async fn rows(&self, table: &Table) -> Vec<(String, Record)> {
        self.sink.readback().unwrap().rows(&self.cx, table, None, 1_000).await.unwrap()
    }
}

fn sink(path: &Path, schema_sync: Value) -> Arc<dyn Sink> {
    let options = json!({"url": path.to_str().unwrap(), "schemaSync": schema_sync});
    serde_json::from_value::<LibsqlConfig>(options).unwrap().build().unwrap()
}

#[tokio::test]
async fn check_finds_what_would_fail_and_writes_nothing() {
    let bench = Bench::synced();
    bench.sink.check(&bench.cx).await.unwrap();
    assert_eq!(fs::read_dir(bench.directory.path()).unwrap().count(), 0);

    let text = [&b"not a database at all"[..], &[b'x'; 500], &b"SQLite format 3\0"[..]];
    for wrong in text {
        fs::write(bench.path(), wrong).unwrap();
        let error = bench.sink.check(&bench.cx).await.unwrap_err();
        assert_error(&error, ErrorKind::Corrupt, false, Scope::Sink);
        assert!(error.to_string().contains("out.db"), "{error}");
    }
    fs::write(bench.path(), []).unwrap();
    bench.sink.check(&bench.cx).await.unwrap();
    fs::remove_file(bench.path()).unwrap();

    bench.sync(&cars()).await.unwrap();
    bench.sink.close(&bench.cx).await.unwrap();
    let before = fs::read(bench.path()).unwrap();
    bench.sink.check(&bench.cx).await.unwrap();
    assert_eq!(fs::read(bench.path()).unwrap(), before);
    let names: Vec<_> =
        fs::read_dir(bench.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["out.db"], "close leaves one file, and check makes none");

    let missing = sink(&bench.directory.path().join("no/out.db"), json!({}));
    for error in [
        missing.check(&bench.cx).await.unwrap_err(),
        missing.apply(&bench.cx, &batch(&cars(), vec![])).await.unwrap_err(),
    ] {
        assert_error(&error, ErrorKind::NotFound, false, Scope::Sink);
    }
    let beneath_a_file = sink(&bench.path().join("out.db"), json!({}));
    assert_eq!(beneath_a_file.check(&bench.cx).await.unwrap_err().scope(), Scope::Sink);
    let directory = sink(bench.directory.path(), json!({}));
    assert_error(
        &directory.check(&bench.cx).await.unwrap_err(),
        ErrorKind::ConfigInvalid,
        false,
        Scope::Sink,
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let bench = Bench::synced();
    let content = vec![b'x'; 5_000];
    fs::write(bench.path(), &content).unwrap();
    let error = bench.apply(&cars(), vec![]).await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, false, Scope::Sink);
    assert_error(
        &bench.sink.cursors(&bench.cx, "r").await.unwrap_err(),
        ErrorKind::Corrupt,
        false,
        Scope::Sink,
    );
    assert_eq!(fs::read(bench.path()).unwrap(), content);
}

#[tokio::test]
async fn a_database_that_can_only_be_read_says_so() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    bench.sink.close(&bench.cx).await.unwrap();
    // Permissions mean nothing to root, who runs tests in containers; a write version from the future does.
    let mut bytes = fs::read(bench.path()).unwrap();
    bytes[18] = 9;
    fs::write(bench.path(), bytes).unwrap();
    let error = bench.sink.check(&bench.cx).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, false, Scope::Sink);
    let error = bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, false, Scope::Sink);
}

#[tokio::test]
async fn another_writer_is_waited_for_by_the_engine() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    let other = bench.sql().await;
    other.execute("BEGIN IMMEDIATE", ()).await.unwrap();
    let changes = vec![insert(1, "a", json!({"name": "x"}))];
    let error = bench.apply(&cars(), changes.clone()).await.unwrap_err();
    assert_error(&error, ErrorKind::Contention, true, Scope::Sink);
    other.execute("COMMIT", ()).await.unwrap();
    assert!(bench.apply(&cars(), changes).await.unwrap().rejected.is_empty());
    assert_eq!(bench.count("cars").await, 1);
}

#[tokio::test]
async fn a_trigger_that_rolls_everything_back_fails_the_batch() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap();
    let two = || vec![insert(2, "b", json!({"name": "x"})), insert(3, "c", json!({"name": "x"}))];
    bench.run("CREATE TRIGGER no BEFORE INSERT ON cars BEGIN SELECT RAISE(ROLLBACK, 's3cr3t'); END").await;
    let error = bench.apply(&cars(), two()).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Conflict, Scope::Batch), "{error:?}");
    assert!(!error.report().contains("s3cr3t"));
    assert_eq!(bench.count("cars").await, 1);
    bench.run("DROP TRIGGER no").await;
    assert!(bench.apply(&cars(), two()).await.unwrap().rejected.is_empty());
    assert_eq!(bench.count("cars").await, 3);
}

#[tokio::test]
async fn a_file_that_is_gone_or_replaced_takes_no_rows() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    let row = |seq, key| vec![insert(seq, key, json!({"name": "x"}))];
    bench.apply(&cars(), row(1, "a")).await.unwrap();

    let away = bench.directory.path().join("away.db");
    fs::rename(bench.path(), &away).unwrap();
    for _ in 0..2 {
        let error = bench.apply(&cars(), row(2, "b")).await.unwrap_err();
        assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
        assert!(!bench.path().exists(), "no new file under the old name");
    }
    fs::rename(&away, bench.path()).unwrap();
    bench.apply(&cars(), row(2, "b")).await.unwrap();

    fs::rename(bench.path(), &away).unwrap();
    bench.run("CREATE TABLE cars (id TEXT PRIMARY KEY, name, price, doors)").await;
    for _ in 0..2 {
        let error = bench.apply(&cars(), row(3, "c")).await.unwrap_err();
        assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
    }
    assert_eq!(bench.count("cars").await, 0);
    // Whoever asks where the new file stands may go on with it.
    assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap(), None);
    bench.apply(&cars(), row(3, "c")).await.unwrap();
    assert_eq!(bench.count("cars").await, 1);
}

#[tokio::test]
async fn tables_made_by_hand_work_without_schema_sync() {
    let bench = Bench::new(json!({}));
    assert!(bench.sink.schema_sync().is_none());
    let table = table(
        RouteMode::Upsert,
        json!({"name": "string", "createdAt": "datetime", "price": "number", "data": "json", "vip": "boolean"}),
    );
    let record = json!({"name": "x", "createdAt": "2026-01-31T10:20:30.456Z", "price": 5, "data": [1],
                        "vip": true, "undeclared": "left out"});
    let error = bench.apply(&table, vec![insert(1, "a", record.clone())]).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
    assert!(error.advice().unwrap().contains("schemaSync"), "{error:?}");

    bench
        .run(
            "CREATE TABLE cars (serial INTEGER PRIMARY KEY, ID VARCHAR(40) UNIQUE NOT NULL, Name VARCHAR(20), \
             created_at DATETIME, price DECIMAL(10,2), data JSON, vip BOOLEAN, undeclared TEXT DEFAULT 'mine', \
             twice AS (price * 2))",
        )
        .await;
    assert!(bench.apply(&table, vec![insert(1, "007", record.clone())]).await.unwrap().rejected.is_empty());
    let rows = bench.rows(&table).await;
    let expected =
        json!({"Name": "x", "created_at": "2026-01-31T10:20:30.456Z", "price": 5, "data": "[1]", "vip": 1});
    assert_eq!(rows, [("007".to_owned(), expected.as_object().unwrap().clone())]);
    let readback = bench.sink.readback().unwrap();
    let said = readback.expected(&table, "007", record.as_object().unwrap()).unwrap();
    assert_eq!(said, rows[0].1);
}

#[tokio::test]
async fn attributes_without_column_follow_on_mismatch() {
    for (on_mismatch, works) in [("error", false), ("warn", true), ("ignore", true)] {
        let bench = Bench::new(json!({"onMismatch": on_mismatch}));
        bench.run("CREATE TABLE cars (id TEXT PRIMARY KEY, name TEXT)").await;
        let outcome = bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x", "price": 2.5}))]).await;
        if works {
            assert!(outcome.unwrap().rejected.is_empty());
            assert_eq!(bench.rows(&cars()).await[0].1, *json!({"name": "x"}).as_object().unwrap());
            continue;
        }
        let error = outcome.unwrap_err();
        assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
        assert!(error.to_string().contains("'price'") && error.to_string().contains("'doors'"), "{error}");
        assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap(), None);
        // Mended by hand while it runs.
        bench.run("ALTER TABLE cars ADD COLUMN price REAL; ALTER TABLE cars ADD COLUMN doors INTEGER").await;
        bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x", "price": 2.5}))]).await.unwrap();
        assert_eq!(bench.rows(&cars()).await[0].1["price"], json!(2.5));
    }
}

#[tokio::test]
async fn values_that_are_unique_are_written_in_the_order_of_the_log() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    bench.run("CREATE UNIQUE INDEX one_name ON cars (name)").await;
    for changes in values_that_move() {
        let outcome = bench.apply(&cars(), changes).await.unwrap();
        assert!(outcome.rejected.is_empty(), "{outcome:?}");
    }
    let rows = bench.rows(&cars()).await;
    let rows: Vec<_> = rows.iter().map(|(key, row)| (key.as_str(), row["name"].as_str().unwrap())).collect();
    assert_eq!(rows, [("a", "2"), ("aa", "1"), ("b", "3")]);
}

#[tokio::test]
async fn keys_need_a_unique_column_of_text() {
    for sql in [
        "CREATE TABLE cars (id TEXT, name, price, doors)",
        "CREATE TABLE cars (id INTEGER PRIMARY KEY, name, price, doors)",
    ] {
        let bench = Bench::new(json!({}));
        bench.run(sql).await;
        let error = bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap_err();
        assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
        assert!(error.to_string().contains("cars"), "{error}");
    }
}

#[tokio::test]
async fn refused_records_are_all_listed_and_nothing_is_written() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    bench.run("CREATE UNIQUE INDEX one_name ON cars (name)").await;
    bench.apply(&cars(), vec![insert(1, "z", json!({"name": "taken"}))]).await.unwrap();
    let changes = vec![
        insert(2, "good", json!({"name": "s3cr3t-1"})),
        insert(3, "no name", json!({"price": 1})),
        insert(4, "big", json!({"name": "s3cr3t-2", "price": 9_007_199_254_740_993_i64})),
        insert(5, "bigger", json!({"name": "s3cr3t-3", "doors": u64::MAX})),
        insert(6, "same name", json!({"name": "taken"})),
        insert(7, "text", json!({"name": "s3cr3t-4", "price": "s3cr3t"})),
        change(8, "no record", Operation::Update, None),
        insert(9, "a", json!({"name": "s3cr3t-5", "doors": i64::MAX})),
    ];
    let outcome = bench.apply(&cars(), changes.clone()).await.unwrap();
    let listed: Vec<_> = outcome.rejected.iter().map(|r| (r.index, r.error.kind())).collect();
    use ErrorKind::{Conflict, InvalidValue};
    assert_eq!(
        listed,
        [
            (1, Conflict),
            (2, InvalidValue),
            (3, InvalidValue),
            (4, Conflict),
            (5, InvalidValue),
            (6, InvalidValue)
        ]
    );
    for rejected in &outcome.rejected {
        assert_eq!(rejected.error.scope(), Scope::Record);
        let text = format!("{:?}", rejected.error);
        assert!(!text.contains("s3cr3t") && text.contains("table: cars") && text.contains("key: "), "{text}");
    }
    assert_eq!(bench.count("cars").await, 1);
    let rest = vec![changes[0].clone(), changes[7].clone()];
    assert!(bench.apply(&cars(), rest).await.unwrap().rejected.is_empty());
    assert_eq!(bench.count("cars").await, 3);
    let row = bench.rows(&cars()).await.swap_remove(0);
    assert_eq!((row.0.as_str(), &row.1["doors"]), ("a", &json!(i64::MAX)));
}

#[tokio::test]
async fn a_kill_at_any_place_leaves_rows_and_cursor_together() {
    let table = table(RouteMode::Append, json!({"name": "string"}));
    for (place, is_committed) in
        [("libsql.rows", false), ("libsql.commit", false), ("libsql.committed", true)]
    {
        let mut bench = Bench::synced();
        bench.sync(&table).await.unwrap();
        let row = |seq| insert(seq, &format!("k{seq}"), json!({"name": "x"}));
        bench.apply(&table, vec![row(1)]).await.unwrap();
        let cx = bench.cx.clone().with_failpoints(FailOnce::at(place));
        let second = batch(&table, vec![row(2), row(3)]);
        bench.sink.apply(&cx, &second).await.unwrap_err();
        bench.sink = sink(&bench.path(), json!({"enabled": true}));
        let stored = bench.sink.cursors(&bench.cx, "r").await.unwrap().unwrap();
        let (rows, seq) = if is_committed { (3, 3) } else { (1, 1) };
        assert_eq!((bench.count("cars").await, stored.cursors[0].seq), (rows, Seq(seq)), "{place}");
        bench.sink.apply(&bench.cx, &second).await.unwrap();
        assert_eq!(bench.count("cars").await, 3, "{place}");
    }
}

#[tokio::test]
async fn drop_create_makes_the_table_anew() {
    let bench = Bench::new(json!({"enabled": true, "strategy": "drop-create"}));
    bench.run("CREATE TABLE cars (id TEXT PRIMARY KEY, wrong INTEGER NOT NULL); INSERT INTO cars VALUES ('a', 1)").await;
    let sync = bench.sink.schema_sync().unwrap();
    let have = sync.inspect(&bench.cx, &cars()).await.unwrap();
    let plan = sync.plan(&cars(), have.as_ref()).unwrap();
    assert!(plan.destructive && plan.creates);
    sync.execute(&bench.cx, &plan).await.unwrap();
    assert_eq!(bench.count("cars").await, 0);
    bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap();
}

#[tokio::test]
async fn what_others_wrote_is_read_back_without_harm() {
    let bench = Bench::synced();
    bench.sync(&cars()).await.unwrap();
    bench
        .run(
            "INSERT INTO cars VALUES ('blob', x'00ff', 1e999, 5); \
             INSERT INTO cars VALUES ('broken', CAST(x'ff61' AS TEXT), -1e999, 'text'); \
             INSERT INTO cars VALUES ('nul', CAST(x'610062' AS TEXT), 1, 1); \
             INSERT INTO cars VALUES (CAST(x'fe' AS TEXT), 'x', 1, 1); \
             INSERT INTO cars VALUES (x'6162', 'a blob for a key', 1, 1)",
        )
        .await;
    // Those whose keys are no text are nobody's business.
    let rows = bench.rows(&cars()).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].1["name"], json!({"blob": "00ff"}));
    assert_eq!(rows[1].1["name"], json!({"text": "ff61"}));
    assert_eq!(rows[2].1["name"], json!("a\0b"));
    let readback = bench.sink.readback().unwrap();
    assert_eq!(readback.rows(&bench.cx, &cars(), Some("nul"), 1).await.unwrap(), []);

    let log = Table { name: "log".into(), ..(*table(RouteMode::Append, json!({"name": "string"}))).clone() };
    bench.sync(&log).await.unwrap();
    bench.run("INSERT INTO log VALUES ('a', 'x', 'insert', '1', ''), (CAST(x'fe' AS TEXT), 'x', 'insert', '2', '')").await;
    assert_eq!(bench.rows(&log).await.len(), 1);
    assert_eq!(readback.rows(&bench.cx, &log, Some("a"), 1).await.unwrap(), []);

    let utf16 = Bench::synced();
    utf16
        .run("PRAGMA encoding = 'UTF-16le'; CREATE TABLE cars (id TEXT PRIMARY KEY, name, price, doors)")
        .await;
    for error in [
        utf16.sink.check(&utf16.cx).await.unwrap_err(),
        utf16.apply(&cars(), vec![insert(1, "é", json!({"name": "日本"}))]).await.unwrap_err(),
    ] {
        assert_error(&error, ErrorKind::Unsupported, false, Scope::Sink);
    }
}

#[tokio::test]
async fn an_append_table_with_attributes_named_like_row_numbers_is_folded() {
    let bench = Bench::synced();
    let table = table(RouteMode::Append, json!({"rowid": "string", "OID": "string"}));
    bench.sync(&table).await.unwrap();
    let changes = vec![
        insert(1, "a", json!({"rowid": "9", "OID": "9"})),
        insert(2, "b", json!({"rowid": "8"})),
        change(3, "a", Operation::Update, Some(json!({"rowid": "1"}))),
        change(4, "b", Operation::Delete, None),
    ];
    bench.apply(&table, changes).await.unwrap();
    let rows = bench.rows(&table).await;
    assert_eq!(rows, [("a".to_owned(), json!({"rowid": "1", "OID": null}).as_object().unwrap().clone())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes: the row is what was announced, or the record was refused and said to be.
    #[test]
    fn rows_are_what_is_expected(
        records in prop::collection::vec(prop::collection::vec(any_value(), 8), 1..12),
        by_hand in any::<bool>(),
    ) {
        let names = ["text", "real", "whole", "truth", "json", "any", "when", "list"];
        let kinds = ["string", "number", "number|integer", "boolean", "json", "any", "datetime", "array"];
        let attributes: serde_json::Map<_, _> =
            names.iter().zip(kinds).map(|(name, kind)| ((*name).to_owned(), kind.into())).collect();
        let table = table(RouteMode::Upsert, attributes.into());
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let bench = Bench::synced();
            if by_hand {
                bench.run(
                    "CREATE TABLE cars (id TEXT PRIMARY KEY, text BLOB, real NUMERIC, whole REAL, truth REAL, \
                     json NUMERIC, any DATETIME, \"when\" DATETIME, list)",
                ).await;
            } else {
                bench.sync(&table).await.unwrap();
            }
            let readback = bench.sink.readback().unwrap();
            let mut expected = Vec::new();
            for (i, values) in records.into_iter().enumerate() {
                let record: Record = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
                let key = format!("k{i:03}");
                let said = readback.expected(&table, &key, &record);
                let seq = i as u64 + 1;
                let outcome = bench.apply(&table, vec![insert(seq, &key, Value::Object(record))]).await.unwrap();
                assert_eq!(outcome.rejected.is_empty(), said.is_ok(), "{outcome:?}");
                expected.extend(said.ok().map(|row| (key, row)));
            }
            assert_eq!(bench.rows(&table).await, expected);
        });
    }
}
