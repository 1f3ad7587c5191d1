//! The memory source keeps the contract that the engine relies on.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use s3rep_core::{
    Capture, Change, Context, Error, ErrorKind, Operation, Result, SnapshotRows, Source, SourceState,
    StateWrite,
};
use s3rep_testkit::{context, source::MemorySource};
use serde_json::json;

/// What a log would hold.
#[derive(Debug, Default)]
struct State(Mutex<BTreeMap<(String, String), Vec<u8>>>);

#[async_trait]
impl SourceState for State {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let entries = self.0.lock().unwrap();
        let of_space =
            entries.iter().filter(|((of, key), _)| of == space && after.is_none_or(|a| key.as_str() > a));
        Ok(of_space.take(max).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(&(space.to_owned(), key.to_owned())).cloned())
    }
}

/// Takes pages into the state, until it is told to fail.
struct Taker<'a> {
    state: &'a State,
    changes: Vec<Change>,
    pages: usize,
    fail_at: Option<usize>,
    undecodable: Vec<String>,
}

impl<'a> Taker<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, changes: Vec::new(), pages: 0, fail_at: None, undecodable: Vec::new() }
    }

    fn operations(&self) -> Vec<String> {
        self.changes.iter().map(|change| format!("{} {}", change.operation, change.id)).collect()
    }
}

#[async_trait]
impl Capture for Taker<'_> {
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()> {
        if self.fail_at == Some(self.pages) {
            return Err(Error::new(ErrorKind::StorageFull, "full"));
        }
        self.pages += 1;
        self.changes.extend(changes);
        let mut entries = self.state.0.lock().unwrap();
        for write in state {
            match write.value {
                Some(value) => drop(entries.insert((write.space, write.key), value)),
                None => drop(entries.remove(&(write.space, write.key))),
            }
        }
        Ok(())
    }

    async fn undecodable(&mut self, _: &str, id: &str, _: Error) {
        self.undecodable.push(id.to_owned());
    }
}

fn database() -> MemorySource {
    let db = MemorySource::new().with_page(2);
    db.create("cars", &json!({"name": "string|required"}));
    for id in ["a", "b", "c"] {
        db.insert("cars", id, json!({"name": id}));
    }
    db
}

async fn pass<'a>(db: &MemorySource, state: &'a State) -> Taker<'a> {
    let mut taker = Taker::new(state);
    db.pass(&context::test(), state, &mut taker).await.unwrap();
    taker
}

#[tokio::test]
async fn a_pass_hands_over_each_difference_once() {
    let (db, state) = (database(), State::default());
    let first = pass(&db, &state).await;
    assert_eq!(first.operations(), ["insert a", "insert b", "insert c"]);
    assert_eq!(first.pages, 2);
    assert!(pass(&db, &state).await.changes.is_empty());
    db.update("cars", "b", json!({"name": "2"}));
    db.delete("cars", "c");
    db.insert("cars", "d", json!({"name": "d"}));
    assert_eq!(pass(&db, &state).await.operations(), ["update b", "insert d", "delete c"]);
    db.insert("cars", "c", json!({"name": "again"}));
    let back = pass(&db, &state).await;
    assert_eq!(back.operations(), ["insert c"]);
    assert!(first.changes.iter().all(|change| change.change_id != back.changes[0].change_id));
}

#[tokio::test]
async fn a_pass_that_is_cut_off_goes_on_where_it_was() {
    let (db, state) = (database(), State::default());
    let mut taker = Taker::new(&state);
    taker.fail_at = Some(1);
    assert!(db.pass(&context::test(), &state, &mut taker).await.is_err());
    assert_eq!(taker.operations(), ["insert a", "insert b"]);
    assert_eq!(pass(&db, &state).await.operations(), ["insert c"]);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_said_in_every_pass_until_it_can() {
    let (db, state) = (database(), State::default());
    db.set_undecodable("cars", "b", true);
    for expected in [vec!["insert a", "insert c"], vec![]] {
        let taker = pass(&db, &state).await;
        assert_eq!(
            (taker.operations(), taker.undecodable),
            (expected.into_iter().map(str::to_owned).collect(), vec!["b".to_owned()])
        );
    }
    db.set_undecodable("cars", "b", false);
    assert_eq!(pass(&db, &state).await.operations(), ["insert b"]);
}

#[tokio::test]
async fn a_snapshot_row_stands_behind_the_change_that_it_shows() {
    let (db, state) = (database(), State::default());
    pass(&db, &state).await;
    db.update("cars", "b", json!({"name": "2"}));
    let target: Arc<str> = "r".into();
    let progress = |last: &str| StateWrite {
        space: "progress".to_owned(),
        key: "cars".to_owned(),
        value: Some(last.as_bytes().to_vec()),
    };
    let mut taker = Taker::new(&state);
    let mut after: Option<String> = None;
    loop {
        let rows = SnapshotRows {
            resource: "cars",
            after: after.as_deref(),
            max: 2,
            target: &target,
            progress: &progress,
        };
        let last = db.snapshot(&context::test(), &state, &mut taker, rows).await.unwrap();
        let Some(last) = last else { break };
        after = Some(last);
    }
    assert_eq!(taker.operations(), ["read a", "update b", "read b", "read c"]);
    let targets = taker.changes.iter().filter(|c| c.target.is_some() == (c.operation == Operation::Read));
    assert_eq!(targets.count(), 4);
    assert_eq!(state.get(&context::test(), "progress", "cars").await.unwrap(), Some(b"c".to_vec()));
    assert!(pass(&db, &state).await.changes.is_empty(), "the snapshot remembered the update");
}

#[tokio::test]
async fn records_come_in_pages_and_failures_when_asked() {
    let db = database();
    let cx = context::test();
    db.set_undecodable("cars", "c", true);
    let page = db.records(&cx, "cars", Some("a"), 5).await.unwrap();
    assert_eq!(
        page.iter().map(|row| (&*row.id, row.record.is_ok())).collect::<Vec<_>>(),
        [("b", true), ("c", false)]
    );
    db.fail_next(Error::new(ErrorKind::Unavailable, "down").temporary());
    assert!(db.records(&cx, "cars", None, 5).await.is_err());
    assert_eq!(db.records(&cx, "cars", None, 5).await.unwrap().len(), 3);
    assert!(db.records(&cx, "planes", None, 5).await.is_err());
}
