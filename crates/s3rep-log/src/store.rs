//! Everything that writes: one connection, one transaction at a time.

use std::sync::Arc;

use libsql::Value;
use s3rep_core::{
    Appended, DeadLetter, Error, ErrorKind, Lease, Partition, Result, Seq, StartAt, StateWrite,
};

use crate::{
    codec,
    files::Files,
    ids::Ids,
    letters,
    recent::{self, Recent},
    replicators::{self, Found, Replicator},
    schema::{Counters, Meta},
    sqlite::{Db, number, text},
    state,
};

/// Entries that one statement inserts: fewer calls, and the rest goes one by one.
const ROWS: usize = 8;

/// The writing side of a log.
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) meta: Meta,
    pub(crate) counters: Counters,
    pub(crate) ids: Ids,
    /// Entries of the transaction that is open.
    pub(crate) appended: Recent,
    pub(crate) files: Arc<Files>,
}

/// Why a piece of work was not done.
pub(crate) enum Failure {
    /// It was refused before it changed anything: what shares its transaction is not concerned.
    Refused(Error),
    /// The transaction cannot go on.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// The owned form of [`s3rep_core::Commit`].
#[derive(Debug)]
pub(crate) struct Moves {
    pub(crate) replicator: String,
    pub(crate) fence: u64,
    pub(crate) cursors: Vec<(Partition, Seq, Seq)>,
    pub(crate) parked: Vec<DeadLetter>,
    pub(crate) settled: Vec<(Seq, Arc<str>)>,
}

impl Store {
    pub(crate) fn new(db: Db, meta: Meta, counters: Counters, files: &Arc<Files>) -> Self {
        let (ids, appended) = (Ids::default(), Recent::default());
        Self { db, meta, counters, ids, appended, files: Arc::clone(files) }
    }

    /// Appends encoded changes and writes state.
    pub(crate) fn append(&mut self, changes: &[Vec<u8>], writes: &[StateWrite]) -> Result<Appended, Failure> {
        if !changes.is_empty() {
            self.ids.load(&mut self.db, self.counters.indexed)?;
        }
        let is_small = changes.iter().map(Vec::len).sum::<usize>() <= recent::SMALL;
        let mut done = Appended::default();
        let mut rows = Vec::with_capacity(2 * ROWS);
        for change in changes {
            let id = codec::change_id(change);
            if self.ids.holds(&mut self.db, id, self.counters.trimmed)? {
                done.duplicates += 1;
                continue;
            }
            done.appended += 1;
            let seq = Seq(self.counters.last.0 + 1);
            let mut entry = change.clone();
            codec::seal(&mut entry, seq);
            self.counters.last = seq;
            self.counters.entries += 1;
            self.counters.bytes += entry.len() as u64;
            self.ids.add(id, seq);
            rows.push(number(seq.0));
            if is_small {
                self.appended.push(seq, Arc::new(entry.clone()));
            }
            rows.push(Value::Blob(entry));
            if rows.len() == 2 * ROWS {
                let rows = std::mem::replace(&mut rows, Vec::with_capacity(2 * ROWS));
                self.db
                    .run("INSERT INTO log VALUES (?,?),(?,?),(?,?),(?,?),(?,?),(?,?),(?,?),(?,?)", rows)?;
            }
        }
        let mut rest = rows.into_iter();
        while let (Some(seq), Some(entry)) = (rest.next(), rest.next()) {
            self.db.run("INSERT INTO log VALUES (?,?)", vec![seq, entry])?;
        }
        for write in writes {
            state::write(&mut self.db, write)?;
        }
        done.last = self.counters.last;
        Ok(done)
    }

    /// Makes the caller the owner of a replicator.
    pub(crate) fn acquire(&mut self, name: &str, start: StartAt) -> Result<Lease, Failure> {
        let fence = self.counters.fence + 1;
        let known = self.replicator(name)?;
        let is_new = known.is_none();
        let mut replicator = known.unwrap_or_else(|| {
            let at = match start {
                StartAt::Oldest => self.counters.trimmed,
                StartAt::End => self.counters.last,
            };
            let cursors = vec![at; usize::from(self.meta.partitions)];
            Replicator { name: name.to_owned(), fence, cursors, needs_resync: None }
        });
        self.counters.fence = fence;
        replicator.fence = fence;
        replicator.write(&mut self.db)?;
        Ok(Lease { fence, is_new, cursors: replicator.cursors, needs_resync: replicator.needs_resync })
    }

