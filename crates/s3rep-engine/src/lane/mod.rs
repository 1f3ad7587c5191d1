//! One replicator's way from the log into its destination.

mod cursors;
mod deliver;
mod parking;
mod position;
mod window;

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use s3rep_core::{
    ChangeLog, Commit, Context, Error, ErrorKind, Event, Lease, Partition, ResourceSchema, Result, Scope,
    Seq, StartAt, Table,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{
    cursors::LogCursors,
    deliver::Delivered,
    parking::Parking,
    position::{Positions, Reconciled, reconcile},
    window::{Router, Window},
};
use crate::{
    observer::{LaneGauge, LaneState, Observer, lock, with_advice},
    replicator::Replicator,
    schemas::Schemas,
    snapshot,
    tables::Tables,
};

/// How often an idle destination is flushed, so that files rotate by age.
const IDLE_FLUSH: Duration = Duration::from_secs(1);
/// Until when a lane runs.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    /// End when the destination has everything up to here.
    pub(crate) drained_to: watch::Receiver<Option<Seq>>,
    /// End now, and leave the rest in the log.
    pub(crate) stopped: CancellationToken,
    /// End with an error instead of waiting for something outside to change.
    pub(crate) runs_once: bool,
}

/// One replicator's way from the log into its destination. Nothing here is shared with other replicators but
/// the log.
pub(crate) struct Lane {
    pub(crate) cx: Context,
    pub(crate) log: Arc<dyn ChangeLog>,
    pub(crate) replicator: Arc<Replicator>,
    pub(crate) schemas: Schemas,
    /// The resources that the source had when the run began.
    pub(crate) known: Arc<[Arc<str>]>,
    pub(crate) observer: Observer,
    pub(crate) gauge: Arc<LaneGauge>,
    pub(crate) until: Until,
    /// Set when the lane has acquired its cursors.
    pub(crate) fence: u64,
    /// Dropped when the lane knows where it stands, and has asked for a snapshot if it needs one.
    pub(crate) starting: Option<mpsc::Sender<()>>,
    /// The destination is not the one that was written to: find out anew where it stands.
    pub(crate) begins_again: AtomicBool,
    /// The cursors that the destination has acknowledged in this run.
    pub(crate) acknowledged: Mutex<Acknowledged>,
    /// Held while a snapshot request is read and written: the capture works requests off meanwhile.
    pub(crate) requests: Arc<tokio::sync::Mutex<()>>,
}

/// The last place of each cursor, by table and partition.
pub(crate) type Acknowledged = HashMap<(Arc<str>, Partition), Seq>;

/// The shape in which each table was synchronised last, by name.
type Synced = HashMap<Arc<str>, Arc<Table>>;

