//! What the tail source remembers between passes.

use std::vec;

use s3rep_core::{ChangeId, Context, Error, ErrorKind, Record, Result, SourceState, StateWrite, Timestamp};
use serde::{Deserialize, Serialize};

/// The space with the [`Progress`] of each resource.
pub(super) const PROGRESS: &str = "tail";
/// The space with what concerns the whole database.
pub(super) const DATABASE: &str = "tail-database";
/// The key in [`DATABASE`] of the names of all resources at the last complete pass.
pub(super) const NAMES: &str = "resources";

/// Entries read from the state at once.
const SCAN: usize = 4096;

const FORMAT: u8 = 1;
const SETTLED: u8 = 1;
const GONE: u8 = 2;

/// The space with the records of a resource.
pub(super) fn space(resource: &str) -> String {
    format!("tail:{resource}")
}

/// What is remembered of one record.
///
/// Layout: format, flags, change id (16), length of the token (2, little endian), token, then the record as
/// JSON text, or for a record that is gone the time of that (8, little endian, milliseconds).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Remembered<'a> {
    /// The last change captured of the record.
    pub(super) change: ChangeId,
    pub(super) token: &'a [u8],
    /// The token is sure to change with the next write.
    pub(super) settled: bool,
    pub(super) content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content<'a> {
    /// The record as JSON text.
    Record(&'a [u8]),
    /// The record was deleted. It is remembered for a while, so that a record which comes back has change ids
    /// of its own even where tokens have the resolution of a second.
    Gone(Timestamp),
}

impl<'a> Remembered<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        Self::parse(bytes).ok_or_else(corrupt)
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[format, flags], rest) = bytes.split_first_chunk()?;
        let (change, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (token, content) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        (format == FORMAT).then_some(Self {
            change: ChangeId(*change),
            token,
            settled: flags & SETTLED != 0,
            content: if flags & GONE == 0 {
                Content::Record(content)
            } else {
                Content::Gone(Timestamp(i64::from_le_bytes(content.try_into().ok()?)))
            },
        })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let time;
        let (flag, content) = match self.content {
            Content::Record(text) => (0, text),
            Content::Gone(at) => {
                time = at.0.to_le_bytes();
                (GONE, &time[..])
            }
        };
        let flags = flag | if self.settled { SETTLED } else { 0 };
        // A token longer than its length can say is cut: then it is compared cut, and never trusted.
        let length = u16::try_from(self.token.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(20 + self.token.len() + content.len());
        bytes.extend([FORMAT, flags]);
        bytes.extend(self.change.0);
        bytes.extend(length.to_le_bytes());
        bytes.extend(&self.token[..length.into()]);
        bytes.extend(content);
        bytes
    }

    /// The record, `None` when it is gone.
    pub(super) fn record(&self) -> Result<Option<Record>> {
        match self.content {
            Content::Record(text) => serde_json::from_slice(text).map(Some).map_err(|_| corrupt()),
            Content::Gone(_) => Ok(None),
        }
    }
}

/// How far a resource has been followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Digest of the definition that the remembered records were decoded with.
    pub(super) definition: String,
    /// Its version, such as `v1`.
    pub(super) version: String,
    /// The first pass over the resource is not complete: records not seen before are rows of a snapshot, not
    /// inserts.
    pub(super) snapshot: bool,
}

impl Progress {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|_| corrupt())
    }

    pub(super) fn write(&self, resource: &str) -> Result<StateWrite> {
        json_write(PROGRESS, resource, self)
    }
}

/// A state write of a value as JSON text.
pub(super) fn json_write(space: &str, key: &str, value: &impl Serialize) -> Result<StateWrite> {
    let value = serde_json::to_vec(value).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "the state of the source cannot be printed").with_source(error)
    })?;
    Ok(StateWrite { space: space.to_owned(), key: key.to_owned(), value: Some(value) })
}

pub(super) fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "what the tail source remembers cannot be read")
        .with_advice("remove the state directory: destinations are then filled anew from a snapshot")
}

/// A space, entry by entry, read in pages.
pub(super) struct Scan<'a> {
    cx: &'a Context,
    state: &'a dyn SourceState,
    space: String,
    page: vec::IntoIter<(String, Vec<u8>)>,
    /// The last key that was read; `None` before the first.
    last: Option<String>,
    ended: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        cx: &'a Context,
        state: &'a dyn SourceState,
        space: String,
        after: Option<&str>,
    ) -> Self {
        let last = after.map(str::to_owned);
        Self { cx, state, space, page: Vec::new().into_iter(), last, ended: false }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.page.as_slice().is_empty() && !self.ended {
            let page = self.state.scan(self.cx, &self.space, self.last.as_deref(), SCAN).await?;
            self.ended = page.len() < SCAN;
            self.last = page.last().map(|(key, _)| key.clone()).or(self.last.take());
            self.page = page.into_iter();
        }
        Ok(())
    }

    /// The next entry if its key is at most `id`.
    pub(super) async fn next_until(&mut self, id: &str) -> Result<Option<(String, Vec<u8>)>> {
        self.fill().await?;
        match self.page.as_slice().first() {
            Some((key, _)) if key.as_str() <= id => Ok(self.page.next()),
            _ => Ok(None),
        }
    }

    /// The next entry.
    pub(super) async fn next(&mut self) -> Result<Option<(String, Vec<u8>)>> {
        self.fill().await?;
        Ok(self.page.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for content in [Content::Record(b"{\"a\":1}"), Content::Gone(Timestamp(-7))] {
            for settled in [true, false] {
                let remembered = Remembered { change: ChangeId([7; 16]), token: b"token", settled, content };
                assert_eq!(Remembered::read(&remembered.write()).unwrap(), remembered);
            }
        }
    }

    #[test]
    fn cut_or_foreign_bytes_are_an_error() {
        let content = Content::Gone(Timestamp(1));
        let bytes = Remembered { change: ChangeId([7; 16]), token: b"t", settled: true, content }.write();
        for end in 0..bytes.len() {
            assert!(Remembered::read(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Remembered::read(&[&[9], &bytes[1..]].concat()).is_err());
    }
}
