//! Puts changes and state writes together into pages.

use std::collections::HashSet;

use s3rep_core::{Capture, Change, Error, ErrorKind, Result, StateWrite};

use super::remembered;
use crate::outbox::{Key, Outbox};

/// Changes in one page at most.
const CHANGES: usize = 1_000;
/// Bytes in one page, counted by the texts of its records.
const BYTES: usize = 4 << 20;
/// State writes in one page, when there are no changes with them.
const WRITES: usize = 4_096;

/// A page being filled.
pub(super) struct Page<'a> {
    capture: &'a mut dyn Capture,
    /// Its writers tell of the records that they are at.
    outbox: Option<&'a Outbox>,
    /// Records are looked at for another reason than that they changed: a writer of one who is refused would not
    /// tell of it, and is waited for.
    pub(super) reread: bool,
    changes: Vec<Change>,
    writes: Vec<StateWrite>,
    bytes: usize,
    /// Changes handed over so far.
    pub(super) captured: u64,
}

impl<'a> Page<'a> {
    pub(super) fn new(capture: &'a mut dyn Capture, outbox: Option<&'a Outbox>) -> Self {
        Self {
            capture,
            outbox,
            reread: false,
            changes: Vec::new(),
            writes: Vec::new(),
            bytes: 0,
            captured: 0,
        }
    }

    pub(super) fn capture(&mut self) -> &mut dyn Capture {
        self.capture
    }

    /// Adds a change; `bytes` is about the length of its records. The write that remembers it comes next.
    pub(super) fn change(&mut self, change: Change, bytes: usize) {
        self.bytes += bytes;
        self.changes.push(change);
    }

    pub(super) fn write(&mut self, write: StateWrite) {
        self.bytes += write.value.as_ref().map_or(0, Vec::len);
        self.writes.push(write);
    }

    pub(super) fn is_full(&self) -> bool {
        // One record can bring two changes.
        self.changes.len() + 1 >= CHANGES || self.bytes >= BYTES || self.writes.len() >= WRITES
    }

    /// Hands the page over when it is full. To be called between records only, so that a change and the write
    /// that remembers it are never torn apart.
    pub(super) async fn turn(&mut self) -> Result<()> {
        if self.is_full() { self.flush().await } else { Ok(()) }
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        let (mut changes, mut writes) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.writes));
        self.bytes = 0;
        let claim = match self.outbox {
            Some(outbox) => {
                let of_changes = changes.iter().map(key_of_change);
                let keys: HashSet<Key> = writes.iter().filter_map(key_of_write).chain(of_changes).collect();
                let rows: HashSet<Key> =
                    changes.iter().filter(|change| change.target.is_some()).map(key_of_change).collect();
                let waited_for = if self.reread { &keys } else { &rows };
                let claim = outbox.claim_page(&keys, waited_for).await;
                if let Some((resource, id)) = rows.iter().find(|row| claim.unresolved.contains(*row)) {
                    // Were the row left out, nothing would bring it later.
                    return Err(Error::new(ErrorKind::Contention, "a write of the record was cut off")
                        .temporary()
                        .with_context("resource", resource)
                        .with_context("id", id));
                }
                changes.retain(|change| !claim.taken.contains(&key_of_change(change)));
                writes.retain(|write| key_of_write(write).is_none_or(|key| !claim.taken.contains(&key)));
                Some(claim)
            }
            None => None,
        };
        if changes.is_empty() && writes.is_empty() {
            return Ok(());
        }
        let count = changes.len() as u64;
        self.capture.page(changes, writes).await?;
        drop(claim);
        self.captured += count;
        Ok(())
    }
}

fn key_of_change(change: &Change) -> Key {
    (change.resource.clone(), change.id.clone())
}

/// The record that a write remembers, if it is one of a record.
fn key_of_write(write: &StateWrite) -> Option<Key> {
    let resource = remembered::resource_of(&write.space)?;
    Some((resource.into(), write.key.as_str().into()))
}
