//! What the tests of damage and of crashes share.

// Each test program uses a part of it.
#![allow(dead_code)]
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, sync::Arc};

use s3rep_core::{
    Change, ChangeId, ChangeLog, Commit, DeadLetter, Entry, Event, Operation, Partition, Record,
    ReplicatorState, Result, Seq, SourceState, StartAt, StateWrite, Timestamp,
};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_testkit::context;
use serde_json::json;

/// Change `n`; everything in it follows from `n`.
pub(crate) fn change(n: u64, size: usize) -> Change {
    let record = json!({ "n": n, "text": format!("{n:08}").repeat(size / 8), "half": n as f64 / 2.0 });
    let record: Record = record.as_object().cloned().unwrap_or_default();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..].copy_from_slice(&n.to_le_bytes());
    Change {
        change_id: ChangeId(id),
        resource: ["cars", "airports", "weather"][(n % 3) as usize].into(),
        id: format!("record-{n}").into(),
        operation: Operation::Update,
        data: Some(Arc::new(record)),
        before: None,
        timestamp: Timestamp(1_700_000_000_000),
        schema_version: "v1".into(),
        target: None,
    }
}

/// Changes of a range.
pub(crate) fn changes(range: std::ops::Range<u64>, size: usize) -> Vec<Change> {
    range.map(|n| change(n, size)).collect()
}

/// Opens a log that has to be sound.
pub(crate) fn open(dir: &Path) -> EmbeddedLog {
    let (log, events) = EmbeddedLog::open(dir, &LogOptions::default()).unwrap();
    assert_eq!(events, Vec::new());
    log
}

/// Everything that a log holds.
pub(crate) struct Content {
    pub(crate) id: Arc<str>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) damaged: Vec<(Seq, Option<Partition>)>,
    pub(crate) replicators: Vec<ReplicatorState>,
    pub(crate) letters: Vec<(String, DeadLetter)>,
    pub(crate) state: Vec<(String, Vec<u8>)>,
}

/// Reads everything.
pub(crate) async fn content(log: &EmbeddedLog) -> Result<Content> {
    let cx = context::test();
    let (mut entries, mut damaged, mut after) = (Vec::new(), Vec::new(), Seq(0));
    loop {
        let page = log.read(&cx, after, 100, 1 << 20).await?;
        if page.next == after {
            break;
        }
        after = page.next;
        entries.extend(page.entries);
        damaged.extend(page.damaged);
    }
    let state = log.scan(&cx, "tail", None, 100_000).await?;
    let mut letters = Vec::new();
    let replicators = log.replicators(&cx).await?;
    for known in &replicators {
        for letter in log.dead_letters(&cx, &known.replicator, Seq(0), 10_000).await? {
            letters.push((known.replicator.clone(), letter));
        }
    }
    // Again: reading the letters may have marked one.
    let replicators = log.replicators(&cx).await?;
    Ok(Content { id: log.id(), entries, damaged, replicators, letters, state })
}

/// A log of `entries` entries with replicators, letters and state.
pub(crate) async fn fill(dir: &Path, entries: u64) -> Content {
    let log = open(dir);
    let cx = context::test();
    for first in (0..entries).step_by(100) {
        let state = (first..first + 100).map(|n| StateWrite {
            space: "tail".to_owned(),
            key: format!("record-{n}"),
            value: Some(format!("noted {n}").into_bytes()),
        });
        let batch = changes(first..first + 100, 160 + (first as usize % 7) * 40);
        log.append(&cx, &batch, &state.collect::<Vec<_>>()).await.unwrap();
    }
    for (name, at) in [("lite", entries / 2), ("lines", entries / 4)] {
        let fence = log.acquire(&cx, name, StartAt::Oldest).await.unwrap().fence;
        log.reset(&cx, name, fence, Seq(at), None).await.unwrap();
        let parked: Vec<_> = (1..=20)
            .map(|n| DeadLetter {
                seq: Seq(n),
                table: "cars".into(),
                change: change(n, 100),
                error: format!("refused {n}"),
                attempts: 3,
                parked_at: Timestamp(1_790_000_000_000),
            })
            .collect();
        let commit = Commit { replicator: name, fence, cursors: &[], parked: &parked, settled: &[] };
        log.commit(&cx, commit).await.unwrap();
    }
    content(&log).await.unwrap()
}

/// The replicators that events say have to be synchronised anew.
pub(crate) fn to_resync(events: &[Event]) -> Vec<String> {
    let names = events.iter().filter_map(|event| match event {
        Event::NeedsResync { replicator, .. } => Some(replicator.to_string()),
        _ => None,
    });
    names.collect()
}

/// The logs set aside in a state directory.
pub(crate) fn set_aside(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let companion = |name: &str| name.ends_with("-wal") || name.ends_with("-shm");
    names.filter(|name| name.starts_with("log.db.damaged-") && !companion(name)).collect()
}
