//! The reading side: several connections, each used by one thread at a time.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use s3rep_core::{
    DeadLetter, Error, ErrorKind, Extent, Page, Partition, ReplicatorState, Result, Scope, Seq, Timestamp,
};
use tokio::{sync::Semaphore, task};

use crate::{
    codec::{self, Damaged},
    error,
    files::Files,
    ids::HEADS_AFTER,
    letters,
    names::Names,
    replicators::{self, Found, Replicator},
    schema::{self, Counters, Meta},
    sqlite::{Access, Db, number},
};

/// Reads that run at the same time.
const CONNECTIONS: usize = 4;
/// Damaged offsets that one page reports at most.
const DAMAGED: usize = 65_536;
/// Heads that counting what is pending looks at; beyond it the rest is estimated.
const COUNTED: u64 = 1_000_000;

/// Connections for reading.
pub(crate) struct Pool {
    files: Arc<Files>,
    meta: Meta,
    idle: Mutex<Vec<Reader>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(files: Arc<Files>, meta: Meta) -> Self {
        Self { files, meta, idle: Mutex::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Runs `read` on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let pool = Arc::clone(self);
        let done = task::spawn_blocking(move || {
            let _permit = permit;
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = idle.map_or_else(|| Reader::open(&pool.files, pool.meta.clone()), Ok)?;
            let done = read(&mut reader);
            if done.is_ok() {
                pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            }
            done
        });
        done.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unexpected, "reading the log failed in a way that nobody foresaw")
                .with_scope(Scope::Process)
                .with_context("file", self.files.db().display())
                .with_advice("restart s3rep and report this"))
        })
    }

    /// Closes what is not in use.
    pub(crate) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One connection.
pub(crate) struct Reader {
    pub(crate) db: Db,
    pub(crate) names: Names,
    files: Arc<Files>,
    meta: Meta,
}

/// A page, and what of its damage the log does not know yet.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) page: Page,
    pub(crate) unknown: Vec<(Seq, Option<Partition>)>,
}

impl Reader {
    pub(crate) fn open(files: &Arc<Files>, meta: Meta) -> Result<Self> {
        let mut db = Db::open(files, &readable(files), Access::Read)?;
        // Reading goes forward; what was read is not read again soon.
        db.once("PRAGMA cache_size = -2048")?;
        Ok(Self { db, names: Names::default(), files: Arc::clone(files), meta })
    }

    /// Runs `read` while nothing changes.
    pub(crate) fn unchanging<T>(&mut self, read: impl FnOnce(&mut Self, Counters) -> Result<T>) -> Result<T> {
        self.db.begin_reading()?;
        let done = schema::read_counters(&mut self.db, &self.files).and_then(|counters| read(self, counters));
        self.db.rollback();
        done
    }

    /// Entries after `after`. `seen` is what the writer has made known; without it the file is asked.
    pub(crate) fn page(
        &mut self,
        after: Seq,
        max_entries: usize,
        max_bytes: usize,
        seen: Option<Counters>,
    ) -> Result<Read> {
        if let Some(seen) = seen {
            let page = self.scan(after, max_entries, max_bytes, seen)?;
            if page.damaged.is_empty() {
                return Ok(Read { page, unknown: Vec::new() });
            }
        }
        // Offsets are missing. Retention may have passed by meanwhile, so look again while nothing moves.
        self.unchanging(|reader, counters| {
            let mut page = reader.scan(after, max_entries, max_bytes, counters)?;
            let unknown = reader.known_damage(&mut page)?;
            Ok(Read { page, unknown })
        })
    }

