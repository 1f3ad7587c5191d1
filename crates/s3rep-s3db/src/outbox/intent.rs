//! What is written down before an object is.

use std::sync::Arc;

use s3rep_core::{ChangeId, Error, ErrorKind, Operation, Record, Result, StateWrite, Timestamp};
use serde::{Deserialize, Serialize};

use super::claims::Key;

/// The space of the state with the open intents.
pub(super) const SPACE: &str = "outbox";

/// A write that is about to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intent {
    /// The id of the change that it makes.
    pub(crate) change: ChangeId,
    /// What it does.
    pub(crate) operation: Operation,
    /// The record before it, `None` when there was none, or none that can be decoded.
    pub(crate) before: Option<Arc<Record>>,
    /// There was one that cannot be decoded.
    pub(crate) undecodable: bool,
    /// When it was made.
    pub(crate) timestamp: Timestamp,
}

/// A record as its writer found it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Absent,
    Undecodable,
    Record(Arc<Record>),
}

impl Found {
    pub(crate) fn record(&self) -> Option<Arc<Record>> {
        match self {
            Self::Record(record) => Some(record.clone()),
            Self::Absent | Self::Undecodable => None,
        }
    }
}

/// As it lies in the state: JSON, so that an operator can read it.
#[derive(Serialize, Deserialize)]
struct Stored {
    change: String,
    operation: Operation,
    before: Option<Arc<Record>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undecodable: bool,
    timestamp: i64,
}

impl Intent {
    pub(super) fn write(&self, key: &Key) -> Result<StateWrite> {
        let stored = Stored {
            change: self.change.to_string(),
            operation: self.operation,
            before: self.before.clone(),
            undecodable: self.undecodable,
            timestamp: self.timestamp.0,
        };
        let value = serde_json::to_vec(&stored).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a record cannot be printed").with_source(error)
        })?;
        Ok(StateWrite { space: SPACE.to_owned(), key: state_key(key), value: Some(value) })
    }

    pub(super) fn read(value: &[u8]) -> Result<Self> {
        let stored: Stored = serde_json::from_slice(value).map_err(|_| corrupt())?;
        Ok(Self {
            change: stored.change.parse().map_err(|_| corrupt())?,
            operation: stored.operation,
            before: stored.before,
            undecodable: stored.undecodable,
            timestamp: Timestamp(stored.timestamp),
        })
    }
}

/// The write that forgets an intent.
pub(super) fn forget(key: &Key) -> StateWrite {
    StateWrite { space: SPACE.to_owned(), key: state_key(key), value: None }
}

/// Names of resources have no `/`.
pub(super) fn state_key((resource, id): &Key) -> String {
    format!("{resource}/{id}")
}

pub(super) fn key_of(state_key: &str) -> Result<Key> {
    let (resource, id) = state_key.split_once('/').ok_or_else(corrupt)?;
    Ok((resource.into(), id.into()))
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "an open intent of the outbox cannot be read")
        .with_advice("remove the state directory: destinations are then filled anew from a snapshot")
}