    /// Moves cursors, parks and settles.
    pub(crate) fn commit(&mut self, moves: &Moves) -> Result<(), Failure> {
        let mut replicator = self.owned(&moves.replicator, moves.fence)?;
        for &(partition, expected, new) in &moves.cursors {
            let refuse = |kind, message| {
                let error = Error::new(kind, message).with_operation("commit");
                Failure::Refused(
                    error
                        .with_context("replicator", &moves.replicator)
                        .with_context("partition", partition.0),
                )
            };
            let Some(cursor) = replicator.cursors.get_mut(usize::from(partition.0)) else {
                return Err(refuse(ErrorKind::InvalidValue, "the log does not have this partition"));
            };
            if new < expected || new > self.counters.last {
                return Err(refuse(ErrorKind::InvalidValue, "a cursor may move forward only, up to the end"));
            }
            if *cursor != expected {
                return Err(refuse(ErrorKind::Contention, "a cursor does not stand at the expected place"));
            }
            *cursor = new;
        }
        if !moves.cursors.is_empty() {
            replicator.write(&mut self.db)?;
        }
        for letter in &moves.parked {
            letters::write(&mut self.db, &moves.replicator, letter, self.meta.partitions)?;
        }
        for (seq, table) in &moves.settled {
            letters::remove(&mut self.db, &moves.replicator, *seq, table)?;
        }
        Ok(())
    }

    /// Sets every cursor of a replicator.
    pub(crate) fn reset(
        &mut self,
        name: &str,
        fence: u64,
        to: Seq,
        why: Option<&str>,
    ) -> Result<(), Failure> {
        let mut replicator = self.owned(name, fence)?;
        if to > self.counters.last {
            let error =
                Error::new(ErrorKind::InvalidValue, "a cursor cannot stand beyond the end of the log");
            return Err(Failure::Refused(error.with_operation("reset").with_context("replicator", name)));
        }
        replicator.cursors.fill(to);
        replicator.needs_resync = why.map(ToOwned::to_owned);
        Ok(replicator.write(&mut self.db)?)
    }

    /// Forgets a replicator.
    pub(crate) fn forget(&mut self, name: &str) -> Result<(), Failure> {
        self.db.run("DELETE FROM replicators WHERE name = ?", vec![text(name)])?;
        Ok(letters::remove_all(&mut self.db, name)?)
    }

    /// Sets damaged entries aside and marks the replicators that have not passed them.
    pub(crate) fn set_aside(&mut self, damaged: &[(Seq, Option<Partition>)]) -> Result<(), Failure> {
        let mut set_aside = Vec::new();
        for &(seq, partition) in damaged {
            let known =
                self.db.first("SELECT 1 FROM damaged WHERE seq = ?", vec![number(seq.0)], |_| Ok(()))?;
            if seq <= self.counters.trimmed || seq > self.counters.last || known.is_some() {
                continue;
            }
            let entry = self.db.first(
                "SELECT CAST(entry AS BLOB) FROM log WHERE seq = ?",
                vec![number(seq.0)],
                |row| row.blob(0),
            )?;
            self.db.run("DELETE FROM log WHERE seq = ?", vec![number(seq.0)])?;
            self.held_less(1, entry.as_ref().map_or(0, |entry| entry.len() as u64));
            let values = vec![
                number(seq.0),
                partition.map_or(Value::Null, |partition| number(u64::from(partition.0))),
                entry.map_or(Value::Null, Value::Blob),
            ];
            self.db.run("INSERT INTO damaged VALUES (?, ?, ?)", values)?;
            set_aside.push((seq, partition));
        }
        if set_aside.is_empty() {
            return Ok(());
        }
        tracing::error!(
            entries = set_aside.len(),
            first = set_aside[0].0.0,
            file = %self.files.db().display(),
            "entries of the log are damaged; they were moved to its table 'damaged'"
        );
        self.mark("entries of the log that it had not passed were damaged", |replicator| {
            set_aside.iter().any(|(seq, partition)| !replicator.passed(*partition, *seq))
        })?;
        Ok(())
    }