impl Lane {
    /// Moves changes until [`Until`] says so.
    ///
    /// # Errors
    /// When it cannot go on: it lost its cursors to another process, lost entries of the log, or runs once and
    /// its destination refuses. Being stopped is no error.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut result = self.run_to_end().await;
        while self.begins_again.swap(false, Ordering::Relaxed) {
            result = self.run_to_end().await;
        }
        self.gauge.end();
        match result {
            Err(error) if error.kind() == ErrorKind::Cancelled => Ok(()),
            Err(error) => {
                self.observer.emit(Event::Stopped {
                    replicator: self.replicator.id().clone(),
                    error: with_advice(&error),
                });
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn run_to_end(&mut self) -> Result<()> {
        let position = self.start().await?;
        let requests = self.requests.clone();
        let held = requests.lock().await;
        snapshot::remember_routes(&self.cx, &*self.log, self.replicator.id(), self.replicator.mapping())
            .await?;
        drop(held);
        let moved = self.move_changes(position).await;
        if self.begins_again.load(Ordering::Relaxed) {
            return moved;
        }
        let closed = self.within_timeout(self.replicator.sink().close(&self.cx)).await;
        moved.and(closed)
    }

    async fn move_changes(&mut self, position: Positions) -> Result<()> {
        // A table that is made anew asks for a snapshot, as the start does.
        let synced = self.sync_known_tables().await?;
        self.starting = None;
        let parking = Parking::load(&self.cx, &*self.log, self.replicator.id()).await?;
        self.follow(position, parking, synced).await
    }

    /// Acquires the cursors and finds out where the destination stands.
    async fn start(&mut self) -> Result<Positions> {
        lock(&self.acknowledged).clear();
        self.patiently("", |lane| async { lane.replicator.sink().check(&lane.cx).await }).await?;
        let id = self.replicator.id().clone();
        let extent = self.log.extent(&self.cx).await?;
        let start = if extent.trimmed == Seq(0) { StartAt::Oldest } else { StartAt::End };
        let lease = self.log.acquire(&self.cx, &id, start).await?;
        self.fence = lease.fence;
        if let Some(reason) = &lease.needs_resync {
            self.observer.emit(Event::NeedsResync { replicator: id.clone(), reason: reason.clone() });
            return Err(Error::new(ErrorKind::Corrupt, format!("has to be synchronised anew: {reason}"))
                .with_scope(Scope::Sink)
                .with_context("replicator", &id)
                .with_advice("run `s3rep sync` for this replicator"));
        }
        if lease.is_new && start == StartAt::End {
            return self.start_with_snapshot(&lease).await;
        }
        if !self.replicator.sink().capability().transactional_cursor {
            return Ok(Positions::new(lease.cursors));
        }
        let stored = self
            .patiently("", |lane| async {
                lane.replicator.sink().cursors(&lane.cx, lane.replicator.id()).await
            })
            .await?;
        let skipped = snapshot::skipped(&self.cx, &*self.log, &id).await?;
        match reconcile(&lease, stored.as_ref(), &self.log.id(), extent.trimmed, skipped) {
            Reconciled::At(positions) => self.rewind(&lease, positions).await,
            Reconciled::NeedsSnapshot(reason) => {
                self.observer.emit(Event::NeedsResync {
                    replicator: id,
                    reason: format!("{reason}; a snapshot follows"),
                });
                self.start_with_snapshot(&lease).await
            }
        }
    }

    /// Brings the log's cursors to where the destination stands, when that is behind.
    async fn rewind(&self, lease: &Lease, positions: Positions) -> Result<Positions> {
        let behind =
            (0..).map(Partition).zip(&lease.cursors).any(|(partition, &seq)| positions.of(partition) < seq);
        if behind {
            // A cursor that comes by that place again means nothing.
            snapshot::forget_skipped(&self.cx, &*self.log, self.replicator.id()).await?;
            self.log.reset(&self.cx, self.replicator.id(), self.fence, positions.lowest(), None).await?;
        }
        Ok(positions)
    }

    /// Skips what the log holds and asks the capture for every current record instead.
    async fn start_with_snapshot(&self, lease: &Lease) -> Result<Positions> {
        let end = self.log.extent(&self.cx).await?.last;
        {
            let _requests = self.requests.lock().await;
            snapshot::forget_tables(&self.cx, &*self.log, self.replicator.id()).await?;
            snapshot::request_instead_of_log(&self.cx, &*self.log, self.replicator.id(), end).await?;
        }
        self.log.reset(&self.cx, self.replicator.id(), self.fence, end, None).await?;
        Ok(Positions::new(vec![end; lease.cursors.len()]))
    }

    async fn follow(&self, start: Positions, parking: Parking, synced: Synced) -> Result<()> {
        let (windows, mut incoming) = mpsc::channel(1);
        let reading = CancellationToken::new();
        let reader = Reader {
            cx: self.cx.clone(),
            log: self.log.clone(),
            router: Router::new(self.replicator.clone(), self.schemas.clone(), start.clone()),
            from: start.lowest(),
            windows,
            stopped: reading.clone(),
        };
        // Reading and routing the next window overlaps with writing this one.
        let reader = tokio::spawn(reader.run());
        let _stop_reader = reading.drop_guard();
        let mut writer = Writer {
            lane: self,
            log: LogCursors::load(self, &start).await?,
            position: start.lowest(),
            pending: BTreeMap::new(),
            synced,
            parking: Mutex::new(parking),
            idle: false,
        };
        self.gauge.reached(writer.position);
        self.gauge.enter(LaneState::Running);
        let end = writer.write(&mut incoming).await;
        // What is written stays written, also when the run was stopped or a later change failed.
        let told = writer.log.commit().await;
        drop(incoming);
        match end.and_then(|end| told.map(|()| end)) {
            Ok(End::Reached) => Ok(()),
            Ok(End::ReaderGone) => match reader.await {
                Ok(result) => result,
                Err(panic) => {
                    Err(Error::new(ErrorKind::Unexpected, "the reader of the log failed").with_source(panic))
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Moves the log's cursors. Not under the timeout of writes: the log answers when its disk does, and giving
    /// up on it would only hide what became of the commit.
    async fn commit(&self, commit: Commit<'_>) -> Result<()> {
        let mut failures = 0;
        loop {
            let Err(error) = self.log.commit(&self.cx, commit).await else { return Ok(()) };
            if !error.is_temporary() {
                return Err(error);
            }
            self.wait_out(&Arc::from(""), &mut failures, None, &error).await?;
        }
    }
}

/// Reads the log and makes windows, one ahead of the writer.
struct Reader {
    cx: Context,
    log: Arc<dyn ChangeLog>,
    router: Router,
    from: Seq,
    windows: mpsc::Sender<Window>,
    stopped: CancellationToken,
}

impl Reader {
    async fn run(mut self) -> Result<()> {
        loop {
            let page =
                self.log.read(&self.cx, self.from, window::WINDOW_ENTRIES, window::WINDOW_BYTES).await?;
            if page.next == self.from {
                tokio::select! {
                    () = self.log.appended_after(self.from) => continue,
                    () = self.stopped.cancelled() => return Ok(()),
                }
            }
            self.from = page.next;
            let window = self.router.route(page);
            if self.windows.send(window).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Why the writer ended without an error.
enum End {
    Reached,
    ReaderGone,
}

/// Writes windows and moves the cursors.
struct Writer<'a> {
    lane: &'a Lane,
    log: LogCursors<'a>,
    /// Everything up to here is written or needs no writing.
    position: Seq,
    /// Ends of partitions that nothing was written for; they are committed with the next rows or when idle.
    pending: BTreeMap<Partition, Seq>,
    synced: Synced,
    parking: Mutex<Parking>,
    idle: bool,
}

impl Writer<'_> {
    async fn write(&mut self, incoming: &mut mpsc::Receiver<Window>) -> Result<End> {
        let mut drained_to = self.lane.until.drained_to.clone();
        loop {
            if let Ok(window) = incoming.try_recv() {
                self.window(window).await?;
                continue;
            }
            let target = *drained_to.borrow_and_update();
            let is_reached = target.is_some_and(|target| target <= self.position);
            if is_reached || self.log.left().is_zero() {
                self.settle_down().await?;
            }
            self.tell_idle().await;
            if is_reached {
                return Ok(End::Reached);
            }
            tokio::select! {
                window = incoming.recv() => match window {
                    Some(window) => self.window(window).await?,
                    None => return Ok(End::ReaderGone),
                },
                // The sender lives as long as the pipeline; without it nothing would ever end the lane.
                changed = drained_to.changed() => if changed.is_err() { return Ok(End::Reached) },
                () = self.lane.until.stopped.cancelled() => return Ok(End::Reached),
                () = self.lane.cx.sleep(self.log.left()), if self.is_behind() => {}
                () = self.lane.cx.sleep(IDLE_FLUSH) => self.flush().await,
            }
        }
    }

    /// Whether something was passed that the destination or the log has not heard of.
    fn is_behind(&self) -> bool {
        !self.pending.is_empty() || self.log.is_behind()
    }

    /// Tells the destination of what was passed without rows, and the log of everything.
    async fn settle_down(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            let passed = std::mem::take(&mut self.pending);
            self.lane.advance(window::cursors(&"".into(), &passed)).await?;
            self.log.pass(passed);
        }
        self.log.commit().await
    }

    /// Nothing is waiting: tells that the lane has caught up.
    async fn tell_idle(&mut self) {
        if !self.idle {
            self.idle = true;
            self.flush().await;
            let replicator = self.lane.replicator.id().clone();
            self.lane.observer.emit(Event::CaughtUp { replicator, seq: self.position });
        }
    }

    async fn flush(&self) {
        if let Err(error) = self.lane.within_timeout(self.lane.replicator.sink().flush(&self.lane.cx)).await {
            tracing::warn!(replicator = %self.lane.replicator.id(), error = with_advice(&error), "flush failed");
        }
    }

    async fn window(&mut self, window: Window) -> Result<()> {
        self.idle = false;
        self.report_damage(&window).await?;
        let mut ends = std::mem::take(&mut self.pending);
        ends.extend(window.ends);
        if window.tables.is_empty() {
            self.pending = ends;
        } else {
            let mut tables = Vec::with_capacity(window.tables.len());
            for work in window.tables {
                self.sync_schema(&work.table).await?;
                tables.push(work);
            }
            let delivered = self.deliver(tables, &ends).await?;
            self.log.pass(ends);
            self.log.settle(delivered).await?;
        }
        self.position = window.next;
        self.lane.gauge.reached(self.position);
        self.lane.gauge.enter(LaneState::Running);
        Ok(())
    }

    /// Writes the rows of every table. That may take as long as the destination is down: the log hears meanwhile
    /// of what was written before.
    async fn deliver(
        &mut self,
        tables: Vec<window::TableWork>,
        ends: &BTreeMap<Partition, Seq>,
    ) -> Result<Delivered> {
        let mut delivering = pin!(self.lane.deliver_all(tables, ends, &self.parking));
        loop {
            tokio::select! {
                delivered = &mut delivering => return delivered,
                () = self.log.due() => {}
            }
            self.log.commit().await?;
        }
    }

    /// Brings a table into the shape of its resource before the first row in that shape.
    async fn sync_schema(&mut self, table: &Arc<Table>) -> Result<()> {
        if self.synced.get(&table.name).is_some_and(|synced| synced == table) {
            return Ok(());
        }
        self.lane.sync_into(&mut self.synced, table.clone()).await
    }

    /// Entries that could not be read are lost to this replicator unless it had passed them: it says so and
    /// goes on with the others.
    async fn report_damage(&self, window: &Window) -> Result<()> {
        let lost = |&(seq, partition): &(Seq, Option<Partition>)| {
            partition.is_none_or(|partition| !self.log.has_passed(partition, seq))
        };
        let count = window.damaged.iter().filter(|entry| lost(entry)).count();
        if count > 0 && self.lane.until.runs_once {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{count} entries of the log were damaged and set aside"),
            )
            .with_scope(Scope::Sink)
            .with_advice("run `s3rep sync` for this replicator"));
        }
        if count > 0 {
            self.lane.observer.emit(Event::NeedsResync {
                replicator: self.lane.replicator.id().clone(),
                reason: format!("{count} entries of the log were damaged and set aside; run `s3rep sync`"),
            });
        }
        Ok(())
    }
}

impl Lane {
    /// Writes the rows of every table, then lets the destination's own cursor pass the window.
    async fn deliver_all(
        &self,
        tables: Vec<window::TableWork>,
        ends: &BTreeMap<Partition, Seq>,
        parking: &Mutex<Parking>,
    ) -> Result<Delivered> {
        let limits = self.replicator.limits();
        let mut lists = Vec::new();
        for work in tables {
            for changes in window::by_partition(work.changes, &limits) {
                lists.push((work.table.clone(), window::cut(changes, &limits)));
            }
        }
        let whole = if self.replicator.sink().capability().transactional_cursor {
            window::cursors(&"".into(), ends)
        } else {
            Vec::new()
        };
        if let [(table, batches)] = &mut lists[..]
            && batches.len() == 1
        {
            let changes = batches.remove(0);
            return self.deliver(table, changes, whole, parking).await;
        }
        let delivered = stream::iter(lists)
            .map(|(table, batches)| async move {
                let mut delivered = Delivered::default();
                for changes in batches {
                    delivered.absorb(self.deliver(&table, changes, Vec::new(), parking).await?);
                }
                Ok::<_, Error>(delivered)
            })
            .buffer_unordered(limits.in_flight.max(1))
            .try_fold(Delivered::default(), |mut all, one| async {
                all.absorb(one);
                Ok(all)
            })
            .await?;
        self.advance(whole).await?;
        Ok(delivered)
    }

    /// Synchronises the tables of the resources that the source had when the run began, so that what is wrong with
    /// one is told now and not when its first change comes. The lane stands still before such a table as it would
    /// then, after the others have been synchronised.
    async fn sync_known_tables(&self) -> Result<Synced> {
        let mut synced = Synced::new();
        if self.replicator.sink().schema_sync().is_none() {
            return Ok(synced);
        }
        let known = self.known_resources();
        let mut unfit = Vec::new();
        for table in self.replicator.tables(&known).filter_map(|(_, table)| table.map(Arc::new)) {
            match self.limited(self.sync_table(&table)).await {
                Ok(()) => drop(synced.insert(table.name.clone(), table)),
                Err(error) if !error.is_temporary() && error.scope() == Scope::Table => {
                    unfit.push((table, error));
                }
                Err(_) => self.sync_into(&mut synced, table).await?,
            }
        }
        // Of the first the lane tells by itself.
        for (table, error) in unfit.iter().skip(1) {
            let error = with_advice(error);
            tracing::warn!(replicator = %self.replicator.id(), table = %table.name, error, "not synchronised");
        }
        for (table, _) in unfit {
            self.sync_into(&mut synced, table).await?;
        }
        self.observer.emit(Event::SchemaSynced {
            replicator: self.replicator.id().clone(),
            resources: known.iter().map(|schema| schema.name.clone()).collect(),
        });
        Ok(synced)
    }

    /// Synchronises a table, however long it takes.
    async fn sync_into(&self, synced: &mut Synced, table: Arc<Table>) -> Result<()> {
        self.patiently(&table.name, |lane| lane.sync_table(&table)).await?;
        synced.insert(table.name.clone(), table);
        Ok(())
    }

    async fn sync_table(&self, table: &Table) -> Result<()> {
        let tables = Tables {
            cx: &self.cx,
            log: &*self.log,
            requests: &self.requests,
            observer: &self.observer,
            replicator: &self.replicator,
        };
        tables.sync(table).await
    }

    /// The resources of the routes that the source had when the run began, as they are now.
    fn known_resources(&self) -> Vec<Arc<ResourceSchema>> {
        let mut resources: Vec<Arc<ResourceSchema>> = Vec::new();
        for route in self.replicator.mapping().all_routes() {
            let is_listed = resources.iter().any(|schema| schema.name == route.resource);
            if !is_listed && self.known.contains(&route.resource) {
                resources.push(self.schemas.of(&route.resource));
            }
        }
        resources
    }
}
