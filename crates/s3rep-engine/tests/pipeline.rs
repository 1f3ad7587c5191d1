//! The whole way of a change, over the memory source, log and sink. Time is virtual.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    Capability, ChangeLog, Context, Error, ErrorKind, Event, Failpoints, Mapping, Operation, Retention,
    Route, RouteMode, Scope, Seq, Sink, StartAt,
};
use s3rep_engine::{DriftKind, LaneState, Pipeline, PipelineOptions, Replicator, repair, verify};
use s3rep_testkit::{
    context,
    log::MemoryLog,
    sink::{Call, FULL, FaultySink, MemoryPlace, MemorySink},
    source::MemorySource,
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A source with cars and planes, a log, and a way to run replicators over them again and again.
struct World {
    cx: Context,
    source: MemorySource,
    log: MemoryLog,
}

impl World {
    fn new() -> Self {
        let source = MemorySource::new().with_interval(Duration::from_secs(1));
        source.create("cars", &json!({"name": "string", "mpg": "number"}));
        source.create("planes", &json!({"name": "string"}));
        Self { cx: context::test(), source, log: MemoryLog::new() }
    }

    fn with_cars(count: usize) -> Self {
        let world = Self::new();
        for i in 0..count {
            world.source.insert("cars", &format!("car-{i:04}"), json!({"name": "n", "mpg": i}));
        }
        world
    }

    fn pipeline(&self, replicators: Vec<Replicator>) -> Pipeline {
        let (source, log) = (Arc::new(self.source.clone()), Arc::new(self.log.clone()));
        Pipeline::new(self.cx.clone(), source, log, replicators).unwrap()
    }

    async fn once(&self, replicator: Replicator) -> s3rep_core::Result<s3rep_engine::RunReport> {
        self.pipeline(vec![replicator]).run_once().await
    }

    async fn dead_letters(&self, replicator: &str) -> Vec<(String, String)> {
        let letters = self.log.dead_letters(&self.cx, replicator, Seq(0), 1_000).await.unwrap();
        letters.into_iter().map(|letter| (letter.table.to_string(), letter.change.id.to_string())).collect()
    }
}

fn upsert(id: &str, sink: impl Sink) -> Replicator {
    Replicator::new(id, Mapping::parse(&json!(["cars", "planes"])).unwrap(), Arc::new(sink)).unwrap()
}

fn append(id: &str, sink: impl Sink) -> Replicator {
    let route = Route::new("cars", "cars_log").with_mode(RouteMode::Append);
    Replicator::new(id, Mapping::new(vec![route]), Arc::new(sink)).unwrap()
}

fn faulty(capability: Capability) -> (FaultySink, MemoryPlace) {
    let sink = MemorySink::with_capability(capability);
    let place = sink.place().clone();
    (FaultySink::new(Arc::new(sink)), place)
}

/// The sink as the next process sees it.
fn again(sink: &FaultySink) -> FaultySink {
    sink.restarted();
    sink.clone()
}

const NO_CURSOR: Capability = Capability { transactional_cursor: false, ..FULL };

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "down").temporary()
}

fn bad_record() -> Error {
    Error::new(ErrorKind::Conflict, "refused").with_scope(Scope::Record)
}

