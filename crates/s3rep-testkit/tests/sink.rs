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

/// Every bug, a variant of the sink in which it can show, and cases that have to see it, by a part of the name.
const BROKEN: &[(Bug, Capability, &[&str])] = &[
    (
        Bug::DropsLastChange,
        FULL,
        &["upsert/insert, update", "append/every change", "random/", "batch/as many records"],
    ),
    (Bug::DropsLastChange, QUEUE, &["append/every change", "append/the same batch", "random/"]),
    (
        Bug::DoublesOnReplay,
        FULL,
        &["append/the same batch twice", "cursor/covered", "cursor/an older change", "random/"],
    ),
    (Bug::LosesDelete, FULL, &["upsert/a delete removes", "append/deletes are rows", "random/"]),
    (Bug::LosesDelete, NO_CURSOR, &["upsert/a delete removes", "append/deletes are rows"]),
    (Bug::LosesDelete, QUEUE, &["append/deletes are rows"]),
    (Bug::LosesUpdateOfAbsentRow, NO_CURSOR, &["upsert/an update of an absent row"]),
    (Bug::ForgetsCursor, FULL, &["cursor/rows and cursor", "cursor/advance", "append/the same batch twice"]),
    (Bug::ChangesValue, FULL, &["values/every value", "readback/what comes back"]),
    (Bug::ChangesValue, NO_CURSOR, &["values/every value"]),
    (Bug::ChangesValue, QUEUE, &["values/every value"]),
    (Bug::AgreesWithItself, FULL, &["values/every value"]),
    (Bug::IgnoresFence, FULL, &["fence/"]),
    (Bug::LeaksValue, FULL, &["values/errors never show", "batch/every refused record"]),
    (Bug::LeaksValue, WHOLE_BATCHES, &["values/errors never show"]),
    (
        Bug::HidesRejection,
        FULL,
        &["batch/a record that violates", "batch/every refused", "batch/a record beyond"],
    ),
    (Bug::HidesRejection, NO_CURSOR, &["batch/a record that violates", "batch/every refused"]),
    (Bug::WritesBesideRejected, FULL, &["batch/a record that violates"]),
    (Bug::FoldsCase, FULL, &["upsert/keys that look alike", "upsert/deletes meet"]),
    (Bug::OrdersByUtf16, FULL, &["readback/rows come in the order"]),
    (Bug::CursorBeforeRows, FULL, &["interrupted/a call that is given up"]),
    (Bug::MovesCursorBack, FULL, &["cursor/apply never moves one back"]),
    (Bug::SkipsParked, FULL, &["cursor/a batch that moves no cursor"]),
    (Bug::KeepsCursorsOfOtherLog, FULL, &["cursor/another log starts anew"]),
    (Bug::MergesMembers, NO_CURSOR, &["upsert/a row is replaced whole"]),
    (Bug::SharesCursors, FULL, &["cursor/two replicators"]),
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
    for &(bug, capability, by) in BROKEN {
        let name = format!("caught/{bug:?} ({})", capability.delivery());
        trials.push(Trial::test(name, move || caught(bug, capability, by)));
    }
    trials.push(Trial::test("caught/every bug of the list", every_bug_is_listed));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Checks that every case that is named sees the bug.
fn caught(bug: Bug, capability: Capability, by: &[&str]) -> Result<(), Failed> {
    let cases = cases(Memory::new(capability).broken(bug));
    for part in by {
        let named: Vec<_> =
            cases.iter().filter(|case| case.reason.is_none() && case.name.starts_with(part)).collect();
        if named.is_empty() {
            return Err(format!("no case is named {part:?}").into());
        }
        if let Some(blind) = named.into_iter().find(|case| case.run().is_ok()) {
            return Err(format!("{bug:?} is not seen by {blind:?}").into());
        }
    }
    Ok(())
}

fn every_bug_is_listed() -> Result<(), Failed> {
    for bug in Bug::ALL {
        if !BROKEN.iter().any(|(listed, ..)| listed == bug) {
            return Err(format!("{bug:?} is not tried").into());
        }
    }
    Ok(())
}
