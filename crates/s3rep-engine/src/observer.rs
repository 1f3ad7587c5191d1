//! Events and progress. Neither can slow the pipeline: a subscriber that falls behind misses events.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use s3rep_core::{Error, Event, Seq};
use tokio::sync::broadcast;

/// Events kept for a slow subscriber before it starts to miss some.
const BUFFERED: usize = 1_024;

/// Hands events to subscribers and to the log output.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    sender: broadcast::Sender<Event>,
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BUFFERED) }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Emits an event. The one place where events become log lines.
    pub(crate) fn emit(&self, event: Event) {
        let name = event.name();
        match &event {
            Event::PassFailed { error } => tracing::warn!(name, error),
            Event::Undecodable { resource, id, error } => tracing::warn!(name, %resource, %id, error),
            Event::Retrying { replicator, table, attempts, delay, kind, error } => {
                tracing::warn!(name, %replicator, %table, attempts, ?delay, ?kind, error);
            }
            Event::Parked { replicator, table, seq, error } => {
                tracing::warn!(name, %replicator, %table, %seq, error);
            }
            Event::Stopped { replicator, error } => tracing::error!(name, %replicator, error),
            Event::NeedsResync { replicator, reason } => tracing::error!(name, %replicator, reason),
            Event::LogDamaged { detail } => tracing::error!(name, detail),
            Event::TableSynced { replicator, table, statements, .. } => {
                tracing::info!(name, %replicator, %table, statements);
            }
            _ => tracing::debug!(name, ?event),
        }
        // Nobody listening is fine.
        let _ = self.sender.send(event);
    }
}

/// An error as an operator reads it in an event: with its causes and what to do.
pub(crate) fn with_advice(error: &Error) -> String {
    match error.advice() {
        Some(advice) => format!("{}; {advice}", error.report()),
        None => error.report(),
    }
}

/// A panic in another thread is no reason to stop: what these mutexes guard is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a replicator is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LaneState {
    /// Connecting, reconciling cursors.
    #[default]
    Starting,
    /// Moving changes, or waiting for some.
    Running,
    /// A write failed and will be tried again.
    Retrying(String),
    /// It does not move until something outside changes.
    Stopped(String),
    /// It ended.
    Ended,
}

/// How far a replicator is, as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneProgress {
    /// The replicator.
    pub replicator: Arc<str>,
    /// Everything up to here is in the destination.
    pub position: Seq,
    /// Rows written since the start of the process.
    pub written: u64,
    /// Changes parked since the start of the process.
    pub parked: u64,
    /// What it is doing.
    pub state: LaneState,
}

/// The lane's side of [`LaneProgress`].
#[derive(Debug)]
pub(crate) struct LaneGauge {
    replicator: Arc<str>,
    position: AtomicU64,
    written: AtomicU64,
    parked: AtomicU64,
    state: Mutex<LaneState>,
}

impl LaneGauge {
    pub(crate) fn new(replicator: Arc<str>) -> Self {
        Self {
            replicator,
            position: AtomicU64::new(0),
            written: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub(crate) fn reached(&self, position: Seq) {
        self.position.store(position.0, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, rows: usize) {
        self.written.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn parked(&self, changes: usize) {
        self.parked.fetch_add(changes as u64, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, state: LaneState) {
        *lock(&self.state) = state;
    }

    /// A lane that ends in trouble keeps saying which.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        if matches!(*state, LaneState::Starting | LaneState::Running) {
            *state = LaneState::Ended;
        }
    }

    pub(crate) fn read(&self) -> LaneProgress {
        LaneProgress {
            replicator: self.replicator.clone(),
            position: Seq(self.position.load(Ordering::Relaxed)),
            written: self.written.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed),
            state: lock(&self.state).clone(),
        }
    }
}
