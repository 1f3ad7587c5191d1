//! The conformance suite on the memory sink in its variants, and the proof that it can fail: sinks that break
//! one promise each have to be caught.

use std::sync::Arc;

use async_trait::async_trait;
use libtest_mimic::{Arguments, Failed, Trial};
use s3rep_core::{Capability, Sink, Table};
use s3rep_testkit::{
    oracle::StoredChange,
    sink::{
        Bug, FULL, FaultySink, MemoryPlace, MemorySink,
        suite::{Offers, SinkFactory, cases, suite},
    },
};

/// Makes memory sinks, with a schema or without, whole or broken.
#[derive(Clone, Copy)]
struct Memory {
    capability: Capability,
    schema: bool,
    bug: Option<Bug>,
    watched: bool,
}

impl Memory {
    const fn new(capability: Capability) -> Self {
        Self { capability, schema: false, bug: None, watched: false }
    }

    const fn with_schema(self) -> Self {
        Self { schema: true, ..self }
    }

    const fn broken(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// Behind the wrapper that injects faults, which has to be invisible when it injects none.
    const fn watched(self) -> Self {
        Self { watched: true, ..self }
    }
}

#[async_trait]
impl SinkFactory for Memory {
    type Place = MemoryPlace;

    fn capability(&self) -> Capability {
        self.capability
    }

    fn offers(&self) -> Offers {
        Offers {
            changes: true,
            schema_sync: self.schema,
            bad_place: true,
            broken_connection: true,
            unfit_table: self.schema,
        }
    }

    async fn fresh(&self) -> MemoryPlace {
        MemoryPlace::default()
    }

    async fn open(&self, place: &MemoryPlace) -> Arc<dyn Sink> {
        let mut sink = MemorySink::with_capability(self.capability).over(place.clone());
        if self.schema {
            sink = sink.with_schema();
        }
        if let Some(bug) = self.bug {
            sink = sink.with_bug(bug);
        }
        if self.watched { Arc::new(FaultySink::new(Arc::new(sink))) } else { Arc::new(sink) }
    }

    async fn changes(&self, place: &MemoryPlace, table: &Table) -> Vec<StoredChange> {
        place.stored_changes(&table.name)
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        let place = MemoryPlace::default();
        place.set_down(true);
        Some(self.open(&place).await)
    }

    async fn break_connection(&self, place: &MemoryPlace) {
        place.set_down(true);
    }

    async fn mend_connection(&self, place: &MemoryPlace) {
        place.set_down(false);
    }

    async fn make_unfit(&self, place: &MemoryPlace, table: &Table) {
        place.seal(&table.name);
    }
}

const APPEND_ONLY: Capability = Capability { upsert: false, transactional_cursor: false, ..FULL };
const NO_CURSOR: Capability = Capability { transactional_cursor: false, ..FULL };
const WHOLE_BATCHES: Capability = Capability { partial_failure: false, ..FULL };
const QUEUE: Capability = Capability {
    upsert: false,
    transactional_cursor: false,
    partial_failure: false,
    readback: false,
    ..FULL
};
const ONE_AT_A_TIME: Capability = {
    let limits = s3rep_core::Limits { in_flight: 1, records: 50, ..FULL.limits };
    Capability { deletes: false, limits, ..FULL }
};

/// Every bug, and a variant of the sink in which it can show.
const BROKEN: &[(Bug, Capability)] = &[
    (Bug::DropsLastChange, FULL),
    (Bug::DropsLastChange, QUEUE),
    (Bug::DoublesOnReplay, FULL),
    (Bug::LosesDelete, FULL),
    (Bug::LosesDelete, NO_CURSOR),
    (Bug::LosesDelete, QUEUE),
    (Bug::LosesUpdateOfAbsentRow, NO_CURSOR),
    (Bug::ForgetsCursor, FULL),
    (Bug::ChangesValue, FULL),
    (Bug::ChangesValue, NO_CURSOR),
    (Bug::ChangesValue, QUEUE),
    (Bug::AgreesWithItself, FULL),
    (Bug::IgnoresFence, FULL),
    (Bug::LeaksValue, FULL),
    (Bug::LeaksValue, WHOLE_BATCHES),
    (Bug::HidesRejection, FULL),
    (Bug::HidesRejection, NO_CURSOR),
    (Bug::WritesBesideRejected, FULL),
    (Bug::FoldsCase, FULL),
    (Bug::OrdersByUtf16, FULL),
    (Bug::CursorBeforeRows, FULL),
    (Bug::MovesCursorBack, FULL),
    (Bug::SkipsParked, FULL),
    (Bug::KeepsCursorsOfOtherLog, FULL),
    (Bug::MergesMembers, NO_CURSOR),
    (Bug::SharesCursors, FULL),
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let variants = [
        ("full", Memory::new(FULL)),
        ("schema", Memory::new(FULL).with_schema()),
        ("watched", Memory::new(FULL).watched()),
        ("no-cursor", Memory::new(NO_CURSOR)),
        ("append-only", Memory::new(APPEND_ONLY)),
        ("whole-batches", Memory::new(WHOLE_BATCHES)),
        ("whole-batches-no-cursor", Memory::new(Capability { partial_failure: false, ..NO_CURSOR })),
        ("queue", Memory::new(QUEUE)),
        ("one-at-a-time", Memory::new(ONE_AT_A_TIME)),
    ];
    for (name, factory) in variants {
        trials.extend(suite(name, factory));
    }
    for &(bug, capability) in BROKEN {
        let name = format!("caught/{bug:?} ({})", capability.delivery());
        trials.push(Trial::test(name, move || caught(bug, capability).map(drop)));
    }
    trials.push(Trial::test("caught/every bug of the list", every_bug_is_listed));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The cases that see a bug; an error when there are none.
fn caught(bug: Bug, capability: Capability) -> Result<Vec<String>, Failed> {
    let failed: Vec<String> = cases(Memory::new(capability).broken(bug))
        .into_iter()
        .filter(|case| case.reason.is_none())
        .filter_map(|case| case.run().err().map(|error| format!("{case}: {error}")))
        .collect();
    if failed.is_empty() { Err(format!("no case sees {bug:?}").into()) } else { Ok(failed) }
}

fn every_bug_is_listed() -> Result<(), Failed> {
    for bug in Bug::ALL {
        if !BROKEN.iter().any(|(listed, _)| listed == bug) {
            return Err(format!("{bug:?} is not tried").into());
        }
    }
    Ok(())
}
