//! How an entry lies in the log: a head of fixed size, then text.
//!
//! ```text
//!  0 u8   version of this layout
//!  1 u8   operation, and which optional parts there are
//!  2 u16  partition
//!  4 i64  logged at
//! 12 i64  timestamp
//! 20 [16] change id
//! 36 u16  length of the resource's name
//! 38 u16  length of the id
//! 40 u16  length of the schema version
//! 42 u16  length of the target
//! 44 u32  length of the data
//! 48 u32  CRC-32 of everything after the head
//! 52 u32  CRC-32 of the offset and of the 52 bytes before
//! 56 resource, id, schema version, target, data, before: UTF-8, the last two as JSON
//! ```
//!
//! Numbers are little-endian. Two sums instead of one, so that an entry whose text is damaged still tells its
//! partition, and retention can trust a head without reading the text. The offset is part of the sum: an entry
//! that turns up under another offset is damaged, too.

use std::{fmt, sync::Arc};

use s3rep_core::{
    Change, ChangeId, Entry, Error, ErrorKind, Operation, Partition, Record, Result, Scope, Seq, Timestamp,
};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;

use crate::names::Names;

/// Bytes of the head.
pub(crate) const HEAD: usize = 56;

const VERSION: u8 = 1;
const HAS_DATA: u8 = 0x10;
const HAS_BEFORE: u8 = 0x20;
const HAS_TARGET: u8 = 0x40;

/// The JSON reader's limit, counted with the record itself: what is nested deeper could not be read back.
const MAX_DEPTH: usize = 127;
/// Below SQLite's limit of a row.
const MAX_BYTES: usize = 512 << 20;

/// What the head of an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) partition: Partition,
    pub(crate) logged_at: Timestamp,
    pub(crate) change_id: ChangeId,
}

/// Why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// The partition, when the head is sound.
    pub(crate) partition: Option<Partition>,
}

/// Writes a change; [`seal`] completes it when the log has given it an offset.
///
/// # Errors
/// When the change could not be read back.
pub(crate) fn encode(change: &Change, partition: Partition, logged_at: Timestamp) -> Result<Vec<u8>> {
    let refuse = |kind, message: &'static str| {
        Error::new(kind, message)
            .with_scope(Scope::Record)
            .with_operation("append")
            .with_context("resource", &change.resource)
            .with_context("id", &change.id)
    };
    let short = |text: &str| {
        u16::try_from(text.len())
            .map_err(|_| refuse(ErrorKind::TooLarge, "a name is longer than 65,535 bytes"))
    };
    let mut out = Vec::with_capacity(512);
    let flags = [
        (HAS_DATA, change.data.is_some()),
        (HAS_BEFORE, change.before.is_some()),
        (HAS_TARGET, change.target.is_some()),
    ];
    let flags = flags.iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag);
    out.push(VERSION);
    out.push(operation_code(change.operation) | flags);
    out.extend(partition.0.to_le_bytes());
    out.extend(logged_at.0.to_le_bytes());
    out.extend(change.timestamp.0.to_le_bytes());
    out.extend(change.change_id.0);
    let target = change.target.as_deref().unwrap_or_default();
    let names = [&*change.resource, &*change.id, &*change.schema_version, target];
    for name in names {
        out.extend(short(name)?.to_le_bytes());
    }
    out.extend([0; 12]);
    for name in names {
        out.extend(name.as_bytes());
    }
    let data_at = out.len();
    let json = |out: &mut Vec<u8>, record: &Option<Arc<Record>>| {
        let Some(record) = record else { return Ok(()) };
        if !record.values().all(|value| shallower_than(value, MAX_DEPTH - 1)) {
            return Err(refuse(ErrorKind::InvalidValue, "the record is nested too deeply"));
        }
        if serde_json::to_writer(&mut *out, &**record).is_err() {
            return Err(refuse(ErrorKind::InvalidValue, "the record cannot be written as JSON"));
        }
        if out.len() > MAX_BYTES {
            return Err(refuse(ErrorKind::TooLarge, "the record is too large for the log"));
        }
        Ok(())
    };
    json(&mut out, &change.data)?;
    let data_len = (out.len() - data_at) as u32;
    out[44..48].copy_from_slice(&data_len.to_le_bytes());
    json(&mut out, &change.before)?;
    let sum = crc32fast::hash(&out[HEAD..]);
    out[48..52].copy_from_slice(&sum.to_le_bytes());
    Ok(out)
}

