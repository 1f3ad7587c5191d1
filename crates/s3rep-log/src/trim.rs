//! Retention.

use std::ops::ControlFlow;

use s3rep_core::{Result, Retention, Seq, Timestamp, Trimmed};

use crate::{
    codec,
    sqlite::number,
    store::{Failure, Store},
};

/// Entries that one transaction forgets at most: appends wait no longer than that takes.
const STEP: usize = 8_192;

const OLDEST: &str = "SELECT seq, ifnull(length(entry), 0), CAST(substr(entry, 1, 56) AS BLOB) FROM log WHERE seq > ? ORDER BY seq LIMIT ?";

/// What one step of trimming did.
pub(crate) struct Step {
    pub(crate) trimmed: Trimmed,
    /// Nothing more has to go.
    pub(crate) done: bool,
}

impl Store {
    /// Forgets the oldest entries, as far as retention allows and one transaction may go.
    pub(crate) fn trim(&mut self, now: Timestamp, retention: Retention) -> Result<Step, Failure> {
        let replicators = self.replicators()?;
        let mut behind = vec![false; replicators.len()];
        let mut bytes = self.counters.bytes;
        let (mut upto, mut entries, mut looked_at) = (self.counters.trimmed, 0, 0);
        let mut age = std::time::Duration::ZERO;
        let mut stopped = false;
        self.db.rows(OLDEST, vec![number(upto.0), number(STEP as u64)], |row| {
            let (seq, size) = (Seq(row.number(0)?), row.number(1)?);
            // A damaged head tells no age and no partition: the entry goes with the one before it, and counts
            // as passed only by those that are past it in every partition.
            let head = codec::head(&row.blob(2)?, seq);
            if let Some(head) = head {
                age = now.since(head.logged_at);
            }
            let partition = head.map(|head| head.partition);
            let passed = replicators.iter().all(|replicator| replicator.passed(partition, seq));
            let goes =
                passed && age >= retention.passed || age >= retention.max_age || bytes > retention.max_bytes;
            if !goes {
                stopped = true;
                return Ok(ControlFlow::Break(()));
            }
            if !passed {
                for (replicator, behind) in replicators.iter().zip(&mut behind) {
                    *behind |= !replicator.passed(partition, seq);
                }
            }
            bytes = bytes.saturating_sub(size);
            (upto, entries, looked_at) = (seq, entries + 1, looked_at + 1);
            Ok(ControlFlow::Continue(()))
        })?;
        let done = stopped || looked_at < STEP;
        if done && !stopped {
            // What is left consists of damaged entries that are not in the log any more.
            upto = self.counters.last;
        }
        let mut trimmed = Trimmed { entries, fell_behind: Vec::new() };
        if upto > self.counters.trimmed {
            self.db.run("DELETE FROM log WHERE seq <= ?", vec![number(upto.0)])?;
            self.db.run("DELETE FROM damaged WHERE seq <= ?", vec![number(upto.0)])?;
            let freed = self.counters.bytes - bytes;
            self.held_less(entries, freed);
            self.counters.trimmed = upto;
            let lost = |name: &str| {
                replicators.iter().zip(&behind).any(|(known, behind)| *behind && known.name == name)
            };
            if behind.contains(&true) {
                trimmed.fell_behind = self
                    .mark("retention forgot entries it had not passed", |replicator| {
                        lost(&replicator.name)
                    })?;
            }
            self.ids.trim(&mut self.db, upto)?;
        }
        Ok(Step { trimmed, done })
    }
}
