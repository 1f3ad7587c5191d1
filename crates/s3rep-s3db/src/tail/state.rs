//! What the tail source remembers between passes.

use std::vec;

use s3rep_core::{Context, Error, ErrorKind, Result, SourceState, StateWrite};
use serde::{Deserialize, Serialize};

/// The space with the [`Progress`] of each resource.
pub(super) const PROGRESS: &str = "tail";
/// The space with what concerns the whole database.
pub(super) const DATABASE: &str = "tail-database";
/// The key in [`DATABASE`] of the names of all resources at the last complete pass.
pub(super) const NAMES: &str = "resources";

/// Entries read from the state at once.
const SCAN: usize = 4096;

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
