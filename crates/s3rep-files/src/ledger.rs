//! What is committed: the content of `_s3rep_cursor.json`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
};

use s3rep_core::{
    CursorMove, Error, ErrorKind, Partition, Progress, Result, RowChange, Scope, Seq, StoredCursors,
};
use serde::{Deserialize, Serialize};

use crate::error::At;

/// The file's name.
pub(crate) const FILE: &str = "_s3rep_cursor.json";
const TEMPORARY: &str = "_s3rep_cursor.json.tmp";
const VERSION: u32 = 1;

/// Cursors and files that belong together. Replacing its file is what commits a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Ledger {
    version: u32,
    #[serde(default)]
    replicators: BTreeMap<String, Cursors>,
    /// By the table's name.
    #[serde(default)]
    pub(crate) tables: BTreeMap<String, Files>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cursors {
    log: String,
    fence: u64,
    /// By table (empty text for the replicator as a whole) and partition.
    cursors: BTreeMap<String, BTreeMap<u16, u64>>,
}

/// The files of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Files {
    /// Logs that changes came from, by the short form in file names, oldest first, with the last number given.
    pub(crate) logs: Vec<(String, u64)>,
    /// The file that is being written.
    pub(crate) part: Option<Part>,
    /// Files that are complete and have, or are about to get, their final name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) closing: Vec<Part>,
}

/// A file and how much of it is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Part {
    /// Its final name.
    pub(crate) file: String,
    pub(crate) log: String,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    /// Milliseconds since 1970.
    pub(crate) opened_at: i64,
    pub(crate) header: String,
}

/// Whether a cursor may move back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Forward,
    Anywhere,
}

impl Ledger {
    /// Reads the file, `None` when there is none.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.at(&path)?,
        };
        let corrupt = |message| {
            Error::new(ErrorKind::Corrupt, message)
                .with_scope(Scope::Sink)
                .with_context("file", path.display())
                .with_advice("restore the file, or move the directory away and synchronise anew")
        };
        let ledger: Self = serde_json::from_slice(&text)
            .map_err(|error| corrupt("the cursor file cannot be read").with_source(error))?;
        if ledger.version != VERSION {
            return Err(corrupt("the cursor file was written by another version of s3rep"));
        }
        // Names lead to files that are cut and renamed: nothing may lead out of the directory.
        for (table, files) in &ledger.tables {
            let parts = files.closing.iter().chain(&files.part);
            if crate::names::check_table(table).is_err()
                || parts.clone().any(|part| part.file.contains(['/', '\0']))
            {
                return Err(corrupt("the cursor file names files outside of the directory"));
            }
        }
        Ok(Some(ledger))
    }

    /// Writes the file beside the one that counts.
    pub(crate) fn write(&mut self, directory: &Path) -> Result<()> {
        self.version = VERSION;
        let path = directory.join(TEMPORARY);
        let text = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "cursors cannot be written").with_source(error)
        })?;
        let mut file = File::create(&path).at(&path)?;
        file.write_all(&text).and_then(|()| file.sync_all()).at(&path)
    }

    /// Makes the file that was written the one that counts.
    pub(crate) fn publish(directory: &Path) -> Result<()> {
        let path = directory.join(TEMPORARY);
        fs::rename(&path, directory.join(FILE)).at(&path)?;
        sync_directory(directory)
    }

    pub(crate) fn cursors(&self, replicator: &str) -> Option<StoredCursors> {
        let Cursors { log, fence, cursors } = self.replicators.get(replicator)?;
        let cursors = cursors.iter().flat_map(|(table, partitions)| {
            partitions.iter().map(|(partition, seq)| CursorMove {
                table: table.as_str().into(),
                partition: Partition(*partition),
                seq: Seq(*seq),
            })
        });
        Some(StoredCursors { log: log.as_str().into(), fence: *fence, cursors: cursors.collect() })
    }

    /// Refuses an owner that another one has replaced, and forgets the cursors of another log.
    pub(crate) fn admit(&mut self, progress: &Progress) -> Result<()> {
        let Some(stored) = self.replicators.get(&*progress.replicator) else { return Ok(()) };
        if stored.log != *progress.log {
            self.replicators.remove(&*progress.replicator);
            return Ok(());
        }
        if stored.fence > progress.fence {
            return Err(Error::new(ErrorKind::Fenced, "a newer owner writes to this directory")
                .with_scope(Scope::Sink)
                .with_context("replicator", &progress.replicator)
                .with_advice("stop the other process that runs the same replicator"));
        }
        Ok(())
    }

    /// Whether the change was written before. A batch that moves no cursor brings back rejected changes, which
    /// stand before the cursors by nature.
    pub(crate) fn covers(&self, progress: &Progress, table: &str, change: &RowChange) -> bool {
        let Some(stored) = self.replicators.get(&*progress.replicator) else { return false };
        let reaches = |table: &str| {
            let seq = stored.cursors.get(table).and_then(|partitions| partitions.get(&change.partition.0));
            seq.is_some_and(|seq| change.seq.0 <= *seq)
        };
        !progress.cursors.is_empty() && (reaches("") || reaches(table))
    }

    pub(crate) fn store(&mut self, progress: &Progress, how: Move) {
        if progress.cursors.is_empty() {
            return;
        }
        let stored = self.replicators.entry(progress.replicator.to_string()).or_default();
        stored.log = progress.log.to_string();
        stored.fence = progress.fence;
        for CursorMove { table, partition, seq } in &progress.cursors {
            let place = stored.cursors.entry(table.to_string()).or_default().entry(partition.0).or_default();
            *place = if how == Move::Forward { seq.0.max(*place) } else { seq.0 };
        }
    }
}

impl Files {
    /// The number of the next file: that of its first change, or a larger one when changes are replayed.
    pub(crate) fn next_number(&mut self, log: &str, first: Seq) -> u64 {
        match self.logs.iter_mut().find(|(known, _)| known == log) {
            Some((_, last)) => {
                *last = first.0.max(last.saturating_add(1));
                *last
            }
            None => {
                self.logs.push((log.to_owned(), first.0));
                first.0
            }
        }
    }

    /// Marks the file that is being written as complete.
    pub(crate) fn close_part(&mut self) {
        self.closing.extend(self.part.take());
    }
}

/// Makes names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).at(directory)
}
