//! Every figure that the README names, measured in one run and printed next to its limit or its peer:
//! `cargo xtask bench [NAME …]`, names: read, pass, log, engine, sqlite, memory, demo, build.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may panic and prints")]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use s3rep::{
    Mapping, Record, Sink,
    core::{
        Batch, Capability, Capture, Change, ChangeId, ChangeLog, Context, DriverConfig, Error, ErrorKind,
        Operation, Outcome, Result, RouteMode, Source, StateWrite, Timestamp,
    },
    engine::{Pipeline, Replicator, context},
    log::{EmbeddedLog, LogOptions},
    s3db::{Database, DatabaseOptions, ResourceConfig, TailOptions, TailSource},
};
use s3rep_libsql::LibsqlConfig;
use s3rep_testkit::source::MemorySource;
use serde_json::json;
use tempfile::TempDir;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records in the generated database, as the limit of one pass says.
const RECORDS: usize = 100_000;
/// Changes that wait while the destination is down.
const WAITING: usize = 1_000_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [command, dir] = &args[..]
        && command == "wait-with-a-backlog"
    {
        return runtime.block_on(wait_with_a_backlog(Path::new(dir)));
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let cores = std::thread::available_parallelism().unwrap();
    println!("{cores} cores\n{:<58} {:>14}  {:>16}", "figure", "measured", "limit");
    if wanted("read") || wanted("pass") {
        runtime.block_on(database());
    }
    if wanted("log") {
        runtime.block_on(log_append());
    }
    if wanted("engine") {
        runtime.block_on(engine());
    }
    if wanted("sqlite") {
        runtime.block_on(sqlite());
    }
    if wanted("memory") {
        runtime.block_on(memory());
    }
    if wanted("demo") {
        demo();
    }
    if wanted("build") {
        build();
    }
}

fn print(figure: &str, measured: String, limit: &str, good: bool) {
    let verdict = if good { "" } else { "  MISSED" };
    println!("{figure:<58} {measured:>14}  {limit:>16}{verdict}");
}

fn at_least(figure: &str, count: usize, took: Duration, unit: &str, limit: f64) {
    let rate = count as f64 / took.as_secs_f64();
    print(figure, format!("{rate:.0} {unit}/s"), &format!(">= {limit:.0}"), rate >= limit);
}

fn object(value: serde_json::Value) -> Record {
    value.as_object().cloned().unwrap()
}

/// A change of about `size` bytes of JSON.
fn change(n: usize, size: usize) -> Change {
    let id: Arc<str> = format!("product-{n:08}").into();
    let record = object(json!({
        "id": &*id, "name": format!("Product number {n}"), "price": n as f64 / 100.0, "stock": n % 1_000,
        "active": n.is_multiple_of(3), "category": "garden", "description": "x".repeat(size.saturating_sub(150)),
    }));
    Change {
        change_id: ChangeId::derive("products", &id, Operation::Insert, &n.to_le_bytes(), None),
        resource: "products".into(),
        id,
        operation: Operation::Insert,
        data: Some(Arc::new(record)),
        before: None,
        timestamp: Timestamp(1_700_000_000_000 + n as i64),
        schema_version: "v1".into(),
        target: None,
    }
}

fn changes(count: usize, size: usize) -> Vec<Change> {
    (0..count).map(|n| change(n, size)).collect()
}

fn source() -> Arc<MemorySource> {
    let source = MemorySource::new().with_interval(Duration::from_secs(3_600));
    source.create(
        "products",
        &json!({"name": "string", "price": "number", "stock": "number|integer", "active": "boolean",
                "category": "string", "description": "string"}),
    );
    Arc::new(source)
}

fn open_log(dir: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(dir, &LogOptions::default()).unwrap().0)
}

async fn fill(cx: &Context, log: &EmbeddedLog, count: usize, size: usize) {
    let all: Vec<usize> = (0..count).collect();
    for part in all.chunks(5_000) {
        let changes: Vec<_> = part.iter().map(|&n| change(n, size)).collect();
        log.append(cx, &changes, &[]).await.unwrap();
    }
}

// -------------------------------------------------------------------------------------------------- database

