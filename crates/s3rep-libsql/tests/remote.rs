//! What the conformance suite cannot know of servers: broken networks, killed servers, tokens, sqld's own ways.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{FailOnce, any_value, assert_error, batch, cars, change, insert, table, values_that_move};
use libtest_mimic::{Arguments, Trial};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use s3rep_core::{
    BoxFuture, Context, DriverConfig, Error, ErrorKind, Operation, Outcome, Progress, Record, RouteMode,
    RowChange, Scope, Seq, Sink, Table,
};
use s3rep_libsql::LibsqlConfig;
use s3rep_testkit::{
    context,
    proxy::{Fault, Proxy},
    server::{SqlServer, sqld},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const TOKEN: &str = "hunter2-t0ken";

/// Over a server of its own.
type OfServer = fn(Bench) -> BoxFuture<'static, ()>;
/// Without a server, or with one that the test plays.
type Alone = fn() -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |argument| Box::pin($name(argument)))),*]
    };
}

const OF_SERVER: &[(&str, OfServer)] = cases![
    a_failpoint_leaves_rows_and_cursor_together,
    requests_and_answers_that_are_cut,
    a_server_that_is_killed_again_and_again,
    a_batch_is_one_request,
    a_request_that_arrives_late_does_nothing,
    two_sinks_in_turn,
    a_database_that_forgot_is_not_written_on,
    refused_records_are_all_listed_and_nothing_is_written,
    a_trigger_that_rolls_everything_back_fails_the_batch,
    tables_made_by_hand_and_changed_between_batches,
    keys_need_a_unique_column_of_text,
    values_that_are_unique_are_written_in_the_order_of_the_log,
    check_writes_nothing,
    what_others_wrote_is_read_back_without_harm,
    rows_of_more_bytes_than_an_answer_takes,
    an_append_table_is_folded_in_pieces,
    rows_are_what_is_expected,
];

const ALONE: &[(&str, Alone)] = &[
    ("a_refused_token_says_what_to_do", || Box::pin(a_refused_token_says_what_to_do())),
    ("the_token_goes_into_the_header_only", || Box::pin(the_token_goes_into_the_header_only())),
    ("answers_that_are_no_answers", || Box::pin(answers_that_are_no_answers())),
    ("a_server_that_is_not_there", || Box::pin(a_server_that_is_not_there())),
];

