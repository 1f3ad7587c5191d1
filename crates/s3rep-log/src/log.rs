//! The log as the rest of s3rep sees it.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use s3rep_core::{
    Appended, Change, ChangeLog, Commit, Context, DeadLetter, Error, ErrorKind, Event, Extent, Lease, Page,
    Partition, ReplicatorState, Result, Retention, Seq, SourceState, StartAt, StateWrite, Trimmed,
};

use crate::{
    codec,
    durability::Durability,
    files::Files,
    live::Live,
    open,
    reader::{self, Pool},
    state,
    store::Moves,
    writer::{Done, Work, Writer},
};

/// How a log is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Partitions of a new log. One that exists keeps its own number.
    pub partitions: u16,
    /// What a commit survives.
    pub durability: Durability,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { partitions: 16, durability: Durability::default() }
    }
}

/// The durable log in a state directory. Dropping it writes what waits, closes the file and releases the
/// directory.
pub struct EmbeddedLog {
    writer: Writer,
    pool: Arc<Pool>,
    live: Arc<Live>,
    dir: std::path::PathBuf,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, which is made when it is not there, and keeps other processes away from it.
    ///
    /// A damaged file never keeps a program from starting: it is set aside, a new log is begun, and the events
    /// say so.
    ///
    /// # Errors
    /// When another process uses the directory, when it cannot be written, or when a newer version wrote it.
    pub fn open(dir: &Path, options: &LogOptions) -> Result<(Self, Vec<Event>)> {
        let opened = open::open(dir, options).map_err(|error| error.with_operation("open the log"))?;
        let live = Arc::new(Live::new(opened.store.counters));
        let pool = Arc::new(Pool::new(Arc::clone(&opened.store.files), opened.store.meta.clone()));
        let dir = opened.store.files.dir.clone();
        let writer = Writer::start(opened.store, Arc::clone(&live), opened.lock)?;
        Ok((Self { writer, pool, live, dir }, opened.events))
    }

    /// Opens the log in `dir` for looking at it, beside the process that uses it or without one. Writes nothing.
    ///
    /// # Errors
    /// When there is no log or it cannot be read.
    pub fn open_readonly(dir: &Path) -> Result<LogReader> {
        let files = Arc::new(Files::new(dir, false)?);
        let meta = reader::open(&files).map_err(|error| error.with_operation("read the log"))?;
        Ok(LogReader { pool: Arc::new(Pool::new(files, meta)) })
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        // The writer's connection comes last: it leaves one file with everything in it.
        self.pool.close();
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Unexpected, "the log answered something else than was asked")
}

#[async_trait]
impl SourceState for EmbeddedLog {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let (space, after) = (space.to_owned(), after.map(ToOwned::to_owned));
        let read = self.pool.read(move |reader| state::scan(&mut reader.db, &space, after.as_deref(), max));
        let (pairs, damaged) = read.await?;
        if !damaged.is_empty() {
            self.writer.run(Work::ForgetState(damaged)).await?;
        }
        Ok(pairs)
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let (space, key) = (space.to_owned(), key.to_owned());
        match self.pool.read(move |reader| state::get(&mut reader.db, &space, &key)).await? {
            Ok(value) => Ok(value),
            Err(damaged) => self.writer.run(Work::ForgetState(damaged)).await.map(|_| None),
        }
    }
}

#[async_trait]
impl ChangeLog for EmbeddedLog {
    fn id(&self) -> Arc<str> {
        Arc::clone(&self.pool.meta().id)
    }

    fn partitions(&self) -> u16 {
        self.pool.meta().partitions
    }

    async fn append(&self, cx: &Context, changes: &[Change], state: &[StateWrite]) -> Result<Appended> {
        cx.failpoint("log.append")?;
        let now = cx.now();
        let encoded = changes.iter().map(|change| {
            let partition = Partition::of(&change.resource, &change.id, self.partitions());
            codec::encode(change, partition, now)
        });
        let work = Work::Append { changes: encoded.collect::<Result<_>>()?, state: state.to_vec() };
        let Done::Appended(done) = self.writer.run(work).await? else { return Err(unexpected()) };
        cx.failpoint("log.appended")?;
        Ok(done)
    }

    async fn read(&self, _: &Context, after: Seq, max_entries: usize, max_bytes: usize) -> Result<Page> {
        let seen = self.live.counters();
        if after >= seen.last {
            return Ok(Page { next: after, ..Page::default() });
        }
        if after >= seen.trimmed
            && let Some(page) = self.live.page(after, max_entries, max_bytes)
        {
            return Ok(page);
        }
        let read =
            self.pool.read(move |reader| reader.page(after, max_entries, max_bytes, Some(seen))).await?;
        if !read.unknown.is_empty() {
            // The page is right without it, and the next read tries again.
            if let Err(error) = self.writer.run(Work::SetAside(read.unknown)).await {
                tracing::warn!(error = %error.report(), "damaged entries of the log cannot be set aside");
            }
        }
        Ok(read.page)
    }