async fn database() {
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let url = format!("file://{}", dir.path().join("db").display());
    fs::create_dir(dir.path().join("db")).unwrap();
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let database = Database::connect_with(&url, options).await.unwrap();
    let config: ResourceConfig = serde_json::from_value(json!({
        "name": "products",
        "attributes": {"name": "string", "price": "number", "stock": "number|integer", "active": "boolean",
                       "category": "string", "description": "string|optional", "added": "datetime"},
    }))
    .unwrap();
    let products = database.create_resource(&config).await.unwrap();
    for n in 0..RECORDS {
        let record = object(json!({
            "id": format!("product-{n:08}"), "name": format!("Product number {n}"), "price": n as f64 / 100.0,
            "stock": n % 1_000, "active": n.is_multiple_of(3), "category": "garden",
            "added": "2026-11-21T06:04:39.466Z",
        }));
        products.insert(record).await.unwrap();
    }
    let began = Instant::now();
    let (mut read, mut records) = (0, products.records(None).unwrap());
    loop {
        let page = records.page(5_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        read += page.iter().filter(|row| row.record.is_ok()).count();
    }
    assert_eq!(read, RECORDS);
    at_least("read records from a file database", read, began.elapsed(), "records", 25_000.0);

    let source = TailSource::new(database, TailOptions::default());
    let log = open_log(&dir.path().join("state"));
    let mut writer = LogWriter { cx: &cx, log: &log };
    let began = Instant::now();
    let first = source.pass(&cx, &*log, &mut writer).await.unwrap();
    assert_eq!(first.captured, RECORDS as u64);
    at_least("first pass: snapshot into the log", RECORDS, began.elapsed(), "records", 0.0);
    // The second pass looks again at what was written just before the first.
    source.pass(&cx, &*log, &mut writer).await.unwrap();
    let began = Instant::now();
    let unchanged = source.pass(&cx, &*log, &mut writer).await.unwrap();
    assert_eq!((unchanged.seen, unchanged.captured), (RECORDS as u64, 0));
    let took = began.elapsed().as_secs_f64();
    print("one pass over 100,000 unchanged records", format!("{took:.2} s"), "< 1.50 s", took < 1.5);
}

struct LogWriter<'a> {
    cx: &'a Context,
    log: &'a EmbeddedLog,
}

#[async_trait::async_trait]
impl Capture for LogWriter<'_> {
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()> {
        self.log.append(self.cx, &changes, &state).await.map(drop)
    }

    async fn undecodable(&mut self, _: &str, id: &str, error: Error) {
        panic!("{id}: {error}");
    }
}

// ------------------------------------------------------------------------------------------------------- log

