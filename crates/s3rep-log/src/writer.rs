//! The writer: one thread that owns the writing connection and puts everything that waits into one
//! transaction, so that the disk is asked to sync once for many appends.

use std::{fs::File, sync::Arc, thread, time::Duration};

use s3rep_core::{
    Appended, Error, ErrorKind, Lease, Partition, Result, Retention, Scope, Seq, StartAt, StateWrite,
    Timestamp,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};

use crate::{
    checkpoint::Checkpointer,
    live::Live,
    schema,
    state::DamagedKeys,
    store::{Failure, Moves, Store},
    trim::Step,
};

/// Pieces of work that may wait before callers do.
const QUEUE: usize = 1_024;
/// A transaction takes no more work when it has this many bytes.
const GROUP: usize = 8 << 20;

/// How long small appends wait for other work to share the disk's sync with, at 1,000 writes a second about one.
const COMPANY: Duration = Duration::from_millis(1);
/// Appends of more bytes than this are worth a sync of their own.
const SMALL_GROUP: usize = 64 << 10;

/// What a small piece of work writes, about.
const SMALL: usize = 1_024;
/// What a transaction writes beside its entries: a page of each tree that it touches.
const PAGES: usize = 24 << 10;

/// A piece of work for the writer.
pub(crate) enum Work {
    Append { changes: Vec<Vec<u8>>, state: Vec<StateWrite> },
    Acquire { replicator: String, start: StartAt },
    Commit(Moves),
    Reset { replicator: String, fence: u64, to: Seq, needs_resync: Option<String> },
    Forget { replicator: String },
    Trim { now: Timestamp, retention: Retention },
    SetAside(Vec<(Seq, Option<Partition>)>),
    ForgetState(DamagedKeys),
    ForgetLetters { replicator: String, damaged: Vec<(Seq, Vec<u8>)> },
}

/// What became of it.
pub(crate) enum Done {
    Nothing,
    Appended(Appended),
    Acquired(Lease),
    Trimmed(Step),
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Done>>,
}

impl Work {
    fn weight(&self) -> usize {
        match self {
            Self::Append { changes, state } => {
                let of_state = |write: &StateWrite| write.value.as_ref().map_or(0, Vec::len) + SMALL;
                changes.iter().map(Vec::len).sum::<usize>() + state.iter().map(of_state).sum::<usize>()
            }
            // A step of trimming writes about this much; two of them never share a transaction.
            Self::Trim { .. } => GROUP,
            _ => SMALL,
        }
    }

    /// A captured change whose write was announced before. Those wait for it who follow the log, or who write the
    /// same record again; the announcement of another write makes the disk sync anyway.
    fn may_wait(&self) -> bool {
        matches!(self, Self::Append { changes, .. } if !changes.is_empty())
    }

    fn run(&self, store: &mut Store) -> Result<Done, Failure> {
        let nothing = |()| Done::Nothing;
        match self {
            Self::Append { changes, state } => store.append(changes, state).map(Done::Appended),
            Self::Acquire { replicator, start } => store.acquire(replicator, *start).map(Done::Acquired),
            Self::Commit(moves) => store.commit(moves).map(nothing),
            Self::Reset { replicator, fence, to, needs_resync } => {
                store.reset(replicator, *fence, *to, needs_resync.as_deref()).map(nothing)
            }
            Self::Forget { replicator } => store.forget(replicator).map(nothing),
            Self::Trim { now, retention } => store.trim(*now, *retention).map(Done::Trimmed),
            Self::SetAside(damaged) => store.set_aside(damaged).map(nothing),
            Self::ForgetState(damaged) => store.forget_state(damaged).map(nothing),
            Self::ForgetLetters { replicator, damaged } => {
                store.forget_letters(replicator, damaged).map(nothing)
            }
        }
    }
}

