//! Replicators and their cursors: one row each.

use std::ops::ControlFlow;

use libsql::Value;
use s3rep_core::{Result, Seq};

use crate::{
    schema::{sum_of, sum_value},
    sqlite::{Cells, Db, number, text},
};

/// A row of `replicators`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replicator {
    pub(crate) name: String,
    pub(crate) fence: u64,
    pub(crate) cursors: Vec<Seq>,
    pub(crate) needs_resync: Option<String>,
}

/// What became of a row on the disk.
pub(crate) enum Found {
    Sound(Replicator),
    /// Its name, as far as it can be read.
    Damaged(String),
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT CAST(name AS BLOB), ifnull(CAST(fence AS INTEGER), -1), CAST(cursors AS BLOB), \
             CAST(needs_resync AS BLOB), ifnull(CAST(crc AS INTEGER), -1) \
             FROM replicators ",
            $rest
        )
    };
}

impl Replicator {
    fn sum(&self, cursors: &str) -> u32 {
        sum_of(&[
            self.name.as_bytes(),
            &self.fence.to_le_bytes(),
            cursors.as_bytes(),
            &[u8::from(self.needs_resync.is_some())],
            self.needs_resync.as_deref().unwrap_or_default().as_bytes(),
        ])
    }

    /// A replicator that has everything still before it.
    pub(crate) fn behind(name: String, fence: u64, partitions: u16, at: Seq, why: &str) -> Self {
        Self { name, fence, cursors: vec![at; usize::from(partitions)], needs_resync: Some(why.to_owned()) }
    }

    /// Whether an entry, of which the partition may be unknown, lies behind the cursors.
    pub(crate) fn passed(&self, partition: Option<s3rep_core::Partition>, seq: Seq) -> bool {
        match partition {
            Some(partition) => {
                self.cursors.get(usize::from(partition.0)).is_some_and(|cursor| *cursor >= seq)
            }
            None => self.cursors.iter().all(|cursor| *cursor >= seq),
        }
    }

    /// Writes the row.
    pub(crate) fn write(&self, db: &mut Db) -> Result<()> {
        let cursors = serde_json::to_string(&self.cursors).unwrap_or_default();
        let sum = self.sum(&cursors);
        let needs_resync = self.needs_resync.as_deref().map_or(Value::Null, text);
        let values =
            vec![text(&self.name), number(self.fence), Value::Text(cursors), needs_resync, sum_value(sum)];
        db.run("REPLACE INTO replicators VALUES (?, ?, ?, ?, ?)", values)
    }
}

/// Reads one row.
pub(crate) fn one(db: &mut Db, name: &str, partitions: u16) -> Result<Option<Found>> {
    db.first(columns!("WHERE name = ?"), vec![text(name)], |row| found(row, Some(partitions)))
}

/// Reads every row, in the order of the names.
pub(crate) fn all(db: &mut Db, partitions: u16) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    each(db, Some(partitions), |found| all.push(found))?;
    Ok(all)
}

/// Hands out every row until one cannot be read at all. Without `partitions` any number of cursors will do.
pub(crate) fn each(db: &mut Db, partitions: Option<u16>, mut take: impl FnMut(Found)) -> Result<()> {
    db.rows(columns!("ORDER BY name"), Vec::new(), |row| {
        take(found(row, partitions)?);
        Ok(ControlFlow::Continue(()))
    })
}

fn found(row: &Cells<'_>, partitions: Option<u16>) -> Result<Found> {
    let name = row.blob(0)?;
    let read = || {
        let cursors = String::from_utf8(row.blob(2).ok()?).ok()?;
        let replicator = Replicator {
            name: String::from_utf8(name.clone()).ok()?,
            fence: row.number(1).ok()?,
            cursors: serde_json::from_str(&cursors).ok()?,
            needs_resync: row.optional_bytes(3).ok()?.map(String::from_utf8).transpose().ok()?,
        };
        let sound = row.number(4).ok()? == u64::from(replicator.sum(&cursors))
            && partitions.is_none_or(|partitions| replicator.cursors.len() == usize::from(partitions));
        sound.then_some(replicator)
    };
    Ok(match read() {
        Some(replicator) => Found::Sound(replicator),
        None => Found::Damaged(String::from_utf8_lossy(&name).into_owned()),
    })
}