fn main() {
    let arguments = Arguments::from_args();
    let alone = ALONE.iter().map(|&(name, case)| {
        Trial::test(name, move || {
            run(case());
            Ok(())
        })
    });
    let mut trials: Vec<Trial> = alone.collect();
    // Listing the tests needs no server.
    if !arguments.list {
        let server = runtime().block_on(sqld::start());
        trials.extend(OF_SERVER.iter().map(|&(name, case)| {
            match &server {
                Ok(server) if server.is_private() => Trial::test(name, move || {
                    run(async move { case(Bench::start().await).await });
                    Ok(())
                }),
                Ok(_) => Trial::test(format!("{name} (ignored: a user's own server)"), || Ok(()))
                    .with_ignored_flag(true),
                Err(missing) => missing.trial(name),
            }
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run(case: impl Future<Output = ()>) {
    runtime().block_on(case);
}

/// A server, a proxy in front of it, and a sink that goes through the proxy.
struct Bench {
    server: SqlServer,
    proxy: Proxy,
    sink: Arc<dyn Sink>,
    cx: Context,
}

impl Bench {
    async fn start() -> Self {
        let server = sqld::start().await.unwrap();
        let proxy = Proxy::start(server.address()).await.unwrap();
        let sink = sink(&format!("http://{}", proxy.address()));
        Self { server, proxy, sink, cx: context::test() }
    }

    /// A sink that knows nothing yet, as after a crash.
    fn reopen(&mut self) {
        self.sink = sink(&format!("http://{}", self.proxy.address()));
    }

    async fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        sqld::execute(self.server.address(), sql).await
    }

    async fn count(&self, table: &str) -> usize {
        let rows = self.sql(&format!("SELECT count(*) FROM {table}")).await;
        rows[0][0]["value"].as_str().unwrap().parse().unwrap()
    }

    async fn sync(&self, table: &Table) {
        let sync = self.sink.schema_sync().unwrap();
        let have = sync.inspect(&self.cx, table).await.unwrap();
        sync.execute(&self.cx, &sync.plan(table, have.as_ref()).unwrap()).await.unwrap();
    }

    async fn apply(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<Outcome, Error> {
        self.sink.apply(&self.cx, &batch(table, changes)).await
    }

    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>) {
        assert!(self.apply(table, changes).await.unwrap().rejected.is_empty());
    }

    async fn cursor(&self) -> Seq {
        self.sink.cursors(&self.cx, "r").await.unwrap().unwrap().cursors[0].seq
    }

    async fn rows(&self, table: &Table) -> Vec<(String, Record)> {
        let readback = self.sink.readback().unwrap();
        let mut rows = readback.rows(&self.cx, table, None, 1_000).await.unwrap();
        while let Some((last, _)) = rows.last() {
            let page = readback.rows(&self.cx, table, Some(last), 1_000).await.unwrap();
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        rows
    }
}

fn sink(url: &str) -> Arc<dyn Sink> {
    sink_of(json!({"url": url, "schemaSync": {"enabled": true}}))
}

fn sink_of(options: Value) -> Arc<dyn Sink> {
    serde_json::from_value::<LibsqlConfig>(options).unwrap().build().unwrap()
}

fn log_table() -> Arc<Table> {
    table(RouteMode::Append, json!({"name": "string"}))
}

fn row(seq: u64) -> RowChange {
    insert(seq, &format!("k{seq}"), json!({"name": "x"}))
}

async fn a_failpoint_leaves_rows_and_cursor_together(mut bench: Bench) {
    let table = log_table();
    bench.sync(&table).await;
    bench.write(&table, vec![row(1)]).await;
    let mut rows = 1;
    for (place, is_committed) in
        [("libsql.rows", false), ("libsql.commit", false), ("libsql.committed", true)]
    {
        let cx = bench.cx.clone().with_failpoints(FailOnce::at(place));
        let next = rows as u64 + 1;
        let second = batch(&table, vec![row(next), row(next + 1)]);
        bench.sink.apply(&cx, &second).await.unwrap_err();
        bench.reopen();
        let there = if is_committed { rows + 2 } else { rows };
        assert_eq!((bench.count("cars").await, bench.cursor().await), (there, Seq(there as u64)), "{place}");
        bench.sink.apply(&bench.cx, &second).await.unwrap();
        rows += 2;
        assert_eq!((bench.count("cars").await, bench.cursor().await), (rows, Seq(rows as u64)), "{place}");
    }
}

async fn requests_and_answers_that_are_cut(mut bench: Bench) {
    let table = log_table();
    bench.sync(&table).await;
    let mut seq = 0;
    let (mut with_rows, mut without) = (0, 0);
    for bytes in [0, 1, 150, 300, 1_000, 2_000, 4_000] {
        for fault in [Fault::CutRequest(bytes), Fault::CutAnswer(bytes)] {
            for is_known in [true, false] {
                bench.write(&table, vec![row(seq + 1)]).await;
                if !is_known {
                    bench.reopen();
                }
                let second = batch(&table, (seq + 2..seq + 22).map(row).collect());
                bench.proxy.fault(fault.clone());
                let answer = bench.sink.apply(&bench.cx, &second).await;
                bench.proxy.fault(Fault::None);
                if let Err(error) = &answer {
                    assert_error(error, ErrorKind::Unavailable, true, Scope::Sink);
                    let there = bench.count("cars").await as u64;
                    assert!(there == seq + 1 || there == seq + 21, "all or nothing, not {there} after {seq}");
                    if there == seq + 1 { without += 1 } else { with_rows += 1 }
                }
                // The first call may meet the old connection.
                if bench.sink.apply(&bench.cx, &second).await.is_err() {
                    bench.write(&table, second.changes).await;
                }
                seq += 21;
                assert_eq!(
                    (bench.count("cars").await as u64, bench.cursor().await),
                    (seq, Seq(seq)),
                    "{fault:?}"
                );
            }
        }
    }
    assert!(with_rows > 0 && without > 0, "cut before and after the commit: {without} and {with_rows} times");
}

async fn a_server_that_is_killed_again_and_again(bench: Bench) {
    let (table, cars) = (log_table(), Arc::new(Table { name: "latest".into(), ..(*cars()).clone() }));
    bench.sync(&table).await;
    bench.sync(&cars).await;
    let is_done = AtomicBool::new(false);
    let killer = async {
        let mut kills = 0;
        while !is_done.load(Ordering::Relaxed) || kills < 6 {
            tokio::time::sleep(Duration::from_millis(30 + 17 * (kills % 5))).await;
            bench.server.kill().unwrap();
            bench.server.restart().await.unwrap();
            kills += 1;
        }
    };
    let writer = async {
        let mut failures = 0;
        for round in 0..60 {
            let changes: Vec<_> = (round * 50 + 1..=round * 50 + 50).map(row).collect();
            for (table, changes) in [(&table, changes.clone()), (&cars, changes)] {
                while let Err(error) = bench.apply(table, changes.clone()).await {
                    assert!(error.is_temporary() && error.scope() == Scope::Sink, "{error:?}");
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        is_done.store(true, Ordering::Relaxed);
        failures
    };
    let (failures, ()) = tokio::join!(writer, killer);
    assert!(failures > 0, "the server was never missed");
    assert_eq!((bench.count("cars").await, bench.count("latest").await), (3_000, 3_000));
    assert_eq!(bench.count("(SELECT DISTINCT _change_id FROM cars)").await, 3_000);
}

/// Passes requests on to a server, counts them, and keeps them to itself when told to.
#[derive(Default)]
struct Recorder {
    requests: AtomicUsize,
    holds: AtomicBool,
    held: Mutex<Vec<u8>>,
}

impl Recorder {
    /// Starts one; returns its address too.
    async fn start(server: String) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (recorder, address) = (Arc::new(Self::default()), listener.local_addr().unwrap().to_string());
        let accepting = recorder.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(accepting.clone().pass(client, server));
            }
        });
        (recorder, address)
    }

    async fn pass(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..read]);
            self.requests.fetch_add(text.matches("POST /v3/pipeline").count(), Ordering::Relaxed);
            if self.holds.load(Ordering::Relaxed) {
                self.held.lock().unwrap().extend(&buffer[..read]);
            } else {
                to.write_all(&buffer[..read]).await.unwrap();
            }
        }
    }
}

async fn a_batch_is_one_request(mut bench: Bench) {
    let (recorder, address) = Recorder::start(bench.server.address().to_owned()).await;
    bench.sink = sink(&format!("http://{address}"));
    let (table, wide) = (log_table(), Arc::new(Table { name: "wide".into(), ..(*cars()).clone() }));
    bench.sync(&table).await;
    bench.sync(&wide).await;
    bench.write(&table, vec![row(1)]).await;
    bench.write(&wide, vec![row(1)]).await;
    for round in 0..5 {
        let before = recorder.requests.load(Ordering::Relaxed);
        let changes: Vec<_> = (0..1_000).map(|n| row(round * 1_000 + 2 + n)).collect();
        bench.write(&table, changes.clone()).await;
        bench.write(&wide, changes).await;
        let progress = Progress { cursors: Vec::new(), ..batch(&table, vec![]).progress };
        bench.sink.advance(&bench.cx, &progress).await.unwrap();
        assert_eq!(recorder.requests.load(Ordering::Relaxed) - before, 3);
    }
    assert_eq!(bench.count("cars").await, 5_001);
}

/// A call is given up, its batch is written by another one, and a later batch too. Then the first request gets to the
/// server.
async fn a_request_that_arrives_late_does_nothing(mut bench: Bench) {
    let (recorder, address) = Recorder::start(bench.server.address().to_owned()).await;
    bench.sink = sink(&format!("http://{address}"));
    bench.sync(&cars()).await;
    let of = |seq: u64| batch(&cars(), vec![insert(seq, "a", json!({"name": format!("{seq}")}))]);
    bench.sink.apply(&bench.cx, &of(1)).await.unwrap();

    recorder.holds.store(true, Ordering::Relaxed);
    let patience = Duration::from_millis(300);
    tokio::time::timeout(patience, bench.sink.apply(&bench.cx, &of(2))).await.unwrap_err();
    recorder.holds.store(false, Ordering::Relaxed);
    bench.sink.apply(&bench.cx, &of(2)).await.unwrap();
    bench.sink.apply(&bench.cx, &of(3)).await.unwrap();

    let late = recorder.held.lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&late).contains("INSERT INTO \\\"cars\\\""));
    let mut stream = TcpStream::connect(bench.server.address()).await.unwrap();
    stream.write_all(&late).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains(" 200 ") && answer.contains("SQLITE_CONSTRAINT"), "{answer}");
    assert_eq!(bench.rows(&cars()).await[0].1["name"], "3");
    assert_eq!(bench.cursor().await, Seq(3));
}

