//! Finding changes that the log holds already.
//!
//! Change ids are random, and a unique index on random keys would write a page of its own for nearly every
//! change: with 600,000 entries of 1 KB, appended in hundreds, four times the processor time of the log alone and
//! five times its bytes on the disk. So the ids of the newest entries are kept in a map, and a full
//! map is written as one sorted run, cut into 256 buckets by a hash: 256 rows for many thousands of ids.
//! Runs are gathered in generations; each has a Bloom filter in memory, two bytes an id, so that a new id is
//! looked up on the disk about once in a thousand times. What is found names an offset, and the entry there has
//! the last word: an index that is too large, or still knows trimmed entries, does no harm.

use std::{collections::HashMap, ops::ControlFlow};

use libsql::Value;
use s3rep_core::{ChangeId, Result, Seq};

use crate::{
    codec::{self, HEAD},
    sqlite::{Db, number},
};

/// Ids that are kept in memory until they are written as a run. Opening reads this many entries at most.
const RUN: usize = 16_384;
/// Ids of a generation.
const GENERATION: usize = 1 << 20;
/// An id and its offset, counted from the first offset of the run.
const ITEM: usize = 20;

/// The ids of the changes in the log.
#[derive(Default)]
pub(crate) struct Ids {
    recent: HashMap<ChangeId, Seq>,
    /// Added by the transaction that is open.
    fresh: HashMap<ChangeId, Seq>,
    generations: Vec<Generation>,
    loaded: bool,
}

struct Generation {
    number: u64,
    runs: u64,
    count: usize,
    last: Seq,
    filter: Filter,
}

