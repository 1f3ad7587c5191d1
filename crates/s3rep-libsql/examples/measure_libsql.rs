//! Rows a second into SQLite: bare prepared statements in one transaction, and the same rows through the sink. With
//! the URL of a libSQL server, rows a second through the sink into its tables `cars_N`, which have to be absent.
//!
//! `cargo run --release -p s3rep-libsql --example measure_libsql [ROWS] [BATCH] [URL]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::{fmt, path::Path, sync::Arc, time::Instant};

use libsql::{Builder, Value as Sql, params::Params};
use s3rep_core::{
    Batch, ChangeId, CursorMove, DriverConfig, Operation, Partition, Progress, Record, ResourceSchema,
    RouteMode, RowChange, Seq, Sink, Table, Timestamp,
};
use s3rep_libsql::LibsqlConfig;
use serde_json::{Value, json};

const COLUMNS: [&str; 8] = ["name", "maker", "city", "price", "doors", "electric", "tags", "note"];

/// Rows a second.
struct Rate {
    wall: f64,
    cpu: f64,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s ({:.0}/s)", self.wall, self.cpu)
    }
}

struct Stopwatch(Instant, f64);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn rate(&self, rows: usize) -> Rate {
        let Self(start, cpu) = self;
        Rate { wall: rows as f64 / start.elapsed().as_secs_f64(), cpu: rows as f64 / (cpu_seconds() - cpu) }
    }
}

/// User and system time of all threads so far, from Linux's `stat` in ticks of 10 ms; 0 elsewhere.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn record(i: usize) -> Record {
    let value = json!({
        "name": format!("model {i}"), "maker": "Aston Martin Lagonda", "city": "Newport Pagnell",
        "price": i as f64 * 1.25, "doors": 2 + i % 4, "electric": i.is_multiple_of(2),
        "tags": ["fast", "red"], "note": "a note that is about as long as notes in such tables are",
    });
    value.as_object().unwrap().clone()
}

fn key(i: usize) -> String {
    // Scattered, as ids are.
    format!("car-{:016x}", (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn schema() -> ResourceSchema {
    let declaration = json!({
        "name": "string|required", "maker": "string", "city": "string", "price": "number",
        "doors": "number|integer", "electric": "boolean", "tags": "array|items:string", "note": "string",
    });
    ResourceSchema::parse("cars", "v1", declaration.as_object().unwrap()).unwrap()
}

fn bare_row(i: usize, record: &Record) -> Vec<Sql> {
    let mut row = vec![Sql::Text(key(i))];
    row.extend(COLUMNS.iter().map(|column| match &record[*column] {
        Value::String(text) => Sql::Text(text.clone()),
        Value::Bool(truth) => Sql::Integer((*truth).into()),
        Value::Number(number) if number.is_f64() => Sql::Real(number.as_f64().unwrap()),
        Value::Number(number) => Sql::Integer(number.as_i64().unwrap()),
        other => Sql::Text(other.to_string()),
    }));
    row
}

async fn bare(path: &Path, rows: Vec<Vec<Sql>>) -> Rate {
    let connection = Builder::new_local(path).build().await.unwrap().connect().unwrap();
    drop(connection.query("PRAGMA journal_mode = WAL", ()).await.unwrap());
    connection
        .execute(
            "CREATE TABLE cars (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, maker TEXT, city TEXT, price REAL, \
             doors INTEGER, electric INTEGER, tags TEXT, note TEXT)",
            (),
        )
        .await
        .unwrap();
    let updates: Vec<_> = COLUMNS.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let count = rows.len();
    let start = Stopwatch::start();
    connection.execute("BEGIN IMMEDIATE", ()).await.unwrap();
    let sql = format!(
        "INSERT INTO cars (id, {}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT (id) DO UPDATE SET {}",
        COLUMNS.join(", "),
        updates.join(", ")
    );
    let statement = connection.prepare(&sql).await.unwrap();
    for row in rows {
        statement.execute(Params::Positional(row)).await.unwrap();
        statement.reset();
    }
    connection.execute("COMMIT", ()).await.unwrap();
    start.rate(count)
}

async fn sink(url: &str, name: &str, mode: RouteMode, changes: &[RowChange], batch: usize) -> Rate {
    let cx = s3rep_testkit::context::test();
    let options = json!({"url": url, "schemaSync": {"enabled": true}});
    let sink: Arc<dyn Sink> = serde_json::from_value::<LibsqlConfig>(options).unwrap().build().unwrap();
    let table = Arc::new(Table { name: name.into(), mode, schema: Arc::new(schema()) });
    let sync = sink.schema_sync().unwrap();
    sync.execute(&cx, &sync.plan(&table, None).unwrap()).await.unwrap();
    let batches: Vec<Batch> = changes
        .chunks(batch)
        .map(|chunk| Batch {
            table: table.clone(),
            changes: chunk.to_vec(),
            progress: Progress {
                replicator: name.into(),
                log: "log".into(),
                fence: 1,
                cursors: (0..16)
                    .map(|partition| CursorMove {
                        table: "".into(),
                        partition: Partition(partition),
                        seq: chunk.last().unwrap().seq,
                    })
                    .collect(),
            },
        })
        .collect();
    let start = Stopwatch::start();
    for batch in &batches {
        assert!(sink.apply(&cx, batch).await.unwrap().rejected.is_empty());
    }
    let rate = start.rate(changes.len());
    sink.close(&cx).await.unwrap();
    rate
}

#[tokio::main]
async fn main() {
    let argument = |n: usize| std::env::args().nth(n).and_then(|text| text.parse::<usize>().ok());
    let (count, size) = (argument(1).unwrap_or(300_000), argument(2).unwrap_or(10_000));
    let records: Vec<_> = (0..count).map(|i| Arc::new(record(i))).collect();
    let changes: Vec<_> = records
        .iter()
        .enumerate()
        .map(|(i, record)| RowChange {
            key: key(i).into(),
            operation: Operation::Insert,
            record: Some(record.clone()),
            change_id: ChangeId(((i as u128 + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes()),
            timestamp: Timestamp(1_700_000_000_000 + i as i64),
            seq: Seq(i as u64 + 1),
            partition: Partition((i % 16) as u16),
        })
        .collect();
    let bytes = serde_json::to_vec(&*records[count / 2]).unwrap().len();
    println!("{count} rows of {bytes} bytes as JSON, {} columns, batches of {size}", COLUMNS.len() + 1);
    println!("rows a second of wall time, and in brackets of this process's CPU time, for a busy machine");
    if let Some(url) = std::env::args().nth(3) {
        for round in 1..=3 {
            let upsert = sink(&url, &format!("cars_{round}"), RouteMode::Upsert, &changes, size).await;
            let append = sink(&url, &format!("cars_{round}_log"), RouteMode::Append, &changes, size).await;
            println!("round {round}: sink upsert {upsert}, sink append {append}");
        }
        return;
    }
    for round in 1..=3 {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let rows = records.iter().enumerate().map(|(i, record)| bare_row(i, record)).collect();
        let bare = bare(Path::new(&file("bare.db")), rows).await;
        let upsert = sink(&file("upsert.db"), "cars", RouteMode::Upsert, &changes, size).await;
        let append = sink(&file("append.db"), "cars", RouteMode::Append, &changes, size).await;
        println!(
            "round {round}: bare {bare}, sink upsert {upsert} = {:.0} % ({:.0} %), sink append {append}",
            upsert.wall / bare.wall * 100.0,
            upsert.cpu / bare.cpu * 100.0
        );
    }
}