/// Binds an encoded change to its offset.
pub(crate) fn seal(entry: &mut [u8], seq: Seq) {
    let sum = head_sum(entry, seq);
    entry[52..HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// The id of an encoded change.
pub(crate) fn change_id(entry: &[u8]) -> ChangeId {
    ChangeId(array(entry, 20))
}

/// Reads a head; `None` when it is damaged.
pub(crate) fn head(entry: &[u8], seq: Seq) -> Option<Head> {
    if entry.len() < HEAD
        || entry[0] != VERSION
        || u32::from_le_bytes(array(entry, 52)) != head_sum(entry, seq)
    {
        return None;
    }
    Some(Head {
        partition: Partition(u16::from_le_bytes(array(entry, 2))),
        logged_at: Timestamp(i64::from_le_bytes(array(entry, 4))),
        change_id: change_id(entry),
    })
}

/// Reads an entry.
pub(crate) fn decode(entry: &[u8], seq: Seq, names: &mut Names) -> Result<Entry, Damaged> {
    let head = head(entry, seq).ok_or(Damaged { partition: None })?;
    let damaged = || Damaged { partition: Some(head.partition) };
    if crc32fast::hash(&entry[HEAD..]) != u32::from_le_bytes(array(entry, 48)) {
        return Err(damaged());
    }
    let change = decode_change(entry, &head, names).ok_or_else(damaged)?;
    Ok(Entry { seq, partition: head.partition, logged_at: head.logged_at, change })
}

fn decode_change(entry: &[u8], head: &Head, names: &mut Names) -> Option<Change> {
    let mut rest = std::str::from_utf8(&entry[HEAD..]).ok()?;
    let mut take = |len: usize| {
        let (text, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(text)
    };
    let mut name = |at| take(usize::from(u16::from_le_bytes(array(entry, at))));
    let (resource, id, schema_version, target) = (name(36)?, name(38)?, name(40)?, name(42)?);
    let data = take(usize::try_from(u32::from_le_bytes(array(entry, 44))).ok()?)?;
    let flags = entry[1];
    // Records of one resource are alike: what the last one needed is what this one will need.
    let members = &mut names.members;
    let mut record = |flag: u8, text: &str| match flags & flag {
        0 => Some(None),
        _ => parse(text, members).map(|record| Some(Arc::new(record))),
    };
    let (data, before) = (record(HAS_DATA, data)?, record(HAS_BEFORE, rest)?);
    Some(Change {
        change_id: head.change_id,
        resource: names.shared(resource),
        id: id.into(),
        operation: operation_of(flags & 0x0f)?,
        data,
        before,
        timestamp: Timestamp(i64::from_le_bytes(array(entry, 12))),
        schema_version: names.shared(schema_version),
        target: (flags & HAS_TARGET != 0).then(|| names.shared(target)),
    })
}

/// Reads a record into a map that is made for `members` at once, which `serde_json` by itself would let grow
/// step by step.
fn parse(text: &str, members: &mut usize) -> Option<Record> {
    struct Members(usize);
    impl<'de> Visitor<'de> for Members {
        type Value = Record;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a record")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
            let mut record = Record::with_capacity(self.0);
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                record.insert(name, value);
            }
            Ok(record)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let record = json.deserialize_map(Members(*members)).ok()?;
    json.end().ok()?;
    *members = record.len();
    Some(record)
}

fn head_sum(entry: &[u8], seq: Seq) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&seq.0.to_le_bytes());
    hash.update(&entry[..52]);
    hash.finalize()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn shallower_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(values) => depth > 0 && values.iter().all(|value| shallower_than(value, depth - 1)),
        Value::Object(members) => depth > 0 && members.values().all(|value| shallower_than(value, depth - 1)),
        _ => true,
    }
}

const fn operation_code(operation: Operation) -> u8 {
    match operation {
        Operation::Insert => 1,
        Operation::Update => 2,
        Operation::Delete => 3,
        Operation::Read => 4,
    }
}

const fn operation_of(code: u8) -> Option<Operation> {
    Some(match code {
        1 => Operation::Insert,
        2 => Operation::Update,
        3 => Operation::Delete,
        4 => Operation::Read,
        _ => return None,
    })
}
