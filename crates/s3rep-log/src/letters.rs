//! Dead letters: each keeps its change, because the log forgets the entry.

use std::ops::ControlFlow;

use libsql::Value;
use s3rep_core::{DeadLetter, Partition, Result, Seq, Timestamp};

use crate::{
    codec,
    names::Names,
    schema::{sum_of, sum_value},
    sqlite::{Cells, Db, number, text},
};

/// The offsets and tables of letters that cannot be read, byte for byte.
pub(crate) type DamagedLetters = Vec<(Seq, Vec<u8>)>;

/// Writes a letter, in place of an older one about the same change and table.
pub(crate) fn write(db: &mut Db, replicator: &str, letter: &DeadLetter, partitions: u16) -> Result<()> {
    let partition = Partition::of(&letter.change.resource, &letter.change.id, partitions);
    let mut entry = codec::encode(&letter.change, partition, letter.parked_at)?;
    codec::seal(&mut entry, letter.seq);
    let sum =
        sum(replicator.as_bytes(), letter.table.as_bytes(), letter.attempts, letter.error.as_bytes(), &entry);
    let values = vec![
        text(replicator),
        number(letter.seq.0),
        text(&letter.table),
        Value::Integer(i64::from(letter.attempts)),
        Value::Integer(letter.parked_at.0),
        text(&letter.error),
        Value::Blob(entry),
        sum_value(sum),
    ];
    db.run("REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
}

/// Forgets a letter.
pub(crate) fn remove(db: &mut Db, replicator: &str, seq: Seq, table: &str) -> Result<()> {
    db.run(
        "DELETE FROM dead_letters WHERE replicator = ? AND seq = ? AND destination = ?",
        vec![text(replicator), number(seq.0), text(table)],
    )
}

/// Forgets every letter of a replicator.
pub(crate) fn remove_all(db: &mut Db, replicator: &str) -> Result<()> {
    db.run("DELETE FROM dead_letters WHERE replicator = ?", vec![text(replicator)])
}

/// How many letters a replicator has.
pub(crate) fn count(db: &mut Db, replicator: &str) -> Result<u64> {
    let sql = "SELECT count(*) FROM dead_letters WHERE replicator = ?";
    Ok(db.first(sql, vec![text(replicator)], |row| row.number(0))?.unwrap_or(0))
}

/// Forgets a letter as it stands on the disk.
pub(crate) fn remove_damaged(db: &mut Db, replicator: &str, seq: Seq, table: &[u8]) -> Result<()> {
    db.run(
        "DELETE FROM dead_letters WHERE replicator = ? AND seq = ? AND CAST(destination AS BLOB) = ?",
        vec![text(replicator), number(seq.0), Value::Blob(table.to_vec())],
    )
}

/// A page of letters, and the places of those that cannot be read.
pub(crate) fn page(
    db: &mut Db,
    replicator: &str,
    after: Seq,
    max: usize,
    names: &mut Names,
) -> Result<(Vec<DeadLetter>, DamagedLetters)> {
    let sql = "SELECT ifnull(CAST(seq AS INTEGER), -1), CAST(destination AS BLOB), ifnull(CAST(attempts AS INTEGER), -1), \
               CAST(error AS BLOB), \
               CAST(entry AS BLOB), ifnull(CAST(crc AS INTEGER), -1) FROM dead_letters WHERE replicator = ? AND seq > ? \
               ORDER BY seq, destination";
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut damaged = Vec::new();
    db.rows(sql, vec![text(replicator), number(after.0)], |row| {
        let seq = Seq(row.number(0)?);
        // Letters of one offset stay together, or the next page would miss the rest of them.
        if letters.len() >= max && letters.last().is_none_or(|last| last.seq != seq) {
            return Ok(ControlFlow::Break(()));
        }
        match read(row, replicator, seq, names) {
            Some(letter) => letters.push(letter),
            None => damaged.push((seq, row.blob(1)?)),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((letters, damaged))
}

fn read(row: &Cells<'_>, replicator: &str, seq: Seq, names: &mut Names) -> Option<DeadLetter> {
    let (table, error, entry) = (row.blob(1).ok()?, row.blob(3).ok()?, row.blob(4).ok()?);
    let attempts = u32::try_from(row.number(2).ok()?).ok()?;
    if row.number(5).ok()? != u64::from(sum(replicator.as_bytes(), &table, attempts, &error, &entry)) {
        return None;
    }
    let entry = codec::decode(&entry, seq, names).ok()?;
    Some(DeadLetter {
        seq,
        table: names.shared(std::str::from_utf8(&table).ok()?),
        change: entry.change,
        error: String::from_utf8(error).ok()?,
        attempts,
        parked_at: Timestamp(entry.logged_at.0),
    })
}

fn sum(replicator: &[u8], table: &[u8], attempts: u32, error: &[u8], entry: &[u8]) -> u32 {
    sum_of(&[replicator, table, &attempts.to_le_bytes(), error, entry])
}
