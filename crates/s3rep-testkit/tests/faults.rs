//! The wrapper that injects faults does what it says, and sees an engine that breaks the contract.

use std::sync::Arc;

use s3rep_core::{
    Batch, ChangeId, Error, ErrorKind, Operation, Partition, Progress, Record, RouteMode, RowChange, Scope,
    Seq, Sink, Table, Timestamp,
};
use s3rep_testkit::{
    context, history,
    sink::{Call, FULL, FaultySink, MemorySink},
};

const NO_CURSOR: s3rep_core::Capability = s3rep_core::Capability { transactional_cursor: false, ..FULL };

fn sink() -> (FaultySink, MemorySink) {
    let memory = MemorySink::with_capability(NO_CURSOR);
    (FaultySink::new(Arc::new(memory.clone())), memory)
}

fn change(key: &str, seq: u64) -> RowChange {
    let mut record = Record::new();
    record.insert("name".to_owned(), format!("{key} {seq}").into());
    RowChange {
        key: key.into(),
        operation: Operation::Update,
        record: Some(Arc::new(record)),
        change_id: ChangeId::derive("t", key, Operation::Update, &seq.to_le_bytes(), None),
        timestamp: Timestamp(0),
        seq: Seq(seq),
        partition: Partition::of("t", key, 4),
    }
}

fn batch(changes: Vec<RowChange>) -> Batch {
    let table = Table { name: "t".into(), mode: RouteMode::Upsert, schema: history::schema("t") };
    let progress = Progress { replicator: "r".into(), log: "l".into(), fence: 1, cursors: Vec::new() };
    Batch { table: Arc::new(table), changes, progress }
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "down").temporary()
}