    async fn appended_after(&self, after: Seq) {
        self.live.appended_after(after).await;
    }

    async fn extent(&self, _: &Context) -> Result<Extent> {
        Ok(self.live.counters().extent())
    }

    async fn acquire(&self, _: &Context, replicator: &str, start: StartAt) -> Result<Lease> {
        match self.writer.run(Work::Acquire { replicator: replicator.to_owned(), start }).await? {
            Done::Acquired(lease) => Ok(lease),
            _ => Err(unexpected()),
        }
    }

    async fn commit(&self, cx: &Context, commit: Commit<'_>) -> Result<()> {
        cx.failpoint("log.commit")?;
        let moves = Moves {
            replicator: commit.replicator.to_owned(),
            fence: commit.fence,
            cursors: commit.cursors.to_vec(),
            parked: commit.parked.to_vec(),
            settled: commit.settled.to_vec(),
        };
        self.writer.run(Work::Commit(moves)).await?;
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
        let (replicator, needs_resync) = (replicator.to_owned(), needs_resync.map(ToOwned::to_owned));
        self.writer.run(Work::Reset { replicator, fence, to, needs_resync }).await.map(|_| ())
    }

    async fn replicators(&self, _: &Context) -> Result<Vec<ReplicatorState>> {
        self.pool.read(reader::Reader::replicators).await
    }

    async fn forget(&self, _: &Context, replicator: &str) -> Result<()> {
        self.writer.run(Work::Forget { replicator: replicator.to_owned() }).await.map(|_| ())
    }

    async fn dead_letters(
        &self,
        _: &Context,
        replicator: &str,
        after: Seq,
        max: usize,
    ) -> Result<Vec<DeadLetter>> {
        let name = replicator.to_owned();
        let (letters, damaged) = self.pool.read(move |reader| reader.letters(&name, after, max)).await?;
        if !damaged.is_empty() {
            self.writer.run(Work::ForgetLetters { replicator: replicator.to_owned(), damaged }).await?;
        }
        Ok(letters)
    }

    async fn trim(&self, cx: &Context, retention: Retention) -> Result<Trimmed> {
        let now = cx.now();
        let mut all = Trimmed::default();
        loop {
            let Done::Trimmed(step) = self.writer.run(Work::Trim { now, retention }).await? else {
                return Err(unexpected());
            };
            all.entries += step.trimmed.entries;
            all.fell_behind.extend(step.trimmed.fell_behind);
            if step.done {
                all.fell_behind.sort_unstable();
                all.fell_behind.dedup();
                return Ok(all);
            }
        }
    }
}

/// A log that is only looked at: for `s3rep status` beside a running process.
pub struct LogReader {
    pool: Arc<Pool>,
}

impl LogReader {
    /// The identity of the log.
    pub fn id(&self) -> Arc<str> {
        Arc::clone(&self.pool.meta().id)
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u16 {
        self.pool.meta().partitions
    }

    /// The span of the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn extent(&self) -> Result<Extent> {
        self.pool.read(reader::Reader::extent).await
    }

    /// Every replicator that has cursors here.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn replicators(&self) -> Result<Vec<ReplicatorState>> {
        self.pool.read(reader::Reader::replicators).await
    }

    /// Dead letters of a replicator with sequence numbers after `after`, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn dead_letters(&self, replicator: &str, after: Seq, max: usize) -> Result<Vec<DeadLetter>> {
        let replicator = replicator.to_owned();
        self.pool
            .read(move |reader| reader.letters(&replicator, after, max))
            .await
            .map(|(letters, _)| letters)
    }

    /// Entries after `after`, as [`ChangeLog::read`].
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read(&self, after: Seq, max_entries: usize, max_bytes: usize) -> Result<Page> {
        self.pool
            .read(move |reader| reader.page(after, max_entries, max_bytes, None))
            .await
            .map(|read| read.page)
    }
}

/// What is damaged is left out: the process that uses the log sees to it.
#[async_trait]
impl SourceState for LogReader {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let (space, after) = (space.to_owned(), after.map(str::to_owned));
        let read =
            move |reader: &mut reader::Reader| state::scan(&mut reader.db, &space, after.as_deref(), max);
        self.pool.read(read).await.map(|(pairs, _)| pairs)
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let (space, key) = (space.to_owned(), key.to_owned());
        let read = move |reader: &mut reader::Reader| state::get(&mut reader.db, &space, &key);
        self.pool.read(read).await.map(|found| found.unwrap_or_default())
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("id", &self.id()).finish_non_exhaustive()
    }
}