fn assert_equal(world: &World, place: &MemoryPlace, table: &str) {
    assert_eq!(place.rows(table), world.source.rows("cars"));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_then_every_kind_of_change() {
    let world = World::with_cars(2_500);
    let (sink, place) = faulty(FULL);
    let report = world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_eq!((report.seen, report.written), (2_500, 2_500));
    world.source.update("cars", "car-0001", json!({"name": "new"}));
    world.source.delete("cars", "car-0002");
    world.source.insert("planes", "p", json!({"name": "jet"}));
    world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_equal(&world, &place, "cars");
    assert_eq!(place.rows("planes").len(), 1);
    sink.assert_contract();
}

/// No commit reaches the log.
struct Killed;

impl Failpoints for Killed {
    fn hit(&self, name: &'static str) -> s3rep_core::Result<()> {
        if name == "engine.commit" { Err(bad_record()) } else { Ok(()) }
    }
}

/// The destination has changes whose partitions have none after them: nothing of the next run would move the log's
/// cursors past them.
#[tokio::test(start_paused = true)]
async fn the_cursors_of_the_log_catch_up_with_the_destination_after_a_crash() {
    let mut world = World::with_cars(50);
    let (sink, place) = faulty(FULL);
    let sound = std::mem::replace(&mut world.cx, context::test().with_failpoints(Arc::new(Killed)));
    world.once(upsert("copy", again(&sink))).await.unwrap_err();
    assert_equal(&world, &place, "cars");
    world.cx = sound;
    let pending = async || world.log.replicators(&world.cx).await.unwrap()[0].pending;
    assert_eq!(pending().await, 50);
    let report = world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_eq!((report.written, pending().await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn append_tables_hold_every_change_once() {
    let world = World::with_cars(3);
    let (sink, place) = faulty(FULL);
    world.once(append("log", again(&sink))).await.unwrap();
    world.source.update("cars", "car-0001", json!({"name": "new"}));
    world.once(append("log", again(&sink))).await.unwrap();
    world.source.delete("cars", "car-0001");
    world.once(append("log", again(&sink))).await.unwrap();
    let operations: Vec<_> =
        place.changes("cars_log").iter().filter(|c| &*c.key == "car-0001").map(|c| c.operation).collect();
    assert_eq!(operations.len(), 3);
    assert_eq!(operations[1..], [Operation::Update, Operation::Delete]);
    sink.assert_contract();
}

/// Runs a pipeline until the returned token is cancelled.
fn follow(
    pipeline: &Pipeline,
) -> (CancellationToken, JoinHandle<s3rep_core::Result<s3rep_engine::RunReport>>) {
    let (shutdown, pipeline) = (CancellationToken::new(), pipeline.clone());
    let token = shutdown.clone();
    (shutdown, tokio::spawn(async move { pipeline.follow(token).await }))
}

/// Returns when the place holds what the source holds. Virtual time makes it quick; a test that never gets
/// there is ended by its harness.
async fn until_equal(world: &World, place: &MemoryPlace) {
    while place.rows("cars") != world.source.rows("cars") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn follows_live_changes_and_leaves_cleanly() {
    let world = World::with_cars(10);
    let (sink, place) = faulty(FULL);
    let (shutdown, run) = follow(&world.pipeline(vec![upsert("copy", sink.clone())]));
    until_equal(&world, &place).await;
    world.source.delete("cars", "car-0003");
    world.source.insert("cars", "new", json!({"name": "x"}));
    until_equal(&world, &place).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert_eq!(sink.calls(Call::Close), 1);
    sink.assert_contract();
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_delays_no_other_and_gets_everything_later() {
    let world = World::with_cars(10);
    let (down, down_place) = faulty(FULL);
    let (up, up_place) = faulty(FULL);
    down.set_down(true);
    let pipeline = world.pipeline(vec![upsert("down", down.clone()), upsert("up", up)]);
    let (shutdown, run) = follow(&pipeline);
    until_equal(&world, &up_place).await;
    assert!(down_place.rows("cars").is_empty());
    world.source.delete("cars", "car-0001");
    until_equal(&world, &up_place).await;
    // A long outage neither parks a record nor ends the run.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    down.set_down(false);
    until_equal(&world, &down_place).await;
    assert!(world.dead_letters("down").await.is_empty());
    shutdown.cancel();
    run.await.unwrap().unwrap();
    down.assert_contract();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_destination_that_is_down() {
    let world = World::with_cars(10);
    let (sink, place) = faulty(FULL);
    let options = PipelineOptions { drain_timeout: Duration::from_secs(5), ..PipelineOptions::default() };
    let pipeline = world.pipeline(vec![upsert("copy", sink.clone())]).with_options(options);
    sink.fail_times(Call::Apply, 1_000, unavailable);
    let (shutdown, run) = follow(&pipeline);
    while !matches!(pipeline.progress()[0].state, LaneState::Retrying(_)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = tokio::time::Instant::now();
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // What was left in the log is written by the next run.
    let sink = MemorySink::new().over(place.clone());
    world.once(upsert("copy", sink)).await.unwrap();
    assert_equal(&world, &place, "cars");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_short_outages_change_nothing() {
    for capability in [FULL, NO_CURSOR] {
        let world = World::with_cars(100);
        let (sink, place) = faulty(capability);
        sink.fail(Call::Apply, unavailable);
        sink.fail_after(Call::Apply, || Error::new(ErrorKind::Timeout, "lost").temporary());
        sink.fail(Call::Apply, unavailable);
        world.once(upsert("copy", again(&sink))).await.unwrap();
        assert_equal(&world, &place, "cars");
        sink.assert_contract();
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_answer_is_given_up_after_the_timeout_and_tried_again() {
    let world = World::with_cars(5);
    let (sink, place) = faulty(FULL);
    let _never_released = sink.hold_answer(Call::Apply);
    world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_equal(&world, &place, "cars");
    assert!(sink.calls(Call::Apply) >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_record_is_parked_and_its_neighbours_are_written() {
    for capability in [FULL, NO_CURSOR, Capability { partial_failure: false, ..FULL }] {
        let world = World::with_cars(50);
        let (sink, place) = faulty(capability);
        sink.poison("car-0007", bad_record);
        let report = world.once(upsert("copy", again(&sink))).await.unwrap();
        assert_eq!(report.parked, 1, "{capability:?}");
        let mut expected = world.source.rows("cars");
        expected.remove("car-0007");
        assert_eq!(place.rows("cars"), expected, "{capability:?}");
        assert_eq!(world.dead_letters("copy").await, [("cars".to_owned(), "car-0007".to_owned())]);
        sink.assert_contract();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_large_is_parked_before_the_destination_sees_it() {
    for mut capability in [FULL, NO_CURSOR] {
        capability.limits.record_bytes = 200;
        let world = World::with_cars(5);
        world.source.insert("cars", "big", json!({"name": "x".repeat(1_000)}));
        let (sink, place) = faulty(capability);
        let report = world.once(upsert("copy", again(&sink))).await.unwrap();
        assert_eq!(report.parked, 1);
        let mut expected = world.source.rows("cars");
        expected.remove("big");
        assert_eq!(place.rows("cars"), expected);
        sink.assert_contract();
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_change_supersedes_what_is_parked_on_an_upsert_route() {
    let world = World::with_cars(5);
    let (sink, place) = faulty(FULL);
    sink.poison("car-0002", bad_record);
    world.once(upsert("copy", again(&sink))).await.unwrap();
    sink.heal("car-0002");
    world.source.update("cars", "car-0002", json!({"name": "mended"}));
    world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_equal(&world, &place, "cars");
    assert!(world.dead_letters("copy").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn later_changes_stand_behind_a_parked_one_on_an_append_route() {
    let world = World::with_cars(5);
    let (sink, place) = faulty(FULL);
    sink.poison("car-0002", bad_record);
    world.once(append("log", again(&sink))).await.unwrap();
    sink.heal("car-0002");
    world.source.update("cars", "car-0002", json!({"name": "later"}));
    world.source.update("cars", "car-0003", json!({"name": "free"}));
    world.once(append("log", again(&sink))).await.unwrap();
    assert_eq!(world.dead_letters("log").await.len(), 2);
    let keys: Vec<_> = place.changes("cars_log").iter().map(|change| change.key.to_string()).collect();
    assert!(!keys.contains(&"car-0002".to_owned()));
    assert_eq!(keys.iter().filter(|key| *key == "car-0003").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_error_stops_the_replicator_and_drops_nothing() {
    let world = World::with_cars(20);
    let (sink, place) = faulty(Capability { partial_failure: false, ..FULL });
    sink.poison("car-0007", || Error::new(ErrorKind::Unexpected, "never seen before"));
    let error = world.once(upsert("copy", again(&sink))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert!(world.dead_letters("copy").await.is_empty());
    assert!(!place.rows("cars").contains_key("car-0007"));
    sink.heal("car-0007");
    world.once(upsert("copy", again(&sink))).await.unwrap();
    assert_equal(&world, &place, "cars");
    sink.assert_contract();
}

#[tokio::test(start_paused = true)]
async fn a_rejected_record_that_may_be_no_records_fault_is_not_parked() {
    let world = World::with_cars(20);
    let (sink, place) = faulty(FULL);
    sink.poison("car-0007", || Error::new(ErrorKind::Unexpected, "never seen before"));
    world.once(upsert("copy", again(&sink))).await.unwrap_err();
    assert!(world.dead_letters("copy").await.is_empty() && place.rows("cars").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_following_run_goes_on_when_something_outside_has_mended_the_destination() {
    let world = World::with_cars(5);
    let (sink, place) = faulty(FULL);
    sink.poison("car-0002", || Error::new(ErrorKind::NotFound, "no table").with_scope(Scope::Table));
    let pipeline = world.pipeline(vec![upsert("copy", sink.clone())]);
    let (shutdown, run) = follow(&pipeline);
    while !matches!(pipeline.progress()[0].state, LaneState::Stopped(_)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sink.heal("car-0002");
    until_equal(&world, &place).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_emptied_destination_is_filled_again() {
    let world = World::with_cars(2_100);
    world.once(upsert("copy", MemorySink::new())).await.unwrap();
    let fresh = MemorySink::new();
    let place = fresh.place().clone();
    world.once(upsert("copy", fresh)).await.unwrap();
    assert_equal(&world, &place, "cars");
}

#[tokio::test(start_paused = true)]
async fn an_added_route_gets_the_records_that_were_there_before_it() {
    let world = World::with_cars(1_500);
    world.source.insert("planes", "p", json!({"name": "jet"}));
    let sink = MemorySink::new();
    let place = sink.place().clone();
    let with = |resources: serde_json::Value, sink: MemorySink| {
        Replicator::new("copy", Mapping::parse(&resources).unwrap(), Arc::new(sink)).unwrap()
    };
    world.once(with(json!(["planes"]), sink.clone())).await.unwrap();
    world.once(with(json!(["planes", "cars"]), sink.clone())).await.unwrap();
    assert_equal(&world, &place, "cars");
    // One that was taken out and put back has missed what happened meanwhile.
    world.once(with(json!(["planes"]), sink.clone())).await.unwrap();
    world.source.update("cars", "car-0001", json!({"name": "meanwhile"}));
    world.once(with(json!(["planes"]), sink.clone())).await.unwrap();
    world.once(with(json!(["planes", "cars"]), sink)).await.unwrap();
    assert_equal(&world, &place, "cars");
}

#[tokio::test(start_paused = true)]
async fn a_late_replicator_gets_a_snapshot_when_the_log_is_trimmed() {
    let world = World::with_cars(1_500);
    world.once(upsert("first", MemorySink::new())).await.unwrap();
    let trimmed =
        world.log.trim(&world.cx, Retention { max_bytes: 0, ..Retention::default() }).await.unwrap();
    assert!(trimmed.entries > 0);
    let (first, late) = (MemorySink::new(), MemorySink::new());
    let (first_place, late_place) = (first.place().clone(), late.place().clone());
    let pipeline = world.pipeline(vec![append("log", first), upsert("late", late)]);
    pipeline.run_once().await.unwrap();
    assert_equal(&world, &late_place, "cars");
    // Rows asked for by one replicator do not reach another; this one is as new and asked for its own.
    assert_eq!(first_place.changes("cars_log").len(), 1_500);
}

#[tokio::test(start_paused = true)]
async fn a_replicator_that_fell_behind_says_so_and_a_sync_mends_it() {
    let world = World::with_cars(5);
    let place = MemoryPlace::default();
    let replicator = || upsert("copy", MemorySink::new().over(place.clone()));
    world.once(replicator()).await.unwrap();
    world.source.insert("cars", "new", json!({"name": "x"}));
    world.pipeline(vec![upsert("other", MemorySink::new())]).run_once().await.unwrap();
    let trimmed =
        world.log.trim(&world.cx, Retention { max_bytes: 0, ..Retention::default() }).await.unwrap();
    assert_eq!(trimmed.fell_behind, ["copy"]);
    let error = world.once(replicator()).await.unwrap_err();
    assert!(error.advice().unwrap().contains("s3rep sync"), "{error:?}");
    world.pipeline(vec![replicator()]).request_sync("copy").await.unwrap();
    world.once(replicator()).await.unwrap();
    assert_equal(&world, &place, "cars");
}

#[tokio::test(start_paused = true)]
async fn a_second_owner_makes_the_first_stop() {
    let world = World::with_cars(5);
    let (sink, _place) = faulty(FULL);
    let pipeline = world.pipeline(vec![upsert("copy", sink.clone())]);
    let (_shutdown, run) = follow(&pipeline);
    while pipeline.progress()[0].written < 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.log.acquire(&world.cx, "copy", StartAt::Oldest).await.unwrap();
    world.source.delete("cars", "car-0001");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_told_and_the_others_go_on() {
    let world = World::with_cars(5);
    world.source.set_undecodable("cars", "car-0002", true);
    let sink = MemorySink::new();
    let place = sink.place().clone();
    let pipeline = world.pipeline(vec![upsert("copy", sink)]);
    let mut events = pipeline.events();
    assert_eq!(pipeline.run_once().await.unwrap().undecodable, 1);
    assert_eq!(place.rows("cars").len(), 4);
    let told = std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event, Event::Undecodable { id, .. } if &*id == "car-0002"));
    assert!(told);
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_tried_again() {
    let world = World::with_cars(5);
    let sink = MemorySink::new();
    let place = sink.place().clone();
    let pipeline = world.pipeline(vec![upsert("copy", sink)]);
    let (shutdown, run) = follow(&pipeline);
    until_equal(&world, &place).await;
    world.source.fail_next(Error::new(ErrorKind::Unavailable, "no listing"));
    world.source.delete("cars", "car-0000");
    until_equal(&world, &place).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn verify_finds_every_kind_of_drift_and_repair_mends_it() {
    let world = World::with_cars(2_345);
    let sink = MemorySink::new();
    let place = sink.place().clone();
    let replicator = upsert("copy", sink);
    world.once(replicator.clone()).await.unwrap();
    // Another pipeline with a log of its own spoils the copy.
    let vandal = World::with_cars(0);
    vandal.source.insert("cars", "car-0001", json!({"name": "spoilt"}));
    vandal.source.insert("cars", "extra", json!({"name": "extra"}));
    let other = upsert("vandal", MemorySink::new().over(place.clone()));
    vandal.once(other.clone()).await.unwrap();
    world.source.insert("cars", "missing", json!({"name": "m"}));

    let mut drifts = Vec::new();
    let reports = verify(&world.cx, &world.source, &replicator, &mut |drift| drifts.push(drift), &mut |_| {})
        .await
        .unwrap();
    let kinds: Vec<_> = drifts.iter().map(|drift| (&*drift.id, drift.kind.as_str())).collect();
    assert_eq!(kinds, [("car-0001", "different"), ("extra", "extra"), ("missing", "missing")]);
    let DriftKind::Different(members) = &drifts[0].kind else { panic!("{drifts:?}") };
    assert_eq!(members, &["name".to_owned(), "mpg".to_owned()]);
    assert_eq!(reports[0].compared, 2_346);

    repair(&world.cx, &world.source, &world.log, &drifts).await.unwrap();
    world.once(replicator.clone()).await.unwrap();
    assert_equal(&world, &place, "cars");
    let reports = verify(&world.cx, &world.source, &replicator, &mut |_| {}, &mut |_| {}).await.unwrap();
    assert!(reports.iter().all(s3rep_engine::RouteReport::is_equal));
}

#[tokio::test(start_paused = true)]
async fn two_replicators_with_one_id_are_refused() {
    let world = World::new();
    let twice = vec![upsert("copy", MemorySink::new()), upsert("copy", MemorySink::new())];
    let error =
        Pipeline::new(world.cx.clone(), Arc::new(world.source.clone()), Arc::new(world.log.clone()), twice)
            .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
}
