//! The state of sources: keys and values that move with the log.

use std::ops::ControlFlow;

use libsql::Value;
use s3rep_core::{Result, StateWrite};

use crate::{
    schema::{sum_of, sum_value},
    sqlite::{Db, text},
};

/// Keys and values, in order.
pub(crate) type Pairs = Vec<(String, Vec<u8>)>;
/// Spaces and keys of rows that cannot be trusted, byte for byte.
pub(crate) type DamagedKeys = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes or forgets one key.
pub(crate) fn write(db: &mut Db, write: &StateWrite) -> Result<()> {
    let StateWrite { space, key, value } = write;
    let mut values = vec![text(space), text(key)];
    match value {
        Some(value) => {
            values.push(Value::Blob(value.clone()));
            values.push(sum_value(sum(space.as_bytes(), key.as_bytes(), value)));
            db.run("REPLACE INTO state VALUES (?, ?, ?, ?)", values)
        }
        None => db.run("DELETE FROM state WHERE space = ? AND key = ?", values),
    }
}

/// Forgets a row as it stands on the disk.
pub(crate) fn forget(db: &mut Db, space: &[u8], key: &[u8]) -> Result<()> {
    let values = vec![Value::Blob(space.to_vec()), Value::Blob(key.to_vec())];
    db.run("DELETE FROM state WHERE CAST(space AS BLOB) = ? AND CAST(key AS BLOB) = ?", values)
}

/// One value; `Err` in the result when it is damaged.
pub(crate) fn get(db: &mut Db, space: &str, key: &str) -> Result<Result<Option<Vec<u8>>, DamagedKeys>> {
    let sql =
        "SELECT CAST(value AS BLOB), ifnull(CAST(crc AS INTEGER), -1) FROM state WHERE space = ? AND key = ?";
    let found = db.first(sql, vec![text(space), text(key)], |row| {
        let value = row.blob(0)?;
        let sound = row.number(1)? == u64::from(sum(space.as_bytes(), key.as_bytes(), &value));
        Ok(sound.then_some(value))
    })?;
    Ok(match found {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value)),
        Some(None) => Err(vec![(space.as_bytes().to_vec(), key.as_bytes().to_vec())]),
    })
}

/// A page of a space, and the rows in it that are damaged.
pub(crate) fn scan(
    db: &mut Db,
    space: &str,
    after: Option<&str>,
    max: usize,
) -> Result<(Pairs, DamagedKeys)> {
    let (mut pairs, mut damaged) = (Vec::new(), Vec::new());
    let each = |row: &crate::sqlite::Cells<'_>| {
        if pairs.len() >= max {
            return Ok(ControlFlow::Break(()));
        }
        let (key, value) = (row.blob(0)?, row.blob(1)?);
        let sound = row.number(2)? == u64::from(sum(space.as_bytes(), &key, &value));
        match (sound, String::from_utf8(key)) {
            (true, Ok(key)) => pairs.push((key, value)),
            (_, Ok(key)) => damaged.push((space.as_bytes().to_vec(), key.into_bytes())),
            (_, Err(key)) => damaged.push((space.as_bytes().to_vec(), key.into_bytes())),
        }
        Ok(ControlFlow::Continue(()))
    };
    match after {
        Some(after) => db.rows(
            "SELECT CAST(key AS BLOB), CAST(value AS BLOB), ifnull(CAST(crc AS INTEGER), -1) FROM state WHERE space = ? AND key > ? ORDER BY key",
            vec![text(space), text(after)],
            each,
        )?,
        None => db.rows(
            "SELECT CAST(key AS BLOB), CAST(value AS BLOB), ifnull(CAST(crc AS INTEGER), -1) FROM state WHERE space = ? ORDER BY key",
            vec![text(space)],
            each,
        )?,
    }
    Ok((pairs, damaged))
}

fn sum(space: &[u8], key: &[u8], value: &[u8]) -> u32 {
    sum_of(&[space, key, value])
}