async fn two_sinks_in_turn(bench: Bench) {
    let table = log_table();
    bench.sync(&table).await;
    let other = sink(&format!("http://{}", bench.server.address()));
    for round in 0..5 {
        let of = |part: u64| batch(&table, vec![row(round * 2 + part)]);
        bench.sink.apply(&bench.cx, &of(1)).await.unwrap();
        other.apply(&bench.cx, &of(1)).await.unwrap();
        other.apply(&bench.cx, &of(2)).await.unwrap();
        assert_eq!(bench.count("cars").await as u64, round * 2 + 2);
    }
    // Meanwhile another table has come, which changes the schema for everybody.
    bench.sql("CREATE TABLE another (x)").await;
    bench.write(&table, vec![row(11)]).await;
    assert_eq!((bench.count("cars").await, bench.cursor().await), (11, Seq(11)));
}

/// A server that was restored from a backup: what it lacks would be hidden by later changes.
async fn a_database_that_forgot_is_not_written_on(bench: Bench) {
    let table = log_table();
    bench.sync(&table).await;
    for seq in 1..=2 {
        bench.sink.apply(&bench.cx, &batch(&table, vec![row(seq)])).await.unwrap();
    }
    bench.sql("DELETE FROM cars WHERE id = 'k2'").await;
    bench.sql("UPDATE _s3rep_cursor SET seq = 1").await;
    for _ in 0..2 {
        let error = bench.sink.apply(&bench.cx, &batch(&table, vec![row(3)])).await.unwrap_err();
        assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
    }
    assert_eq!(bench.count("cars").await, 1);
    // Whoever asks where it stands goes on from there.
    bench.sink.cursors(&bench.cx, "r").await.unwrap();
    bench.sink.apply(&bench.cx, &batch(&table, vec![row(2), row(3)])).await.unwrap();
    assert_eq!((bench.count("cars").await, bench.cursor().await), (3, Seq(3)));
}

