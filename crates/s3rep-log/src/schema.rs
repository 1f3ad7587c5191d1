//! The tables of the log file, and the few rows that describe it as a whole.
//!
//! Every row carries a check sum over what it says and where it stands, because a flipped bit in a cursor
//! would otherwise pass changes over in silence.

use std::{ops::ControlFlow, sync::Arc};

use libsql::Value;
use s3rep_core::{Error, ErrorKind, Result, Scope, Seq};

use crate::{
    error,
    files::Files,
    sqlite::{Db, number, text},
};

/// The version of the tables. A newer one is not opened.
const FORMAT: u64 = 1;

/// The tables, as `sqlite_master` keeps them.
const TABLES: [(&str, &str); 8] = [
    ("meta", "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"),
    (
        "counters",
        "CREATE TABLE counters (one INTEGER PRIMARY KEY, last INTEGER, trimmed INTEGER, entries INTEGER, \
         bytes INTEGER, fence INTEGER, indexed INTEGER, crc INTEGER)",
    ),
    ("log", "CREATE TABLE log (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL)"),
    ("damaged", "CREATE TABLE damaged (seq INTEGER PRIMARY KEY, partition INTEGER, entry BLOB)"),
    (
        "change_ids",
        "CREATE TABLE change_ids (generation INTEGER, bucket INTEGER, run INTEGER, ids BLOB NOT NULL, \
         PRIMARY KEY (generation, bucket, run)) WITHOUT ROWID",
    ),
    (
        "replicators",
        "CREATE TABLE replicators (name TEXT PRIMARY KEY, fence INTEGER NOT NULL, cursors TEXT NOT NULL, \
         needs_resync TEXT, crc INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        "dead_letters",
        "CREATE TABLE dead_letters (replicator TEXT, seq INTEGER, destination TEXT, attempts INTEGER NOT NULL, \
         parked_at INTEGER NOT NULL, error TEXT NOT NULL, entry BLOB NOT NULL, crc INTEGER NOT NULL, \
         PRIMARY KEY (replicator, seq, destination)) WITHOUT ROWID",
    ),
    (
        "state",
        "CREATE TABLE state (space TEXT, key TEXT, value BLOB NOT NULL, crc INTEGER NOT NULL, \
         PRIMARY KEY (space, key)) WITHOUT ROWID",
    ),
];

/// What never changes about a log.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) id: Arc<str>,
    pub(crate) partitions: u16,
}

/// What every transaction that touches the log keeps up to date, so that nothing has to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// The newest offset ever given.
    pub(crate) last: Seq,
    /// The offset before the oldest entry.
    pub(crate) trimmed: Seq,
    /// Entries held.
    pub(crate) entries: u64,
    /// Bytes of the entries held.
    pub(crate) bytes: u64,
    /// The newest fence ever given, of any replicator.
    pub(crate) fence: u64,
    /// The ids of the changes up to this offset are in `change_ids`.
    pub(crate) indexed: Seq,
}

/// Makes the tables of a new log.
pub(crate) fn create(db: &mut Db, meta: &Meta, counters: Counters) -> Result<()> {
    db.begin()?;
    for (_, sql) in TABLES {
        db.once(sql)?;
    }
    let partitions = meta.partitions.to_string();
    let format = FORMAT.to_string();
    let check = meta_sum(&format, &meta.id, &partitions).to_string();
    for (key, value) in
        [("format", &*format), ("id", &*meta.id), ("partitions", &*partitions), ("check", &*check)]
    {
        db.run("INSERT INTO meta VALUES (?, ?)", vec![text(key), text(value)])?;
    }
    write_counters(db, counters)?;
    db.commit()
}

