//! Replication inside the process that writes the database.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use s3rep_core::{ChangeLog, Error, ErrorKind, Event, Mapping, Result, Scope, Sink};
use s3rep_engine::{DeliveryOptions, LaneProgress, LaneState, Pipeline, PipelineOptions, RunReport};
use s3rep_log::{Durability, EmbeddedLog, LogOptions};
use s3rep_s3db::{Database, Followed, Outbox, Plugin, Resource, TailOptions, TailSource};
use tokio::{sync::broadcast, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, replication};

/// A pass looks for what other programs wrote. What this one writes does not wait for it.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks at the progress of the lanes.
const LOOK: Duration = Duration::from_millis(2);

/// Replicates a database from inside the process that writes it: a plugin for [`Database::use_plugin`].
///
/// Every write through the database is captured as it is made (see [`Outbox`]), so that no version is left out
/// and a crash at any moment loses none. Records that are there already, and those that other programs write,
/// are found by passes over the database. End with [`Database::close`], which lets the destinations take what is
/// captured; what they do not take in time is in the log for the next run.
///
/// ```
/// # #[cfg(feature = "libsql")] {
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use s3rep::{DriverConfig, Mapping, Replicator, Route, s3db::{Database, DatabaseOptions, ResourceConfig}};
/// use serde_json::json;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
/// let database = Database::connect_with("memory://", options).await?;
/// let config = ResourceConfig::from_value(&json!({"name": "users", "attributes": {"name": "string"}}))?;
/// let users = database.create_resource(&config).await?;
///
/// let sqlite: s3rep::libsql::LibsqlConfig = serde_json::from_value(json!({
///     "url": format!("file:{}/users.db", dir.display()), "schemaSync": {"enabled": true},
/// })).expect("a configuration of the driver");
/// let replicator = Replicator::builder(dir.join("state"))
///     .destination("sqlite", Mapping::new(vec![Route::new("users", "users")]), sqlite.build()?)
///     .build()?;
/// let replicator = database.use_plugin(replicator).await?;
///
/// users.insert(json!({"id": "u1", "name": "Ada"})).await?;
/// replicator.caught_up().await?;
/// assert_eq!(replicator.progress()[0].written, 1);
/// database.close().await?;
/// # Ok::<(), s3rep::Error>(()) }).unwrap();
/// # }
/// ```
#[derive(Debug)]
pub struct Replicator {
    options: ReplicatorBuilder,
    running: Mutex<Option<Running>>,
}

/// What [`Replicator::builder`] collects.
#[derive(Debug)]
pub struct ReplicatorBuilder {
    state: PathBuf,
    durability: Durability,
    interval: Duration,
    followed: Followed,
    options: PipelineOptions,
    replicators: Vec<s3rep_engine::Replicator>,
    recreate_tables: bool,
    problem: Option<Error>,
}

/// The parts, from installing on.
struct Running {
    log: Arc<EmbeddedLog>,
    pipeline: Pipeline,
    /// From the start on.
    outbox: Option<Arc<Outbox>>,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<RunReport>>>,
}

impl Replicator {
    /// Begins a replicator that keeps its log in the directory `state`, which is made when it is not there. One
    /// directory is for one replicator at a time.
    pub fn builder(state: impl Into<PathBuf>) -> ReplicatorBuilder {
        ReplicatorBuilder {
            state: state.into(),
            durability: Durability::default(),
            interval: INTERVAL,
            followed: Followed::default(),
            options: PipelineOptions::default(),
            replicators: Vec::new(),
            recreate_tables: false,
            problem: None,
        }
    }

    /// How far each destination is. Empty unless it is installed.
    pub fn progress(&self) -> Vec<LaneProgress> {
        self.running().as_ref().map(|running| running.pipeline.progress()).unwrap_or_default()
    }

    /// Events from now on: batches that failed, records that were parked, passes. `None` unless it is installed.
    pub fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.running().as_ref().map(|running| running.pipeline.events())
    }

    /// Waits until every destination has what was captured before the call. Cancel-safe.
    ///
    /// # Errors
    /// When a destination has stopped, or the replicator is not started.
    pub async fn caught_up(&self) -> Result<()> {
        let (log, pipeline, outbox) = match &*self.running() {
            Some(running) if running.task.is_some() => {
                (running.log.clone(), running.pipeline.clone(), running.outbox.clone())
            }
            _ => return Err(not_started()),
        };
        if let Some(outbox) = outbox {
            outbox.settled().await;
            if outbox.unresolved() > 0 {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "writes were made whose changes are not logged yet",
                )
                .with_scope(Scope::Process)
                .with_context("writes", outbox.unresolved())
                .with_advice("the next pass or the next write of each record looks again"));
            }
        }
        let cx = s3rep_engine::context::system();
        let end = log.extent(&cx).await?.last;
        loop {
            let lanes = pipeline.progress();
            if let Some((lane, why)) = lanes.iter().find_map(|lane| Some((lane, stopped(&lane.state)?))) {
                return Err(Error::new(ErrorKind::Unavailable, "a destination does not take changes now")
                    .with_scope(Scope::Sink)
                    .with_context("replicator", &lane.replicator)
                    .with_source(why.to_owned())
                    .with_advice("what is captured stays in the log"));
            }
            if lanes.iter().all(|lane| lane.position >= end) {
                return Ok(());
            }
            cx.sleep(LOOK).await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pipeline(&self) -> Result<(Arc<EmbeddedLog>, Pipeline)> {
        let running = self.running();
        running
            .as_ref()
            .map(|running| (running.log.clone(), running.pipeline.clone()))
            .ok_or_else(not_started)
    }
}

