//! What every log has to do, case by case.

mod appending;
mod cursors;
mod history;
mod letters;
mod reading;
mod retention;
mod states;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use libtest_mimic::{Failed, Trial};
use s3rep_core::{
    BoxFuture, Change, ChangeId, ChangeLog, Clock, Context, Entry, Operation, Random, Record, Result, Seq,
    Timestamp,
};
use serde_json::{Value, json};

use super::MemoryLog;
use crate::context::SplitMix;

/// Makes the logs that the suite looks at.
pub trait LogFactory: Send + Sync + 'static {
    /// Whether a log that was closed can be opened again with what it held. Else the cases that need it are
    /// listed as ignored.
    fn durable(&self) -> bool;

    /// A fresh place for a log. It may be cleaned up when the place is dropped.
    fn place(&self) -> Box<dyn LogPlace>;
}

/// Where one log lives.
#[async_trait]
pub trait LogPlace: Send + Sync {
    /// Opens the log, or makes one of `partitions` partitions. Called again only after the log that the last
    /// call returned was dropped.
    ///
    /// # Errors
    /// The case fails.
    async fn open(&self, partitions: u16) -> Result<Arc<dyn ChangeLog>>;
}

/// The factory of memory logs.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryLogs;

impl LogFactory for MemoryLogs {
    fn durable(&self) -> bool {
        false
    }

    fn place(&self) -> Box<dyn LogPlace> {
        Box::new(*self)
    }
}

#[async_trait]
impl LogPlace for MemoryLogs {
    async fn open(&self, partitions: u16) -> Result<Arc<dyn ChangeLog>> {
        Ok(Arc::new(MemoryLog::with_partitions(partitions)))
    }
}

/// Every case, named `name::case`. Cases that do not apply are listed as ignored, with the reason.
pub fn suite(name: &str, factory: Arc<dyn LogFactory>) -> Vec<Trial> {
    let all = [
        appending::cases(),
        reading::cases(),
        states::cases(),
        cursors::cases(),
        letters::cases(),
        retention::cases(),
        history::cases(),
    ];
    let trial = |case: Case| {
        let Case { name: title, needs_reopening, run } = case;
        if needs_reopening && !factory.durable() {
            let title = format!("{name}::{title} [this log does not outlive its process]");
            return Trial::test(title, || Ok(())).with_ignored_flag(true);
        }
        let factory = Arc::clone(&factory);
        Trial::test(format!("{name}::{title}"), move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let bench = Bench::new(factory);
            runtime.block_on(async {
                match tokio::time::timeout(Duration::from_secs(120), run(bench)).await {
                    Ok(done) => done,
                    Err(_) => Err("the case hangs".into()),
                }
            })
        })
    };
    all.into_iter().flatten().map(trial).collect()
}

type Run = fn(Bench) -> Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>>;

/// A case of the suite.
struct Case {
    name: &'static str,
    needs_reopening: bool,
    run: Run,
}

/// Lists async functions as cases.
macro_rules! cases {
    ($($kind:ident $name:ident),* $(,)?) => {
        vec![$($crate::log::suite::Case {
            name: stringify!($name),
            needs_reopening: $crate::log::suite::needs_reopening!($kind),
            run: |bench| Box::pin($name(bench)),
        }),*]
    };
}
/// `any` log, or one that is `durable`.
macro_rules! needs_reopening {
    (any) => {
        false
    };
    (durable) => {
        true
    };
}
use cases;
use needs_reopening;

type Outcome = Result<(), Failed>;

const PARTITIONS: u16 = 4;

/// What a case works with: a place, a clock that it sets, and a log.
struct Bench {
    factory: Arc<dyn LogFactory>,
    place: Box<dyn LogPlace>,
    clock: Arc<TestClock>,
    cx: Context,
}

impl Bench {
    fn new(factory: Arc<dyn LogFactory>) -> Self {
        let clock = Arc::new(TestClock(Mutex::new(Timestamp(1_790_000_000_000))));
        let random: Arc<dyn Random> = Arc::new(SplitMix::new(1));
        Self { place: factory.place(), factory, cx: Context::new(clock.clone(), random), clock }
    }

    /// The same in another place.
    fn elsewhere(&self) -> Self {
        Self::new(Arc::clone(&self.factory))
    }

    async fn open(&self) -> Result<Arc<dyn ChangeLog>> {
        self.place.open(PARTITIONS).await
    }

    /// Closes the log and opens it again.
    async fn reopen(&self, log: Arc<dyn ChangeLog>) -> Result<Arc<dyn ChangeLog>, Failed> {
        if Arc::strong_count(&log) != 1 {
            return Err("the case still holds the log".into());
        }
        tokio::task::spawn_blocking(move || drop(log)).await?;
        Ok(self.open().await?)
    }

    fn pass(&self, time: Duration) {
        let mut now = self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 += i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    }
}

struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now().0).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Change `n` of record `id`: an update with a small record.
fn change(n: u64, id: &str) -> Change {
    with_data(n, id, json!({ "id": id, "n": n }))
}

/// Changes `range`, each of a record of its own.
fn changes(range: std::ops::Range<u64>) -> Vec<Change> {
    range.map(|n| change(n, &format!("record-{n}"))).collect()
}

fn with_data(n: u64, id: &str, data: Value) -> Change {
    let mut bytes = [0; 16];
    // At the end only: ids that differ in a few bits are different all the same.
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Change {
        change_id: ChangeId(bytes),
        resource: "things".into(),
        id: id.into(),
        operation: Operation::Update,
        data: Some(Arc::new(record(data))),
        before: None,
        timestamp: Timestamp(1_700_000_000_000 + i64::try_from(n).unwrap_or(0)),
        schema_version: "v1".into(),
        target: None,
    }
}

fn record(value: Value) -> Record {
    match value {
        Value::Object(record) => record,
        other => Record::from_iter([("value".to_owned(), other)]),
    }
}

/// Everything after `after`, in pages of `max`.
async fn read_all(
    log: &dyn ChangeLog,
    cx: &Context,
    mut after: Seq,
    max: usize,
) -> Result<Vec<Entry>, Failed> {
    let mut all = Vec::new();
    loop {
        let page = log.read(cx, after, max, usize::MAX).await?;
        same("damaged entries", &page.damaged, &Vec::new())?;
        let Some(last) = page.entries.last() else { return Ok(all) };
        same("the place to read on from", &page.next, &last.seq)?;
        after = page.next;
        all.extend(page.entries);
    }
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq.0).collect()
}

/// Fails when two values differ, and says which.
fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let short = |value: &T| {
        let text = format!("{value:?}");
        text.chars().take(2_000).collect::<String>()
    };
    Err(format!("{what}: {} instead of {}", short(found), short(expected)).into())
}

/// Fails when something does not hold.
fn hold(what: &str, holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(format!("this does not hold: {what}").into()) }
}

/// Fails when a call succeeds or fails in another way.
fn refused<T: fmt::Debug>(what: &str, done: Result<T>, kind: s3rep_core::ErrorKind) -> Outcome {
    match done {
        Err(error) => same(what, &error.kind(), &kind),
        Ok(done) => Err(format!("{what}: {done:?} instead of the error {kind:?}").into()),
    }
}
