//! What was acknowledged stays acknowledged, also when the database forgets it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use s3rep_core::{CursorMove, Error, ErrorKind, Partition, Progress, Result, Scope};

use crate::StoredCursor;

/// Whether a cursor may move back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// With rows: never.
    Forward,
    /// Without rows, as the engine says: after a snapshot of another log, it may.
    Anywhere,
}

/// What this process has seen committed, and nobody may take back: a server that took over from one that died may
/// never have heard of it, and a backup that was restored has not. Later changes would hide that the ones before are
/// gone.
#[derive(Debug, Default)]
pub struct Floors(Mutex<HashMap<Place, (Arc<str>, u64)>>);

/// Replicator, table and partition.
type Place = (Arc<str>, Arc<str>, Partition);

/// A table, a partition, and how far it was seen.
pub type Floor = (Arc<str>, Partition, u64);

impl Floors {
    /// What a look at the cursors has to find, of a table or of all of them. Asked for before the look: other calls
    /// go on meanwhile.
    pub fn below(&self, progress: &Progress, table: Option<&str>) -> Vec<Floor> {
        let floors = self.lock();
        let known = floors.iter().filter(|((replicator, of, _), (log, _))| {
            let is_told = table.is_none_or(|table| of.is_empty() || **of == *table);
            is_told && *replicator == progress.replicator && *log == progress.log
        });
        known.map(|((_, table, partition), (_, seq))| (table.clone(), *partition, *seq)).collect()
    }

    /// Refuses to go on from cursors that are behind what was seen.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], temporary, scope sink: the engine asks for the cursors, and begins there.
    pub fn check(floors: &[Floor], stored: &[StoredCursor], progress: &Progress) -> Result<()> {
        let is_behind = |(table, partition, seq): &Floor| {
            let is_it = |row: &&StoredCursor| {
                *row.table == **table && row.partition == i64::from(partition.0) && row.log == *progress.log
            };
            stored.iter().find(is_it).map_or(0, |row| u64::try_from(row.seq).unwrap_or(0)) < *seq
        };
        if !floors.iter().any(is_behind) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the database has lost what it had acknowledged")
            .temporary()
            .with_scope(Scope::Sink)
            .with_context("replicator", &progress.replicator)
            .with_advice(
                "look whether another server took over or a backup was restored; restart s3rep, so that it begins \
                 with the cursors that are there",
            ))
    }

    /// These cursors were committed.
    pub fn raise(&self, progress: &Progress, how: Move) {
        let mut floors = self.lock();
        for CursorMove { table, partition, seq } in &progress.cursors {
            let place = (progress.replicator.clone(), table.clone(), *partition);
            let (log, floor) = floors.entry(place).or_insert_with(|| (progress.log.clone(), 0));
            let keeps = how == Move::Forward && *log == progress.log;
            *floor = if keeps { seq.0.max(*floor) } else { seq.0 };
            log.clone_from(&progress.log);
        }
    }

    /// Whoever asks for the cursors begins with what is there now.
    pub fn forget(&self, replicator: &str) {
        self.lock().retain(|(of, ..), _| **of != *replicator);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, (Arc<str>, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
