//! What the conformance suite cannot know: files, their names, and every state that a crash can leave.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use s3rep_core::{
    Batch, BoxFuture, ChangeId, Clock, Context, CursorMove, DriverConfig, Error, ErrorKind, Failpoints,
    Operation, Outcome, Partition, Progress, Record, ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink,
    Table, Timestamp,
};
use s3rep_files::{CsvConfig, JsonlConfig};
use s3rep_testkit::context::SplitMix;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A clock that a test sets.
struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Fails at one place, once.
struct FailOnce(Mutex<Option<&'static str>>);

impl Failpoints for FailOnce {
    fn hit(&self, name: &'static str) -> Result<(), Error> {
        let mut armed = self.0.lock().unwrap();
        if *armed == Some(name) {
            *armed = None;
            return Err(Error::new(ErrorKind::Unavailable, "killed").temporary());
        }
        Ok(())
    }
}

struct Bench {
    directory: TempDir,
    options: Value,
    csv: bool,
    sink: Arc<dyn Sink>,
    now: Arc<AtomicI64>,
    cx: Context,
}

impl Bench {
    fn new(options: Value) -> Self {
        Self::with(options, false)
    }

    fn with(options: Value, csv: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let cx = Context::new(Arc::new(Hand(now.clone())), Arc::new(SplitMix::new(1)));
        let sink = sink(&directory.path().join("lines"), &options, csv);
        Self { directory, options, csv, sink, now, cx }
    }

    fn lines(&self) -> PathBuf {
        self.directory.path().join("lines")
    }

    /// The process died and is started again.
    fn restart(&mut self) {
        self.sink = sink(Path::new("/dev/null/x"), &self.options, self.csv);
        self.sink = sink(&self.lines(), &self.options, self.csv);
    }

    async fn apply(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<Outcome, Error> {
        self.sink.apply(&self.cx, &batch(table, changes)).await
    }

    async fn apply_and_fail_at(&self, place: &'static str, batch: &Batch) {
        let cx = self.cx.clone().with_failpoints(Arc::new(FailOnce(Mutex::new(Some(place)))));
        assert_eq!(self.sink.apply(&cx, batch).await.unwrap_err().to_string(), "killed");
    }

    /// Names and contents of a table's files.
    fn files(&self, table: &str) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.lines().join(table)) else { return BTreeMap::new() };
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        entries.map(read).collect()
    }

    fn names(&self, table: &str) -> Vec<String> {
        self.files(table).into_keys().collect()
    }

    /// Every line that counts, in the order of files.
    fn all_lines(&self, table: &str) -> Vec<String> {
        let files = self.files(table).into_iter().filter(|(name, _)| !name.contains("orphan"));
        files.flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    async fn rows(&self, table: &Table) -> Vec<(String, Record)> {
        self.sink.readback().unwrap().rows(&self.cx, table, None, 100_000).await.unwrap()
    }

    async fn seq(&self) -> Option<Seq> {
        let stored = self.sink.cursors(&self.cx, "r").await.unwrap()?;
        stored.cursors.first().map(|cursor| cursor.seq)
    }
}

fn sink(path: &Path, options: &Value, csv: bool) -> Arc<dyn Sink> {
    let mut options = options.clone();
    options["path"] = path.to_str().unwrap().into();
    if csv {
        serde_json::from_value::<CsvConfig>(options).unwrap().build().unwrap()
    } else {
        serde_json::from_value::<JsonlConfig>(options).unwrap().build().unwrap()
    }
}

fn table_of(name: &str, attributes: Value) -> Arc<Table> {
    let schema = ResourceSchema::parse("cars", "v1", attributes.as_object().unwrap()).unwrap();
    Arc::new(Table { name: name.into(), mode: RouteMode::Append, schema: Arc::new(schema) })
}

fn cars() -> Arc<Table> {
    table_of(
        "cars",
        json!({"name": "string|required", "price": "number", "tags": "array", "sold": "boolean"}),
    )
}

fn change(seq: u64, key: &str, operation: Operation, record: Option<Value>) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.map(|record| Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId(u128::from(seq).to_be_bytes()),
        timestamp: Timestamp(1_700_000_000_000),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

fn insert(seq: u64) -> RowChange {
    change(seq, &format!("k{seq}"), Operation::Insert, Some(json!({"name": format!("n{seq}")})))
}

fn inserts(range: std::ops::RangeInclusive<u64>) -> Vec<RowChange> {
    range.map(insert).collect()
}

fn batch(table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
    let last = changes.last().map_or(Seq(0), |change| change.seq);
    let cursors = vec![CursorMove { table: table.name.clone(), partition: Partition(0), seq: last }];
    let progress = Progress { replicator: "r".into(), log: "3f2a91c0-77aa".into(), fence: 1, cursors };
    Batch { table: table.clone(), changes, progress }
}

#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, is_temporary: bool, scope: Scope) {
    assert_eq!((error.kind(), error.is_temporary(), error.scope()), (kind, is_temporary, scope), "{error:?}");
    assert!(error.advice().is_some(), "no advice: {error:?}");
}

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
