//! Which records of a replicator have changes in the dead letter queue.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use s3rep_core::{ChangeLog, Context, Result, Seq};

/// Dead letters read at once when a replicator starts.
const PAGE: usize = 1_000;

/// The keys that have parked changes, for each table.
///
/// An upsert route lets a newer change of a key supersede what is parked; an append route holds later changes
/// of the key behind it. Grows with the queue, some hundred bytes a letter.
#[derive(Debug, Default)]
pub(super) struct Parking {
    by_key: HashMap<Arc<str>, HashMap<Arc<str>, Vec<Seq>>>,
    letters: HashSet<(Seq, Arc<str>)>,
}

impl Parking {
    pub(super) async fn load(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<Self> {
        let mut parking = Self::default();
        let mut after = Seq(0);
        loop {
            let letters = log.dead_letters(cx, replicator, after, PAGE).await?;
            let is_last = letters.len() < PAGE;
            // A change may be parked for several tables: its other letters may stand on the next page.
            after = letters.last().map_or(after, |last| Seq(last.seq.0.saturating_sub(1)));
            for letter in letters {
                parking.park(&letter.table, &letter.change.id, letter.seq);
            }
            if is_last {
                return Ok(parking);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(super) fn park(&mut self, table: &Arc<str>, key: &Arc<str>, seq: Seq) {
        if self.letters.insert((seq, table.clone())) {
            self.by_key.entry(table.clone()).or_default().entry(key.clone()).or_default().push(seq);
        }
    }

    /// Whether this very change was parked: by a run that ended before its cursor moved.
    pub(super) fn holds(&self, table: &Arc<str>, seq: Seq) -> bool {
        !self.letters.is_empty() && self.letters.contains(&(seq, table.clone()))
    }

    /// The parked change that later changes of this key stand behind.
    pub(super) fn blocking(&self, table: &str, key: &str) -> Option<Seq> {
        self.by_key.get(table)?.get(key)?.first().copied()
    }

    /// A change of this key was written: what was parked before it is settled.
    pub(super) fn supersede(&mut self, table: &Arc<str>, key: &str) -> Vec<(Seq, Arc<str>)> {
        let seqs = self.by_key.get_mut(table).and_then(|keys| keys.remove(key)).unwrap_or_default();
        let settled: Vec<_> = seqs.into_iter().map(|seq| (seq, table.clone())).collect();
        for letter in &settled {
            self.letters.remove(letter);
        }
        settled
    }
}
