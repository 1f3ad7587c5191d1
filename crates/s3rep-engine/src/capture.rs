//! The only writer of the log: passes over the source, and the snapshots that replicators asked for.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use s3rep_core::{
    Capture, Change, ChangeLog, Context, Error, ErrorKind, Event, PassReport, Result, SnapshotRows, Source,
    StateWrite,
};
use tokio_util::sync::CancellationToken;

use crate::{
    observer::{Observer, lock, with_advice},
    schemas::Schemas,
    snapshot::{self, Left, Request},
};

/// Rows of a snapshot between two looks at live changes.
const SNAPSHOT_PAGE: usize = 1_000;
/// Wait before a record is looked at again that was just being written.
const DEFERRED_WAIT: Duration = Duration::from_millis(100);
/// Looks at such a record before a run that is to end gives up on it.
const DEFERRED_LOOKS: u32 = 50;
/// Undecodable records that are remembered as told, so that the memory stays bounded.
const TOLD: usize = 10_000;

/// Moves changes from the source into the log.
pub(crate) struct Capturer {
    pub(crate) cx: Context,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) log: Arc<dyn ChangeLog>,
    pub(crate) schemas: Schemas,
    pub(crate) observer: Observer,
    pub(crate) replicators: Vec<Arc<str>>,
    /// What the last pass could not decode: told once, not in every pass.
    pub(crate) told: Mutex<HashSet<(String, String)>>,
    /// Held while a snapshot request is read and written: lanes ask for more meanwhile.
    pub(crate) requests: Arc<tokio::sync::Mutex<()>>,
}

impl Capturer {
    /// Captures until `stopped`. A pass that fails is told and made again after the interval.
    pub(crate) async fn follow(&self, stopped: &CancellationToken) {
        let work = async {
            loop {
                if let Err(error) = self.round().await {
                    self.failed(&error);
                }
                self.cx.sleep(self.source.interval()).await;
            }
        };
        // Dropping a pass is safe: what it handed over is durable, the rest is found again.
        tokio::select! {
            () = work => {}
            () = stopped.cancelled() => {}
        }
    }

    /// Captures everything that is there now: one complete pass and every snapshot asked for.
    pub(crate) async fn once(&self) -> Result<PassReport> {
        for _ in 0..DEFERRED_LOOKS {
            match self.round().await {
                Ok(report) if report.deferred == 0 => return Ok(report),
                // A record was being written: it is whole in a moment.
                Ok(_) => {}
                Err(error) if error.is_temporary() && error.kind() == ErrorKind::Contention => {}
                Err(error) => return Err(error),
            }
            self.cx.sleep(DEFERRED_WAIT).await;
        }
        self.round().await
    }

    async fn round(&self) -> Result<PassReport> {
        let report = self.pass().await?;
        self.snapshots().await?;
        Ok(report)
    }

    async fn pass(&self) -> Result<PassReport> {
        let began = self.cx.monotonic();
        self.schemas.remember(&self.cx, &*self.log, self.source.resources(&self.cx).await?).await?;
        let mut writer = self.writer();
        let report = self.source.pass(&self.cx, &*self.log, &mut writer).await?;
        *lock(&self.told) = writer.undecodable;
        self.observer.emit(Event::PassCompleted {
            seen: report.seen,
            captured: report.captured,
            undecodable: report.undecodable,
            duration: self.cx.monotonic().saturating_sub(began),
        });
        Ok(report)
    }

    /// Works off snapshot requests, with a pass for live changes whenever the interval has gone by.
    async fn snapshots(&self) -> Result<()> {
        for replicator in snapshot::requests(&self.cx, &*self.log).await? {
            if !self.replicators.contains(&replicator) {
                continue;
            }
            let mut last_pass = self.cx.monotonic();
            while !self.complete(&replicator).await? {
                for schema in self.source.resources(&self.cx).await? {
                    while self.snapshot_page(&replicator, &schema.name).await? {
                        if self.cx.monotonic().saturating_sub(last_pass) >= self.source.interval() {
                            self.pass().await?;
                            last_pass = self.cx.monotonic();
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets a request when nothing is left of it; more may have been asked for meanwhile.
    async fn complete(&self, replicator: &Arc<str>) -> Result<bool> {
        let _requests = self.requests.lock().await;
        let Some(request) = snapshot::progress(&self.cx, &*self.log, replicator).await? else {
            return Ok(true);
        };
        for schema in self.source.resources(&self.cx).await? {
            if request.left(&schema.name) != Left::Nothing {
                return Ok(false);
            }
        }
        snapshot::complete(&self.cx, &*self.log, replicator).await?;
        Ok(true)
    }

    /// Returns whether the resource may have more rows.
    async fn snapshot_page(&self, replicator: &Arc<str>, resource: &str) -> Result<bool> {
        let _requests = self.requests.lock().await;
        let request: Request =
            snapshot::progress(&self.cx, &*self.log, replicator).await?.unwrap_or_default();
        let Left::After(after) = request.left(resource) else { return Ok(false) };
        let progress = |last: &str| request.after(replicator, resource, Some(last));
        let rows = SnapshotRows {
            resource,
            after: after.as_deref(),
            max: SNAPSHOT_PAGE,
            target: replicator,
            progress: &progress,
        };
        let last = self.source.snapshot(&self.cx, &*self.log, &mut self.writer(), rows).await?;
        if last.is_none() {
            self.log.append(&self.cx, &[], &[request.after(replicator, resource, None)]).await?;
        }
        Ok(last.is_some())
    }

    fn writer(&self) -> LogWriter<'_> {
        let told = lock(&self.told).clone();
        LogWriter {
            cx: &self.cx,
            source: &*self.source,
            schemas: &self.schemas,
            log: &*self.log,
            observer: &self.observer,
            told,
            undecodable: HashSet::new(),
        }
    }

    fn failed(&self, error: &Error) {
        self.observer.emit(Event::PassFailed { error: with_advice(error) });
    }
}

/// Hands what a source found to the log.
struct LogWriter<'a> {
    cx: &'a Context,
    source: &'a dyn Source,
    schemas: &'a Schemas,
    log: &'a dyn ChangeLog,
    observer: &'a Observer,
    told: HashSet<(String, String)>,
    undecodable: HashSet<(String, String)>,
}

#[async_trait]
impl Capture for LogWriter<'_> {
    async fn page(&mut self, changes: Vec<Change>, state: Vec<StateWrite>) -> Result<()> {
        // Created or changed since the pass began: lanes must not meet a change before its shape.
        if changes.iter().any(|change| !self.schemas.knows(&change.resource, &change.schema_version)) {
            self.schemas.remember(self.cx, self.log, self.source.resources(self.cx).await?).await?;
        }
        self.cx.failpoint("engine.capture")?;
        self.log.append(self.cx, &changes, &state).await?;
        self.cx.failpoint("engine.captured")
    }

    async fn undecodable(&mut self, resource: &str, id: &str, error: Error) {
        let record = (resource.to_owned(), id.to_owned());
        if self.undecodable.len() < TOLD {
            self.undecodable.insert(record.clone());
        }
        if !self.told.contains(&record) {
            let error = with_advice(&error);
            self.observer.emit(Event::Undecodable { resource: resource.into(), id: id.into(), error });
        }
    }
}