async fn log_append() {
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let all = changes(200_000, 1_024);
    for (writers, limit) in [(1, 0.0), (16, 100_000.0)] {
        let log = open_log(&dir.path().join(writers.to_string()));
        let began = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (cx, log) = (cx.clone(), log.clone());
                let mine: Vec<Vec<Change>> =
                    all.chunks(100).skip(writer).step_by(writers).map(<[Change]>::to_vec).collect();
                tokio::spawn(async move {
                    for batch in mine {
                        log.append(&cx, &batch, &[]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let figure = format!("log append, 1 KB in batches of 100, fsynced, {writers} writers");
        at_least(&figure, all.len(), began.elapsed(), "changes", limit);
    }
}

// ---------------------------------------------------------------------------------------------------- engine

/// Takes everything and keeps nothing.
#[derive(Debug)]
struct Null;

#[async_trait::async_trait]
impl Sink for Null {
    fn capability(&self) -> Capability {
        let mut capability = Capability { upsert: true, append: true, deletes: true, ..Capability::NONE };
        capability.limits.records = 10_000;
        capability
    }

    async fn check(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, _: &Context, _: &Batch) -> Result<Outcome> {
        Ok(Outcome::default())
    }
}

fn replicator(mode: RouteMode, sink: Arc<dyn Sink>) -> Replicator {
    let mode = if mode == RouteMode::Upsert { "upsert" } else { "append" };
    let mapping = Mapping::parse(&json!({"products": {"table": "products", "mode": mode}})).unwrap();
    Replicator::new("figures", mapping, sink).unwrap()
}

async fn engine() {
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    for mode in [RouteMode::Upsert, RouteMode::Append] {
        let log = open_log(&dir.path().join(format!("{mode:?}")));
        fill(&cx, &log, 1_000_000, 200).await;
        let pipeline =
            Pipeline::new(cx.clone(), source(), log, vec![replicator(mode, Arc::new(Null))]).unwrap();
        let began = Instant::now();
        let report = pipeline.drain().await.unwrap();
        assert_eq!(report.written, 1_000_000);
        let figure = format!("engine, log to null sink, 200-byte records, {mode:?}");
        at_least(&figure, 1_000_000, began.elapsed(), "changes", 300_000.0);
    }
}

// ---------------------------------------------------------------------------------------------------- SQLite

async fn sqlite() {
    const ROWS: usize = 300_000;
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let log = open_log(&dir.path().join("state"));
    fill(&cx, &log, ROWS, 200).await;
    let (mut shares, mut rates) = (Vec::new(), Vec::new());
    // In turn, because the machine's speed drifts.
    for round in 0..3 {
        let bare = bare(&dir.path().join(format!("bare-{round}.db")), ROWS).await;
        let config: LibsqlConfig = serde_json::from_value(json!({
            "url": dir.path().join(format!("out-{round}.db")), "schemaSync": {"enabled": true},
        }))
        .unwrap();
        log.forget(&cx, "figures").await.unwrap();
        let sink = config.build().unwrap();
        let pipeline =
            Pipeline::new(cx.clone(), source(), log.clone(), vec![replicator(RouteMode::Upsert, sink)])
                .unwrap();
        let began = Instant::now();
        assert_eq!(pipeline.drain().await.unwrap().written, ROWS as u64);
        let rate = ROWS as f64 / began.elapsed().as_secs_f64();
        shares.push(100.0 * rate / bare);
        rates.push((rate, bare));
    }
    shares.sort_by(f64::total_cmp);
    let (rate, bare) = rates[1];
    let figure = format!("log to SQLite upsert, {rate:.0} rows/s; bare statements {bare:.0}");
    print(&figure, format!("{:.0} %", shares[1]), ">= 60 %", shares[1] >= 60.0);
}

/// Rows a second with one prepared upsert in one transaction: the peer.
async fn bare(path: &Path, rows: usize) -> f64 {
    let records: Vec<Record> =
        (0..rows).map(|n| Record::clone(change(n, 200).data.as_deref().unwrap())).collect();
    let database = libsql::Builder::new_local(path).build().await.unwrap();
    let connection = database.connect().unwrap();
    connection.query("pragma journal_mode = wal", ()).await.unwrap();
    connection.execute("pragma synchronous = full", ()).await.unwrap();
    let create = "create table products (id text primary key, name text, price real, stock integer, active integer, category text, description text)";
    connection.execute(create, ()).await.unwrap();
    let began = Instant::now();
    let transaction = connection.transaction().await.unwrap();
    let upsert = "insert into products values (?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set name = excluded.name, \
                  price = excluded.price, stock = excluded.stock, active = excluded.active, \
                  category = excluded.category, description = excluded.description";
    let statement = transaction.prepare(upsert).await.unwrap();
    for record in &records {
        let text = |name: &str| libsql::Value::Text(record[name].as_str().unwrap().to_owned());
        let values = vec![
            text("id"),
            text("name"),
            libsql::Value::Real(record["price"].as_f64().unwrap()),
            libsql::Value::Integer(record["stock"].as_i64().unwrap()),
            libsql::Value::Integer(i64::from(record["active"].as_bool().unwrap())),
            text("category"),
            text("description"),
        ];
        statement.execute(values).await.unwrap();
        statement.reset();
    }
    drop(statement);
    transaction.commit().await.unwrap();
    rows as f64 / began.elapsed().as_secs_f64()
}

// ---------------------------------------------------------------------------------------------------- memory

/// Refuses everything, as a destination that is down.
#[derive(Debug)]
struct Down;

#[async_trait::async_trait]
impl Sink for Down {
    fn capability(&self) -> Capability {
        Null.capability()
    }

    async fn check(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, _: &Context, _: &Batch) -> Result<Outcome> {
        Err(Error::new(ErrorKind::Unavailable, "down").temporary())
    }
}

async fn memory() {
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let log = open_log(dir.path());
    fill(&cx, &log, WAITING, 1_024).await;
    drop(log);
    // In a process of its own: this one has measured other things before.
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).arg("wait-with-a-backlog").arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let megabytes: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let (first, last) = (megabytes[2], *megabytes.last().unwrap());
    let most = megabytes.iter().copied().fold(0.0, f64::max);
    print(
        "resident, 1,000,000 changes of 1 KB wait, sink down",
        format!("{most:.0} MB"),
        "<= 150 MB",
        most <= 150.0,
    );
    let growth = last - first;
    print("   growth from the 3rd to the 20th second", format!("{growth:.1} MB"), "<= 5.0 MB", growth <= 5.0);
}

async fn wait_with_a_backlog(dir: &Path) {
    let pipeline = Pipeline::new(
        context::system(),
        source(),
        open_log(dir),
        vec![replicator(RouteMode::Upsert, Arc::new(Down))],
    )
    .unwrap();
    tokio::spawn(async move { pipeline.follow(Default::default()).await });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{:.2}", resident_megabytes());
    }
    std::process::exit(0);
}

fn resident_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

// ------------------------------------------------------------------------------------------------ whole runs

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn demo() {
    assert!(
        cargo().args(["build", "--quiet", "--release", "--package", "s3rep-cli"]).status().unwrap().success()
    );
    let began = Instant::now();
    let demo = cargo()
        .args(["run", "--quiet", "--release", "--package", "s3rep-cli", "--", "demo"])
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    let took = began.elapsed().as_secs_f64();
    print("s3rep demo", format!("{took:.1} s"), "< 15.0 s", took < 15.0);
}

fn build() {
    let dir = TempDir::new().unwrap();
    let began = Instant::now();
    let status =
        cargo().args(["build", "--quiet", "--release"]).env("CARGO_TARGET_DIR", dir.path()).status().unwrap();
    assert!(status.success());
    let took = began.elapsed().as_secs_f64();
    print(
        "release build of the default features from nothing",
        format!("{took:.0} s"),
        "< 360 s",
        took < 360.0,
    );
}
