//! Source, log and replicators, put together and run.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use s3rep_core::{
    ChangeLog, Context, Error, ErrorKind, Event, PassReport, ResourceSchema, Result, Retention, SchemaPlan,
    Scope, Seq, Source, Table,
};
use tokio::{
    sync::{OnceCell, broadcast, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::Capturer,
    lane::{Lane, Until},
    observer::{LaneGauge, LaneProgress, Observer},
    replicator::Replicator,
    schemas::Schemas,
    snapshot,
    tables::Tables,
};

/// A source, a log and the replicators that follow it.
///
/// ```
/// # use std::sync::Arc;
/// # use s3rep_core::{Mapping, Route};
/// # use s3rep_engine::{Pipeline, Replicator};
/// # use s3rep_testkit::{context, log::MemoryLog, sink::MemorySink, source::MemorySource};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let (source, log, sink) = (MemorySource::new(), MemoryLog::new(), MemorySink::new());
/// let replicator = Replicator::new("copy", Mapping::new(vec![Route::new("cars", "cars")]), Arc::new(sink))?;
/// let pipeline = Pipeline::new(context::test(), Arc::new(source), Arc::new(log), vec![replicator])?;
/// let report = pipeline.run_once().await?;
/// assert_eq!(report.undecodable, 0);
/// # Ok::<(), s3rep_core::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Pipeline {
    cx: Context,
    source: Arc<dyn Source>,
    log: Arc<dyn ChangeLog>,
    replicators: Vec<Arc<Replicator>>,
    gauges: Vec<Arc<LaneGauge>>,
    options: PipelineOptions,
    observer: Observer,
    requests: Arc<tokio::sync::Mutex<()>>,
    schemas: Arc<OnceCell<Schemas>>,
}

/// Options of a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineOptions {
    /// How much of the log is kept.
    pub retention: Retention,
    /// How often retention is applied. Default one minute: a small trim often is cheaper than a large one.
    pub trim_interval: Duration,
    /// How long a shutdown waits for the destinations to take what is captured, before the rest stays in the
    /// log. Default 10 s: what service managers allow at least.
    pub drain_timeout: Duration,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            trim_interval: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What a run that came to an end did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// Records looked at by the last pass.
    pub seen: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Rows written.
    pub written: u64,
    /// Changes parked in dead letter queues.
    pub parked: u64,
}

impl Pipeline {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when two replicators have the same id: they would share cursors.
    pub fn new(
        cx: Context,
        source: Arc<dyn Source>,
        log: Arc<dyn ChangeLog>,
        replicators: Vec<Replicator>,
    ) -> Result<Self> {
        for (i, replicator) in replicators.iter().enumerate() {
            if replicators[..i].iter().any(|other| other.id() == replicator.id()) {
                return Err(Error::new(ErrorKind::ConfigInvalid, "two replicators have the same id")
                    .with_context("id", replicator.id())
                    .with_advice("give each an 'id' of its own: it names the cursors"));
            }
        }
        let replicators: Vec<_> = replicators.into_iter().map(Arc::new).collect();
        let gauges =
            replicators.iter().map(|replicator| Arc::new(LaneGauge::new(replicator.id().clone()))).collect();
        let options = PipelineOptions::default();
        Ok(Self {
            cx,
            source,
            log,
            replicators,
            gauges,
            options,
            observer: Observer::new(),
            requests: Arc::default(),
            schemas: Arc::default(),
        })
    }

    /// The same pipeline with these options.
    #[must_use]
    pub fn with_options(mut self, options: PipelineOptions) -> Self {
        self.options = options;
        self
    }

