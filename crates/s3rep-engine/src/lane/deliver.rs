//! Getting a batch into the destination: the failure policy.
//!
//! | the driver says | the engine does |
//! |---|---|
//! | temporary | waits (backoff with full jitter, or what the destination asked for) and tries again, without end |
//! | a record was rejected, or failed alone with scope `record` | tries it again `max_retries` times, then parks it |
//! | permanent, scope `record` or `batch` | halves the batch until the guilty record is alone |
//! | permanent, the guilty record alone, scope `batch` | stops there: nobody knows that it is about the record |
//! | permanent, scope `table` or more | stops there: halving cannot help |
//!
//! Stopped means: said once, looked at again from time to time, nothing dropped, nothing passed.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use s3rep_core::{
    Batch, Change, Commit, CursorMove, DeadLetter, Error, ErrorKind, Event, Outcome, Progress, Rejected,
    Result, Retry, RouteMode, RowChange, Scope, Seq, Table,
};

use super::{Lane, parking::Parking, position, window};
use crate::observer::{LaneState, lock, with_advice};

/// What became of rows.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Rows written.
    pub(super) written: usize,
    /// Letters to park in the commit that moves the cursor.
    pub(super) parked: Vec<DeadLetter>,
    /// Letters that newer changes superseded.
    pub(super) settled: Vec<(Seq, Arc<str>)>,
}

impl Delivered {
    pub(super) fn absorb(&mut self, other: Self) {
        self.written += other.written;
        self.parked.extend(other.parked);
        self.settled.extend(other.settled);
    }
}

/// A part of a batch that still has to be written.
struct Piece {
    changes: Vec<RowChange>,
    /// Cursors of the whole replicator that move with it: only the last piece of a window has some.
    whole: Vec<CursorMove>,
    tries: Tries,
}

#[derive(Clone, Copy, Default)]
struct Tries {
    /// Failures of the destination in a row; they set the backoff.
    outage: u32,
    /// Failures of records of this piece; they use up `max_retries`.
    records: u32,
}

impl Lane {
    /// Writes the rows of one batch and does not return before each is written or parked.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the run is stopped; when it runs once, what keeps it from going on.
    pub(super) async fn deliver(
        &self,
        table: &Arc<Table>,
        changes: Vec<RowChange>,
        whole: Vec<CursorMove>,
        parking: &std::sync::Mutex<Parking>,
    ) -> Result<Delivered> {
        let mut delivered = Delivered::default();
        let changes = self.without_oversized(table, changes, parking, &mut delivered);
        let changes = self.without_parked(table, changes, parking, &mut delivered);
        self.park_early(&mut delivered).await?;
        let mut pieces = VecDeque::from([Piece { changes, whole, tries: Tries::default() }]);
        while let Some(mut piece) = pieces.pop_front() {
            if piece.changes.is_empty() {
                self.advance(piece.whole).await?;
                continue;
            }
            match self.attempt(table, &mut piece).await {
                Ok(outcome) if outcome.rejected.is_empty() => {
                    self.settle(table, &piece.changes, parking, &mut delivered);
                }
                Ok(outcome) => {
                    let rest =
                        self.part_rejected(table, piece, outcome.rejected, parking, &mut delivered).await?;
                    pieces.push_front(rest);
                }
                Err(error) if piece.changes.len() == 1 && is_about_a_record(&error) => {
                    let rejected = vec![Rejected { index: 0, error }];
                    let rest = self.part_rejected(table, piece, rejected, parking, &mut delivered).await?;
                    pieces.push_front(rest);
                }
                Err(error) => {
                    let again = self.after_failure(table, piece, error).await?;
                    for piece in again.into_iter().rev() {
                        pieces.push_front(piece);
                    }
                }
            }
        }
        Ok(delivered)
    }

    /// Leaves out what an earlier run has parked already, and on append routes what has to stand behind a
    /// parked change of its key.
    fn without_parked(
        &self,
        table: &Arc<Table>,
        changes: Vec<RowChange>,
        parking: &std::sync::Mutex<Parking>,
        delivered: &mut Delivered,
    ) -> Vec<RowChange> {
        let mut parking = lock(parking);
        if parking.is_empty() {
            return changes;
        }
        let mut rest = Vec::with_capacity(changes.len());
        for change in changes {
            if parking.holds(&table.name, change.seq) {
                continue;
            }
            let blocking = match table.mode {
                RouteMode::Append => parking.blocking(&table.name, &change.key),
                RouteMode::Upsert => None,
            };
            match blocking {
                Some(seq) => {
                    parking.park(&table.name, &change.key, change.seq);
                    let reason = format!("stands behind an earlier change of this record, parked at {seq}");
                    delivered.parked.push(self.letter(table, &change, reason, 0));
                }
                None => rest.push(change),
            }
        }
        rest
    }

