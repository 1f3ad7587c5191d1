//! Where a replicator stands when it starts: the log's cursors, corrected by what the destination knows.

use std::{collections::HashMap, sync::Arc};

use s3rep_core::{Lease, Partition, Seq, StoredCursors};

use super::Acknowledged;

/// Everything up to these places is in the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions {
    whole: Vec<Seq>,
    tables: HashMap<Arc<str>, HashMap<Partition, Seq>>,
}

/// What to do with a replicator that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reconciled {
    /// Go on from here.
    At(Positions),
    /// The destination lacks what the log no longer has: a snapshot is needed.
    NeedsSnapshot(&'static str),
}

impl Positions {
    pub(super) fn new(whole: Vec<Seq>) -> Self {
        Self { whole, tables: HashMap::new() }
    }

    /// Whether everything up to here is in every table.
    pub(super) fn passed(&self, partition: Partition, seq: Seq) -> bool {
        seq <= self.of(partition)
    }

    /// Whether everything up to here is in this table.
    pub(super) fn passed_in(&self, table: &Arc<str>, partition: Partition, seq: Seq) -> bool {
        self.tables.get(table).and_then(|ends| ends.get(&partition)).is_some_and(|end| seq <= *end)
    }

    pub(super) fn of(&self, partition: Partition) -> Seq {
        self.whole.get(usize::from(partition.0)).copied().unwrap_or_default()
    }

    /// Where to begin reading.
    pub(super) fn lowest(&self) -> Seq {
        self.whole.iter().copied().min().unwrap_or_default()
    }

    pub(super) fn advance(&mut self, partition: Partition, seq: Seq) {
        if let Some(end) = self.whole.get_mut(usize::from(partition.0)) {
            *end = (*end).max(seq);
        }
    }
}

/// Believes the destination's cursors over the log's.
///
/// The log's never stand ahead of the destination's, because they move after it. So a destination that stands
/// behind the log was restored from a copy, and one that knows nothing was emptied or replaced. Only where the log
/// was `skipped` up to a place in favour of a snapshot, and its cursor has not moved since, the log's is right.
pub(super) fn reconcile(
    lease: &Lease,
    stored: Option<&StoredCursors>,
    log: &str,
    trimmed: Seq,
    skipped: Option<Seq>,
) -> Reconciled {
    let never_written = lease.cursors.iter().all(|&seq| seq == Seq(0));
    let Some(stored) = stored.filter(|stored| stored.log == log.into()) else {
        return if lease.is_new || never_written {
            Reconciled::At(Positions::new(lease.cursors.clone()))
        } else {
            Reconciled::NeedsSnapshot(
                "the destination knows nothing of what was written to it: it was emptied or replaced",
            )
        };
    };
    let mut positions = Positions::new(vec![Seq(0); lease.cursors.len()]);
    for cursor in &stored.cursors {
        if cursor.table.is_empty() {
            positions.advance(cursor.partition, cursor.seq);
        } else {
            let ends = positions.tables.entry(cursor.table.clone()).or_default();
            let end = ends.entry(cursor.partition).or_default();
            *end = (*end).max(cursor.seq);
        }
    }
    let mut restored = false;
    for (partition, &in_log) in (0..).map(Partition).zip(&lease.cursors) {
        if skipped == Some(in_log) {
            positions.advance(partition, in_log);
        }
        let in_destination = positions.of(partition);
        if in_destination < in_log {
            restored = true;
            if in_destination < trimmed {
                return Reconciled::NeedsSnapshot(
                    "the destination was restored from a copy older than what the log still holds",
                );
            }
        }
    }
    if restored {
        // Table cursors of a copy are as old as the copy; they stay valid.
        tracing::warn!("the destination is older than its cursor in the log: writing the difference again");
    }
    Reconciled::At(positions)
}

/// Why a destination does not hold what it acknowledged in this run, if so.
pub(super) fn went_back(
    acknowledged: &Acknowledged,
    stored: Option<&StoredCursors>,
    log: &str,
) -> Option<&'static str> {
    let Some(stored) = stored.filter(|stored| stored.log == log.into()) else {
        return (!acknowledged.is_empty()).then_some("it was emptied or replaced");
    };
    let holds = |table: &Arc<str>, partition: Partition, seq: Seq| {
        stored.cursors.iter().any(|cursor| {
            cursor.partition == partition
                && cursor.seq >= seq
                && (cursor.table.is_empty() || cursor.table == *table)
        })
    };
    let is_behind = acknowledged.iter().any(|((table, partition), &seq)| !holds(table, *partition, seq));
    is_behind.then_some("it was restored from a copy")
}