async fn refused_records_are_all_listed_and_nothing_is_written(bench: Bench) {
    bench.sync(&cars()).await;
    bench.sql("CREATE UNIQUE INDEX one_name ON cars (name)").await;
    bench.write(&cars(), vec![insert(1, "z", json!({"name": "taken"}))]).await;
    let changes = vec![
        insert(2, "good", json!({"name": "s3cr3t-1"})),
        insert(3, "no name", json!({"price": 1})),
        insert(4, "big", json!({"name": "s3cr3t-2", "price": 9_007_199_254_740_993_i64})),
        insert(5, "same name", json!({"name": "taken"})),
        change(6, "no record", Operation::Update, None),
        insert(7, "huge", json!({"name": "s3cr3t".repeat(1_000_000)})),
        insert(8, "a", json!({"name": "s3cr3t-5", "doors": i64::MAX})),
        insert(9, "twin 1", json!({"name": "twin"})),
        insert(10, "twin 2", json!({"name": "twin"})),
    ];
    use ErrorKind::{Conflict, InvalidValue, TooLarge};
    let outcome = bench.apply(&cars(), changes.clone()).await.unwrap();
    let listed: Vec<_> = outcome.rejected.iter().map(|r| (r.index, r.error.kind())).collect();
    let expected =
        [(1, Conflict), (2, InvalidValue), (3, Conflict), (4, InvalidValue), (5, TooLarge), (8, Conflict)];
    assert_eq!(listed, expected);
    for rejected in &outcome.rejected {
        assert_eq!(rejected.error.scope(), Scope::Record);
        let text = format!("{:?}", rejected.error);
        assert!(!text.contains("s3cr3t") && text.contains("table: cars") && text.contains("key: "), "{text}");
    }
    assert_eq!((bench.count("cars").await, bench.cursor().await), (1, Seq(1)));

    // Without those that are refused before they are sent, the server's own refusals are found.
    let outcome = bench.apply(&cars(), changes[..2].to_vec()).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [1]);
    bench.write(&cars(), [0, 6, 7].map(|index| changes[index].clone()).to_vec()).await;
    assert_eq!(bench.count("cars").await, 4);
}