    /// Events from now on. A subscriber that falls behind misses some; it cannot slow the pipeline.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.observer.subscribe()
    }

    /// Emits an event of the surroundings, such as a damaged log found when it was opened.
    pub fn emit(&self, event: Event) {
        self.observer.emit(event);
    }

    /// How far each replicator is.
    pub fn progress(&self) -> Vec<LaneProgress> {
        self.gauges.iter().map(|gauge| gauge.read()).collect()
    }

    /// The replicators.
    pub fn replicators(&self) -> impl Iterator<Item = &Replicator> {
        self.replicators.iter().map(|replicator| &**replicator)
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn ChangeLog> {
        &self.log
    }

    /// Captures everything that is in the source now, and ends when every destination has it.
    ///
    /// # Errors
    /// The first reason for which a destination does not have everything. Others are still written.
    pub async fn run_once(&self) -> Result<RunReport> {
        loop {
            let mut run = self.start(true).await?;
            // A lane may have to ask for a snapshot first. Nothing is ever sent: this is the end of all starting.
            run.starting.recv().await;
            let captured = run.capturer.once().await;
            let drained = run.drain(None).await;
            self.trim().await;
            let report = captured.and_then(|report| drained.map(|()| self.report(report)))?;
            // A lane may also have asked later, when it made a table anew or found its destination replaced.
            let open = snapshot::requests(&self.cx, &*self.log).await?;
            if !open.iter().any(|id| self.replicators.iter().any(|replicator| replicator.id() == id)) {
                return Ok(report);
            }
        }
    }

    /// Writes what the log holds, without looking at the source, and ends when every destination has it.
    ///
    /// # Errors
    /// As [`Pipeline::run_once`].
    pub async fn drain(&self) -> Result<RunReport> {
        let run = self.start(true).await?;
        let drained = run.drain(None).await;
        self.trim().await;
        drained.map(|()| self.report(PassReport::default()))
    }

    /// Follows the source until `shutdown`, then drains what is captured within
    /// [`PipelineOptions::drain_timeout`] and leaves the rest in the log.
    ///
    /// # Errors
    /// When the source cannot be read at the start, or no replicator can go on.
    pub async fn follow(&self, shutdown: CancellationToken) -> Result<RunReport> {
        let mut run = self.start(false).await?;
        let trimming = self.trim_now_and_then();
        let all_ended =
            async { while run.lanes.join_next().await.is_some_and(|lane| run.errors.note(lane)) {} };
        tokio::select! {
            () = run.capturer.follow(&shutdown) => {}
            () = trimming => {}
            () = all_ended => {}
        }
        run.drain(Some(self.options.drain_timeout)).await?;
        Ok(self.report(PassReport::default()))
    }

    /// Runs a plan of [`plan_table`](crate::plan_table) for a table of one of the replicators, with the same
    /// bookkeeping as in a run: where the table is made anew, a snapshot fills it. Returns whether it does, in the
    /// run that goes on or in the next one.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`] when the plan needs a consent that the replicator's options do not give
    /// ([`DeliveryOptions::recreate_tables`](crate::DeliveryOptions::recreate_tables)), with nothing done; when a
    /// statement fails, or the log cannot be written.
    pub async fn apply_plan(
        &self,
        replicator: &Replicator,
        table: &Table,
        plan: &SchemaPlan,
    ) -> Result<bool> {
        let tables = Tables {
            cx: &self.cx,
            log: &*self.log,
            requests: &self.requests,
            observer: &self.observer,
            replicator,
        };
        tables.execute(table, plan).await
    }

    /// Asks for every current record in one destination, from the beginning, and clears its `needs_resync`.
    /// The next run does the work.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn request_sync(&self, replicator: &str) -> Result<()> {
        let lease = self.log.acquire(&self.cx, replicator, s3rep_core::StartAt::End).await?;
        let end = self.log.extent(&self.cx).await?.last;
        // In this order: ended in between, the mark is still there.
        let needs_resync = lease.needs_resync.is_some();
        {
            let _requests = self.requests.lock().await;
            if needs_resync {
                snapshot::request_instead_of_log(&self.cx, &*self.log, replicator, end).await?;
            } else {
                snapshot::request(&self.cx, &*self.log, replicator).await?;
            }
        }
        if needs_resync {
            self.log.reset(&self.cx, replicator, lease.fence, end, None).await?;
        }
        Ok(())
    }

    /// Takes the shape of a resource, before changes of it are appended to the log by others than the source's
    /// passes. Passes do that by themselves.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn learn(&self, schema: Arc<ResourceSchema>) -> Result<()> {
        self.schemas().await?.remember(&self.cx, &*self.log, vec![schema]).await
    }

    async fn schemas(&self) -> Result<&Schemas> {
        self.schemas.get_or_try_init(|| Schemas::recall(&self.cx, &*self.log)).await
    }

    async fn start(&self, runs_once: bool) -> Result<Run> {
        let schemas = self.schemas().await?.clone();
        let resources = self.source.resources(&self.cx).await?;
        let known: Arc<[_]> = resources.iter().map(|schema| schema.name.clone()).collect();
        schemas.remember(&self.cx, &*self.log, resources).await?;
        let (drain_to, drained_to) = watch::channel(None);
        let stopped = CancellationToken::new();
        let (started, starting) = mpsc::channel(1);
        let mut lanes = JoinSet::new();
        for (replicator, gauge) in self.replicators.iter().zip(&self.gauges) {
            let lane = Lane {
                cx: self.cx.clone(),
                log: self.log.clone(),
                replicator: replicator.clone(),
                schemas: schemas.clone(),
                known: known.clone(),
                observer: self.observer.clone(),
                gauge: gauge.clone(),
                until: Until { drained_to: drained_to.clone(), stopped: stopped.clone(), runs_once },
                fence: 0,
                starting: Some(started.clone()),
                begins_again: AtomicBool::new(false),
                acknowledged: Mutex::default(),
                requests: self.requests.clone(),
            };
            lanes.spawn(lane.run());
        }
        let capturer = Capturer {
            cx: self.cx.clone(),
            source: self.source.clone(),
            log: self.log.clone(),
            schemas,
            observer: self.observer.clone(),
            replicators: self.replicators.iter().map(|replicator| replicator.id().clone()).collect(),
            told: Mutex::default(),
            requests: self.requests.clone(),
        };
        let (cx, log) = (self.cx.clone(), self.log.clone());
        Ok(Run { cx, log, lanes, starting, capturer, drain_to, stopped, errors: Errors::default() })
    }

    /// Never ends: retention is applied for as long as the pipeline follows.
    async fn trim_now_and_then(&self) {
        loop {
            self.cx.sleep(self.options.trim_interval).await;
            self.trim().await;
        }
    }

    /// Applies retention. A log that cannot be trimmed now is trimmed at the next occasion.
    async fn trim(&self) {
        match self.log.trim(&self.cx, self.options.retention).await {
            Ok(trimmed) => {
                for replicator in trimmed.fell_behind {
                    self.observer.emit(Event::NeedsResync {
                        replicator: replicator.into(),
                        reason: "it fell behind what the log keeps".to_owned(),
                    });
                }
            }
            Err(error) => tracing::warn!(error = error.report(), "the log could not be trimmed"),
        }
    }

    fn report(&self, pass: PassReport) -> RunReport {
        let lanes = self.progress();
        RunReport {
            seen: pass.seen,
            undecodable: pass.undecodable,
            written: lanes.iter().map(|lane| lane.written).sum(),
            parked: lanes.iter().map(|lane| lane.parked).sum(),
        }
    }
}