impl ReplicatorBuilder {
    /// Adds a destination. The id names its place in the log: it must not change as long as the log is kept.
    #[must_use]
    pub fn destination(mut self, id: impl Into<Arc<str>>, mapping: Mapping, sink: Arc<dyn Sink>) -> Self {
        match s3rep_engine::Replicator::new(id, mapping, sink) {
            Ok(replicator) => self.replicators.push(replicator),
            Err(error) => self.problem = self.problem.or(Some(error)),
        }
        self
    }

    /// Takes the destinations, the retention and the time for shutting down of a configuration file. Its source
    /// and its state directory are not used.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.options.retention = config.retention;
        self.options.drain_timeout = config.shutdown_timeout;
        match replication::replicators(config) {
            Ok(replicators) => self.replicators.extend(replicators),
            Err(error) => self.problem = self.problem.or(Some(error)),
        }
        self
    }

    /// Agrees that tables are dropped and created anew, with the loss of every row, where they do not fit and
    /// `schemaSync.strategy` is `drop-create`; a snapshot follows. Without it such a destination stands still and
    /// says so. Tables of all destinations.
    #[must_use]
    pub fn recreate_tables(mut self, agreed: bool) -> Self {
        self.recreate_tables = agreed;
        self
    }

    /// What a captured write survives: power failures ([`Durability::Fsync`], the default), or the death of the
    /// process only.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Which resources are replicated; by default all that users created.
    #[must_use]
    pub fn follow(mut self, followed: Followed) -> Self {
        self.followed = followed;
        self
    }

    /// How often a pass looks for what other programs wrote. One minute by default: on S3 a pass costs a request
    /// for every 1,000 records.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How much of the log is kept, and how long a shutdown waits for destinations.
    #[must_use]
    pub fn options(mut self, options: PipelineOptions) -> Self {
        self.options = options;
        self
    }

    /// The plugin. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when there is no destination, or a route asks for what its destination does
    /// not have.
    pub fn build(mut self) -> Result<Replicator> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        if self.replicators.is_empty() {
            return Err(Error::new(ErrorKind::ConfigInvalid, "the replicator has no destination")
                .with_advice("add one with `destination` or `config`"));
        }
        if self.recreate_tables {
            let agree = |replicator: s3rep_engine::Replicator| {
                let options = DeliveryOptions { recreate_tables: true, ..*replicator.options() };
                replicator.with_options(options)
            };
            self.replicators = self.replicators.into_iter().map(agree).collect();
        }
        Ok(Replicator { options: self, running: Mutex::default() })
    }
}

#[async_trait]
impl Plugin for Replicator {
    fn name(&self) -> &str {
        "replicator"
    }

    /// Opens the log.
    async fn install(&self, database: &Database) -> Result<()> {
        let ReplicatorBuilder { state, durability, interval, followed, options, replicators, .. } =
            &self.options;
        let cx = database.context().clone();
        let log_options = LogOptions { durability: *durability, ..LogOptions::default() };
        let (log, events) = EmbeddedLog::open(state, &log_options)?;
        let log = Arc::new(log);
        let tail =
            TailOptions { interval: Some(*interval), followed: followed.clone(), ..TailOptions::default() };
        let source = Arc::new(TailSource::new(database.clone(), tail));
        let pipeline = Pipeline::new(cx, source, log.clone(), replicators.clone())?.with_options(*options);
        for event in events {
            pipeline.emit(event);
        }
        let stop = CancellationToken::new();
        *self.running() = Some(Running { log, pipeline, outbox: None, stop, task: None });
        Ok(())
    }

    /// Its changes may come before the next pass.
    async fn resource(&self, resource: &Resource) -> Result<()> {
        self.pipeline()?.1.learn(resource.schema().clone()).await
    }

    /// Captures from here on, and moves what is captured.
    async fn start(&self, database: &Database) -> Result<()> {
        let (log, pipeline) = self.pipeline()?;
        let outbox = Outbox::open(database.context(), log, self.options.followed.clone()).await?;
        let outbox = database.capture(outbox).await?;
        if let Some(running) = &mut *self.running() {
            running.outbox = Some(outbox);
            let stop = running.stop.clone();
            running.task = Some(tokio::spawn(async move { pipeline.follow(stop).await }));
        }
        Ok(())
    }

    /// Ends the capture and lets the destinations take what is captured.
    async fn stop(&self, database: &Database) -> Result<()> {
        let (stop, task, outbox) = match &mut *self.running() {
            Some(running) => (running.stop.clone(), running.task.take(), running.outbox.take()),
            None => return Ok(()),
        };
        let (Some(task), Some(outbox)) = (task, outbox) else { return Ok(()) };
        let (database, patience) = (database.clone(), self.options.options.drain_timeout);
        // Runs to its end also when nobody waits any more.
        let end = tokio::spawn(async move {
            outbox.close();
            // What is not settled in time is found at the next start.
            let _ = tokio::time::timeout(patience, outbox.settled()).await;
            stop.cancel();
            let ran = task.await.map_err(ended);
            database.end_capture();
            ran?.map(drop)
        });
        end.await.map_err(ended)?
    }

    /// Closes the log.
    async fn uninstall(&self, _: &Database) -> Result<()> {
        *self.running() = None;
        Ok(())
    }
}

fn stopped(state: &LaneState) -> Option<&str> {
    match state {
        LaneState::Stopped(why) => Some(why),
        LaneState::Ended => Some("it ended"),
        LaneState::Starting | LaneState::Running | LaneState::Retrying(_) => None,
    }
}

fn not_started() -> Error {
    Error::new(ErrorKind::Unavailable, "the replicator is not started")
        .with_advice("hand it to Database::use_plugin first")
}

fn ended(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Unexpected, "the replication ended").with_scope(Scope::Process).with_source(error)
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}