async fn a_trigger_that_rolls_everything_back_fails_the_batch(bench: Bench) {
    bench.sync(&cars()).await;
    bench.write(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await;
    let two = || vec![insert(2, "b", json!({"name": "x"})), insert(3, "c", json!({"name": "x"}))];
    for (raise, is_batch) in [("ROLLBACK", true), ("ABORT", false), ("FAIL", false)] {
        bench
            .sql(&format!(
                "CREATE TRIGGER no BEFORE INSERT ON cars BEGIN SELECT RAISE({raise}, 's3cr3t'); END"
            ))
            .await;
        let report = match bench.apply(&cars(), two()).await {
            Err(error) => {
                assert_eq!((error.kind(), error.scope()), (ErrorKind::Conflict, Scope::Batch), "{error:?}");
                assert!(is_batch, "{raise}");
                error.report()
            }
            Ok(outcome) => {
                assert!(!is_batch && outcome.rejected.len() == 2, "{raise}: {outcome:?}");
                outcome.rejected[0].error.report()
            }
        };
        assert!(!report.contains("s3cr3t"));
        assert_eq!(bench.count("cars").await, 1);
        bench.sql("DROP TRIGGER no").await;
    }
    bench.write(&cars(), two()).await;
    assert_eq!(bench.count("cars").await, 3);
}

async fn tables_made_by_hand_and_changed_between_batches(bench: Bench) {
    let sink = sink_of(json!({"url": format!("http://{}", bench.server.address())}));
    assert!(sink.schema_sync().is_none());
    let bench = Bench { sink, ..bench };
    let table =
        table(RouteMode::Upsert, json!({"name": "string", "price": "number", "doors": "number|integer"}));
    let changes = |seq, key| vec![insert(seq, key, json!({"name": "x", "price": 2.0, "doors": 4}))];
    let error = bench.apply(&table, changes(1, "a")).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);

    bench
        .sql("CREATE TABLE cars (serial INTEGER PRIMARY KEY, ID VARCHAR(40) UNIQUE NOT NULL, Name TEXT, price DECIMAL(10,2), doors REAL)")
        .await;
    bench.write(&table, changes(1, "007")).await;
    let expected = json!({"Name": "x", "price": 2, "doors": 4.0});
    assert_eq!(bench.rows(&table).await, [("007".to_owned(), expected.as_object().unwrap().clone())]);
    let said =
        bench.sink.readback().unwrap().expected(&table, "007", changes(1, "007")[0].record.as_ref().unwrap());
    assert_eq!(said.unwrap(), bench.rows(&table).await[0].1);

    // The same columns with other types: a batch that went by what was known would write an integer.
    bench.sql("DROP TABLE cars").await;
    bench.sql("CREATE TABLE cars (id TEXT PRIMARY KEY, name TEXT, price BLOB, doors INTEGER)").await;
    bench.write(&table, changes(2, "a")).await;
    let expected = json!({"name": "x", "price": 2.0, "doors": 4});
    assert_eq!(bench.rows(&table).await, [("a".to_owned(), expected.as_object().unwrap().clone())]);
    assert_eq!(bench.sql("SELECT typeof(price) FROM cars").await[0][0]["value"], "real");

    bench.sql("ALTER TABLE cars DROP COLUMN doors").await;
    let error = bench.apply(&table, changes(3, "b")).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    bench.sql("DROP TABLE cars").await;
    let error = bench.apply(&table, changes(3, "b")).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
}

