//! Figures of the embedded log: `cargo run --release -p s3rep-log --example measure-log [-- DIRECTORY]`.
//!
//! The directory decides which disk is measured; without one it is the system's for temporary files.

// Its figures are its output.
#![allow(clippy::print_stdout)]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use s3rep_core::{Change, ChangeId, ChangeLog as _, Context, Operation, Record, Result, Seq, Timestamp};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_testkit::context;
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> std::result::Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("--append-until-killed") {
        return append_until_killed(Path::new(&arguments.next().unwrap_or_default())).await;
    }
    let dir = match first {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let cores = std::thread::available_parallelism()?;
    println!(
        "log: {cores} cores, one sync of the disk takes {:.2} ms",
        sync_time(dir.path())?.as_secs_f64() * 1e3
    );
    for (size, batch, tasks, total) in [
        (1_024, 10, 1, 40_000),
        (1_024, 100, 1, 200_000),
        (1_024, 1_000, 1, 400_000),
        (1_024, 10, 16, 100_000),
        (1_024, 100, 16, 400_000),
        (1_024, 1_000, 4, 400_000),
        (200, 100, 16, 1_000_000),
        (200, 1_000, 4, 1_000_000),
    ] {
        append(&dir.path().join(format!("append-{size}-{batch}-{tasks}")), size, batch, tasks, total).await?;
    }
    scan(&dir.path().join("append-1024-1000-4"), 1_024).await?;
    scan(&dir.path().join("append-200-1000-4"), 200).await?;
    duplicates(&dir.path().join("append-200-1000-4")).await?;
    reopen(&dir.path().join("killed"))?;
    Ok(())
}

fn sync_time(dir: &Path) -> std::io::Result<Duration> {
    let mut file = std::fs::File::create(dir.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[7; 4_096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// A change of about `size` bytes of JSON, as a database of products would have it.
fn change(n: u64, size: usize) -> Change {
    let record = json!({
        "id": format!("product-{n:08}"),
        "name": format!("Product number {n}"),
        "price": n as f64 / 100.0,
        "stock": n % 1_000,
        "active": n.is_multiple_of(3),
        "category": "garden",
        "description": "x".repeat(size.saturating_sub(136)),
    });
    let record: Record = record.as_object().cloned().unwrap_or_default();
    Change {
        change_id: ChangeId(rand::random()),
        resource: "products".into(),
        id: format!("product-{n:08}").into(),
        operation: Operation::Insert,
        data: Some(Arc::new(record)),
        before: None,
        timestamp: Timestamp(1_790_000_000_000),
        schema_version: "v1".into(),
        target: None,
    }
}

fn open(dir: &Path) -> Result<Arc<EmbeddedLog>> {
    EmbeddedLog::open(dir, &LogOptions::default()).map(|(log, _)| Arc::new(log))
}

async fn append(
    dir: &Path,
    size: usize,
    batch: usize,
    tasks: usize,
    total: usize,
) -> std::result::Result<(), Failure> {
    let log = open(dir)?;
    let cx = context::test();
    // Made before the clock starts; each task has its own records.
    let batches: Vec<Vec<Vec<Change>>> = (0..tasks)
        .map(|task| {
            let first = task * total / tasks;
            let changes: Vec<_> = (first..first + total / tasks).map(|n| change(n as u64, size)).collect();
            changes.chunks(batch).map(<[_]>::to_vec).collect()
        })
        .collect();
    let start = Instant::now();
    let mut running = Vec::new();
    for batches in batches {
        let (log, cx): (_, Context) = (Arc::clone(&log), cx.clone());
        running.push(tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for batch in batches {
                let start = Instant::now();
                log.append(&cx, &batch, &[]).await?;
                slowest = slowest.max(start.elapsed());
            }
            Result::<_>::Ok(slowest)
        }));
    }
    let mut slowest = Duration::ZERO;
    for task in running {
        slowest = slowest.max(task.await??);
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    println!(
        "append: {size} bytes, batches of {batch}, {tasks} at once: {:.0} k changes/s, slowest append {:.0} ms",
        rate / 1e3,
        slowest.as_secs_f64() * 1e3
    );
    Ok(())
}

async fn scan(dir: &Path, size: usize) -> std::result::Result<(), Failure> {
    let log = open(dir)?;
    let cx = context::test();
    let start = Instant::now();
    let (mut after, mut read) = (Seq(0), 0);
    loop {
        let page = log.read(&cx, after, 1_000, 4 << 20).await?;
        if page.entries.is_empty() {
            break;
        }
        read += page.entries.len();
        after = page.next;
    }
    println!(
        "scan: {size} bytes: {:.0} k entries/s decoded, one task",
        read as f64 / start.elapsed().as_secs_f64() / 1e3
    );
    Ok(())
}

async fn duplicates(dir: &Path) -> std::result::Result<(), Failure> {
    let start = Instant::now();
    let log = open(dir)?;
    let opened = start.elapsed();
    let cx = context::test();
    let start = Instant::now();
    log.append(&cx, &[change(0, 200)], &[]).await?;
    let first = start.elapsed();
    let known: Vec<Change> = log
        .read(&cx, Seq(500_000), 10_000, 64 << 20)
        .await?
        .entries
        .into_iter()
        .map(|entry| entry.change)
        .collect();
    let start = Instant::now();
    let done = log.append(&cx, &known, &[]).await?;
    println!(
        "reopen: {:.1} ms with 1,000,000 entries; first append {:.0} ms; {:.0} k known changes/s recognised ({} of {})",
        opened.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        known.len() as f64 / start.elapsed().as_secs_f64() / 1e3,
        done.duplicates,
        known.len(),
    );
    Ok(())
}

async fn append_until_killed(dir: &Path) -> std::result::Result<(), Failure> {
    let log = open(dir)?;
    let cx = context::test();
    for round in 0_u64.. {
        let changes: Vec<_> = (0..100).map(|n| change(round * 100 + n, 1_024)).collect();
        log.append(&cx, &changes, &[]).await?;
    }
    Ok(())
}

fn reopen(dir: &Path) -> std::result::Result<(), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--append-until-killed")
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    child.kill()?;
    child.wait()?;
    let start = Instant::now();
    let log = open(dir)?;
    let took = start.elapsed();
    drop(log);
    println!("reopen after kill -9 while appending: {:.1} ms", took.as_secs_f64() * 1e3);
    Ok(())
}
