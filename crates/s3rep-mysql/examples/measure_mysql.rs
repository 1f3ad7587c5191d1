//! Rows a second into a server: a plain client's multi-row INSERT (as text and prepared), and the same rows through
//! the sink, into a fresh table and over the rows that are there. Makes and drops the tables `bare` and `cars`.
//!
//! `cargo run --release -p s3rep-mysql --example measure_mysql URL [ROWS] [BATCH] [LANES]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::{fmt::Write, sync::Arc, time::Instant};

use mysql_async::{Conn, Opts, Value as Sql, prelude::Queryable};
use s3rep_core::{
    Batch, ChangeId, CursorMove, DriverConfig, Operation, Partition, Progress, ResourceSchema, RouteMode,
    RowChange, Seq, Table, Timestamp,
};
use s3rep_mysql::MysqlConfig;
use s3rep_testkit::context;
use serde_json::json;

const COLUMNS: &str = "id, name, price, doors, electric, seen";
/// Rows of one statement of the plain client.
const ROWS_A_STATEMENT: usize = 1_000;

/// Processor time of a process so far, in seconds; 0 where that cannot be seen.
fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

struct Stopwatch<'a>(Instant, f64, f64, &'a str);

impl<'a> Stopwatch<'a> {
    fn start(server: &'a str) -> Self {
        Self(Instant::now(), cpu("self"), cpu(server), server)
    }

    fn print(&self, what: &str, rows: usize) {
        let Self(start, client, server, process) = self;
        let rate = rows as f64 / start.elapsed().as_secs_f64();
        let micros = 1e6 / rows as f64;
        let (client, server) = ((cpu("self") - client) * micros, (cpu(process) - server) * micros);
        println!(
            "{what:32} {rate:8.0} rows/s; processor time a row: here {client:.2} µs, server {server:.2} µs"
        );
    }
}