async fn keys_need_a_unique_column_of_text(bench: Bench) {
    for sql in [
        "CREATE TABLE cars (id TEXT, name, price, doors)",
        "CREATE TABLE cars (id INTEGER PRIMARY KEY, name, price, doors)",
    ] {
        bench.sql(sql).await;
        let error = bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap_err();
        assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
        bench.sql("DROP TABLE cars").await;
    }
}

async fn values_that_are_unique_are_written_in_the_order_of_the_log(bench: Bench) {
    bench.sync(&cars()).await;
    bench.sql("CREATE UNIQUE INDEX one_name ON cars (name)").await;
    for changes in values_that_move() {
        bench.write(&cars(), changes).await;
    }
    let rows = bench.rows(&cars()).await;
    let rows: Vec<_> = rows.iter().map(|(key, row)| (key.as_str(), row["name"].as_str().unwrap())).collect();
    assert_eq!(rows, [("a", "2"), ("aa", "1"), ("b", "3")]);
}

async fn check_writes_nothing(bench: Bench) {
    for _ in 0..2 {
        bench.sink.check(&bench.cx).await.unwrap();
        assert_eq!(bench.count("sqlite_schema").await, 0);
    }
    bench.sync(&cars()).await;
    assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap(), None);
    bench.sink.check(&bench.cx).await.unwrap();
    assert_eq!(bench.count("sqlite_schema WHERE type = 'table'").await, 1);
}

async fn what_others_wrote_is_read_back_without_harm(bench: Bench) {
    bench.sync(&cars()).await;
    for row in [
        "'blob', x'00ff', 1e999, 5",
        "'broken', CAST(x'ff61' AS TEXT), -1e999, 'text'",
        "'nul', CAST(x'610062' AS TEXT), 1, 1",
        "CAST(x'fe' AS TEXT), 'x', 1, 1",
        "x'6162', 'a blob for a key', 1, 1",
    ] {
        bench.sql(&format!("INSERT INTO cars VALUES ({row})")).await;
    }
    // Those whose keys are no text are nobody's business.
    let rows = bench.rows(&cars()).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].1["name"], json!({"blob": "00ff"}));
    assert_eq!(rows[1].1["name"], json!({"text": "ff61"}));
    assert_eq!(rows[2].1["name"], json!("a\0b"));

    let log = Table { name: "log".into(), ..(*log_table()).clone() };
    bench.sync(&log).await;
    bench.sql("INSERT INTO log VALUES ('a', 'x', 'insert', '1', ''), (CAST(x'fe' AS TEXT), 'x', 'insert', '2', '')").await;
    assert_eq!(bench.rows(&log).await.len(), 1);
}

async fn rows_of_more_bytes_than_an_answer_takes(bench: Bench) {
    for (mode, name) in [(RouteMode::Upsert, "big"), (RouteMode::Append, "big_log")] {
        let table = Table { name: name.into(), ..(*table(mode, json!({"name": "string"}))).clone() };
        let table = Arc::new(table);
        bench.sync(&table).await;
        for part in 0..8 {
            let text = "é".repeat(250_000);
            let row = |n| insert(n, &format!("k{n:03}"), json!({"name": format!("{n}{text}")}));
            bench.write(&table, (part * 5..part * 5 + 5).map(row).collect()).await;
        }
        let rows = bench.rows(&table).await;
        assert_eq!(rows.len(), 40);
        for (n, (key, row)) in rows.iter().enumerate() {
            assert_eq!(*key, format!("k{n:03}"));
            let name = row["name"].as_str().unwrap();
            assert!(
                name.starts_with(&n.to_string()) && name.chars().count() == 250_000 + n.to_string().len()
            );
        }
    }
}

