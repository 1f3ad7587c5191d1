//! A write is captured once, whatever is cut off, whoever looks on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is one of the test, and has a seed")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use common::{all, config, creating, cx, keys};
use s3rep_core::{
    Capture, Change, ChangeLog, Context, Error, ErrorKind, Failpoints, Operation, Record, Result, Seq,
    SnapshotRows, Source, SourceState, StateWrite,
};
use s3rep_s3db::{
    Database, DatabaseOptions, FileStore, Followed, MemoryStore, ObjectStore, Outbox, Resource, TailOptions,
    TailSource,
};
use s3rep_testkit::{
    context::{SplitMix, seed},
    log::MemoryLog,
};
use serde_json::json;

/// Breaks one in so many places, while it is on.
struct Breaks {
    random: SplitMix,
    one_in: u64,
    on: AtomicBool,
}

impl Failpoints for Breaks {
    fn hit(&self, name: &'static str) -> Result<()> {
        if self.on.load(Ordering::Relaxed) && self.random.below(self.one_in) == 0 {
            return Err(Error::new(ErrorKind::Unexpected, format!("broken at {name}")));
        }
        Ok(())
    }
}

/// Breaks at one place, once.
struct BreaksAt(&'static str, AtomicBool);

impl Failpoints for BreaksAt {
    fn hit(&self, name: &'static str) -> Result<()> {
        if name == self.0 && self.1.swap(false, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unexpected, format!("broken at {name}")));
        }
        Ok(())
    }
}

async fn open(store: &Arc<dyn ObjectStore>, log: &Arc<MemoryLog>, context: &Context) -> (Database, Resource) {
    let options = DatabaseOptions { context: context.clone(), ..creating() };
    let database = Database::open(store.clone(), options).await.unwrap();
    let notes = config(json!({
        "name": "notes",
        "attributes": {"text": "string", "state": "string|optional"},
        "partitions": {"byText": {"fields": {"text": "string"}}, "byState": {"fields": {"state": "string"}}},
    }));
    let notes = database.create_resource(&notes).await.unwrap();
    let outbox = Outbox::open(&cx(), log.clone(), Followed::default()).await.unwrap();
    database.capture(outbox).await.unwrap();
    (database, notes)
}

async fn changes(log: &MemoryLog) -> Vec<Change> {
    let page = log.read(&cx(), Seq(0), usize::MAX, usize::MAX).await.unwrap();
    page.entries.into_iter().map(|entry| entry.change).collect()
}

/// Every change goes on where the one before it of the same record ended. Returns what is left at the end.
fn replay(changes: &[Change]) -> BTreeMap<String, Record> {
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.target.is_none()) {
        let known = records.remove(&*change.id);
        let before = change.before.as_deref().cloned();
        match change.operation {
            Operation::Insert | Operation::Read => assert_eq!(known, None, "{change:?}"),
            Operation::Update => assert_eq!((&known, known.is_some()), (&before, true), "{change:?}"),
            Operation::Delete => assert_eq!(known.as_ref(), change.data.as_deref(), "{change:?}"),
        }
        if change.operation != Operation::Delete {
            records.insert(change.id.to_string(), change.data.as_deref().cloned().unwrap());
        }
    }
    records
}

async fn assert_in_step(database: &Database, notes: &Resource) {
    let mut expected = Vec::new();
    for (id, record) in all(notes).await {
        expected.extend(notes.format().partition_keys(&id, &record).unwrap());
    }
    expected.sort();
    let references: Vec<_> =
        keys(database).await.into_iter().filter(|key| key.contains("/partition=")).collect();
    assert_eq!(references, expected);
}

struct Into<'a>(&'a MemoryLog);

#[async_trait]
impl Capture for Into<'_> {
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()> {
        let appended = self.0.append(&cx(), &changes, &state).await?;
        assert_eq!(appended.duplicates, 0);
        Ok(())
    }
    async fn undecodable(&mut self, _: &str, _: &str, error: Error) {
        panic!("{error}");
    }
}

fn tail(database: &Database) -> TailSource {
    TailSource::new(database.clone(), TailOptions { batch: 3, ..TailOptions::default() })
}

async fn write(notes: &Resource, random: &SplitMix) -> Result<()> {
    let id = format!("n{}", random.below(5));
    let text = format!("t{}", random.below(3));
    match random.below(7) {
        0 | 1 => notes.insert(json!({"id": id, "text": text})).await.map(drop),
        2 => notes.update(&id, json!({"text": text, "state": "s"})).await.map(drop),
        3 => notes.patch(&id, json!({"state": text})).await.map(drop),
        4 => notes.replace(&id, json!({"text": text})).await.map(drop),
        5 => notes.upsert(json!({"id": id, "text": text})).await.map(drop),
        _ => notes.delete(&id).await,
    }
}