fn key(i: usize) -> String {
    // Scattered, as ids are.
    format!("car-{:016x}", (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn name(i: usize) -> String {
    format!("the model number {i}, with a name that is about as long as names are")
}

fn text_row(i: usize) -> String {
    let micros = i % 1_000 * 1_000;
    format!(
        "('{}', '{}', {}, {}, {}, '2026-01-31 10:20:30.{micros:06}')",
        key(i),
        name(i),
        i as f64 * 1.25,
        i % 5,
        i % 2
    )
}

fn values(i: usize) -> [Sql; 6] {
    let micros = u32::try_from(i % 1_000 * 1_000).unwrap();
    [
        key(i).into(),
        name(i).into(),
        (i as f64 * 1.25).into(),
        (i % 5).into(),
        (i % 2).into(),
        Sql::Date(2026, 1, 31, 10, 20, 30, micros),
    ]
}

fn change(i: usize) -> RowChange {
    let record = json!({
        "name": name(i), "price": i as f64 * 1.25, "doors": i % 5, "electric": i % 2 == 1,
        "seen": format!("2026-01-31T10:20:30.{:03}Z", i % 1_000),
    });
    RowChange {
        key: key(i).into(),
        operation: Operation::Update,
        record: Some(Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId([0; 16]),
        timestamp: Timestamp(1_700_000_000_000),
        seq: Seq(i as u64 + 1),
        partition: Partition(0),
    }
}

async fn plain(client: &mut Conn, server: &str, rows: usize, batch: usize, is_prepared: bool) {
    let create = "DROP TABLE IF EXISTS bare; CREATE TABLE bare (id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin \
                  PRIMARY KEY, name LONGTEXT, price DOUBLE, doors BIGINT, electric TINYINT(1), seen DATETIME(6))";
    client.query_drop(create).await.unwrap();
    let all: Vec<usize> = (0..rows).collect();
    let insert = format!("INSERT INTO bare ({COLUMNS}) VALUES ");
    let watch = Stopwatch::start(server);
    for batch in all.chunks(batch) {
        client.query_drop("START TRANSACTION").await.unwrap();
        for part in batch.chunks(ROWS_A_STATEMENT) {
            if is_prepared {
                let sql = format!("{insert}{}", vec!["(?, ?, ?, ?, ?, ?)"; part.len()].join(", "));
                let params: Vec<Sql> = part.iter().flat_map(|i| values(*i)).collect();
                client.exec_drop(sql, params).await.unwrap();
                continue;
            }
            let mut sql = insert.clone();
            for (n, i) in part.iter().enumerate() {
                write!(sql, "{}{}", if n == 0 { "" } else { ", " }, text_row(*i)).unwrap();
            }
            client.query_drop(sql).await.unwrap();
        }
        client.query_drop("COMMIT").await.unwrap();
    }
    watch.print(if is_prepared { "plain client, prepared" } else { "plain client, text" }, rows);
}

async fn through_sink(url: &str, server: &str, rows: usize, batch: usize, lanes: usize) {
    let options = json!({"url": url, "schemaSync": {"enabled": true}});
    let sink = serde_json::from_value::<MysqlConfig>(options).unwrap().build().unwrap();
    let declaration = json!({
        "name": "string", "price": "number", "doors": "number|integer", "electric": "boolean", "seen": "datetime",
    });
    let schema = ResourceSchema::parse("cars", "v1", declaration.as_object().unwrap()).unwrap();
    let table = Arc::new(Table { name: "cars".into(), mode: RouteMode::Upsert, schema: Arc::new(schema) });
    let cx = context::test();
    let sync = sink.schema_sync().unwrap();
    let have = sync.inspect(&cx, &table).await.unwrap();
    sync.execute(&cx, &sync.plan(&table, have.as_ref()).unwrap()).await.unwrap();
    // Made beforehand: here is only what the sink does.
    let all: Vec<RowChange> = (0..rows).map(change).collect();
    for round in ["fresh", "over rows that are there"] {
        let watch = Stopwatch::start(server);
        let running = (0..lanes).map(|lane| {
            let (sink, table, cx) = (sink.clone(), table.clone(), cx.clone());
            let own: Vec<_> = all.chunks(batch).skip(lane).step_by(lanes).map(<[_]>::to_vec).collect();
            tokio::spawn(async move {
                for changes in own {
                    let seq = changes.last().unwrap().seq;
                    let partition = Partition(u16::try_from(lane).unwrap());
                    let cursors = vec![CursorMove { table: table.name.clone(), partition, seq }];
                    let progress =
                        Progress { replicator: round.into(), log: "log".into(), fence: 1, cursors };
                    let changes =
                        changes.into_iter().map(|change| RowChange { partition, ..change }).collect();
                    let batch = Batch { table: table.clone(), changes, progress };
                    while let Err(error) = sink.apply(&cx, &batch).await {
                        assert!(error.is_temporary(), "{error:?}");
                    }
                }
            })
        });
        for lane in running.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        watch.print(&format!("sink, {lanes} at a time, {round}"), rows);
    }
    sink.close(&cx).await.unwrap();
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("the URL of a database");
    let mut number = |usual: usize| arguments.next().map_or(usual, |text| text.parse().unwrap());
    let (rows, batch, lanes) = (number(200_000), number(5_000), number(4));
    let mut client = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
    let pid_file: Option<String> = client.query_first("SELECT @@pid_file").await.unwrap();
    let server = std::fs::read_to_string(pid_file.unwrap_or_default()).unwrap_or_default().trim().to_owned();
    println!("{rows} rows in batches of {batch}");
    plain(&mut client, &server, rows, batch, false).await;
    plain(&mut client, &server, rows, batch, true).await;
    for lanes in [1, lanes] {
        client.query_drop("DROP TABLE IF EXISTS cars, _s3rep_cursor").await.unwrap();
        through_sink(&url, &server, rows, batch, lanes).await;
    }
    client.query_drop("DROP TABLE IF EXISTS cars, bare, _s3rep_cursor").await.unwrap();
    client.disconnect().await.unwrap();
}
