//! The newest entries, kept in memory: a replicator that follows closely waits for no disk and no other thread.

use std::{collections::VecDeque, sync::Arc};

use s3rep_core::Seq;

/// Bytes of entries that are kept: what a replicator that follows closely may be behind, which is milliseconds.
const BYTES: usize = 1 << 20;

/// Bytes of an append whose entries are worth keeping: of larger ones their readers are farther behind.
pub(crate) const SMALL: usize = 64 << 10;

/// An entry as the file has it.
pub(crate) type Stored = (Seq, Arc<Vec<u8>>);

/// A run of entries without a gap.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<Stored>,
    bytes: usize,
}

impl Recent {
    /// Adds the next entry; the oldest make room for it.
    pub(crate) fn push(&mut self, seq: Seq, entry: Arc<Vec<u8>>) {
        if self.entries.back().is_some_and(|(last, _)| last.0 + 1 != seq.0) {
            self.clear();
        }
        self.bytes += entry.len();
        self.entries.push_back((seq, entry));
        while self.bytes > BYTES {
            let Some((_, oldest)) = self.entries.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// Takes over newer entries.
    pub(crate) fn append(&mut self, newer: &mut Self) {
        newer.bytes = 0;
        for (seq, entry) in newer.entries.drain(..) {
            self.push(seq, entry);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Entries after `after`: at least one, and no more than so many entries and bytes. `None` when they are not
    /// here.
    pub(crate) fn after(&self, after: Seq, max_entries: usize, max_bytes: usize) -> Option<Vec<Stored>> {
        let (first, _) = self.entries.front()?;
        let skip = usize::try_from((after.0 + 1).checked_sub(first.0)?).ok()?;
        let mut bytes = 0;
        let fits = |(_, entry): &&Stored| {
            let is_first = bytes == 0;
            bytes += entry.len();
            is_first || bytes <= max_bytes
        };
        let found = self.entries.iter().skip(skip).take(max_entries.max(1)).take_while(fits);
        Some(found.cloned().collect::<Vec<_>>()).filter(|found| !found.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(seqs: impl IntoIterator<Item = u64>, size: usize) -> Recent {
        let mut recent = Recent::default();
        for seq in seqs {
            recent.push(Seq(seq), Arc::new(vec![0; size]));
        }
        recent
    }

    fn after(recent: &Recent, after: u64, entries: usize, bytes: usize) -> Option<Vec<u64>> {
        let found = recent.after(Seq(after), entries, bytes)?;
        Some(found.into_iter().map(|(seq, _)| seq.0).collect())
    }

    #[test]
    fn only_what_is_there_without_a_gap_is_found() {
        let few = recent(5..9, 10);
        assert_eq!(after(&few, 4, 99, 99), Some(vec![5, 6, 7, 8]));
        assert_eq!(after(&few, 6, 99, 99), Some(vec![7, 8]));
        assert_eq!(after(&few, 3, 99, 99), None, "4 is missing");
        assert_eq!(after(&few, 8, 99, 99), None, "nothing is newer");
        assert_eq!(after(&few, 4, 2, 99), Some(vec![5, 6]));
        assert_eq!(after(&few, 4, 99, 25), Some(vec![5, 6]));
        assert_eq!(after(&few, 4, 0, 0), Some(vec![5]), "one at least");
        assert_eq!(after(&recent([1, 2, 7], 10), 0, 99, 99), None);
    }

    #[test]
    fn it_holds_so_many_bytes() {
        let many = recent(1..=100, BYTES / 10);
        assert_eq!(after(&many, 90, 99, usize::MAX).map(|found| found.len()), Some(10));
        assert_eq!(after(&many, 89, 99, usize::MAX), None);
        assert!(after(&recent([1], BYTES + 1), 0, 9, 9).is_none());
    }

    #[test]
    fn newer_ones_follow_or_replace() {
        let mut all = recent(1..=3, 10);
        all.append(&mut recent(4..=5, 10));
        assert_eq!(after(&all, 0, 99, 99), Some(vec![1, 2, 3, 4, 5]));
        all.append(&mut recent(9..=9, 10));
        assert_eq!(after(&all, 8, 99, 99), Some(vec![9]));
        assert_eq!(after(&all, 0, 99, 99), None);
    }
}