async fn an_append_table_is_folded_in_pieces(bench: Bench) {
    let table = table(RouteMode::Append, json!({"rowid": "string", "OID": "string"}));
    bench.sync(&table).await;
    // More keys than are looked for at a time.
    let keys = 21_000_u64;
    for first in (0..keys).step_by(1_000) {
        let changes =
            (first..first + 1_000).map(|n| insert(n + 1, &format!("k{n:05}"), json!({"rowid": "old"})));
        bench.write(&table, changes.collect()).await;
    }
    let changes = (0..keys).step_by(100).enumerate().map(|(i, n)| {
        let operation = if i % 2 == 0 { Operation::Delete } else { Operation::Update };
        let record = (i % 2 == 1).then(|| json!({"rowid": "new", "OID": "9"}));
        change(keys + 1 + n, &format!("k{n:05}"), operation, record)
    });
    bench.write(&table, changes.collect()).await;
    let rows = bench.rows(&table).await;
    assert_eq!(rows.len() as u64, keys - keys / 200);
    assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
    let new = rows.iter().filter(|(_, row)| row["rowid"] == "new");
    assert_eq!(new.map(|(_, row)| &row["OID"]).filter(|oid| **oid == "9").count() as u64, keys / 200);
    // From the middle, as one who begins there.
    let page = bench.sink.readback().unwrap().rows(&bench.cx, &table, Some("k20995"), 10).await.unwrap();
    assert_eq!(page.len(), 4);
}

/// Whatever comes: the row is what was announced, or the record was refused and said to be.
async fn rows_are_what_is_expected(bench: Bench) {
    let names = ["text", "real", "whole", "truth", "json", "any", "when", "list"];
    let kinds = ["string", "number", "number|integer", "boolean", "json", "any", "datetime", "array"];
    let attributes: serde_json::Map<_, _> =
        names.iter().zip(kinds).map(|(name, kind)| ((*name).to_owned(), kind.into())).collect();
    let (table, bench) = (table(RouteMode::Upsert, attributes.into()), &bench);
    let records = prop::collection::vec(prop::collection::vec(any_value(), 8), 1..12);
    let cases = (records, any::<bool>());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(48) });
    let seq = AtomicUsize::new(0);
    let handle = tokio::runtime::Handle::current();
    let outcome = runner.run(&cases, |(records, by_hand)| {
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                bench.sql("DROP TABLE IF EXISTS cars").await;
                if by_hand {
                    bench
                        .sql(
                            "CREATE TABLE cars (id TEXT PRIMARY KEY, text BLOB, real NUMERIC, whole REAL, \
                             truth REAL, json NUMERIC, any DATETIME, \"when\" DATETIME, list)",
                        )
                        .await;
                } else {
                    bench.sync(&table).await;
                }
                let readback = bench.sink.readback().unwrap();
                // So that it knows the table.
                assert!(bench.rows(&table).await.is_empty());
                let mut expected = Vec::new();
                for (i, values) in records.into_iter().enumerate() {
                    let record: Record = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
                    let key = format!("k{i:03}");
                    let said = readback.expected(&table, &key, &record);
                    let seq = seq.fetch_add(1, Ordering::Relaxed) as u64 + 1;
                    let changes = vec![insert(seq, &key, Value::Object(record))];
                    let outcome = bench.apply(&table, changes).await.unwrap();
                    assert_eq!(outcome.rejected.is_empty(), said.is_ok(), "{outcome:?}");
                    expected.extend(said.ok().map(|row| (key, row)));
                }
                assert_eq!(bench.rows(&table).await, expected);
            });
        });
        Ok(())
    });
    outcome.unwrap();
}

/// A server that answers everything with this text, and keeps what it was sent.
async fn answering(answer: impl Into<Vec<u8>>) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<String>>::default());
    let (mut answer, keep) = (answer.into(), heard.clone());
    // It answers once a connection, and a client that did not know would sometimes ask again on it.
    if let Some(end) = answer.windows(2).position(|pair| pair == b"\r\n")
        && answer.starts_with(b"HTTP/1.1 ")
    {
        answer.splice(end + 2..end + 2, *b"Connection: close\r\n");
    }
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buffer = vec![0; 64 * 1024];
            let read = client.read(&mut buffer).await.unwrap();
            keep.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            client.write_all(&answer).await.unwrap();
            client.shutdown().await.unwrap();
            while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        }
    });
    (address, heard)
}

fn with_token(address: &str) -> Arc<dyn Sink> {
    sink_of(json!({"url": format!("http://{address}"), "authToken": TOKEN}))
}

