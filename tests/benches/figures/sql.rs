//! SQL destinations next to what they can take themselves, in turn because the machine's speed drifts.

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use mysql_async::prelude::Queryable;
use s3rep::{
    Mapping, Replicator as Plugged, Route, Sink,
    core::{Change, ChangeId, ChangeLog, Context, DriverConfig, Operation, RouteMode, Timestamp},
    engine::{Pipeline, context},
    log::{Durability, EmbeddedLog},
    mysql::MariadbConfig,
    postgres::PostgresConfig,
    s3db::{Database, DatabaseOptions, ResourceConfig},
};
use s3rep_testkit::{
    server::{SqlServer, mariadb, postgres},
    source::MemorySource,
};
use serde_json::json;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::{object, open_log, percentiles, print, replicator, resident_megabytes};

/// Changes that wait in the log.
const ROWS: usize = 300_000;
const ROUNDS: usize = 3;

pub(super) async fn figures() {
    match postgres::start_durable().await {
        Ok(server) => in_postgres(&server).await,
        Err(missing) => println!("PostgreSQL is not measured: {missing}"),
    }
    match mariadb::start_durable().await {
        Ok(server) => in_mariadb(&server).await,
        Err(missing) => println!("MariaDB is not measured: {missing}"),
    }
}

// ---------------------------------------------------------------------------------------------------- changes

/// Six columns: key, text, double, integer, truth and JSON.
fn change(n: usize, round: usize, operation: Operation) -> Change {
    let id: Arc<str> = format!("product-{n:08}").into();
    let record = object(json!({
        "id": &*id, "name": format!("Product number {n} of {round}"), "price": n as f64 / 100.0, "stock": n % 1_000,
        "active": n.is_multiple_of(3), "tags": {"a": [n % 7, n % 11], "b": "garden", "c": null},
    }));
    Change {
        change_id: ChangeId::derive("products", &id, operation, &(n, round).0.to_le_bytes(), None),
        resource: "products".into(),
        id,
        operation,
        data: Some(Arc::new(record)),
        before: None,
        timestamp: Timestamp(1_700_000_000_000 + n as i64),
        schema_version: "v1".into(),
        target: None,
    }
}

fn source() -> Arc<MemorySource> {
    let source = MemorySource::new().with_interval(Duration::from_secs(3_600));
    source.create(
        "products",
        &json!({"name": "string", "price": "number", "stock": "number|integer", "active": "boolean", "tags": "json"}),
    );
    Arc::new(source)
}

/// A log with so many changes, of records in an order of their own as a real one has.
async fn log(dir: &TempDir, count: usize, operation: Operation) -> Arc<EmbeddedLog> {
    let (cx, log) = (context::system(), open_log(dir.path()));
    // 7,919 is a prime: every number is met once.
    let all: Vec<usize> = (0..count).map(|n| n * 7_919 % count).collect();
    for part in all.chunks(5_000) {
        let changes: Vec<_> = part.iter().map(|&n| change(n, 0, operation)).collect();
        log.append(&cx, &changes, &[]).await.unwrap();
    }
    log
}

