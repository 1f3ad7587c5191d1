//! What tests of the sink work with.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use s3rep_core::{
    Batch, BoxFuture, ChangeId, Clock, Context, CursorMove, DriverConfig, Error, ErrorKind, Failpoints,
    Operation, Outcome, Partition, Progress, Record, ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink,
    Table, Timestamp,
};
use s3rep_files::{CsvConfig, JsonlConfig};
use s3rep_testkit::context::SplitMix;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A clock that a test sets.
pub struct Hand(pub Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Fails at one place, once.
pub struct FailOnce(pub Mutex<Option<&'static str>>);

impl Failpoints for FailOnce {
    fn hit(&self, name: &'static str) -> Result<(), Error> {
        let mut armed = self.0.lock().unwrap();
        if *armed == Some(name) {
            *armed = None;
            return Err(Error::new(ErrorKind::Unavailable, "killed").temporary());
        }
        Ok(())
    }
}

pub struct Bench {
    pub directory: TempDir,
    pub options: Value,
    pub csv: bool,
    pub sink: Arc<dyn Sink>,
    pub now: Arc<AtomicI64>,
    pub cx: Context,
}

impl Bench {
    pub fn new(options: Value) -> Self {
        Self::with(options, false)
    }

    pub fn with(options: Value, csv: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let cx = Context::new(Arc::new(Hand(now.clone())), Arc::new(SplitMix::new(1)));
        let sink = sink(&directory.path().join("lines"), &options, csv);
        Self { directory, options, csv, sink, now, cx }
    }

    pub fn lines(&self) -> PathBuf {
        self.directory.path().join("lines")
    }

    /// The process died and is started again.
    pub fn restart(&mut self) {
        self.sink = sink(Path::new("/dev/null/x"), &self.options, self.csv);
        self.sink = sink(&self.lines(), &self.options, self.csv);
    }

    pub async fn apply(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<Outcome, Error> {
        self.sink.apply(&self.cx, &batch(table, changes)).await
    }

    pub async fn apply_and_fail_at(&self, place: &'static str, batch: &Batch) {
        let cx = self.cx.clone().with_failpoints(Arc::new(FailOnce(Mutex::new(Some(place)))));
        assert_eq!(self.sink.apply(&cx, batch).await.unwrap_err().to_string(), "killed");
    }

    /// Names and contents of a table's files.
    pub fn files(&self, table: &str) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.lines().join(table)) else { return BTreeMap::new() };
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        entries.map(read).collect()
    }

    pub fn names(&self, table: &str) -> Vec<String> {
        self.files(table).into_keys().collect()
    }

    /// Every line that counts, in the order of files.
    pub fn all_lines(&self, table: &str) -> Vec<String> {
        let files = self.files(table).into_iter().filter(|(name, _)| !name.contains("orphan"));
        files.flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    pub async fn rows(&self, table: &Table) -> Vec<(String, Record)> {
        self.sink.readback().unwrap().rows(&self.cx, table, None, 100_000).await.unwrap()
    }

    pub async fn seq(&self) -> Option<Seq> {
        let stored = self.sink.cursors(&self.cx, "r").await.unwrap()?;
        stored.cursors.first().map(|cursor| cursor.seq)
    }
}

pub fn sink(path: &Path, options: &Value, csv: bool) -> Arc<dyn Sink> {
    let mut options = options.clone();
    options["path"] = path.to_str().unwrap().into();
    if csv {
        serde_json::from_value::<CsvConfig>(options).unwrap().build().unwrap()
    } else {
        serde_json::from_value::<JsonlConfig>(options).unwrap().build().unwrap()
    }
}

pub fn table_of(name: &str, attributes: Value) -> Arc<Table> {
    let schema = ResourceSchema::parse("cars", "v1", attributes.as_object().unwrap()).unwrap();
    Arc::new(Table { name: name.into(), mode: RouteMode::Append, schema: Arc::new(schema) })
}

pub fn cars() -> Arc<Table> {
    table_of(
        "cars",
        json!({"name": "string|required", "price": "number", "tags": "array", "sold": "boolean"}),
    )
}

pub fn change(seq: u64, key: &str, operation: Operation, record: Option<Value>) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.map(|record| Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId(u128::from(seq).to_be_bytes()),
        timestamp: Timestamp(1_700_000_000_000),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

pub fn insert(seq: u64) -> RowChange {
    change(seq, &format!("k{seq}"), Operation::Insert, Some(json!({"name": format!("n{seq}")})))
}

pub fn inserts(range: std::ops::RangeInclusive<u64>) -> Vec<RowChange> {
    range.map(insert).collect()
}

pub fn batch(table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
    let last = changes.last().map_or(Seq(0), |change| change.seq);
    let cursors = vec![CursorMove { table: table.name.clone(), partition: Partition(0), seq: last }];
    let progress = Progress { replicator: "r".into(), log: "3f2a91c0-77aa".into(), fence: 1, cursors };
    Batch { table: table.clone(), changes, progress }
}

#[track_caller]
pub fn assert_error(error: &Error, kind: ErrorKind, is_temporary: bool, scope: Scope) {
    assert_eq!((error.kind(), error.is_temporary(), error.scope()), (kind, is_temporary, scope), "{error:?}");
    assert!(error.advice().is_some(), "no advice: {error:?}");
}