    /// Forgets damaged rows of the state and marks every replicator: what the source had noted about them may
    /// have been a record that is gone since.
    pub(crate) fn forget_state(&mut self, damaged: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        for (space, key) in damaged {
            state::forget(&mut self.db, space, key)?;
        }
        tracing::error!(
            rows = damaged.len(),
            file = %self.files.db().display(),
            "part of the source's state is damaged and was forgotten"
        );
        self.mark("part of the source's state was damaged", |_| true)?;
        Ok(())
    }

    /// Forgets letters that cannot be read and marks their replicator.
    pub(crate) fn forget_letters(
        &mut self,
        replicator: &str,
        damaged: &[(Seq, Vec<u8>)],
    ) -> Result<(), Failure> {
        for (seq, table) in damaged {
            letters::remove_damaged(&mut self.db, replicator, *seq, table)?;
        }
        tracing::error!(
            replicator,
            letters = damaged.len(),
            file = %self.files.db().display(),
            "dead letters are damaged and were forgotten"
        );
        self.mark("some of its dead letters were damaged", |known| known.name == replicator)?;
        Ok(())
    }

    /// Marks the replicators that `concerns` picks, and returns their names.
    pub(crate) fn mark(
        &mut self,
        why: &str,
        mut concerns: impl FnMut(&Replicator) -> bool,
    ) -> Result<Vec<String>> {
        let mut marked = Vec::new();
        for mut replicator in self.replicators()? {
            if concerns(&replicator) {
                marked.push(replicator.name.clone());
                if replicator.needs_resync.is_none() {
                    replicator.needs_resync = Some(why.to_owned());
                    replicator.write(&mut self.db)?;
                }
            }
        }
        Ok(marked)
    }

    /// Counts entries that are not held any more.
    pub(crate) fn held_less(&mut self, entries: u64, bytes: u64) {
        self.counters.entries = self.counters.entries.saturating_sub(entries);
        self.counters.bytes = match self.counters.entries {
            // Ends what the loss of unreadable entries may have left in the sum.
            0 => 0,
            _ => self.counters.bytes.saturating_sub(bytes),
        };
    }

    /// Every replicator; a damaged row is mended to one that has to be synchronised anew.
    pub(crate) fn replicators(&mut self) -> Result<Vec<Replicator>> {
        let found = replicators::all(&mut self.db, self.meta.partitions)?;
        found.into_iter().map(|found| self.mended(found)).collect()
    }

    fn replicator(&mut self, name: &str) -> Result<Option<Replicator>> {
        let found = replicators::one(&mut self.db, name, self.meta.partitions)?;
        found.map(|found| self.mended(found)).transpose()
    }

    fn mended(&mut self, found: Found) -> Result<Replicator> {
        match found {
            Found::Sound(replicator) => Ok(replicator),
            Found::Damaged(name) => {
                let why = "its cursors in the log were damaged";
                let Counters { fence, trimmed, .. } = self.counters;
                let mended = Replicator::behind(name, fence, self.meta.partitions, trimmed, why);
                tracing::error!(
                    replicator = mended.name,
                    "cursors in the log are damaged; it needs `s3rep sync`"
                );
                mended.write(&mut self.db)?;
                Ok(mended)
            }
        }
    }

    fn owned(&mut self, name: &str, fence: u64) -> Result<Replicator, Failure> {
        let fenced = |message| {
            let error = Error::new(ErrorKind::Fenced, message).with_context("replicator", name);
            Failure::Refused(
                error.with_advice("stop this process, or the other one that runs the same replicator"),
            )
        };
        match self.replicator(name)? {
            None => Err(fenced("the log does not know this replicator any more")),
            Some(known) if known.fence != fence => {
                Err(fenced("another process has taken over this replicator"))
            }
            Some(known) => Ok(known),
        }
    }
}