/// Rows a second from the log into a sink.
async fn drained(cx: &Context, log: &Arc<EmbeddedLog>, sink: Arc<dyn Sink>, rows: usize) -> f64 {
    log.forget(cx, "figures").await.unwrap();
    let replicators = vec![replicator(RouteMode::Upsert, sink)];
    let pipeline = Pipeline::new(cx.clone(), source(), log.clone(), replicators).unwrap();
    let began = Instant::now();
    assert_eq!(pipeline.drain().await.unwrap().written, rows as u64);
    rows as f64 / began.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Prints the median of ours as a share of the median of the peer.
fn share(figure: &str, peer: &str, ours: Vec<f64>, theirs: Vec<f64>, limit: f64) {
    let shares = ours.iter().zip(&theirs).map(|(ours, theirs)| 100.0 * ours / theirs).collect();
    let (share, ours, theirs) = (median(shares), median(ours), median(theirs));
    let figure = format!("{figure}, {ours:.0} rows/s; {peer} {theirs:.0}");
    print(&figure, format!("{share:.0} %"), &format!(">= {limit:.0} %"), share >= limit);
}

// ------------------------------------------------------------------------------------------------- PostgreSQL

const TABLE: &str = "(id varchar(255) primary key, name text, price double precision, stock bigint, active boolean, tags jsonb)";

async fn in_postgres(server: &SqlServer) {
    let url = server.url("postgres");
    let client = connect(&url).await;
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let inserts = log(&dir, ROWS, Operation::Insert).await;
    let tuples = tuples(ROWS);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let bare = copy(&client, &format!("bare_{round}"), &tuples, ROWS).await;
        reset(&client).await;
        ours.push(drained(&cx, &inserts, sink(&url), ROWS).await);
        theirs.push(bare);
    }
    share("PostgreSQL, fresh table", "COPY", ours, theirs, 50.0);
    growth(&cx, &client, &url).await;

    let dir = TempDir::new().unwrap();
    let updates = log(&dir, ROWS, Operation::Update).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(merge(&client, &tuples).await);
        client.batch_execute("TRUNCATE products").await.unwrap();
        copy_into(&client, "products", &tuples).await;
        client.batch_execute("DROP TABLE IF EXISTS _s3rep_cursor").await.unwrap();
        vacuum(&client, "products").await;
        ours.push(drained(&cx, &updates, sink(&url), ROWS).await);
    }
    share("PostgreSQL, updates", "INSERT … SELECT … ON CONFLICT", ours, theirs, 60.0);
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn sink(url: &str) -> Arc<dyn Sink> {
    let options = json!({"connectionString": url, "schemaSync": {"enabled": true}});
    serde_json::from_value::<PostgresConfig>(options).unwrap().build().unwrap()
}

async fn reset(client: &Client) {
    client.batch_execute("DROP TABLE IF EXISTS products, _s3rep_cursor; CHECKPOINT").await.unwrap();
}

/// The rows as `COPY … BINARY` takes them, made beforehand: the peer only sends.
fn tuples(count: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(count * 160);
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let field = |out: &mut BytesMut, bytes: &[u8]| {
        out.put_i32(bytes.len() as i32);
        out.put_slice(bytes);
    };
    for n in (0..count).map(|n| n * 7_919 % count) {
        let record = change(n, 0, Operation::Insert).data.unwrap();
        out.put_i16(6);
        field(&mut out, record["id"].as_str().unwrap().as_bytes());
        field(&mut out, record["name"].as_str().unwrap().as_bytes());
        field(&mut out, &record["price"].as_f64().unwrap().to_be_bytes());
        field(&mut out, &record["stock"].as_i64().unwrap().to_be_bytes());
        field(&mut out, &[u8::from(record["active"].as_bool().unwrap())]);
        field(&mut out, format!("\u{1}{}", record["tags"]).as_bytes());
    }
    out.put_i16(-1);
    out.freeze()
}

async fn copy_into(client: &Client, table: &str, tuples: &Bytes) {
    use futures_sink::send;
    send(client, &format!("COPY {table} (id, name, price, stock, active, tags) FROM STDIN BINARY"), tuples)
        .await;
}

mod futures_sink {
    use std::pin::pin;

    use bytes::Bytes;
    use futures::SinkExt;
    use tokio_postgres::Client;

