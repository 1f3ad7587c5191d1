//! Lines a second into JSON Lines and CSV, and what reading a million of them back takes in time and memory.
//!
//! `cargo run --release -p s3rep-files --example measure_files [LINES]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::{sync::Arc, time::Instant};

use s3rep_core::{
    Batch, ChangeId, CursorMove, DriverConfig, Operation, Partition, Progress, ResourceSchema, RouteMode,
    RowChange, Seq, Sink, Table, Timestamp,
};
use serde_json::json;

fn change(i: usize) -> RowChange {
    let record = json!({
        "name": format!("model {i}"), "maker": "Aston Martin Lagonda", "city": "Newport Pagnell",
        "price": i as f64 * 1.25, "doors": 2 + i % 4, "electric": i.is_multiple_of(2),
        "tags": ["fast", "red"], "note": "a note that is about as long as notes in such tables are",
    });
    RowChange {
        key: format!("car-{:016x}", (i as u64 % 700_000).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        operation: if i % 50 == 49 { Operation::Delete } else { Operation::Update },
        record: Some(Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId((i as u128 + 1).to_be_bytes()),
        timestamp: Timestamp(1_700_000_000_000 + i as i64),
        seq: Seq(i as u64 + 1),
        partition: Partition((i % 16) as u16),
    }
}

/// The process's largest resident memory so far in MiB, from Linux; 0 elsewhere.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) / 1024
}

#[tokio::main]
async fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let cx = s3rep_testkit::context::test();
    for driver in ["jsonl", "csv"] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let options = json!({"path": directory.path().to_str().unwrap()});
        let sink: Arc<dyn Sink> = match driver {
            "jsonl" => serde_json::from_value::<s3rep_files::JsonlConfig>(options).unwrap().build(),
            _ => serde_json::from_value::<s3rep_files::CsvConfig>(options).unwrap().build(),
        }
        .unwrap();
        let declaration = json!({
            "name": "string|required", "maker": "string", "city": "string", "price": "number",
            "doors": "number|integer", "electric": "boolean", "tags": "array|items:string", "note": "string",
        });
        let schema = ResourceSchema::parse("cars", "v1", declaration.as_object().unwrap()).unwrap();
        let table =
            Arc::new(Table { name: "cars".into(), mode: RouteMode::Append, schema: Arc::new(schema) });
        let mut writing = 0.0;
        for from in (0..count).step_by(5_000) {
            let changes: Vec<_> = (from..count.min(from + 5_000)).map(change).collect();
            let seq = changes.last().unwrap().seq;
            let moved = |partition| CursorMove { table: "".into(), partition: Partition(partition), seq };
            let cursors = (0..16).map(moved).collect();
            let progress = Progress { replicator: "r".into(), log: "log".into(), fence: 1, cursors };
            let batch = Batch { table: table.clone(), changes, progress };
            let start = Instant::now();
            assert!(sink.apply(&cx, &batch).await.unwrap().rejected.is_empty());
            writing += start.elapsed().as_secs_f64();
        }
        let before = peak();
        let start = Instant::now();
        let (mut rows, mut after) = (0, None::<String>);
        loop {
            let page = sink.readback().unwrap().rows(&cx, &table, after.as_deref(), 1_000).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows += page.len();
        }
        println!(
            "{driver}: {count} lines written at {:.0}/s in batches of 5,000; folded to {rows} rows in {:.1} s; peak {} MiB \
             ({before} MiB before)",
            count as f64 / writing,
            start.elapsed().as_secs_f64(),
            peak()
        );
    }
}