/// The tasks of a run.
struct Run {
    cx: Context,
    log: Arc<dyn ChangeLog>,
    lanes: JoinSet<Result<()>>,
    starting: mpsc::Receiver<()>,
    capturer: Capturer,
    drain_to: watch::Sender<Option<Seq>>,
    stopped: CancellationToken,
    errors: Errors,
}

#[derive(Default)]
struct Errors {
    first: Option<Error>,
}

impl Errors {
    /// Always true: noting goes on with the next.
    fn note(&mut self, lane: Result<Result<()>, tokio::task::JoinError>) -> bool {
        let result = lane.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Unexpected, "a replicator failed")
                .with_scope(Scope::Sink)
                .with_source(panic))
        });
        if let Err(error) = result {
            self.first.get_or_insert(error);
        }
        true
    }
}

impl Run {
    /// Lets every lane write what the log holds now and waits for them, at most as long as `limit`.
    async fn drain(mut self, limit: Option<Duration>) -> Result<()> {
        let end = match self.log.extent(&self.cx).await {
            Ok(extent) => extent.last,
            Err(error) => {
                self.stopped.cancel();
                return Err(error);
            }
        };
        // Lanes that have ended already do not listen.
        self.drain_to.send_replace(Some(end));
        let (cx, stopped) = (self.cx.clone(), self.stopped.clone());
        let limited = async {
            match limit {
                Some(limit) => cx.sleep(limit).await,
                None => std::future::pending().await,
            }
            stopped.cancel();
            std::future::pending::<()>().await;
        };
        let ended = async {
            while let Some(lane) = self.lanes.join_next().await {
                self.errors.note(lane);
            }
        };
        tokio::select! {
            () = ended => {}
            () = limited => {}
        }
        match self.errors.first {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