/// Whatever is asked of the sink ends with this error, which shows no token.
async fn assert_all(sink: &dyn Sink, kind: ErrorKind, is_temporary: bool, scope: Scope, words: &str) {
    let cx = context::test();
    let errors = [
        sink.check(&cx).await.unwrap_err(),
        sink.cursors(&cx, "r").await.unwrap_err(),
        sink.apply(&cx, &batch(&cars(), vec![row(1)])).await.unwrap_err(),
        sink.advance(&cx, &batch(&cars(), vec![]).progress).await.unwrap_err(),
        sink.readback().unwrap().rows(&cx, &cars(), None, 1).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (error.kind(), error.is_temporary(), error.scope()),
            (kind, is_temporary, scope),
            "{error:?}"
        );
        let said = format!("{error:?} {:?}", error.advice());
        assert!(said.contains(words) && said.contains("server: 127.0.0.1"), "{said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
    assert!(!format!("{sink:?} {sink:#?}").contains(TOKEN));
}

async fn a_refused_token_says_what_to_do() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let body = r#"{"message":"The JWT is invalid hunter2-t0ken","code":"AUTH_JWT_INVALID"}"#;
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (address, _) = answering(answer).await;
        let sink = with_token(&address);
        assert_all(&*sink, ErrorKind::Unauthenticated, false, Scope::Sink, "authToken").await;
        assert_all(&*sink, ErrorKind::Unauthenticated, false, Scope::Sink, "AUTH_JWT_INVALID").await;
    }
}

async fn the_token_goes_into_the_header_only() {
    let (address, heard) = answering("HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n").await;
    assert_all(&*with_token(&address), ErrorKind::Unavailable, true, Scope::Sink, "log of the server").await;
    let text = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(text.matches("POST /v3/pipeline HTTP/1.1").count(), 5, "{text}");
    assert_eq!(text.matches(&format!("authorization: Bearer {TOKEN}\r\n")).count(), 5, "{text}");
    assert_eq!(text.matches(TOKEN).count(), 5, "{text}");
    let sink = sink_of(json!({"url": format!("http://{address}"), "authToken": ""}));
    sink.check(&context::test()).await.unwrap_err();
    assert!(!heard.lock().unwrap().contains("authorization"));
}

async fn answers_that_are_no_answers() {
    use ErrorKind as K;
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let cases: [(Vec<u8>, K, bool, Scope, &str); 9] = [
        (ok("<html>hunter2-t0ken</html>"), K::Unexpected, false, Scope::Sink, "libSQL server"),
        (ok(r#"{"results":[]}"#), K::Unexpected, false, Scope::Sink, "no result"),
        (
            ok(
                r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[],"step_errors":[]}}}]}"#,
            ),
            K::Unexpected,
            false,
            Scope::Sink,
            "left a statement out",
        ),
        (
            ok(r#"{"results":[{"type":"error","error":{"message":"blocked","code":"BLOCKED"}}]}"#),
            K::StorageFull,
            true,
            Scope::Sink,
            "quota",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
            K::Unavailable,
            true,
            Scope::Sink,
            "broke",
        ),
        (
            b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\n\xff\xfe".to_vec(),
            K::Unavailable,
            true,
            Scope::Sink,
            "500",
        ),
        (b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n".to_vec(), K::NotFound, false, Scope::Sink, "url"),
        (
            b"HTTP/1.1 308 no\r\nLocation: https://x\r\nContent-Length: 0\r\n\r\n".to_vec(),
            K::ConfigInvalid,
            false,
            Scope::Sink,
            "another address",
        ),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), K::Unavailable, true, Scope::Sink, "broke"),
    ];
    for (answer, kind, is_temporary, scope, words) in cases {
        let (address, _) = answering(answer).await;
        assert_all(&*with_token(&address), kind, is_temporary, scope, words).await;
    }
}

async fn a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_all(&*with_token(&address), ErrorKind::Unavailable, true, Scope::Sink, "cannot be reached").await;
    // TLS with a server that has none.
    let (address, _) = answering("HTTP/1.1 400 no\r\n\r\n").await;
    let sink = sink_of(json!({"url": format!("libsql://{address}"), "authToken": TOKEN}));
    assert_all(&*sink, ErrorKind::Unavailable, true, Scope::Sink, "cannot be reached").await;
}