/// When the machine was started that commits have not been synced since, if they have not.
pub(crate) fn boot(db: &mut Db) -> Result<Option<String>> {
    let value =
        db.first("SELECT CAST(value AS BLOB) FROM meta WHERE key = 'boot'", Vec::new(), |row| row.blob(0))?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// Writes who the log is, and what [`boot`] returns from now on.
pub(crate) fn write_identity(db: &mut Db, meta: &Meta, boot: Option<&str>) -> Result<()> {
    let check = meta_sum(&FORMAT.to_string(), &meta.id, &meta.partitions.to_string()).to_string();
    db.begin()?;
    for (key, value) in [("id", Some(&*meta.id)), ("check", Some(&*check)), ("boot", boot)] {
        match value {
            Some(value) => db.run("REPLACE INTO meta VALUES (?, ?)", vec![text(key), text(value)])?,
            None => db.run("DELETE FROM meta WHERE key = ?", vec![text(key)])?,
        }
    }
    db.commit()
}

/// Checks that the file holds the tables that it should, and reads what describes the log.
pub(crate) fn read(db: &mut Db, files: &Files) -> Result<(Meta, Counters)> {
    let encoding =
        db.first("SELECT CAST(encoding AS BLOB) FROM pragma_encoding", Vec::new(), |row| row.blob(0))?;
    let mut tables = Vec::new();
    db.rows(
        "SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid",
        Vec::new(),
        |row| {
            tables.push((row.blob(0)?, row.blob(1)?));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let meta = read_meta(db, files)?;
    let expected = TABLES.iter().map(|(name, sql)| (name.as_bytes().to_vec(), sql.as_bytes().to_vec()));
    if encoding.as_deref() != Some(b"UTF-8") || !tables.into_iter().eq(expected) {
        return Err(error::corrupt(files, "the tables of the log file are damaged"));
    }
    let counters = read_counters(db, files)?;
    Ok((meta, counters))
}

fn read_meta(db: &mut Db, files: &Files) -> Result<Meta> {
    let mut value = |key| {
        let value =
            db.first("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", vec![text(key)], |row| {
                row.blob(0)
            })?;
        value
            .and_then(|value| String::from_utf8(value).ok())
            .ok_or_else(|| error::corrupt(files, "the description of the log is damaged"))
    };
    let (format, id, partitions, check) =
        (value("format")?, value("id")?, value("partitions")?, value("check")?);
    let sound = check == meta_sum(&format, &id, &partitions).to_string();
    match (sound, format.parse::<u64>(), partitions.parse()) {
        (true, Ok(FORMAT), Ok(partitions)) => Ok(Meta { id: id.into(), partitions }),
        (true, Ok(newer), _) if newer > FORMAT => {
            Err(Error::new(ErrorKind::ConfigInvalid, "the log was written by a newer version of s3rep")
                .with_scope(Scope::Process)
                .with_context("file", files.db().display())
                .with_advice("run that version, or begin anew with another `state:` directory"))
        }
        _ => Err(error::corrupt(files, "the description of the log is damaged")),
    }
}

/// Reads the counters.
pub(crate) fn read_counters(db: &mut Db, files: &Files) -> Result<Counters> {
    let found = db.first(
        "SELECT ifnull(CAST(last AS INTEGER), -1), ifnull(CAST(trimmed AS INTEGER), -1), \
         ifnull(CAST(entries AS INTEGER), -1), ifnull(CAST(bytes AS INTEGER), -1), \
         ifnull(CAST(fence AS INTEGER), -1), ifnull(CAST(indexed AS INTEGER), -1), \
         ifnull(CAST(crc AS INTEGER), -1) FROM counters WHERE one = 1",
        Vec::new(),
        |row| {
            let counters = Counters {
                last: Seq(row.number(0)?),
                trimmed: Seq(row.number(1)?),
                entries: row.number(2)?,
                bytes: row.number(3)?,
                fence: row.number(4)?,
                indexed: Seq(row.number(5)?),
            };
            Ok((row.number(6)? == u64::from(counters.sum())).then_some(counters))
        },
    )?;
    found.flatten().ok_or_else(|| error::corrupt(files, "the counters of the log are damaged"))
}

/// Writes the counters.
pub(crate) fn write_counters(db: &mut Db, counters: Counters) -> Result<()> {
    let Counters { last, trimmed, entries, bytes, fence, indexed } = counters;
    let values = [last.0, trimmed.0, entries, bytes, fence, indexed.0, u64::from(counters.sum())];
    db.run("REPLACE INTO counters VALUES (1, ?, ?, ?, ?, ?, ?, ?)", values.into_iter().map(number).collect())
}

impl Counters {
    fn sum(&self) -> u32 {
        sum(&[&self.last.0, &self.trimmed.0, &self.entries, &self.bytes, &self.fence, &self.indexed.0]
            .map(|number| number.to_le_bytes())
            .concat())
    }
}

fn meta_sum(format: &str, id: &str, partitions: &str) -> u32 {
    sum_of(&[format.as_bytes(), id.as_bytes(), partitions.as_bytes()])
}

/// A check sum of several parts, which cannot be had by moving a byte from one to the next.
pub(crate) fn sum_of(parts: &[&[u8]]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
}

fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// A check sum as SQLite holds it.
pub(crate) fn sum_value(sum: u32) -> Value {
    Value::Integer(i64::from(sum))
}
