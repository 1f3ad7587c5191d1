//! What the writer lets readers of this process know at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use s3rep_core::{Page, Seq};
use tokio::sync::watch;

use crate::{codec, names::Names, recent::Recent, schema::Counters};

/// The counters of the log, and its newest entries.
#[derive(Debug)]
pub(crate) struct Live {
    counters: watch::Sender<Counters>,
    recent: Mutex<Recent>,
}

impl Live {
    pub(crate) fn new(counters: Counters) -> Self {
        Self { counters: watch::Sender::new(counters), recent: Mutex::default() }
    }

    /// Makes a transaction known.
    pub(crate) fn publish(&self, counters: Counters, appended: &mut Recent) {
        self.recent().append(appended);
        self.counters.send_if_modified(|seen| std::mem::replace(seen, counters) != counters);
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// Waits until there is an entry after this one.
    pub(crate) async fn appended_after(&self, after: Seq) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.counters.subscribe().wait_for(|seen| seen.last > after).await;
    }

    /// The entries after `after`, when they are among the newest.
    pub(crate) fn page(&self, after: Seq, max_entries: usize, max_bytes: usize) -> Option<Page> {
        let stored = self.recent().after(after, max_entries, max_bytes)?;
        let mut names = Names::default();
        let mut page = Page { next: after, ..Page::default() };
        for (seq, entry) in stored {
            page.entries.push(codec::decode(&entry, seq, &mut names).ok()?);
            page.next = seq;
        }
        Some(page)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