    pub(super) async fn send(client: &Client, sql: &str, tuples: &Bytes) {
        let mut sink = pin!(client.copy_in::<_, Bytes>(sql).await.unwrap());
        let mut left = tuples.clone();
        while !left.is_empty() {
            let chunk = left.split_to(left.len().min(64 << 10));
            sink.send(chunk).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
}

/// Rows a second of `COPY` straight into a table like ours.
async fn copy(client: &Client, table: &str, tuples: &Bytes, rows: usize) -> f64 {
    client.batch_execute(&format!("CREATE TABLE {table} {TABLE}; CHECKPOINT")).await.unwrap();
    let began = Instant::now();
    copy_into(client, table, tuples).await;
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    client.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
    rate
}

/// Rows a second of one statement that updates every row from a temporary table, which is filled already.
async fn merge(client: &Client, tuples: &Bytes) -> f64 {
    client
        .batch_execute(&format!("DROP TABLE IF EXISTS merged; CREATE TABLE merged {TABLE}; DROP TABLE IF EXISTS filled; CREATE TEMP TABLE filled AS SELECT * FROM merged"))
        .await
        .unwrap();
    copy_into(client, "merged", tuples).await;
    copy_into(client, "filled", tuples).await;
    vacuum(client, "merged").await;
    let began = Instant::now();
    client
        .batch_execute("INSERT INTO merged SELECT * FROM filled ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, stock = excluded.stock, active = excluded.active, tags = excluded.tags")
        .await
        .unwrap();
    let rate = ROWS as f64 / began.elapsed().as_secs_f64();
    client.batch_execute("DROP TABLE merged").await.unwrap();
    rate
}

/// Before each measurement, so that none pays for what another one left to do.
async fn vacuum(client: &Client, table: &str) {
    client.batch_execute(&format!("VACUUM {table}")).await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

/// Ten times the rows, and the memory that they take here.
async fn growth(cx: &Context, client: &Client, url: &str) {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for rows in [ROWS / 10, ROWS] {
        let dir = TempDir::new().unwrap();
        let log = log(&dir, rows, Operation::Insert).await;
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            reset(client).await;
            rates.push(rows as f64 / drained(cx, &log, sink(url), rows).await);
        }
        times.push(median(rates));
        memory.push(resident_megabytes());
    }
    let times = times[1] / times[0];
    print("   ten times the rows take", format!("{times:.1} times"), "<= 11.0 times", times <= 11.0);
    let grown = memory[1] - memory[0];
    print("   and more memory", format!("{grown:.0} MB"), "<= 20 MB", grown <= 20.0);
}

// ------------------------------------------------------------------------------------------------------- live

const LIVE: usize = 1_000;
const SECONDS: usize = 10;

/// 1,000 changes a second through the API: from the call of the insert until another process sees the row.
pub(super) async fn live() {
    let server = match postgres::start_durable().await {
        Ok(server) => server,
        Err(missing) => return println!("live into PostgreSQL is not measured: {missing}"),
    };
    for durability in ["fsync", "os"] {
        live_with(&server, durability).await;
    }
}

async fn live_with(server: &SqlServer, durability: &str) {
    let url = server.url("postgres");
    let client = connect(&url).await;
    reset(&client).await;
    let mut writing = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["live-into-postgres", &url, durability])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let times = watch_live(&client).await;
    let mut text = String::new();
    writing.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(writing.wait().unwrap().success());
    let cpu: f64 = text.trim().parse().unwrap();
    let (p50, p99) = percentiles(times);
    let figure = format!("PostgreSQL, live, {durability}, 1,000/s: insert to visible, p50");
    print(&figure, format!("{p50:.2} ms"), "<= 3.00 ms", p50 <= 3.0);
    print("   p99", format!("{p99:.2} ms"), "<= 10.00 ms", p99 <= 10.0);
    print("   of one core, the writers included", format!("{cpu:.0} %"), "<= 30 %", cpu <= 30.0);
}

/// Looks for the next rows again and again; each says when it was inserted.
async fn watch_live(client: &Client) -> Vec<f64> {
    let is_there = "SELECT to_regclass('products') IS NOT NULL";
    while !client.query_one(is_there, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A table that was empty a moment ago would be read as a whole.
    client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await.unwrap();
    let sql = "SELECT id, stock FROM products WHERE id >= $1 ORDER BY id LIMIT 200";
    let statement = client.prepare(sql).await.unwrap();
    let count = LIVE * SECONDS;
    let (mut seen, mut first, mut times) = (vec![false; count], 0, Vec::with_capacity(count));
    while times.len() < count {
        let rows = client.query(&statement, &[&live_id(first)]).await.unwrap();
        let now = micros();
        for row in rows {
            let (id, inserted): (&str, i64) = (row.get(0), row.get(1));
            let n: usize = id.strip_prefix("live-").unwrap().parse().unwrap();
            if !std::mem::replace(&mut seen[n], true) {
                times.push((now - inserted) as f64 / 1_000.0);
            }
        }
        first += seen[first..].iter().take_while(|seen| **seen).count();
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    times
}

fn live_id(n: usize) -> String {
    format!("live-{n:08}")
}

fn micros() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64
}

/// Writes and replicates in one process, and prints how much of a core that took.
pub(super) async fn live_in_this_process(url: &str, durability: &str) {
    let dir = TempDir::new().unwrap();
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let database = Database::connect_with("memory://live", options).await.unwrap();
    let config = ResourceConfig::from_value(&json!({
        "name": "products",
        "attributes": {"name": "string", "price": "number", "stock": "number|integer", "active": "boolean", "tags": "json"},
    }));
    let products = database.create_resource(&config.unwrap()).await.unwrap();
    let durability = if durability == "os" { Durability::Os } else { Durability::Fsync };
    let plugged = Plugged::builder(dir.path().join("state")).durability(durability);
    let mapping = Mapping::new(vec![Route::new("products", "products")]);
    let plugged = plugged.destination("postgres", mapping, sink(url)).build().unwrap();
    let plugged = database.use_plugin(plugged).await.unwrap();
    products.insert(live_record("first".to_owned())).await.unwrap();
    plugged.caught_up().await.unwrap();

    let before = cpu_seconds();
    let began = Instant::now();
    let count = LIVE * SECONDS;
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let products = products.clone();
            tokio::spawn(async move {
                for n in 0..count / 50 {
                    let due = began + Duration::from_millis((n * 50 + writer) as u64);
                    tokio::time::sleep_until(due.into()).await;
                    products.insert(live_record(live_id(n * 50 + writer))).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    println!("{}", 100.0 * (cpu_seconds() - before) / began.elapsed().as_secs_f64());
    plugged.caught_up().await.unwrap();
    database.close().await.unwrap();
}

fn live_record(id: String) -> serde_json::Value {
    json!({"id": id, "name": "Product", "price": 1.5, "stock": micros(), "active": true, "tags": {"a": [1, 2]}})
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in hundredths.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

// ---------------------------------------------------------------------------------------------------- MariaDB

/// Rows of one statement, and statements of one transaction: about a window of the engine.
const ROWS_A_STATEMENT: usize = 1_000;
const STATEMENTS: usize = 8;

async fn in_mariadb(server: &SqlServer) {
    let pool = mysql_async::Pool::new(&*server.url("mysql"));
    let mut client = pool.get_conn().await.unwrap();
    client.query_drop("CREATE DATABASE IF NOT EXISTS figures; USE figures").await.unwrap();
    let (cx, dir) = (context::system(), TempDir::new().unwrap());
    let inserts = log(&dir, ROWS, Operation::Insert).await;
    let statements = statements(ROWS);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(insert(&mut client, &statements).await);
        client.query_drop("DROP TABLE IF EXISTS products, _s3rep_cursor").await.unwrap();
        let options = json!({"connectionString": server.url("figures"), "schemaSync": {"enabled": true}});
        let sink = serde_json::from_value::<MariadbConfig>(options).unwrap().build().unwrap();
        ours.push(drained(&cx, &inserts, sink, ROWS).await);
    }
    share("MariaDB, fresh table", "multi-row INSERT", ours, theirs, 70.0);
    drop(client);
    pool.disconnect().await.unwrap();
}

/// The rows as statements, made beforehand: the peer only sends.
fn statements(count: usize) -> Vec<String> {
    let all: Vec<usize> = (0..count).map(|n| n * 7_919 % count).collect();
    let row = |&n: &usize| {
        let record = change(n, 0, Operation::Insert).data.unwrap();
        let (id, name) = (record["id"].as_str().unwrap(), record["name"].as_str().unwrap());
        let (price, stock, active) = (&record["price"], &record["stock"], &record["active"]);
        format!("('{id}', '{name}', {price}, {stock}, {active}, '{}')", record["tags"])
    };
    all.chunks(ROWS_A_STATEMENT)
        .map(|part| {
            format!("INSERT INTO bare VALUES {}", part.iter().map(row).collect::<Vec<_>>().join(", "))
        })
        .collect()
}

async fn insert(client: &mut mysql_async::Conn, statements: &[String]) -> f64 {
    const CREATE: &str = "DROP TABLE IF EXISTS bare; CREATE TABLE bare (id varchar(255) character set utf8mb4 collate \
        utf8mb4_nopad_bin primary key, name longtext, price double, stock bigint, active tinyint(1), tags json)";
    client.query_drop(CREATE).await.unwrap();
    let began = Instant::now();
    for part in statements.chunks(STATEMENTS) {
        client.query_drop("BEGIN").await.unwrap();
        for statement in part {
            client.query_drop(statement).await.unwrap();
        }
        client.query_drop("COMMIT").await.unwrap();
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}