    fn scan(&mut self, after: Seq, max_entries: usize, max_bytes: usize, counters: Counters) -> Result<Page> {
        let max_entries = max_entries.clamp(1, 1 << 24);
        let mut page = Page { next: after.max(counters.trimmed), ..Page::default() };
        let start = page.next;
        let (mut bytes, mut rows, mut full) = (0, 0, false);
        let names = &mut self.names;
        let sql = "SELECT seq, CAST(entry AS BLOB) FROM log WHERE seq > ? ORDER BY seq LIMIT ?";
        self.db.rows(sql, vec![number(page.next.0), number(max_entries as u64)], |row| {
            rows += 1;
            let (seq, entry) = (Seq(row.number(0)?), row.blob(1)?);
            if !page.entries.is_empty() && bytes + entry.len() > max_bytes {
                full = true;
                return Ok(ControlFlow::Break(()));
            }
            bytes += entry.len();
            let decoded = codec::decode(&entry, seq, names);
            // A row in a place where none belongs, and that is not an entry: its offset means nothing, and the
            // entry that it once was is missed below.
            let stray = matches!(decoded, Err(Damaged { partition: None })) && seq.0 != page.next.0 + 1;
            if seq <= page.next || stray {
                return Ok(ControlFlow::Continue(()));
            }
            if !miss(&mut page, seq.0 - 1) {
                full = true;
                return Ok(ControlFlow::Break(()));
            }
            match decoded {
                Ok(entry) => page.entries.push(entry),
                Err(damaged) => page.damaged.push((seq, damaged.partition)),
            }
            page.next = seq;
            full = page.entries.len() >= max_entries;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if !full && rows < max_entries {
            miss(&mut page, counters.last.0);
        } else if page.next == start {
            // A part of the tree leads back to entries that lie behind. Whoever reads on would do so for ever.
            return Err(error::corrupt(&self.files, "the order of the log's entries is damaged"));
        }
        Ok(page)
    }

    /// Completes the partitions of damaged entries that were set aside before; returns the others.
    fn known_damage(&mut self, page: &mut Page) -> Result<Vec<(Seq, Option<Partition>)>> {
        let (Some((first, _)), Some((last, _))) = (page.damaged.first(), page.damaged.last()) else {
            return Ok(Vec::new());
        };
        let range = vec![number(first.0), number(last.0)];
        let mut known = std::collections::HashMap::new();
        self.db.rows(
            "SELECT seq, ifnull(CAST(partition AS INTEGER), -1) FROM damaged WHERE seq BETWEEN ? AND ?",
            range,
            |row| {
                let partition =
                    u16::try_from(row.integer(1)?).ok().filter(|partition| *partition < self.meta.partitions);
                known.insert(Seq(row.number(0)?), partition.map(Partition));
                Ok(ControlFlow::Continue(()))
            },
        )?;
        let mut unknown = Vec::new();
        for (seq, partition) in &mut page.damaged {
            match known.get(seq) {
                Some(noted) => *partition = partition.or(*noted),
                None => unknown.push((*seq, *partition)),
            }
        }
        Ok(unknown)
    }

    /// Every replicator.
    pub(crate) fn replicators(&mut self) -> Result<Vec<ReplicatorState>> {
        self.unchanging(|reader, counters| {
            let found = replicators::all(&mut reader.db, reader.meta.partitions)?;
            found.into_iter().map(|found| reader.state_of(found, counters)).collect()
        })
    }

    fn state_of(&mut self, found: Found, counters: Counters) -> Result<ReplicatorState> {
        let replicator = match found {
            Found::Sound(replicator) => replicator,
            Found::Damaged(name) => {
                let why = "its cursors in the log were damaged";
                Replicator::behind(name, counters.fence, self.meta.partitions, counters.trimmed, why)
            }
        };
        let (pending, oldest_pending) = self.pending(&replicator, counters)?;
        Ok(ReplicatorState {
            pending,
            oldest_pending,
            dead_letters: letters::count(&mut self.db, &replicator.name)?,
            replicator: replicator.name,
            fence: replicator.fence,
            cursors: replicator.cursors,
            needs_resync: replicator.needs_resync,
        })
    }

    /// Entries that a replicator has not passed, and when the oldest of them was logged. Exact as long as its
    /// cursors are less than a million entries apart.
    fn pending(&mut self, replicator: &Replicator, counters: Counters) -> Result<(u64, Option<Timestamp>)> {
        let lowest = replicator.cursors.iter().min().copied().unwrap_or_default().max(counters.trimmed);
        let highest = replicator.cursors.iter().max().copied().unwrap_or_default().max(lowest);
        let (mut pending, mut oldest, mut looked_at, mut at) = (0, None, 0, lowest);
        self.db.rows(HEADS_AFTER, vec![number(lowest.0)], |row| {
            let seq = Seq(row.number(0)?);
            // Behind the highest cursor everything is pending; only the first is looked at, for its time.
            if looked_at >= COUNTED || seq > highest && oldest.is_some() {
                return Ok(ControlFlow::Break(()));
            }
            let head = codec::head(&row.blob(1)?, seq);
            if !replicator.passed(head.map(|head| head.partition), seq) {
                oldest = oldest.or(head.map(|head| head.logged_at));
                pending += u64::from(seq <= highest);
            }
            looked_at += 1;
            at = seq.min(highest);
            Ok(ControlFlow::Continue(()))
        })?;
        if at < highest {
            pending += pending.saturating_mul(highest.0 - at.0) / looked_at.max(1);
        }
        let damaged =
            self.db.first("SELECT count(*) FROM damaged WHERE seq > ?", vec![number(highest.0)], |row| {
                row.number(0)
            })?;
        let behind = counters.last.0.saturating_sub(highest.0).saturating_sub(damaged.unwrap_or(0));
        Ok((pending + behind, oldest))
    }

    /// A page of dead letters, and the places of damaged ones.
    pub(crate) fn letters(
        &mut self,
        replicator: &str,
        after: Seq,
        max: usize,
    ) -> Result<(Vec<DeadLetter>, letters::DamagedLetters)> {
        letters::page(&mut self.db, replicator, after, max, &mut self.names)
    }

    /// The span of the log.
    pub(crate) fn extent(&mut self) -> Result<Extent> {
        self.unchanging(|_, counters| Ok(counters.extent()))
    }
}

impl Counters {
    /// The span of the log.
    pub(crate) fn extent(&self) -> Extent {
        Extent { trimmed: self.trimmed, last: self.last, bytes: self.bytes, entries: self.entries }
    }
}

/// Notes that the offsets up to `upto` are missing; `false` when that is too much for one page.
fn miss(page: &mut Page, upto: u64) -> bool {
    while page.next.0 < upto {
        if page.damaged.len() >= DAMAGED {
            return false;
        }
        page.next.0 += 1;
        page.damaged.push((page.next, None));
    }
    true
}

/// The name under which SQLite can read the log without writing anything.
fn readable(files: &Files) -> PathBuf {
    let path = files.db();
    let in_use = std::fs::metadata(files.wal()).is_ok_and(|wal| wal.len() > 0);
    if in_use || files.may_mark {
        return path;
    }
    // No process has it open, so nothing will change. Without `immutable` SQLite would make its -wal and -shm
    // files, perhaps as a user whose files the next `s3rep run` could not write.
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    PathBuf::from(format!("file:{escaped}?immutable=1"))
}

/// Opens the log for reading only, and checks it.
pub(crate) fn open(files: &Arc<Files>) -> Result<Meta> {
    if !files.db().exists() {
        return Err(Error::new(ErrorKind::NotFound, "there is no log in this state directory")
            .with_context("directory", files.dir.display())
            .with_advice(
                "look whether `state:` names the directory that `s3rep run` uses, or run it first",
            ));
    }
    let mut db = Db::open(files, &readable(files), Access::Read)?;
    schema::read(&mut db, files).map(|(meta, _)| meta).map_err(|cause| match cause.kind() {
        ErrorKind::Corrupt => error::corrupt(files, "the log file is damaged").with_source(cause),
        _ => cause,
    })
}
