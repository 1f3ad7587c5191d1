//! Puts changes and state writes together into pages.

use s3rep_core::{Capture, Change, Result, StateWrite};

/// Changes in one page at most.
const CHANGES: usize = 1_000;
/// Bytes in one page, counted by the texts of its records.
const BYTES: usize = 4 << 20;
/// State writes in one page, when there are no changes with them.
const WRITES: usize = 4_096;

/// A page being filled.
pub(super) struct Page<'a> {
    capture: &'a mut dyn Capture,
    changes: Vec<Change>,
    writes: Vec<StateWrite>,
    bytes: usize,
    /// Changes handed over so far.
    pub(super) captured: u64,
}

impl<'a> Page<'a> {
    pub(super) fn new(capture: &'a mut dyn Capture) -> Self {
        Self { capture, changes: Vec::new(), writes: Vec::new(), bytes: 0, captured: 0 }
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
        if self.changes.is_empty() && self.writes.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let count = self.changes.len() as u64;
        self.capture.page(std::mem::take(&mut self.changes), std::mem::take(&mut self.writes)).await?;
        self.captured += count;
        Ok(())
    }
}