#[cfg(test)]
mod tests {
    use s3rep_core::CursorMove;

    use super::*;

    fn lease(cursors: &[u64]) -> Lease {
        Lease {
            fence: 1,
            is_new: false,
            cursors: cursors.iter().map(|&seq| Seq(seq)).collect(),
            needs_resync: None,
        }
    }

    fn stored(log: &str, moves: &[(&str, u16, u64)]) -> StoredCursors {
        let cursors = moves
            .iter()
            .map(|&(table, partition, seq)| CursorMove {
                table: table.into(),
                partition: Partition(partition),
                seq: Seq(seq),
            })
            .collect();
        StoredCursors { log: log.into(), fence: 1, cursors }
    }

    fn at(reconciled: Reconciled) -> Positions {
        match reconciled {
            Reconciled::At(positions) => positions,
            Reconciled::NeedsSnapshot(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn the_destination_is_believed_when_it_is_ahead() {
        let stored = stored("l", &[("", 0, 7), ("", 1, 5), ("cars", 1, 9)]);
        let positions = at(reconcile(&lease(&[3, 5]), Some(&stored), "l", Seq(0), None));
        assert!(positions.passed(Partition(0), Seq(7)) && !positions.passed(Partition(0), Seq(8)));
        assert!(positions.passed_in(&"cars".into(), Partition(1), Seq(9)));
        assert!(!positions.passed_in(&"other".into(), Partition(1), Seq(6)));
        assert_eq!(positions.lowest(), Seq(5));
    }

    #[test]
    fn a_destination_that_went_back_is_noticed() {
        let acknowledged = Acknowledged::from([
            (("".into(), Partition(0)), Seq(4)),
            (("cars".into(), Partition(1)), Seq(5)),
        ]);
        let holds = |log, whole, cars| stored(log, &[("", 0, whole), ("cars", 1, cars)]);
        assert_eq!(went_back(&acknowledged, Some(&holds("l", 4, 5)), "l"), None);
        assert_eq!(went_back(&acknowledged, Some(&stored("l", &[("", 0, 4), ("", 1, 6)])), "l"), None);
        assert!(went_back(&acknowledged, Some(&holds("l", 3, 5)), "l").is_some());
        assert!(went_back(&acknowledged, Some(&holds("l", 4, 4)), "l").is_some());
        assert!(went_back(&acknowledged, Some(&holds("other", 4, 5)), "l").is_some());
        assert!(went_back(&acknowledged, None, "l").is_some());
        assert_eq!(went_back(&Acknowledged::new(), None, "l"), None);
    }

    #[test]
    fn a_restored_destination_is_written_again_or_needs_a_snapshot() {
        let stored = stored("l", &[("", 0, 4), ("", 1, 5)]);
        assert_eq!(at(reconcile(&lease(&[8, 8]), Some(&stored), "l", Seq(4), None)).lowest(), Seq(4));
        assert!(matches!(
            reconcile(&lease(&[8, 8]), Some(&stored), "l", Seq(5), None),
            Reconciled::NeedsSnapshot(_)
        ));
    }

    #[test]
    fn what_was_skipped_for_a_snapshot_is_not_written_again() {
        let stored = stored("l", &[("", 0, 4), ("", 1, 9)]);
        let positions = at(reconcile(&lease(&[8, 9]), Some(&stored), "l", Seq(5), Some(Seq(8))));
        assert_eq!((positions.of(Partition(0)), positions.of(Partition(1))), (Seq(8), Seq(9)));
        // It went on since, and was restored from a copy.
        let positions = at(reconcile(&lease(&[9, 9]), Some(&stored), "l", Seq(4), Some(Seq(8))));
        assert_eq!(positions.of(Partition(0)), Seq(4));
    }

    #[test]
    fn an_emptied_destination_needs_a_snapshot_and_a_new_one_does_not() {
        assert!(matches!(reconcile(&lease(&[8, 0]), None, "l", Seq(0), None), Reconciled::NeedsSnapshot(_)));
        let other = stored("other", &[("", 0, 99)]);
        assert!(matches!(
            reconcile(&lease(&[8, 0]), Some(&other), "l", Seq(0), None),
            Reconciled::NeedsSnapshot(_)
        ));
        assert_eq!(at(reconcile(&lease(&[0, 0]), Some(&other), "l", Seq(0), None)).lowest(), Seq(0));
    }
}
