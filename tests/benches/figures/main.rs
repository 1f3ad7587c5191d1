//! Every figure that the README names, measured in one run and printed next to its limit or its peer:
//! `cargo xtask bench [NAME …]`, names: read, pass, writes, inserts, outbox, s3, log, engine, sqlite, sql,
//! live, memory, demo, build.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may panic and prints")]

mod sql;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use s3rep::{
    Mapping, Record, Replicator as Plugged, Route, Sink,
    core::{
        Batch, Capability, Capture, Change, ChangeId, ChangeLog, Context, DriverConfig, Error, ErrorKind,
        Operation, Outcome, Result, RouteMode, Source, StateWrite, Timestamp,
    },
    engine::{Pipeline, Replicator, context},
    log::{Durability, EmbeddedLog, LogOptions},
    s3db::{Database, DatabaseOptions, Resource, ResourceConfig, TailOptions, TailSource},
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
    if let [command, url, durability] = &args[..]
        && command == "live-into-postgres"
    {
        return runtime.block_on(sql::live_in_this_process(url, durability));
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let cores = std::thread::available_parallelism().unwrap();
    println!("{cores} cores\n{:<58} {:>14}  {:>16}", "figure", "measured", "limit");
    if wanted("read") || wanted("pass") {
        runtime.block_on(database());
    }
    if wanted("writes") {
        runtime.block_on(writes());
    }
    if wanted("inserts") {
        runtime.block_on(inserts());
    }
    if wanted("outbox") {
        runtime.block_on(outbox());
    }
    if wanted("s3") {
        s3();
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
    if wanted("live") {
        runtime.block_on(sql::live());
    }
    if wanted("sql") {
        runtime.block_on(sql::figures());
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

/// Records that s3db.js was measured with.
const PEER_RECORDS: usize = 20_000;
const WRITERS: usize = 50;

fn in_files(dir: &Path) -> String {
    fs::create_dir(dir.join("db")).unwrap();
    format!("file://{}", dir.join("db").display())
}

/// A directory on a file system in memory where there is one.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

async fn products(url: &str) -> (Database, Resource) {
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let database = Database::connect_with(url, options).await.unwrap();
    let config = ResourceConfig::from_value(&json!({
        "name": "products",
        "attributes": {"name": "string", "price": "number", "stock": "number|integer", "active": "boolean",
                       "category": "string", "description": "string|optional", "added": "datetime"},
    }));
    let products = database.create_resource(&config.unwrap()).await.unwrap();
    (database, products)
}

fn id_of(n: usize) -> String {
    format!("product-{n:08}")
}

fn product(n: usize) -> Record {
    object(json!({
        "id": id_of(n), "name": format!("Product number {n}"), "price": n as f64 / 100.0,
        "stock": n % 1_000, "active": n.is_multiple_of(3), "category": "garden",
        "added": "2026-11-21T06:04:39.466Z",
    }))
}

async fn database() {
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let (database, products) = products(&in_files(dir.path())).await;
    for n in 0..RECORDS {
        products.insert(product(n)).await.unwrap();
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
    let began = Instant::now();
    let listed = products.list().limit(PEER_RECORDS).records::<Record>().await.unwrap();
    assert_eq!(listed.len(), PEER_RECORDS);
    // s3db.js reads 288/s with its list and 1,150/s one by one.
    at_least("list of 20,000 records (s3db.js: 288/s)", listed.len(), began.elapsed(), "records", 20_000.0);
    let began = Instant::now();
    for n in 0..PEER_RECORDS {
        products.get::<Record>(&id_of(n)).await.unwrap();
    }
    at_least("   get, one by one (s3db.js: 1,150/s)", PEER_RECORDS, began.elapsed(), "records", 0.0);

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

/// Inserts into files, on a file system in memory where there is one: a disk's says more about the disk. Beside it
/// what a program gets that does nothing but write the two files of each object.
async fn writes() {
    const INSERTS: usize = 60_000;
    let dir = in_memory();
    let bare = bare_files(dir.path(), INSERTS);
    let took = insert(&in_files(dir.path()), INSERTS).await;
    // s3db.js writes 2,324/s, and four times that is the limit.
    at_least(
        "inserts into a file database, 50 writers (s3db.js: 2,324/s)",
        INSERTS,
        took,
        "records",
        9_296.0,
    );
    println!("   bare files, written by two threads: {bare:.0}/s");
}

async fn inserts() {
    const INSERTS: usize = 400_000;
    let took = insert("memory://inserts", INSERTS).await;
    at_least("inserts into a memory database, 50 writers", INSERTS, took, "records", 100_000.0);
}

/// How long 50 writers take, each of which waits for its own insert.
async fn insert(url: &str, count: usize) -> Duration {
    let (_database, products) = products(url).await;
    let records: Vec<Vec<Record>> =
        (0..WRITERS).map(|writer| (writer..count).step_by(WRITERS).map(product).collect()).collect();
    let began = Instant::now();
    let tasks: Vec<_> = records
        .into_iter()
        .map(|mine| {
            let products = products.clone();
            tokio::spawn(async move {
                for record in mine {
                    products.insert(record).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed()
}

/// Objects a second, each a body and a sidecar that are written aside and renamed.
fn bare_files(dir: &Path, count: usize) -> f64 {
    let sidecar = [b'x'; 400];
    let dir = dir.join("bare");
    fs::create_dir(&dir).unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let dir = &dir;
            scope.spawn(move || {
                for n in (thread..count).step_by(2) {
                    for (name, bytes) in [("body", &sidecar[..0]), ("meta", &sidecar[..])] {
                        let aside = dir.join(format!("{n}.{name}.tmp"));
                        fs::write(&aside, bytes).unwrap();
                        fs::rename(&aside, dir.join(format!("{n}.{name}"))).unwrap();
                    }
                }
            });
        }
    });
    count as f64 / began.elapsed().as_secs_f64()
}

// ---------------------------------------------------------------------------------------------------- outbox

/// What capturing adds to an insert: 50 writers make 1,000 inserts a second, with and without it, in turn. The
/// database is in memory where its own time is steady; the log is on the disk, and once in memory too: the
/// difference is the disk's.
async fn outbox() {
    const LIMIT: f64 = 2.0;
    println!("   the disk's own sync of 16 KB: {}", disk(&TempDir::new().unwrap()));
    for (name, durability, dir) in [
        ("fsync", Durability::Fsync, TempDir::new().unwrap()),
        ("os", Durability::Os, TempDir::new().unwrap()),
        ("log in memory", Durability::Fsync, in_memory()),
    ] {
        let (without, with) = captured(durability, dir.path()).await;
        let added = with.1 - without.1;
        let figure = format!("outbox, {name}: added to the p99 of an insert at 1,000/s");
        print(&figure, format!("{added:.2} ms"), &format!("<= {LIMIT:.2} ms"), added <= LIMIT);
        println!(
            "   p50 {:.2} and {:.2} ms, p99 {:.2} and {:.2} ms without and with it",
            without.0, with.0, without.1, with.1
        );
    }
}

/// Milliseconds of an insert without and with an outbox: median and 99th percentile.
async fn captured(durability: Durability, state: &Path) -> ((f64, f64), (f64, f64)) {
    const ROUNDS: usize = 5;
    let files = in_memory();
    let (plain, captured) = (files.path().join("plain"), files.path().join("captured"));
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&captured).unwrap();
    let (_plain, plain) = products(&in_files(&plain)).await;
    let (database, captured) = products(&in_files(&captured)).await;
    let mapping = Mapping::new(vec![Route::new("products", "products")]);
    let replicator = Plugged::builder(state.join("state")).durability(durability);
    let replicator = replicator.destination("null", mapping, Arc::new(Null)).build().unwrap();
    database.use_plugin(replicator).await.unwrap();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        without.extend(paced(&plain, round).await);
        with.extend(paced(&captured, round).await);
    }
    database.close().await.unwrap();
    (percentiles(without), percentiles(with))
}

fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// How long the disk takes to sync what was written over, a thousand times a second.
fn disk(dir: &TempDir) -> String {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(dir.path().join("file")).unwrap();
    file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let times = (0..1_000_u64).map(|n| {
        std::thread::sleep(Duration::from_millis(1));
        file.write_all_at(&[n as u8; 16 << 10], n % 1_024 * (16 << 10)).unwrap();
        let began = Instant::now();
        file.sync_data().unwrap();
        began.elapsed().as_secs_f64() * 1_000.0
    });
    let (p50, p99) = percentiles(times.collect());
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms")
}

/// Milliseconds of each insert of two seconds.
async fn paced(products: &Resource, round: usize) -> Vec<f64> {
    const EACH: usize = 40;
    let pause = Duration::from_millis(1_000 * WRITERS as u64 / 1_000);
    let began = Instant::now();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let products = products.clone();
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(EACH);
                for n in 0..EACH {
                    let due = began + pause * n as u32 + Duration::from_millis(writer as u64);
                    tokio::time::sleep_until(due.into()).await;
                    let record = product((round * EACH + n) * WRITERS + writer);
                    let sent = Instant::now();
                    products.insert(record).await.unwrap();
                    times.push(sent.elapsed().as_secs_f64() * 1_000.0);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times
}

// -------------------------------------------------------------------------------------------------------- S3

/// Prints its own limits.
fn s3() {
    let measure = ["run", "--quiet", "--release", "--package", "s3rep-s3db", "--example", "measure_s3"];
    let output = cargo().args(measure).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    print!("S3, against a server that answers at once: {}", String::from_utf8_lossy(&output.stdout));
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