impl Ids {
    /// Reads the index and the entries that are not in it yet, at the first use.
    pub(crate) fn load(&mut self, db: &mut Db, indexed: Seq) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        let mut generations: Vec<Generation> = Vec::new();
        let mut damaged = 0_u64;
        let sql = "SELECT ifnull(CAST(generation AS INTEGER), -1), ifnull(CAST(run AS INTEGER), -1), CAST(ids AS BLOB) \
                   FROM change_ids ORDER BY generation";
        db.rows(sql, Vec::new(), |row| {
            let number = row.number(0)?;
            if generations.last().is_none_or(|last| last.number != number) {
                generations.push(Generation::new(number));
            }
            if let (Some(generation), Some((first, items))) = (generations.last_mut(), sound(&row.blob(2)?)) {
                generation.runs = generation.runs.max(row.number(1)? + 1);
                for item in items.chunks_exact(ITEM) {
                    let (id, seq) = read_item(item, first);
                    generation.add(id, seq);
                }
            } else {
                damaged += 1;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if damaged > 0 {
            tracing::warn!(
                damaged,
                "part of the index of change ids is damaged; changes captured twice may pass"
            );
        }
        let mut recent = HashMap::new();
        db.rows(HEADS_AFTER, vec![number(indexed.0)], |row| {
            let seq = Seq(row.number(0)?);
            if let Some(head) = codec::head(&row.blob(1)?, seq) {
                recent.insert(head.change_id, seq);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        *self = Self { recent, fresh: HashMap::new(), generations, loaded: true };
        Ok(())
    }

    /// Whether the log holds this change.
    pub(crate) fn holds(&self, db: &mut Db, id: ChangeId, trimmed: Seq) -> Result<bool> {
        if self.fresh.contains_key(&id) {
            return Ok(true);
        }
        if let Some(seq) = self.recent.get(&id)
            && *seq > trimmed
            && stands_at(db, id, *seq)?
        {
            return Ok(true);
        }
        let hash = hash(id);
        for generation in self.generations.iter().rev() {
            if generation.last > trimmed
                && generation.filter.may_hold(hash)
                && let Some(seq) = generation.find(db, id, trimmed)?
                && stands_at(db, id, seq)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes a change of the open transaction.
    pub(crate) fn add(&mut self, id: ChangeId, seq: Seq) {
        self.fresh.insert(id, seq);
    }

    /// The transaction was committed.
    pub(crate) fn commit(&mut self) {
        self.recent.extend(self.fresh.drain());
    }

    /// The transaction was rolled back.
    pub(crate) fn rollback(&mut self) {
        self.fresh.clear();
    }

    /// Whether [`Ids::flush`] is due.
    pub(crate) fn is_full(&self) -> bool {
        self.recent.len() >= RUN
    }

    /// Writes the recent ids as a run. Takes effect with [`Ids::flushed`], after the commit.
    pub(crate) fn flush(&self, db: &mut Db) -> Result<()> {
        let first = self.recent.values().min().copied().unwrap_or_default();
        let mut items: Vec<_> = self.recent.iter().map(|(id, seq)| (*id, *seq)).collect();
        items.sort_unstable_by_key(|(id, _)| (bucket_of(*id), *id));
        let (number_, run) = self.target();
        for bucket in items.chunk_by(|(a, _), (b, _)| bucket_of(*a) == bucket_of(*b)) {
            let mut blob = vec![0; 4];
            blob.extend(first.0.to_le_bytes());
            for (id, seq) in bucket {
                blob.extend(id.0);
                blob.extend(u32::try_from(seq.0 - first.0).unwrap_or(u32::MAX).to_le_bytes());
            }
            let sum = crc32fast::hash(&blob[4..]);
            blob[..4].copy_from_slice(&sum.to_le_bytes());
            let place = bucket_of(bucket[0].0);
            let values = vec![number(number_), number(place), number(run), Value::Blob(blob)];
            db.run("REPLACE INTO change_ids VALUES (?, ?, ?, ?)", values)?;
        }
        Ok(())
    }

    /// What [`Ids::flush`] wrote is durable.
    pub(crate) fn flushed(&mut self) {
        let (number, run) = self.target();
        if self.generations.last().is_none_or(|last| last.number != number) {
            self.generations.push(Generation::new(number));
        }
        if let Some(generation) = self.generations.last_mut() {
            generation.runs = run + 1;
            for (id, seq) in self.recent.drain() {
                generation.add(id, seq);
            }
        }
    }

    /// Forgets generations of which the log holds nothing any more.
    pub(crate) fn trim(&mut self, db: &mut Db, trimmed: Seq) -> Result<()> {
        while let Some(oldest) = self.generations.first().filter(|oldest| oldest.last <= trimmed) {
            db.run("DELETE FROM change_ids WHERE generation = ?", vec![number(oldest.number)])?;
            // A rollback brings the rows back and leaves them unused until the next start: harmless.
            self.generations.remove(0);
        }
        Ok(())
    }

    /// The generation and the run that are written next.
    fn target(&self) -> (u64, u64) {
        match self.generations.last() {
            Some(last) if last.count < GENERATION => (last.number, last.runs),
            Some(last) => (last.number + 1, 0),
            None => (0, 0),
        }
    }
}

pub(crate) const HEADS_AFTER: &str =
    "SELECT seq, CAST(substr(entry, 1, 56) AS BLOB) FROM log WHERE seq > ? ORDER BY seq";

const _: () = assert!(HEAD == 56, "HEADS_AFTER reads the head");

/// Whether the entry at `seq` is this change.
fn stands_at(db: &mut Db, id: ChangeId, seq: Seq) -> Result<bool> {
    let sql = "SELECT CAST(substr(entry, 1, 56) AS BLOB) FROM log WHERE seq = ?";
    let head = db.first(sql, vec![number(seq.0)], |row| row.blob(0))?;
    Ok(head.and_then(|head| codec::head(&head, seq)).is_some_and(|head| head.change_id == id))
}

impl Generation {
    fn new(number: u64) -> Self {
        Self { number, runs: 0, count: 0, last: Seq(0), filter: Filter::new() }
    }

    fn add(&mut self, id: ChangeId, seq: Seq) {
        self.count += 1;
        self.last = self.last.max(seq);
        self.filter.add(hash(id));
    }

    /// The newest offset above `trimmed` that was noted for `id`.
    fn find(&self, db: &mut Db, id: ChangeId, trimmed: Seq) -> Result<Option<Seq>> {
        let sql = "SELECT CAST(ids AS BLOB) FROM change_ids WHERE generation = ? AND bucket = ?";
        let mut found = None;
        db.rows(sql, vec![number(self.number), number(bucket_of(id))], |row| {
            let blob = row.blob(0)?;
            if let Some((first, items)) = sound(&blob) {
                let (items, _) = items.as_chunks::<ITEM>();
                if let Ok(at) = items.binary_search_by_key(&id.0, |item| read_item(item, first).0.0) {
                    found = found.max(Some(read_item(&items[at], first).1));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found.filter(|seq| *seq > trimmed))
    }
}

/// The first offset and the items of a bucket, when they are sound.
fn sound(blob: &[u8]) -> Option<(Seq, &[u8])> {
    let (sum, rest) = blob.split_first_chunk::<4>()?;
    let (first, items) = rest.split_first_chunk::<8>()?;
    (crc32fast::hash(rest) == u32::from_le_bytes(*sum) && items.len().is_multiple_of(ITEM))
        .then(|| (Seq(u64::from_le_bytes(*first)), items))
}

fn read_item(item: &[u8], first: Seq) -> (ChangeId, Seq) {
    let mut id = [0; 16];
    let mut offset = [0; 4];
    id.copy_from_slice(&item[..16]);
    offset.copy_from_slice(&item[16..ITEM]);
    (ChangeId(id), Seq(first.0 + u64::from(u32::from_le_bytes(offset))))
}

/// The bucket of an id. Stored: never to be changed.
fn bucket_of(id: ChangeId) -> u64 {
    hash(id) >> 56
}

fn hash(id: ChangeId) -> u64 {
    // Ids are hashes, but nothing may depend on it: tests and other sources may count.
    let number = u128::from_le_bytes(id.0);
    let mut mixed = (number as u64) ^ ((number >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// A Bloom filter of blocks of 256 bits; an id sets one bit in each of the eight words of its block.
struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    fn new() -> Self {
        // 16 bits an id.
        Self { blocks: vec![[0; 8]; GENERATION / 16] }
    }

    fn bits(hash: u64) -> [u32; 8] {
        const SALTS: [u32; 8] = [
            0x47b6_137b,
            0x4497_4d91,
            0x8824_ad5b,
            0xa2b7_289d,
            0x7054_95c7,
            0x2df1_424b,
            0x9efc_4947,
            0x5c6b_fb31,
        ];
        SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
    }

    fn block(&self, hash: u64) -> usize {
        (hash >> 32) as usize % self.blocks.len()
    }

    fn add(&mut self, hash: u64) {
        let block = self.block(hash);
        self.blocks[block].iter_mut().zip(Self::bits(hash)).for_each(|(word, bit)| *word |= bit);
    }

    fn may_hold(&self, hash: u64) -> bool {
        self.blocks[self.block(hash)].iter().zip(Self::bits(hash)).all(|(word, bit)| word & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_filter_knows_its_ids_and_few_others() {
        let mut filter = Filter::new();
        let id = |n: usize| hash(ChangeId((n as u128).to_be_bytes()));
        (0..GENERATION).for_each(|n| filter.add(id(n)));
        assert!((0..GENERATION).all(|n| filter.may_hold(id(n))));
        let wrong = (GENERATION..GENERATION + 100_000).filter(|n| filter.may_hold(id(*n))).count();
        assert!(wrong < 500, "{wrong} of 100,000");
    }
}
