//! Who may say what became of a record: its writer, or a pass over the database.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// A record: resource and id.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// A write and a pass both see that a record changed. A record is claimed by one of them at a time, so that its
/// change is captured once.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
    page_done: Notify,
    write_done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Records whose writers have not settled yet, with their numbers.
    writing: HashMap<Key, u64>,
    /// The number of the last writer.
    last: u64,
    /// Records whose writers were cut off: what became of them is to be looked up.
    unresolved: HashSet<Key>,
    /// Records in the page that a pass is handing over at this moment.
    in_page: HashSet<Key>,
    /// Records settled since the pass began: what it read of them may be older than that.
    settled: Option<HashSet<Key>>,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a record for a writer, after the page that it may be in. Cancel-safe.
    pub(super) async fn claim(&self, key: &Key) {
        loop {
            let page_done = self.page_done.notified();
            {
                let mut state = self.state();
                if !state.in_page.contains(key) {
                    state.last += 1;
                    let number = state.last;
                    state.writing.insert(key.clone(), number);
                    return;
                }
            }
            page_done.await;
        }
    }

    /// Gives a record back whose change is settled.
    pub(super) fn settle(&self, key: &Key) {
        let mut state = self.state();
        state.writing.remove(key);
        state.unresolved.remove(key);
        if let Some(settled) = &mut state.settled {
            settled.insert(key.clone());
        }
        self.write_done.notify_waiters();
    }

    /// Gives a record back of which nothing was written.
    pub(super) fn release(&self, key: &Key) {
        self.state().writing.remove(key);
        self.write_done.notify_waiters();
    }

    /// Nothing had come of a write that was cut off. What a pass has read of the record meanwhile holds.
    pub(super) fn nothing_came_of(&self, key: &Key) {
        self.state().unresolved.remove(key);
        self.write_done.notify_waiters();
    }

    /// Gives a record back whose intent is in the log.
    pub(super) fn cut_off(&self, key: &Key) {
        let mut state = self.state();
        state.writing.remove(key);
        state.unresolved.insert(key.clone());
        self.write_done.notify_waiters();
    }

    pub(super) fn is_unresolved(&self, key: &Key) -> bool {
        self.state().unresolved.contains(key)
    }

    pub(super) fn all_unresolved(&self) -> Vec<Key> {
        self.state().unresolved.iter().cloned().collect()
    }

    /// Waits for the writers that there are now. Cancel-safe.
    pub(super) async fn settled(&self) {
        let last = self.state().last;
        loop {
            let write_done = self.write_done.notified();
            if self.state().writing.values().all(|number| *number > last) {
                return;
            }
            write_done.await;
        }
    }

    /// A pass begins: it reads what it will hand over later.
    pub(super) fn begin_pass(&self) {
        self.state().settled = Some(HashSet::new());
    }

    pub(super) fn end_pass(&self) {
        self.state().settled = None;
    }

    /// Claims for a page those of its records that no writer has, or had since the pass began; the others are
    /// not the pass's to tell of: their writers do.
    ///
    /// For `rows` of a snapshot that would not do when nothing comes of a write. Their writers are waited for.
    pub(super) async fn claim_page(&self, keys: &HashSet<Key>, rows: &HashSet<Key>) -> PageClaim<'_> {
        loop {
            let write_done = self.write_done.notified();
            {
                let state = self.state();
                let is_settled = |key| state.settled.as_ref().is_some_and(|settled| settled.contains(key));
                if !rows.iter().any(|key| state.writing.contains_key(key) && !is_settled(key)) {
                    return self.claim_free(state, keys);
                }
            }
            write_done.await;
        }
    }

    fn claim_free(&self, mut state: MutexGuard<'_, State>, keys: &HashSet<Key>) -> PageClaim<'_> {
        let unresolved = keys.iter().filter(|key| state.unresolved.contains(*key)).cloned().collect();
        let is_taken = |key: &Key| {
            state.writing.contains_key(key)
                || state.unresolved.contains(key)
                || state.settled.as_ref().is_some_and(|settled| settled.contains(key))
        };
        let (taken, free) = keys.iter().cloned().partition(is_taken);
        state.in_page = free;
        PageClaim { claims: self, taken, unresolved }
    }
}

/// The records of a page while it is handed over.
pub(crate) struct PageClaim<'a> {
    claims: &'a Claims,
    /// Those that the page has to leave out.
    pub(crate) taken: HashSet<Key>,
    /// Those among them of which nobody knows yet whether they were written.
    pub(crate) unresolved: HashSet<Key>,
}

impl Drop for PageClaim<'_> {
    fn drop(&mut self) {
        self.claims.state().in_page.clear();
        self.claims.page_done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(id: &str) -> Key {
        ("r".into(), id.into())
    }

    #[tokio::test]
    async fn a_record_is_its_writers_or_the_pages_never_both() {
        let claims = Claims::default();
        claims.begin_pass();
        claims.claim(&key("written")).await;
        claims.claim(&key("settled")).await;
        claims.settle(&key("settled"));

        let keys = ["written", "settled", "free"].map(key).into();
        let page = claims.claim_page(&keys, &HashSet::new()).await;
        assert_eq!(page.taken, ["written", "settled"].map(key).into());
        let free = key("free");
        let mut writer = Box::pin(claims.claim(&free).map(|()| true));
        assert!(writer.as_mut().now_or_never().is_none(), "it waits for the page");
        drop(page);
        assert!(writer.await);

        claims.end_pass();
        claims.begin_pass();
        let page = claims.claim_page(&keys, &HashSet::new()).await;
        assert_eq!(
            page.taken,
            ["written", "free"].map(key).into(),
            "the next pass reads anew what is settled"
        );
        drop(page);

        let rows = [key("written")].into();
        let mut page = Box::pin(claims.claim_page(&keys, &rows));
        assert!(page.as_mut().now_or_never().is_none(), "a row waits for its writer");
        claims.release(&key("written"));
        assert_eq!(page.await.taken, [key("free")].into());
    }
}