    async fn attempt(&self, table: &Arc<Table>, piece: &mut Piece) -> Result<Outcome> {
        // The replicator's own cursors say all that the table's would.
        let cursors = if piece.whole.is_empty() {
            window::table_cursors(&table.name, &piece.changes)
        } else {
            piece.whole.clone()
        };
        let changes = std::mem::take(&mut piece.changes);
        let batch = Batch { table: table.clone(), changes, progress: self.progress(cursors) };
        let outcome = self.apply(&batch).await;
        piece.changes = batch.changes;
        outcome
    }

    async fn apply(&self, batch: &Batch) -> Result<Outcome> {
        let began = self.cx.monotonic();
        self.cx.failpoint("engine.apply")?;
        let outcome = self.limited(self.replicator.sink().apply(&self.cx, batch)).await?;
        self.cx.failpoint("engine.applied")?;
        if outcome.rejected.is_empty() {
            self.acknowledge(&batch.progress);
            self.gauge.wrote(batch.changes.len());
            self.observer.emit(Event::Replicated {
                replicator: self.replicator.id().clone(),
                table: batch.table.name.clone(),
                changes: batch.changes.len(),
                duration: self.cx.monotonic().saturating_sub(began),
            });
        }
        Ok(outcome)
    }

    /// Parks records that no batch of this destination can hold, before it sees them.
    fn without_oversized(
        &self,
        table: &Arc<Table>,
        changes: Vec<RowChange>,
        parking: &std::sync::Mutex<Parking>,
        delivered: &mut Delivered,
    ) -> Vec<RowChange> {
        let limit = self.replicator.sink().capability().limits.record_bytes;
        if limit >= window::WINDOW_BYTES && changes.len() > 1 {
            return changes;
        }
        let (fitting, oversized): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| window::size_of_row(change) <= limit);
        for change in oversized {
            let error = Error::new(ErrorKind::TooLarge, "the record is larger than the destination takes")
                .with_scope(Scope::Record)
                .with_context("limit", format!("{limit} bytes"));
            self.park(table, &change, &error, 0, parking, delivered);
        }
        fitting
    }

    /// Remembers what the destination said that it has.
    fn acknowledge(&self, progress: &Progress) {
        let mut acknowledged = lock(&self.acknowledged);
        for cursor in &progress.cursors {
            acknowledged.insert((cursor.table.clone(), cursor.partition), cursor.seq);
        }
    }

    /// Stores cursors without rows, where the destination keeps cursors.
    pub(super) async fn advance(&self, cursors: Vec<CursorMove>) -> Result<()> {
        if cursors.is_empty() || !self.replicator.sink().capability().transactional_cursor {
            return Ok(());
        }
        let progress = self.progress(cursors);
        self.patiently("", |lane| async { lane.replicator.sink().advance(&lane.cx, &progress).await })
            .await?;
        self.acknowledge(&progress);
        Ok(())
    }

    pub(super) fn progress(&self, cursors: Vec<CursorMove>) -> Progress {
        Progress { replicator: self.replicator.id().clone(), log: self.log.id(), fence: self.fence, cursors }
    }

    fn settle(
        &self,
        table: &Arc<Table>,
        changes: &[RowChange],
        parking: &std::sync::Mutex<Parking>,
        delivered: &mut Delivered,
    ) {
        delivered.written += changes.len();
        let mut parking = lock(parking);
        if table.mode == RouteMode::Upsert && !parking.is_empty() {
            for change in changes {
                delivered.settled.extend(parking.supersede(&table.name, &change.key));
            }
        }
    }

    /// What is left of a piece after the destination rejected some of its records.
    async fn part_rejected(
        &self,
        table: &Arc<Table>,
        mut piece: Piece,
        rejected: Vec<Rejected>,
        parking: &std::sync::Mutex<Parking>,
        delivered: &mut Delivered,
    ) -> Result<Piece> {
        let all_or_nothing = self.replicator.sink().capability().transactional_cursor;
        let mut errors: Vec<Option<Error>> = piece.changes.iter().map(|_| None).collect();
        for Rejected { index, error } in rejected {
            if let Some(place) = errors.get_mut(index) {
                *place = Some(error);
            }
        }
        if !all_or_nothing {
            let (refused, taken): (Vec<_>, Vec<_>) =
                piece.changes.into_iter().zip(errors).partition(|(_, error)| error.is_some());
            let taken: Vec<_> = taken.into_iter().map(|(change, _)| change).collect();
            self.settle(table, &taken, parking, delivered);
            (piece.changes, errors) = refused.into_iter().unzip();
        }
        let policy = self.replicator.options().retry;
        let Some(permanent) = errors.iter().flatten().find(|error| !error.is_temporary()) else {
            // Nothing is wrong with these records: the destination had no room for them just now.
            if let Some(error) = errors.iter().flatten().next() {
                self.wait_out(&table.name, &mut piece.tries.outage, None, error).await?;
            }
            return Ok(piece);
        };
        if let Some(error) =
            errors.iter().flatten().find(|error| !error.is_temporary() && !is_about_a_record(error))
        {
            // Listed as one record's, but its driver does not know it to be: it may not be parked.
            self.stand_still(&mut piece.tries.outage, error).await?;
            return Ok(piece);
        }
        if piece.tries.records < policy.max_retries {
            let delay = policy.delay(piece.tries.records, self.cx.random());
            piece.tries.records += 1;
            self.wait_before_retry(&table.name, piece.tries.records, delay, permanent).await?;
            return Ok(piece);
        }
        let mut rest = Vec::with_capacity(piece.changes.len());
        for (change, error) in piece.changes.into_iter().zip(errors) {
            match error.filter(|error| !error.is_temporary()) {
                Some(error) => {
                    self.park(table, &change, &error, policy.max_retries + 1, parking, delivered);
                }
                None => rest.push(change),
            }
        }
        self.park_early(delivered).await?;
        let rest = self.without_parked(table, rest, parking, delivered);
        Ok(Piece { changes: rest, whole: piece.whole, tries: Tries::default() })
    }

    /// Makes letters durable before a destination's cursor can pass their changes.
    async fn park_early(&self, delivered: &mut Delivered) -> Result<()> {
        if delivered.parked.is_empty() || !self.replicator.sink().capability().transactional_cursor {
            return Ok(());
        }
        let parked = std::mem::take(&mut delivered.parked);
        self.commit(Commit {
            replicator: self.replicator.id(),
            fence: self.fence,
            cursors: &[],
            parked: &parked,
            settled: &[],
        })
        .await?;
        self.cx.failpoint("engine.parked")
    }

    fn park(
        &self,
        table: &Arc<Table>,
        change: &RowChange,
        error: &Error,
        attempts: u32,
        parking: &std::sync::Mutex<Parking>,
        delivered: &mut Delivered,
    ) {
        lock(parking).park(&table.name, &change.key, change.seq);
        self.gauge.parked(1);
        self.observer.emit(Event::Parked {
            replicator: self.replicator.id().clone(),
            table: table.name.clone(),
            seq: change.seq,
            error: error.report(),
        });
        delivered.parked.push(self.letter(table, change, error.report(), attempts));
    }

    fn letter(&self, table: &Arc<Table>, change: &RowChange, error: String, attempts: u32) -> DeadLetter {
        DeadLetter {
            seq: change.seq,
            table: table.name.clone(),
            change: Change {
                change_id: change.change_id,
                resource: table.schema.name.clone(),
                id: change.key.clone(),
                operation: change.operation,
                data: change.record.clone(),
                before: None,
                timestamp: change.timestamp,
                schema_version: table.schema.version.clone(),
                target: None,
            },
            error,
            attempts,
            parked_at: self.cx.now(),
        }
    }

    /// Decides what to do with a piece that failed as a whole. Returns the pieces to try next, in order.
    async fn after_failure(&self, table: &Arc<Table>, mut piece: Piece, error: Error) -> Result<Vec<Piece>> {
        let is_alone = piece.changes.len() == 1;
        match (error.retry(), error.scope()) {
            (Retry::Temporary { after }, _) => {
                self.wait_out(&table.name, &mut piece.tries.outage, after, &error).await?;
            }
            (Retry::Permanent, Scope::Record | Scope::Batch) if !is_alone => return Ok(halves(piece)),
            (Retry::Permanent, _) => self.stand_still(&mut piece.tries.outage, &error).await?,
        }
        Ok(vec![piece])
    }

    /// Runs something that has to succeed before the replicator can go on.
    pub(super) async fn patiently<'a, F, T>(
        &'a self,
        table: &str,
        action: impl Fn(&'a Self) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + 'a,
    {
        let mut failures = 0;
        loop {
            let error = match self.limited(action(self)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error.retry() {
                Retry::Temporary { after } => {
                    self.wait_out(&Arc::from(table), &mut failures, after, &error).await?;
                }
                Retry::Permanent => self.stand_still(&mut failures, &error).await?,
            }
        }
    }

    /// Waits after a temporary failure. An outage has no end of its own, but a run that is to end does not
    /// wait longer than its retries.
    pub(super) async fn wait_out(
        &self,
        table: &Arc<str>,
        failures: &mut u32,
        after: Option<Duration>,
        error: &Error,
    ) -> Result<()> {
        let policy = self.replicator.options().retry;
        if self.until.runs_once && *failures >= policy.max_retries {
            return Err(self.give_up(error));
        }
        let delay = policy.delay(*failures, self.cx.random()).max(after.unwrap_or_default());
        *failures = failures.saturating_add(1);
        self.wait_before_retry(table, *failures, delay, error).await?;
        self.still_there(error, failures).await
    }

    /// After trouble with the destination as a whole: is it the one that was written to? One that was emptied,
    /// replaced or restored meanwhile makes the lane begin again. Nothing is written before it has answered.
    async fn still_there(&self, trouble: &Error, failures: &mut u32) -> Result<()> {
        let has_cursors = self.replicator.sink().capability().transactional_cursor;
        if trouble.scope() < Scope::Sink || !has_cursors || lock(&self.acknowledged).is_empty() {
            return Ok(());
        }
        let policy = self.replicator.options().retry;
        let stored = loop {
            match self.limited(self.replicator.sink().cursors(&self.cx, self.replicator.id())).await {
                Ok(stored) => break stored,
                Err(error) if self.until.stopped.is_cancelled() => return Err(error),
                Err(error) if self.until.runs_once && *failures >= policy.max_retries => {
                    return Err(self.give_up(&error));
                }
                Err(error) => {
                    *failures = failures.saturating_add(1);
                    self.gauge.enter(LaneState::Retrying(with_advice(&error)));
                    self.sleep(policy.delay(*failures, self.cx.random())).await?;
                }
            }
        };
        let went_back = position::went_back(&lock(&self.acknowledged), stored.as_ref(), &self.log.id());
        let Some(reason) = went_back else { return Ok(()) };
        tracing::warn!(replicator = %self.replicator.id(), reason, "finding out anew where the destination stands");
        self.begins_again.store(true, Ordering::Relaxed);
        Err(cancelled())
    }

    async fn wait_before_retry(
        &self,
        table: &Arc<str>,
        attempts: u32,
        delay: Duration,
        error: &Error,
    ) -> Result<()> {
        self.gauge.enter(LaneState::Retrying(error.report()));
        self.observer.emit(Event::Retrying {
            replicator: self.replicator.id().clone(),
            table: table.clone(),
            attempts,
            delay,
            kind: error.kind(),
            error: with_advice(error),
        });
        self.sleep(delay).await
    }

    /// Waits after a failure that nothing here can mend, in case something outside does.
    async fn stand_still(&self, failures: &mut u32, error: &Error) -> Result<()> {
        if self.until.runs_once || error.kind() == ErrorKind::Fenced || error.kind() == ErrorKind::Cancelled {
            return Err(self.give_up(error));
        }
        self.gauge.enter(LaneState::Stopped(with_advice(error)));
        if *failures == 0 {
            self.observer
                .emit(Event::Stopped { replicator: self.replicator.id().clone(), error: with_advice(error) });
        }
        *failures = failures.saturating_add(1);
        self.sleep(self.replicator.options().retry.max_delay).await?;
        self.still_there(error, failures).await
    }

    fn give_up(&self, error: &Error) -> Error {
        let mut end = Error::new(error.kind(), error.report())
            .with_scope(error.scope())
            .with_context("replicator", self.replicator.id());
        if let Some(advice) = error.advice() {
            end = end.with_advice(advice.to_owned());
        }
        end
    }

    /// Waits, unless the run is stopped.
    async fn sleep(&self, delay: Duration) -> Result<()> {
        tokio::select! {
            () = self.cx.sleep(delay) => Ok(()),
            () = self.until.stopped.cancelled() => Err(cancelled()),
        }
    }

    /// Runs one call of a sink within the timeout, and gives it up when the run is stopped.
    pub(super) async fn limited<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = self.within_timeout(call) => result,
            () = self.until.stopped.cancelled() => Err(cancelled()),
        }
    }

    /// Runs one call of a sink within the timeout, also when the run is stopped.
    pub(super) async fn within_timeout<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let timeout = self.replicator.options().timeout;
        tokio::select! {
            result = call => result,
            () = self.cx.sleep(timeout) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer from the destination within {} s", timeout.as_secs_f64()),
            )
            .temporary()),
        }
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the run was stopped").with_scope(Scope::Process)
}

/// Only an error that its driver knows to be about one record may park that record.
fn is_about_a_record(error: &Error) -> bool {
    !error.is_temporary() && error.scope() == Scope::Record
}

fn halves(piece: Piece) -> Vec<Piece> {
    let mut first = piece.changes;
    let second = first.split_off(first.len() / 2);
    [(first, Vec::new()), (second, piece.whole)]
        .into_iter()
        .map(|(changes, whole)| Piece { changes, whole, tries: Tries::default() })
        .collect()
}