#[tokio::test]
async fn faults_come_in_their_order_one_a_call() {
    let (sink, memory) = sink();
    let cx = context::test();
    sink.fail_times(Call::Apply, 2, down);
    sink.fail_after(Call::Apply, || Error::new(ErrorKind::Timeout, "lost").temporary());
    let one = batch(vec![change("a", 1)]);
    for _ in 0..2 {
        assert_eq!(sink.apply(&cx, &one).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(memory.place().rows("t").is_empty());
    }
    assert_eq!(sink.apply(&cx, &one).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(memory.place().rows("t").len(), 1);
    sink.apply(&cx, &one).await.unwrap();
    assert_eq!((sink.calls(Call::Apply), sink.records()), (4, 4));
    sink.assert_contract();
}

#[tokio::test]
async fn records_are_refused_by_index_and_by_key_and_the_others_written() {
    let (sink, memory) = sink();
    let cx = context::test();
    let refuse = || Error::new(ErrorKind::Conflict, "no").with_scope(Scope::Record);
    sink.poison("c", refuse);
    sink.reject(1, refuse);
    let all = batch(vec![change("a", 1), change("b", 2), change("c", 3), change("d", 4)]);
    let outcome = sink.apply(&cx, &all).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(memory.place().rows("t").keys().collect::<Vec<_>>(), ["a", "d"]);
    let outcome = sink.apply(&cx, &all).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [2]);
    sink.heal("c");
    assert!(sink.apply(&cx, &all).await.unwrap().rejected.is_empty());
    sink.assert_contract();
}

#[tokio::test]
async fn with_a_cursor_a_refused_record_keeps_the_batch_out() {
    let memory = MemorySink::new();
    let sink = FaultySink::new(Arc::new(memory.clone()));
    sink.reject(0, || Error::new(ErrorKind::Conflict, "no").with_scope(Scope::Record));
    let outcome = sink.apply(&context::test(), &batch(vec![change("a", 1), change("b", 2)])).await.unwrap();
    assert_eq!(outcome.rejected.len(), 1);
    assert!(memory.place().rows("t").is_empty());
}

#[tokio::test]
async fn a_gate_holds_the_call_before_or_behind_the_write() {
    let (sink, memory) = sink();
    let before = sink.hold(Call::Apply);
    let behind = sink.hold_answer(Call::Apply);
    let call = |seq| {
        let sink = sink.clone();
        tokio::spawn(async move { sink.apply(&context::test(), &batch(vec![change("a", seq)])).await })
    };
    let held = call(1);
    before.reached().await;
    assert!(memory.place().rows("t").is_empty());
    before.release();
    held.await.unwrap().unwrap();
    let held = call(2);
    behind.reached().await;
    assert_eq!(memory.place().rows("t").len(), 1);
    assert!(!held.is_finished());
    behind.release();
    held.await.unwrap().unwrap();
    sink.assert_contract();
}

#[tokio::test]
async fn an_outage_uses_up_no_fault() {
    let (sink, _) = sink();
    let cx = context::test();
    sink.fail(Call::Apply, || Error::new(ErrorKind::Contention, "deadlock").temporary());
    sink.set_down(true);
    let one = batch(vec![change("a", 1)]);
    assert_eq!(sink.apply(&cx, &one).await.unwrap_err().kind(), ErrorKind::Unavailable);
    sink.set_down(false);
    assert_eq!(sink.apply(&cx, &one).await.unwrap_err().kind(), ErrorKind::Contention);
    sink.apply(&cx, &one).await.unwrap();
}

/// What the watch says of these calls, one after the other.
async fn seen(batches: Vec<Batch>) -> String {
    let (sink, _) = sink();
    for batch in batches {
        let _ = sink.apply(&context::test(), &batch).await;
    }
    sink.violations().join("; ")
}

#[tokio::test]
async fn an_engine_that_breaks_the_contract_is_seen() {
    let newer_first = vec![batch(vec![change("a", 2)]), batch(vec![change("a", 1)])];
    assert!(seen(newer_first).await.contains("change 1 after 2"));
    assert!(seen(vec![batch(vec![change("a", 2), change("b", 1)])]).await.contains("order of the log"));
    assert!(seen(vec![batch(vec![change("a", 1), change("a", 2)])]).await.contains("two changes of the key"));
    let many = (1..=1_001).map(|seq| change(&format!("k{seq}"), seq)).collect();
    assert!(seen(vec![batch(many)]).await.contains("1001 records"));
    let mut large = change("a", 1);
    Arc::make_mut(large.record.as_mut().unwrap()).insert("note".to_owned(), "x".repeat(600 << 10).into());
    assert!(seen(vec![batch(vec![large])]).await.contains("bytes in a record"));
    let mut nothing = change("a", 1);
    nothing.record = None;
    assert!(seen(vec![batch(vec![nothing])]).await.contains("without a record"));
    assert_eq!(
        seen(vec![batch(vec![change("a", 1)]), batch(vec![change("a", 1), change("b", 2)])]).await,
        ""
    );
}

#[tokio::test]
async fn calls_at_the_same_time_must_not_share_a_key_and_not_be_too_many() {
    let (sink, _) = sink();
    let cx = context::test();
    let gates: Vec<_> = (0..6).map(|_| sink.hold(Call::Apply)).collect();
    let first = batch(vec![change("a", 1), change("b", 2)]);
    let second = batch(vec![change("b", 2)]);
    let mut calls = Vec::new();
    for (batch, gate) in [first, second].into_iter().zip(&gates) {
        let (sink, cx) = (sink.clone(), cx.clone());
        calls.push(tokio::spawn(async move { sink.apply(&cx, &batch).await }));
        gate.reached().await;
    }
    assert_eq!(sink.violations().len(), 1, "{:?}", sink.violations());
    assert!(sink.violations()[0].contains("share the key \"b\""));
    for (i, gate) in gates.iter().enumerate().skip(2).take(3) {
        let (sink, cx) = (sink.clone(), cx.clone());
        let batch = batch(vec![change(&format!("c{i}"), 10)]);
        calls.push(tokio::spawn(async move { sink.apply(&cx, &batch).await }));
        gate.reached().await;
    }
    assert_eq!(sink.most_in_flight(), 5);
    assert!(sink.violations()[1].contains("5 calls at the same time"), "{:?}", sink.violations());
    // A caller that gives up leaves nothing behind.
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    for call in calls {
        let _ = call.await;
    }
    gates[5].release();
    sink.apply(&cx, &batch(vec![change("b", 3)])).await.unwrap();
    assert_eq!(sink.violations().len(), 2, "{:?}", sink.violations());
}
