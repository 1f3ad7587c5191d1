//! The reference implementation of the log: slow, small, and obviously right.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use s3rep_core::{
    Appended, Change, ChangeId, ChangeLog, Commit, Context, DeadLetter, Entry, Error, ErrorKind, Extent,
    Lease, Page, Partition, ReplicatorState, Result, Retention, Seq, SourceState, StartAt, StateWrite,
    Trimmed,
};
use tokio::sync::watch;

/// A log in memory. Clones are handles to the same log, so a test can keep one while the engine owns another.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    id: Arc<str>,
    partitions: u16,
    last: watch::Sender<Seq>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Seq, (Entry, u64)>,
    held: HashSet<ChangeId>,
    trimmed: Seq,
    last: Seq,
    fences: u64,
    replicators: BTreeMap<String, Replicator>,
    state: BTreeMap<(String, String), Vec<u8>>,
}

#[derive(Clone)]
struct Replicator {
    fence: u64,
    cursors: Vec<Seq>,
    needs_resync: Option<String>,
    letters: BTreeMap<(Seq, Arc<str>), DeadLetter>,
}

impl Replicator {
    fn passed(&self, entry: &Entry) -> bool {
        self.cursors[usize::from(entry.partition.0)] >= entry.seq
    }
}

impl MemoryLog {
    /// An empty log of 16 partitions.
    pub fn new() -> Self {
        Self::with_partitions(16)
    }

