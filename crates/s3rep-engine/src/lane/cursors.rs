//! The cursors that the log keeps for a replicator. They follow the rows.

use std::{collections::BTreeMap, mem, time::Duration};

use s3rep_core::{Commit, Partition, Result, Seq};

use super::{Lane, deliver::Delivered, position::Positions};

/// How far behind they may be where the destination keeps its own, which are what a restart goes by: seldom enough
/// to cost nothing, and a small part of the time for which the log keeps what was passed.
const BEHIND: Duration = Duration::from_millis(100);

/// The log's cursors of one replicator, and what they have not heard of yet.
pub(super) struct LogCursors<'a> {
    lane: &'a Lane,
    committed: Vec<Seq>,
    /// Ends of partitions that were passed since.
    ahead: BTreeMap<Partition, Seq>,
    due: Duration,
}

impl<'a> LogCursors<'a> {
    /// The cursors as they are now. They are to be where the destination is: a process that died may have left
    /// them behind.
    pub(super) async fn load(lane: &'a Lane, destination: &Positions) -> Result<Self> {
        let states = lane.log.replicators(&lane.cx).await?;
        let own = states.into_iter().find(|state| *state.replicator == **lane.replicator.id());
        let committed = own.map(|state| state.cursors).unwrap_or_default();
        let ahead = (0..).map(Partition).zip(&committed).filter_map(|(partition, &seq)| {
            let there = destination.of(partition);
            (there > seq).then_some((partition, there))
        });
        Ok(Self { lane, ahead: ahead.collect(), committed, due: lane.cx.monotonic() })
    }

    /// Notes ends of partitions that need no more writing.
    pub(super) fn pass(&mut self, ends: BTreeMap<Partition, Seq>) {
        self.ahead.extend(ends);
    }

    /// Commits what became of rows, now or when it is due: only a destination that keeps cursors makes waiting safe,
    /// and letters go with the cursors that pass their changes.
    pub(super) async fn settle(&mut self, delivered: Delivered) -> Result<()> {
        let has_letters = !delivered.parked.is_empty() || !delivered.settled.is_empty();
        let has_cursor = self.lane.replicator.sink().capability().transactional_cursor;
        if has_cursor && !has_letters && !self.left().is_zero() {
            return Ok(());
        }
        self.commit_with(delivered).await
    }

    /// Commits what was passed.
    pub(super) async fn commit(&mut self) -> Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        self.commit_with(Delivered::default()).await
    }

    async fn commit_with(&mut self, delivered: Delivered) -> Result<()> {
        self.lane.cx.failpoint("engine.commit")?;
        let cursors: Vec<_> = mem::take(&mut self.ahead)
            .into_iter()
            .map(|(partition, seq)| (partition, self.of(partition), seq))
            .filter(|(_, committed, seq)| seq > committed)
            .collect();
        self.lane
            .commit(Commit {
                replicator: self.lane.replicator.id(),
                fence: self.lane.fence,
                cursors: &cursors,
                parked: &delivered.parked,
                settled: &delivered.settled,
            })
            .await?;
        for (partition, _, seq) in cursors {
            if let Some(place) = self.committed.get_mut(usize::from(partition.0)) {
                *place = seq;
            }
        }
        self.due = self.lane.cx.monotonic() + BEHIND;
        self.lane.cx.failpoint("engine.committed")
    }

    /// Waits until something has waited long enough.
    pub(super) async fn due(&self) {
        match self.is_behind() {
            true => self.lane.cx.sleep(self.left()).await,
            false => std::future::pending().await,
        }
    }

    /// How long what waits may still wait.
    pub(super) fn left(&self) -> Duration {
        self.due.saturating_sub(self.lane.cx.monotonic())
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Whether the log knows that the partition was passed up to here.
    pub(super) fn has_passed(&self, partition: Partition, seq: Seq) -> bool {
        seq <= self.of(partition)
    }

    fn of(&self, partition: Partition) -> Seq {
        self.committed.get(usize::from(partition.0)).copied().unwrap_or_default()
    }
}