/// The handle to the thread.
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It keeps `lock` until everything is closed.
    pub(crate) fn start(store: Store, live: Arc<Live>, lock: File) -> Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let checkpointer = Checkpointer::start(&store.files)?;
        let (said, started) = std::sync::mpsc::channel();
        let run = move || {
            // Made here: where the caller waits for other things, a runtime may not be dropped.
            match Builder::new_current_thread().enable_time().build() {
                Ok(clock) => {
                    drop(said);
                    work(store, checkpointer, &live, Queue { jobs: queue, clock });
                }
                Err(error) => drop(said.send(error)),
            }
            drop(lock);
        };
        let cannot_start = |cause: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the log's thread cannot be started").with_source(cause)
        };
        let thread = thread::Builder::new().name("s3rep-log".to_owned()).spawn(run).map_err(cannot_start)?;
        if let Ok(error) = started.recv() {
            return Err(cannot_start(error));
        }
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in work and waits until it is durable. When the caller stops waiting, the work is done all the
    /// same, or was not handed in at all.
    pub(crate) async fn run(&self, work: Work) -> Result<Done> {
        let gone = || {
            Error::new(ErrorKind::Unexpected, "the log's thread has ended")
                .with_scope(Scope::Process)
                .with_advice("restart s3rep and report this")
        };
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { work, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closes the queue; what is in it is still written.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What waits for the writer.
struct Queue {
    jobs: mpsc::Receiver<Job>,
    /// Waits on the writer's own thread.
    clock: Runtime,
}

impl Queue {
    /// The work of one transaction; `None` when nobody has any more.
    fn next(&mut self) -> Option<Group> {
        let mut group = Group::default();
        group.push(self.clock.block_on(self.jobs.recv())?);
        self.gather(&mut group);
        if group.may_wait && group.weight < SMALL_GROUP {
            // What comes ends the wait, which a sleep would not.
            let company = async { tokio::time::timeout(COMPANY, self.jobs.recv()).await };
            if let Ok(Some(next)) = self.clock.block_on(company) {
                group.push(next);
                self.gather(&mut group);
            }
        }
        Some(group)
    }

    /// Adds what is there, up to what one transaction takes.
    fn gather(&mut self, group: &mut Group) {
        while group.weight < GROUP {
            let Ok(next) = self.jobs.try_recv() else { break };
            group.push(next);
        }
    }
}

/// The work of one transaction.
struct Group {
    jobs: Vec<Job>,
    weight: usize,
    /// Whether all of it may wait for company.
    may_wait: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self { jobs: Vec::new(), weight: 0, may_wait: true }
    }
}

impl Group {
    fn push(&mut self, job: Job) {
        self.weight += job.work.weight();
        self.may_wait &= job.work.may_wait();
        self.jobs.push(job);
    }
}

fn work(mut store: Store, mut checkpointer: Checkpointer, live: &Live, mut queue: Queue) {
    while let Some(Group { jobs: group, weight, .. }) = queue.next() {
        let mut written = 0;
        match transact(&mut store, &group) {
            Ok(done) => {
                written = PAGES + weight;
                reply(group, done, &mut store, live);
            }
            // One large piece of work may be what does not fit on the disk: the others get their own chance.
            Err(_) if group.len() > 1 => {
                for job in group {
                    let weight = job.work.weight();
                    let group = vec![job];
                    match transact(&mut store, &group) {
                        Ok(done) => {
                            written += PAGES + weight;
                            reply(group, done, &mut store, live);
                        }
                        Err(error) => reply(group, vec![Err(error)], &mut store, live),
                    }
                }
            }
            Err(error) => reply(group, vec![Err(error)], &mut store, live),
        }
        index(&mut store);
        checkpointer.after(&mut store.db, written);
    }
}

fn reply(group: Vec<Job>, done: Vec<Result<Done>>, store: &mut Store, live: &Live) {
    // Before the replies: who hears that an append is done finds it in the log.
    live.publish(store.counters, &mut store.appended);
    for (job, done) in group.into_iter().zip(done) {
        // Nobody listens when the caller was cancelled.
        let _ = job.reply.send(done);
    }
}

/// Does a group of work in one transaction.
fn transact(store: &mut Store, group: &[Job]) -> Result<Vec<Result<Done>>> {
    let before = store.counters;
    let outcome = in_transaction(store, |store| {
        let mut outcomes = Vec::with_capacity(group.len());
        for job in group {
            outcomes.push(match job.work.run(store) {
                Ok(done) => Ok(done),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Broken(error)) => return Err(error),
            });
        }
        if store.counters != before {
            schema::write_counters(&mut store.db, store.counters)?;
        }
        Ok(outcomes)
    });
    match outcome {
        Ok(_) => store.ids.commit(),
        Err(_) => {
            store.ids.rollback();
            store.appended.clear();
            store.counters = before;
        }
    }
    outcome
}

fn in_transaction<T>(store: &mut Store, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
    store.db.begin()?;
    let done = work(store).and_then(|done| store.db.commit().map(|()| done));
    if done.is_err() {
        store.db.rollback();
    }
    done
}

/// Writes the ids of recent changes into the index when there are many.
fn index(store: &mut Store) {
    if !store.ids.is_full() {
        return;
    }
    let before = store.counters;
    let outcome = in_transaction(store, |store| {
        store.ids.flush(&mut store.db)?;
        store.counters.indexed = store.counters.last;
        schema::write_counters(&mut store.db, store.counters)
    });
    match outcome {
        Ok(()) => store.ids.flushed(),
        Err(error) => {
            // They stay in memory, and the next append tries again.
            store.counters = before;
            tracing::warn!(error = %error.report(), "the ids of recent changes cannot be written");
        }
    }
}
