//! Random histories against random faults and restarts. A failure prints its seed; `S3REP_SEED` runs it again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{collections::HashSet, sync::Arc, time::Duration};

use s3rep_core::{Capability, ChangeLog, Context, Error, ErrorKind, Mapping, Random, Record, Seq};
use s3rep_engine::{Pipeline, Replicator};
use s3rep_testkit::{
    context::{self, SplitMix},
    log::MemoryLog,
    sink::{Call, FULL, FaultySink, MemoryPlace, MemorySink},
    source::MemorySource,
};
use serde_json::json;

const ROUNDS: usize = 40;
const IDS: u64 = 12;

struct Trial {
    random: SplitMix,
    cx: Context,
    source: MemorySource,
    log: MemoryLog,
    place: MemoryPlace,
    capability: Capability,
    /// The destination looks after its tables.
    has_schema: bool,
}

impl Trial {
    fn new(seed: u64, capability: Capability) -> Self {
        let source = MemorySource::new().with_interval(Duration::from_secs(1));
        source.create("cars", &json!({"n": "number"}));
        let place = MemoryPlace::default();
        Self {
            random: SplitMix::new(seed),
            cx: context::seeded(seed),
            source,
            log: MemoryLog::new(),
            place,
            capability,
            has_schema: SplitMix::new(seed).below(2) == 0,
        }
    }

    fn write(&self) {
        for _ in 0..self.random.below(30) {
            let id = format!("id-{}", self.random.below(IDS));
            let exists = self.source.rows("cars").contains_key(&id);
            if exists && self.random.below(3) == 0 {
                self.source.delete("cars", &id);
            } else {
                let record = Record::from_iter([("n".to_owned(), json!(self.random.next_u64() >> 12))]);
                self.source.put("cars", &id, record);
            }
        }
    }

    fn sink(&self) -> FaultySink {
        let sink = MemorySink::with_capability(self.capability).over(self.place.clone());
        FaultySink::new(Arc::new(if self.has_schema { sink.with_schema() } else { sink }))
    }

    fn spoil(&self, sink: &FaultySink) {
        for _ in 0..self.random.below(4) {
            let call =
                [Call::Apply, Call::Advance, Call::Check, Call::Cursors][self.random.below(4) as usize];
            match self.random.below(4) {
                0 => sink.fail(call, || Error::new(ErrorKind::Unavailable, "down").temporary()),
                1 => sink.fail_after(call, || Error::new(ErrorKind::Timeout, "lost").temporary()),
                2 => sink.slow(call, Duration::from_secs(self.random.below(50))),
                _ => sink.fail_after(call, || Error::new(ErrorKind::Unexpected, "no idea")),
            }
        }
    }

    fn pipeline(&self, sink: FaultySink) -> Pipeline {
        let resources = json!({"cars": ["cars", {"table": "cars_log", "mode": "append"}]});
        let replicator =
            Replicator::new("copy", Mapping::parse(&resources).unwrap(), Arc::new(sink)).unwrap();
        let (source, log) = (Arc::new(self.source.clone()), Arc::new(self.log.clone()));
        Pipeline::new(self.cx.clone(), source, log, vec![replicator]).unwrap()
    }

    async fn run(&self) {
        for _ in 0..ROUNDS {
            self.write();
            let sink = self.sink();
            self.spoil(&sink);
            let pipeline = self.pipeline(sink.clone());
            // Running out of time is a crash: everything in flight is dropped where it stands.
            let crash = Duration::from_millis(self.random.below(60_000));
            let _ = tokio::time::timeout(crash, pipeline.run_once()).await;
            sink.assert_contract();
        }
        self.pipeline(self.sink()).run_once().await.unwrap();
    }

    async fn check(&self) {
        let expected = self.source.rows("cars");
        assert_eq!(self.place.rows("cars"), expected);
        assert_eq!(self.place.folded("cars_log"), expected);
        let logged: Vec<_> = self
            .log
            .read(&self.cx, Seq(0), usize::MAX, usize::MAX)
            .await
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| entry.change.change_id)
            .collect();
        let written: Vec<_> = self.place.changes("cars_log").iter().map(|change| change.change_id).collect();
        let distinct: HashSet<_> = written.iter().collect();
        assert_eq!(distinct, logged.iter().collect(), "every change that was logged, and no other");
        if self.capability.transactional_cursor {
            assert_eq!(written.len(), logged.len(), "each change once");
        }
    }
}

async fn trials(capability: Capability) {
    let first = context::seed();
    for seed in first..first.saturating_add(25) {
        println!("S3REP_SEED={seed}");
        let trial = Trial::new(seed, capability);
        trial.run().await;
        trial.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_once_with_a_transactional_cursor() {
    trials(FULL).await;
}

#[tokio::test(start_paused = true)]
async fn at_least_once_without() {
    trials(Capability { transactional_cursor: false, ..FULL }).await;
}

#[tokio::test(start_paused = true)]
async fn several_calls_at_a_time() {
    let mut capability = FULL;
    capability.limits.in_flight = 4;
    capability.limits.records = 3;
    trials(capability).await;
}