#[tokio::test]
async fn each_operation_is_one_change_with_what_was_before() {
    let (store, log): (Arc<dyn ObjectStore>, _) = (Arc::new(MemoryStore::new()), Arc::new(MemoryLog::new()));
    let (database, notes) = open(&store, &log, &cx()).await;
    notes.insert(json!({"id": "a", "text": "1"})).await.unwrap();
    notes.insert(json!({"id": "a", "text": "other"})).await.unwrap_err();
    notes.update("a", json!({"text": "2"})).await.unwrap();
    notes.update("a", json!({"text": "2"})).await.unwrap();
    notes.replace("a", json!({"text": "3"})).await.unwrap();
    notes.delete("a").await.unwrap();
    notes.delete("a").await.unwrap_err();
    notes.replace("a", json!({"text": "4"})).await.unwrap();
    let changes = changes(&log).await;
    let operations: Vec<_> = changes.iter().map(|change| change.operation.as_str()).collect();
    assert_eq!(operations, ["insert", "update", "update", "update", "delete", "insert"]);
    assert_eq!(replay(&changes), all(&notes).await);
    assert_eq!(database.document().resources().count(), 1);
    assert_eq!(log.scan(&cx(), "outbox", None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn cut_off_at_every_step_nothing_is_lost_and_nothing_invented() {
    const STEPS: [&str; 7] = [
        "s3db.intend",
        "s3db.intended",
        "s3db.stored",
        "s3db.referenced",
        "s3db.unreferenced",
        "s3db.settle",
        "s3db.settled",
    ];
    for step in STEPS {
        for operation in ["insert", "update", "delete"] {
            for reopened in [true, false] {
                let case = format!(
                    "{operation} cut off at {step}, in {}",
                    if reopened { "a new process" } else { "the same" }
                );
                let (store, log): (Arc<dyn ObjectStore>, _) =
                    (Arc::new(MemoryStore::new()), Arc::new(MemoryLog::new()));
                let (first, notes) = open(&store, &log, &cx()).await;
                if operation != "insert" {
                    notes.insert(json!({"id": "a", "text": "1"})).await.unwrap();
                }
                first.end_capture();
                let breaks = Arc::new(BreaksAt(step, AtomicBool::new(true)));
                let (database, notes) = open(&store, &log, &cx().with_failpoints(breaks.clone())).await;
                let before = changes(&log).await.len();
                let outcome = match operation {
                    "insert" => notes.insert(json!({"id": "a", "text": "2"})).await.map(drop),
                    "update" => notes.update("a", json!({"text": "2"})).await.map(drop),
                    _ => notes.delete("a").await,
                };
                let reached = !breaks.1.load(Ordering::Relaxed);
                assert_eq!(outcome.is_err(), reached && !step.starts_with("s3db.settle"), "{case}");
                let (database, notes) =
                    if reopened { open(&store, &log, &cx()).await } else { (database, notes) };
                tail(&database).pass(&cx(), &*log, &mut Into(&log)).await.unwrap();
                let changes = changes(&log).await;
                let happened = !matches!(step, "s3db.intend" | "s3db.intended");
                assert_eq!(changes.len() - before, usize::from(happened), "{case}");
                assert_eq!(replay(&changes), all(&notes).await, "{case}");
                assert_in_step(&database, &notes).await;
                assert_eq!(log.scan(&cx(), "outbox", None, 10).await.unwrap(), [], "{case}");
            }
        }
    }
}

async fn random_writers(seed: u64, store: Arc<dyn ObjectStore>) {
    println!("S3REP_SEED={seed}");
    let log = Arc::new(MemoryLog::new());
    let breaks = Arc::new(Breaks { random: SplitMix::new(seed), one_in: 12, on: AtomicBool::new(true) });
    let context = cx().with_failpoints(breaks.clone());
    for round in 0..4 {
        breaks.on.store(false, Ordering::Relaxed);
        let (database, notes) = open(&store, &log, &context).await;
        breaks.on.store(true, Ordering::Relaxed);
        let source = Arc::new(tail(&database));
        let writing = Arc::new(AtomicBool::new(true));
        let watcher = tokio::spawn({
            let (source, log, writing) = (source.clone(), log.clone(), writing.clone());
            async move {
                let progress =
                    |_: &str| StateWrite { space: "progress".into(), key: "r".into(), value: Some(vec![1]) };
                while writing.load(Ordering::Relaxed) {
                    // What cannot be resolved because of a break is for the next pass.
                    let _ = source.pass(&cx(), &*log, &mut Into(&log)).await;
                    let target = "lite".into();
                    let rows = SnapshotRows {
                        resource: "notes",
                        after: None,
                        max: 3,
                        target: &target,
                        progress: &progress,
                    };
                    let _ = source.snapshot(&cx(), &*log, &mut Into(&log), rows).await;
                    tokio::task::yield_now().await;
                }
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (notes, random) = (notes.clone(), SplitMix::new(seed ^ (round * 4 + writer + 1)));
                tokio::spawn(async move {
                    for _ in 0..25 {
                        // Some are dropped half way.
                        if random.below(8) == 0 {
                            let steps = random.below(6);
                            let mut write = Box::pin(write(&notes, &random));
                            for _ in 0..steps {
                                if futures::poll!(&mut write).is_ready() {
                                    break;
                                }
                                tokio::task::yield_now().await;
                            }
                        } else {
                            let _ = write(&notes, &random).await;
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        writing.store(false, Ordering::Relaxed);
        watcher.await.unwrap();
    }
    breaks.on.store(false, Ordering::Relaxed);
    let (database, notes) = open(&store, &log, &context).await;
    tail(&database).pass(&cx(), &*log, &mut Into(&log)).await.unwrap();
    let changes = changes(&log).await;
    assert_eq!(replay(&changes), all(&notes).await);
    assert_in_step(&database, &notes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writers_with_breaks_and_a_tail_beside_them() {
    let seed = seed();
    for round in 0..30 {
        random_writers(seed.wrapping_add(round), Arc::new(MemoryStore::new())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writers_on_files() {
    let directory = tempfile::tempdir().unwrap();
    random_writers(seed(), Arc::new(FileStore::new(directory.path()))).await;
}
