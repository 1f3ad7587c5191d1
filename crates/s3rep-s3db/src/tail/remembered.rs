//! What is remembered of each record: by the tail, and by the outbox for it.

use s3rep_core::{
    Change, ChangeId, Context, Error, ErrorKind, Record, Result, SourceState, StateWrite, Timestamp,
};

use super::state::corrupt;

const FORMAT: u8 = 1;
const SETTLED: u8 = 1;
const GONE: u8 = 2;

/// The space with the records of a resource.
pub(crate) fn space(resource: &str) -> String {
    format!("tail:{resource}")
}

/// The resource of such a space.
pub(crate) fn resource_of(space: &str) -> Option<&str> {
    space.strip_prefix("tail:")
}

/// What is remembered of one record.
///
/// Layout: format, flags, change id (16), length of the token (2, little endian), token, then the record as
/// JSON text, or for a record that is gone the time of that (8, little endian, milliseconds).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Remembered<'a> {
    /// The last change captured of the record.
    pub(crate) change: ChangeId,
    pub(crate) token: &'a [u8],
    /// The token is sure to change with the next write.
    pub(crate) settled: bool,
    pub(crate) content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content<'a> {
    /// The record as JSON text.
    Record(&'a [u8]),
    /// The record was deleted. It is remembered for a while, so that a record which comes back has change ids
    /// of its own even where tokens have the resolution of a second.
    Gone(Timestamp),
}

impl<'a> Remembered<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
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

    pub(crate) fn write(&self) -> Vec<u8> {
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
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        match self.content {
            Content::Record(text) => serde_json::from_slice(text).map(Some).map_err(|_| corrupt()),
            Content::Gone(_) => Ok(None),
        }
    }
}

/// The record as the log has told of it last, if it is remembered and not gone.
pub(crate) async fn record(
    cx: &Context,
    state: &dyn SourceState,
    resource: &str,
    id: &str,
) -> Result<Option<Record>> {
    let value = state.get(cx, &space(resource), id).await?;
    value.map_or(Ok(None), |value| Remembered::read(&value)?.record())
}

/// Remembers a record as a change of it left it. The store's token is not known: the tail looks at the record
/// once more and finds it unchanged.
pub(crate) fn write(change: &Change) -> Result<StateWrite> {
    let text;
    let content = match &change.data {
        Some(record) if change.operation != s3rep_core::Operation::Delete => {
            text = serde_json::to_vec(record).map_err(|error| {
                Error::new(ErrorKind::Unexpected, "a record cannot be printed").with_source(error)
            })?;
            Content::Record(&text)
        }
        _ => Content::Gone(change.timestamp),
    };
    let value = Remembered { change: change.change_id, token: &[], settled: false, content }.write();
    Ok(StateWrite { space: space(&change.resource), key: change.id.to_string(), value: Some(value) })
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
