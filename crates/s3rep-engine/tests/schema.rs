//! Schema synchronisation in a run: when tables are looked after, what needs consent, and what an emptied table
//! gets back. Over the memory source, log and sink, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    Capability, Context, ErrorKind, Event, Mapping, Operation, Result, SchemaPlan, SchemaStrategy, Scope,
    SyncKind, Table,
};
use s3rep_engine::{DeliveryOptions, LaneState, Pipeline, Replicator, RunReport, plan_table};
use s3rep_testkit::{
    context,
    log::MemoryLog,
    sink::{FULL, MemoryPlace, MemorySink},
    source::MemorySource,
};
use serde_json::json;
use tokio::{sync::broadcast::Receiver, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const NO_CURSOR: Capability = Capability { transactional_cursor: false, ..FULL };

/// A source with cars and planes, a log, and a destination that looks after its tables.
struct World {
    cx: Context,
    source: MemorySource,
    log: MemoryLog,
    place: MemoryPlace,
    capability: Capability,
    strategy: SchemaStrategy,
    recreate_tables: bool,
}

impl World {
    fn new() -> Self {
        let source = MemorySource::new().with_interval(Duration::from_secs(1));
        source.create("cars", &json!({"name": "string"}));
        source.create("planes", &json!({"name": "string"}));
        for i in 0..5 {
            source.insert("cars", &format!("car-{i}"), json!({"name": "n"}));
        }
        Self {
            cx: context::test(),
            source,
            log: MemoryLog::new(),
            place: MemoryPlace::default(),
            capability: FULL,
            strategy: SchemaStrategy::Alter,
            recreate_tables: false,
        }
    }

    fn drop_create() -> Self {
        Self { strategy: SchemaStrategy::DropCreate, ..Self::new() }
    }

    /// As the next process has it.
    fn replicator(&self) -> Replicator {
        let resources =
            json!({"cars": ["cars", {"table": "cars_log", "mode": "append"}], "planes": "planes"});
        let sink = MemorySink::with_capability(self.capability)
            .with_strategy(self.strategy)
            .over(self.place.clone());
        let options = DeliveryOptions { recreate_tables: self.recreate_tables, ..DeliveryOptions::default() };
        Replicator::new("copy", Mapping::parse(&resources).unwrap(), Arc::new(sink))
            .unwrap()
            .with_options(options)
    }

    fn pipeline(&self) -> Pipeline {
        let (source, log) = (Arc::new(self.source.clone()), Arc::new(self.log.clone()));
        Pipeline::new(self.cx.clone(), source, log, vec![self.replicator()]).unwrap()
    }

    async fn once(&self) -> Result<RunReport> {
        self.pipeline().run_once().await
    }

    /// What would be done to the tables of the cars.
    async fn plans(&self, replicator: &Replicator) -> Vec<(Table, SchemaPlan)> {
        let schemas = [self.source.schema("cars").unwrap()];
        let mut plans = Vec::new();
        for table in replicator.tables(&schemas).filter_map(|(_, table)| table) {
            let plan = plan_table(&self.cx, replicator, &table).await.unwrap().unwrap();
            plans.push((table, plan));
        }
        assert_eq!(plans.len(), 2, "the source knows no planes here");
        plans
    }

    /// Makes the tables of the cars without s3rep's knowledge.
    async fn make_tables(&self) {
        let replicator = self.replicator();
        for (_, plan) in self.plans(&replicator).await {
            assert_eq!(plan.kind(), Some(SyncKind::Created));
            replicator.sink().schema_sync().unwrap().execute(&self.cx, &plan).await.unwrap();
        }
    }

    fn is_equal(&self) -> bool {
        self.place.rows("cars") == self.source.rows("cars")
            && self.place.folded("cars_log") == self.source.rows("cars")
            && self.place.rows("planes") == self.source.rows("planes")
    }

    async fn until_equal(&self) {
        while !self.is_equal() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many times a record stands in the append table, by operation.
    fn logged(&self, operation: Operation) -> usize {
        self.place.changes("cars_log").iter().filter(|change| change.operation == operation).count()
    }
}

fn follow(pipeline: &Pipeline) -> (CancellationToken, JoinHandle<Result<RunReport>>) {
    let (shutdown, pipeline) = (CancellationToken::new(), pipeline.clone());
    let token = shutdown.clone();
    (shutdown, tokio::spawn(async move { pipeline.follow(token).await }))
}

async fn until_stopped(pipeline: &Pipeline) -> String {
    loop {
        if let LaneState::Stopped(why) = &pipeline.progress()[0].state {
            return why.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The names of the events about tables, with the table or the resources.
fn told(events: &mut Receiver<Event>) -> Vec<(&'static str, String)> {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match &event {
            Event::TableSynced { table, .. } => Some((event.name(), table.to_string())),
            Event::SchemaSynced { resources, .. } => Some((event.name(), resources.join(" "))),
            _ => None,
        })
        .collect()
}

fn said(events: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    events.iter().map(|&(name, text)| (name, text.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_table_is_made_at_the_start_and_told_with_its_end() {
    let world = World::new();
    let pipeline = world.pipeline();
    let mut events = pipeline.events();
    pipeline.run_once().await.unwrap();
    assert_eq!(
        told(&mut events),
        said(&[
            ("table_created", "cars"),
            ("table_created", "cars_log"),
            ("table_created", "planes"),
            ("schema_sync_completed", "cars planes"),
        ])
    );
    // Nothing flew yet; its table is there.
    assert_eq!(world.place.columns("planes"), ["id", "name"]);
    assert!(world.is_equal());
    let pipeline = world.pipeline();
    let mut events = pipeline.events();
    pipeline.run_once().await.unwrap();
    assert_eq!(told(&mut events), said(&[("schema_sync_completed", "cars planes")]));
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_gains_an_attribute_gets_its_column_before_the_change_that_needs_it() {
    let world = World::new();
    let pipeline = world.pipeline();
    let (shutdown, run) = follow(&pipeline);
    world.until_equal().await;
    let mut events = pipeline.events();
    world.source.create("cars", &json!({"name": "string", "mpg": "number"}));
    world.source.insert("cars", "new", json!({"name": "n", "mpg": 17}));
    world.until_equal().await;
    assert_eq!(told(&mut events), said(&[("table_altered", "cars"), ("table_altered", "cars_log")]));
    assert_eq!(world.place.columns("cars"), ["id", "name", "mpg"]);
    // So does a resource that nobody knew at the start.
    world.source.create("planes", &json!({"name": "string", "wings": "number"}));
    world.source.insert("planes", "p", json!({"name": "jet", "wings": 2}));
    world.until_equal().await;
    assert_eq!(pipeline.progress()[0].parked, 0);
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_comes_later_gets_its_table_with_its_first_change() {
    let world = World::new();
    let resources = json!({"cars": "cars", "boats": "boats"});
    let sink = MemorySink::new().with_schema().over(world.place.clone());
    let replicator = Replicator::new("copy", Mapping::parse(&resources).unwrap(), Arc::new(sink)).unwrap();
    let (source, log) = (Arc::new(world.source.clone()), Arc::new(world.log.clone()));
    let pipeline = Pipeline::new(world.cx.clone(), source, log, vec![replicator]).unwrap();
    let mut events = pipeline.events();
    let (shutdown, run) = follow(&pipeline);
    while world.place.rows("cars").len() < 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        told(&mut events),
        said(&[("table_created", "cars"), ("schema_sync_completed", "cars")]),
        "it cannot say more than it knows"
    );
    world.source.create("boats", &json!({"name": "string"}));
    world.source.insert("boats", "b", json!({"name": "dinghy"}));
    while world.place.rows("boats").is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told(&mut events), said(&[("table_created", "boats")]));
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_table_that_does_not_fit_is_told_at_the_start_and_the_others_are_synchronised() {
    let world = World::new();
    world.place.seal("cars");
    let pipeline = world.pipeline();
    let mut events = pipeline.events();
    let error = pipeline.run_once().await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table));
    assert_eq!(told(&mut events), said(&[("table_created", "cars_log"), ("table_created", "planes")]));
    // A run that follows stands still there, and goes on when somebody has mended it.
    let pipeline = world.pipeline();
    let (shutdown, run) = follow(&pipeline);
    assert!(until_stopped(&pipeline).await.contains("cars"));
    world.place.drop_table("cars");
    world.until_equal().await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_table_is_created_anew_without_consent() {
    let mut world = World::drop_create();
    world.once().await.unwrap();
    world.source.create("cars", &json!({"name": "string", "mpg": "number"}));
    let rows = world.place.rows("cars");
    let error = world.once().await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table));
    assert!(!error.is_temporary());
    for way in ["s3rep apply --yes", "s3rep run --yes", "recreate_tables"] {
        assert!(error.advice().unwrap().contains(way), "{error:?}");
    }
    assert_eq!(world.place.rows("cars"), rows, "nothing is lost");
    assert_eq!(world.logged(Operation::Insert), 5);
    // The same in a run that follows.
    let pipeline = world.pipeline();
    let (shutdown, run) = follow(&pipeline);
    assert!(until_stopped(&pipeline).await.contains("s3rep apply --yes"));
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert_eq!(world.place.rows("cars"), rows);
    // With it.
    world.recreate_tables = true;
    let pipeline = world.pipeline();
    let mut events = pipeline.events();
    pipeline.run_once().await.unwrap();
    assert_eq!(told(&mut events)[..2], said(&[("table_recreated", "cars"), ("table_recreated", "cars_log")]));
    assert!(world.is_equal());
    assert_eq!((world.logged(Operation::Insert), world.logged(Operation::Read)), (0, 5));
    assert_eq!(world.place.columns("cars"), ["id", "name", "mpg"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_shape_while_it_runs_needs_consent_too() {
    let world = World::drop_create();
    let pipeline = world.pipeline();
    let (shutdown, run) = follow(&pipeline);
    world.until_equal().await;
    world.source.create("cars", &json!({"name": "string", "mpg": "number"}));
    world.source.insert("cars", "new", json!({"name": "n", "mpg": 17}));
    assert!(until_stopped(&pipeline).await.contains("s3rep run --yes"));
    assert_eq!(world.place.rows("cars").len(), 5);
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_gone_is_filled_again_whoever_made_it() {
    for capability in [FULL, NO_CURSOR] {
        let world = World { capability, ..World::new() };
        // Made by schema synchronisation.
        world.once().await.unwrap();
        world.place.drop_table("cars");
        world.once().await.unwrap();
        assert!(world.is_equal(), "{capability:?}");
        // Found by it.
        let other = World { capability, ..World::new() };
        other.make_tables().await;
        other.once().await.unwrap();
        other.place.drop_table("cars");
        other.once().await.unwrap();
        assert!(other.is_equal(), "{capability:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_written_without_schema_synchronisation_is_filled_again() {
    let world = World::new();
    let resources = Mapping::parse(&json!(["cars"])).unwrap();
    let plain = MemorySink::new().over(world.place.clone());
    let looked_after = plain.clone().with_schema();
    for (sink, dropped) in [(plain, false), (looked_after, true)] {
        if dropped {
            world.place.drop_table("cars");
        }
        let replicator = Replicator::new("copy", resources.clone(), Arc::new(sink)).unwrap();
        let (source, log) = (Arc::new(world.source.clone()), Arc::new(world.log.clone()));
        let pipeline = Pipeline::new(world.cx.clone(), source, log, vec![replicator]).unwrap();
        pipeline.run_once().await.unwrap();
        assert_eq!(world.place.rows("cars"), world.source.rows("cars"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_not_asked_for() {
    // Somebody's tables, which do not fit, are there before the first run.
    let mut world = World::drop_create();
    world.recreate_tables = true;
    let old = World { place: world.place.clone(), ..World::new() };
    old.source.create("cars", &json!({"title": "string"}));
    old.make_tables().await;
    world.once().await.unwrap();
    assert!(world.is_equal());
    assert_eq!((world.logged(Operation::Insert), world.logged(Operation::Read)), (5, 0), "each record once");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_applied_beside_no_run_keeps_the_same_books() {
    let mut world = World::drop_create();
    world.once().await.unwrap();
    world.source.create("cars", &json!({"name": "string", "mpg": "number"}));
    for agreed in [false, true] {
        world.recreate_tables = agreed;
        let pipeline = world.pipeline();
        let replicator = pipeline.replicators().next().unwrap();
        for (table, plan) in world.plans(replicator).await {
            assert_eq!(plan.kind(), Some(SyncKind::Recreated));
            let applied = pipeline.apply_plan(replicator, &table, &plan).await;
            assert_eq!(applied.ok(), agreed.then_some(true), "a snapshot is to follow, or nothing was done");
        }
        let fits = world.plans(replicator).await.iter().all(|(_, plan)| plan.kind().is_none());
        assert_eq!(fits, agreed);
    }
    assert!(world.place.rows("cars").is_empty());
    // The run needs no consent any more.
    world.recreate_tables = false;
    world.once().await.unwrap();
    assert!(world.is_equal());
    assert_eq!(world.logged(Operation::Read), 5);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_applied_before_the_first_run_asks_for_nothing() {
    let world = World::new();
    for _ in 0..2 {
        let pipeline = world.pipeline();
        let replicator = pipeline.replicators().next().unwrap();
        for (table, plan) in world.plans(replicator).await {
            assert!(!pipeline.apply_plan(replicator, &table, &plan).await.unwrap());
        }
        // Made, dropped and made once more.
        world.place.drop_table("cars_log");
    }
    world.once().await.unwrap();
    assert!(world.is_equal());
    assert_eq!((world.logged(Operation::Insert), world.logged(Operation::Read)), (5, 0));
}
