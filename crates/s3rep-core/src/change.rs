//! What happened to a record, and where the log put it.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Timestamp};

/// A document: a JSON object that keeps the order of its keys.
pub type Record = serde_json::Map<String, serde_json::Value>;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The first version of the record.
    Insert,
    /// A later version; the change holds the whole record.
    Update,
    /// The record is gone.
    Delete,
    /// Found by a snapshot, not observed as a change.
    Read,
}

impl Operation {
    /// The name in the present tense, as in columns and messages: `insert`, `update`, `delete`, `read`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = Error;

    /// Reads both spellings of the documents: `insert` and `inserted`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "insert" | "inserted" => Ok(Self::Insert),
            "update" | "updated" => Ok(Self::Update),
            "delete" | "deleted" => Ok(Self::Delete),
            "read" => Ok(Self::Read),
            _ => Err(Error::new(ErrorKind::ConfigInvalid, format!("there is no operation '{text}'"))
                .with_advice("use insert, update or delete")),
        }
    }
}

/// The identity of a change: the same change has the same id however often it is captured or replayed.
///
/// Printed and parsed as 32 hexadecimal digits. Destinations that cannot hold a cursor deduplicate on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeId(pub [u8; 16]);

impl ChangeId {
    /// The id of what `version` names: an operation on one record, told apart from every other operation on
    /// it by a version token of the source and by the change that came before.
    ///
    /// `previous` makes ids unique when a record returns to an earlier content within the resolution of the
    /// version token (a second, on S3).
    pub fn derive(
        resource: &str,
        id: &str,
        operation: Operation,
        version: &[u8],
        previous: Option<ChangeId>,
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [resource.as_bytes(), id.as_bytes(), operation.as_str().as_bytes(), version] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        if let Some(previous) = previous {
            hash.update(previous.0);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChangeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::new(ErrorKind::InvalidValue, "a change id has 32 hexadecimal digits");
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(invalid());
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

/// One insert, update, delete or snapshot row of one record, as a source captured it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Deterministic identity.
    pub change_id: ChangeId,
    /// The resource (collection) of the record.
    pub resource: Arc<str>,
    /// The record's id, unique in its resource.
    pub id: Arc<str>,
    /// What happened.
    pub operation: Operation,
    /// The whole record after the change. For a delete the last known record, or `None` when only the id is
    /// known. Without the `id` member's guarantee: sinks take the id from [`Change::id`].
    pub data: Option<Arc<Record>>,
    /// The whole record before the change, when the source has it.
    pub before: Option<Arc<Record>>,
    /// When the source saw the change committed.
    pub timestamp: Timestamp,
    /// The version of the resource's schema that `data` was decoded with, such as `v1`.
    pub schema_version: Arc<str>,
    /// The one replicator that this change is for (a snapshot row asked for by it); `None` means all.
    pub target: Option<Arc<str>>,
}

/// A slice of the key space: `hash(resource, id) % partitions`.
///
/// Changes of one record are always in the same partition and never reordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of a record in a log of `partitions` partitions. FNV-1a, fixed for ever: stored
    /// cursors depend on it.
    pub fn of(resource: &str, id: &str, partitions: u16) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in resource.bytes().chain([0]).chain(id.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(((hash ^ (hash >> 32)) % u64::from(partitions.max(1))) as u16)
    }
}

/// A position in the log. Starts at 1, only grows, is never reused; 0 stands before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A change with the place that the log gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Total order over the whole log.
    pub seq: Seq,
    /// The slice of the key space that the record belongs to.
    pub partition: Partition,
    /// When the log took it: lag is now minus this.
    pub logged_at: Timestamp,
    /// What happened.
    pub change: Change,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_ids_differ_by_every_part_and_survive_text() {
        let id = |r: &str, i: &str, o, v: &[u8], p| ChangeId::derive(r, i, o, v, p);
        let base = id("ab", "c", Operation::Insert, b"1", None);
        let others = [
            id("a", "bc", Operation::Insert, b"1", None),
            id("ab", "c", Operation::Update, b"1", None),
            id("ab", "c", Operation::Insert, b"2", None),
            id("ab", "c", Operation::Insert, b"1", Some(base)),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(base.to_string().parse::<ChangeId>().unwrap(), base);
        assert!("zz".parse::<ChangeId>().is_err());
        assert!("é23456789012345678901234567890f".parse::<ChangeId>().is_err());
    }

    #[test]
    fn partitions_are_fixed_for_ever_and_spread() {
        assert_eq!(Partition::of("cars", "car-001", 16), Partition::of("cars", "car-001", 16));
        let mut hits = [0; 16];
        for i in 0..16_000 {
            hits[usize::from(Partition::of("cars", &format!("car-{i:05}"), 16).0)] += 1;
        }
        assert!(hits.iter().all(|n| (700..1300).contains(n)), "{hits:?}");
    }
}