    /// An empty log.
    pub fn with_partitions(partitions: u16) -> Self {
        Self {
            shared: Arc::new(Shared {
                id: format!("memory-{:016x}", rand::random::<u64>()).into(),
                partitions: partitions.max(1),
                last: watch::Sender::new(Seq(0)),
                inner: Mutex::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

impl Inner {
    /// The replicator, when `fence` is still its owner's.
    fn owned(&mut self, replicator: &str, fence: u64) -> Result<&mut Replicator> {
        let fenced = |message| {
            Error::new(ErrorKind::Fenced, message)
                .with_context("replicator", replicator)
                .with_advice("stop this process, or the other one that runs the same replicator")
        };
        match self.replicators.get_mut(replicator) {
            None => Err(fenced("the log does not know this replicator any more")),
            Some(known) if known.fence != fence => {
                Err(fenced("another process has taken over this replicator"))
            }
            Some(known) => Ok(known),
        }
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|(_, bytes)| bytes).sum()
    }

    fn write_state(&mut self, write: &StateWrite) {
        let key = (write.space.clone(), write.key.clone());
        match &write.value {
            Some(value) => self.state.insert(key, value.clone()),
            None => self.state.remove(&key),
        };
    }
}

/// What an entry counts for: about what a log on disk would need for it.
fn size(change: &Change) -> u64 {
    let json = |record: &Option<Arc<s3rep_core::Record>>| {
        record.as_ref().map_or(0, |record| serde_json::to_string(&**record).map_or(0, |text| text.len()))
    };
    (64 + change.resource.len() + change.id.len() + json(&change.data) + json(&change.before)) as u64
}

#[async_trait]
impl SourceState for MemoryLog {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let inner = self.lock();
        let of_space =
            inner.state.iter().filter(|((s, key), _)| s == space && after.is_none_or(|a| key.as_str() > a));
        Ok(of_space.take(max).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().state.get(&(space.to_owned(), key.to_owned())).cloned())
    }
}

#[async_trait]
impl ChangeLog for MemoryLog {
    fn id(&self) -> Arc<str> {
        Arc::clone(&self.shared.id)
    }

    fn partitions(&self) -> u16 {
        self.shared.partitions
    }

    async fn append(&self, cx: &Context, changes: &[Change], state: &[StateWrite]) -> Result<Appended> {
        cx.failpoint("log.append")?;
        let mut done = Appended::default();
        {
            let mut inner = self.lock();
            for change in changes {
                if !inner.held.insert(change.change_id) {
                    done.duplicates += 1;
                    continue;
                }
                done.appended += 1;
                let seq = Seq(inner.last.0 + 1);
                let partition = Partition::of(&change.resource, &change.id, self.shared.partitions);
                let entry = Entry { seq, partition, logged_at: cx.now(), change: change.clone() };
                inner.entries.insert(seq, (entry, size(change)));
                inner.last = seq;
            }
            for write in state {
                inner.write_state(write);
            }
            done.last = inner.last;
        }
        self.shared.last.send_replace(done.last);
        cx.failpoint("log.appended")?;
        Ok(done)
    }

    async fn read(&self, _: &Context, after: Seq, max_entries: usize, max_bytes: usize) -> Result<Page> {
        let inner = self.lock();
        let mut page = Page { next: after.max(inner.trimmed), ..Page::default() };
        let mut bytes = 0;
        for (entry, size) in inner.entries.range(Seq(after.0.saturating_add(1))..).map(|(_, held)| held) {
            bytes += size;
            let full = page.entries.len() >= max_entries || bytes > max_bytes as u64;
            if full && !page.entries.is_empty() {
                break;
            }
            page.entries.push(entry.clone());
            page.next = entry.seq;
        }
        Ok(page)
    }

    async fn appended_after(&self, after: Seq) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.shared.last.subscribe().wait_for(|last| *last > after).await;
    }

    async fn extent(&self, _: &Context) -> Result<Extent> {
        let inner = self.lock();
        Ok(Extent {
            trimmed: inner.trimmed,
            last: inner.last,
            bytes: inner.bytes(),
            entries: inner.entries.len() as u64,
        })
    }

    async fn acquire(&self, _: &Context, replicator: &str, start: StartAt) -> Result<Lease> {
        let mut inner = self.lock();
        inner.fences += 1;
        let fence = inner.fences;
        let at = match start {
            StartAt::Oldest => inner.trimmed,
            StartAt::End => inner.last,
        };
        let is_new = !inner.replicators.contains_key(replicator);
        let known = inner.replicators.entry(replicator.to_owned()).or_insert_with(|| Replicator {
            fence,
            cursors: vec![at; usize::from(self.shared.partitions)],
            needs_resync: None,
            letters: BTreeMap::new(),
        });
        known.fence = fence;
        Ok(Lease { fence, is_new, cursors: known.cursors.clone(), needs_resync: known.needs_resync.clone() })
    }

    async fn commit(&self, cx: &Context, commit: Commit<'_>) -> Result<()> {
        cx.failpoint("log.commit")?;
        {
            let mut inner = self.lock();
            let last = inner.last;
            let known = inner.owned(commit.replicator, commit.fence)?;
            // On a copy: an error leaves everything as it was.
            let mut moved = known.clone();
            for &(partition, expected, new) in commit.cursors {
                let cursor = moved.cursors.get_mut(usize::from(partition.0)).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidValue, "the log does not have this partition")
                        .with_context("partition", partition.0)
                })?;
                if new < expected || new > last {
                    return Err(Error::new(
                        ErrorKind::InvalidValue,
                        "a cursor may move forward only, up to the end",
                    ));
                }
                if *cursor != expected {
                    return Err(Error::new(
                        ErrorKind::Contention,
                        "a cursor does not stand at the expected place",
                    )
                    .with_context("partition", partition.0));
                }
                *cursor = new;
            }
            for letter in commit.parked {
                moved.letters.insert((letter.seq, Arc::clone(&letter.table)), letter.clone());
            }
            for settled in commit.settled {
                moved.letters.remove(settled);
            }
            *known = moved;
        }
        cx.failpoint("log.committed")
    }

    async fn reset(
        &self,
        _: &Context,
        replicator: &str,
        fence: u64,
        to: Seq,
        needs_resync: Option<&str>,
    ) -> Result<()> {
        let mut inner = self.lock();
        let last = inner.last;
        let known = inner.owned(replicator, fence)?;
        if to > last {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a cursor cannot stand beyond the end of the log",
            ));
        }
        known.cursors.fill(to);
        known.needs_resync = needs_resync.map(ToOwned::to_owned);
        Ok(())
    }

    async fn replicators(&self, _: &Context) -> Result<Vec<ReplicatorState>> {
        let inner = self.lock();
        Ok(inner
            .replicators
            .iter()
            .map(|(name, known)| {
                let mut pending =
                    inner.entries.values().map(|(entry, _)| entry).filter(|entry| !known.passed(entry));
                let oldest = pending.next();
                ReplicatorState {
                    replicator: name.clone(),
                    fence: known.fence,
                    cursors: known.cursors.clone(),
                    pending: (oldest.iter().count() + pending.count()) as u64,
                    oldest_pending: oldest.map(|entry| entry.logged_at),
                    dead_letters: known.letters.len() as u64,
                    needs_resync: known.needs_resync.clone(),
                }
            })
            .collect())
    }

    async fn forget(&self, _: &Context, replicator: &str) -> Result<()> {
        self.lock().replicators.remove(replicator);
        Ok(())
    }

    async fn dead_letters(
        &self,
        _: &Context,
        replicator: &str,
        after: Seq,
        max: usize,
    ) -> Result<Vec<DeadLetter>> {
        let inner = self.lock();
        let letters = inner.replicators.get(replicator).into_iter().flat_map(|known| known.letters.values());
        let mut page: Vec<DeadLetter> = Vec::new();
        for letter in letters.filter(|letter| letter.seq > after) {
            // Letters of one offset stay together, or the next page would miss the rest of them.
            if page.len() >= max && page.last().is_none_or(|last| last.seq != letter.seq) {
                break;
            }
            page.push(letter.clone());
        }
        Ok(page)
    }

    async fn trim(&self, cx: &Context, retention: Retention) -> Result<Trimmed> {
        let mut inner = self.lock();
        let now = cx.now();
        let mut bytes = inner.bytes();
        let mut trimmed = Trimmed::default();
        while let Some((seq, (entry, size))) =
            inner.entries.first_key_value().map(|(seq, held)| (*seq, held.clone()))
        {
            let age = now.since(entry.logged_at);
            let passed = inner.replicators.values().all(|known| known.passed(&entry));
            if !(passed && age >= retention.passed || age >= retention.max_age || bytes > retention.max_bytes)
            {
                break;
            }
            inner.entries.remove(&seq);
            inner.held.remove(&entry.change.change_id);
            inner.trimmed = seq;
            bytes -= size;
            trimmed.entries += 1;
            for (name, known) in inner.replicators.iter_mut().filter(|(_, known)| !known.passed(&entry)) {
                known
                    .needs_resync
                    .get_or_insert_with(|| "retention forgot entries it had not passed".to_owned());
                if !trimmed.fell_behind.contains(name) {
                    trimmed.fell_behind.push(name.clone());
                }
            }
        }
        trimmed.fell_behind.sort_unstable();
        Ok(trimmed)
    }
}
