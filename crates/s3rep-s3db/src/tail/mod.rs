//! Follows a database from outside: whoever writes it, listings are compared with what was last known.

mod bill;
mod page;
mod pass;
pub(crate) mod remembered;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use s3rep_core::{
    Capture, Change, ChangeId, Context, Error, ErrorKind, Operation, PassReport, Record, ResourceSchema,
    Result, Scope, SnapshotRows, Source, SourceCapability, SourceRow, SourceState,
};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as AsyncMutex;

pub use self::bill::RequestBill;
use self::{
    page::Page,
    pass::{Comparison, drop_resource, version_of},
    remembered::space,
    state::{DATABASE, NAMES, PROGRESS, Progress, Scan, corrupt, json_write},
};
use crate::{
    database::Database,
    format::{record_key, record_prefix},
    outbox::{Followed, Outbox},
    resource::{Records, Resource},
    store::{Listing, Requests},
};

/// Passes over the same half-written object before it is reported.
const TORN_PASSES: u32 = 10;
/// Listings kept between two pages, and for how long.
const PARKED: usize = 4;
const PARKED_FOR: Duration = Duration::from_secs(60);
/// Waits between two passes; see [`TailOptions::interval`].
const INTERVAL: Duration = Duration::from_secs(1);
const BILLED_INTERVAL: Duration = Duration::from_secs(10);

/// How a database is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailOptions {
    /// How long to wait between two passes. By default one second, and ten where a store bills its requests.
    pub interval: Option<Duration>,
    /// The resources to follow.
    pub followed: Followed,
    /// Objects read at once, 1,024 by default: they are in memory together.
    pub batch: usize,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self { interval: None, followed: Followed::default(), batch: 1024 }
    }
}

/// A database followed by comparing listings.
///
/// Sees what a listing shows: the latest version of each record at each pass, with the record before it;
/// deletes by absence. The first pass over a resource captures its records as
/// [`Read`](s3rep_core::Operation::Read) and goes on where it was cut off. A resource that is created later is
/// followed from its first insert.
///
/// What is remembered of a record (in the space `tail:RESOURCE` of the state: the store's version token, the
/// last change, the record itself) costs about as much as the record. A pass holds one page of the listing, one
/// of the state and one batch of objects in memory; a file store adds the names of one directory.
#[derive(Debug)]
pub struct TailSource {
    database: Database,
    options: TailOptions,
    torn: Torn,
    /// A pass and a snapshot write the same state: one at a time.
    working: AsyncMutex<()>,
    listings: Parked<Box<dyn Listing>>,
    records: Parked<Records>,
    /// Requests that are on the bill.
    billed: Mutex<Requests>,
}

impl TailSource {
    /// Follows a database.
    pub fn new(database: Database, options: TailOptions) -> Self {
        Self {
            database,
            options,
            torn: Torn::default(),
            working: AsyncMutex::default(),
            listings: Parked::default(),
            records: Parked::default(),
            billed: Mutex::default(),
        }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The names of the followed resources, with digests of their definitions.
    fn followed(&self) -> Vec<(String, String)> {
        let document = self.database.document();
        let of_users =
            document.resources().filter(|(name, entry)| self.options.followed.has(name, entry.created_by()));
        of_users
            .map(|(name, entry)| {
                let text = serde_json::to_vec(entry.raw()).unwrap_or_default();
                let digest = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
                (name.to_owned(), digest)
            })
            .collect()
    }

    /// Remembers what was asked of a store that bills its requests, by this process and so far.
    async fn bill(&self, cx: &Context, state: &dyn SourceState, page: &mut Page<'_>) -> Result<()> {
        let Some(made) = self.database.store().requests() else { return Ok(()) };
        let billed = *self.billed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = RequestBill::read(cx, state).await?;
        page.write(RequestBill::with(known, made - billed, cx.now()).write()?);
        page.flush().await?;
        *self.billed.lock().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// Reads `s3db.json` anew. One that cannot be read, or that lost followed resources to healing, is an
    /// error: nothing is deleted because of it.
    async fn look(&self, cx: &Context, progress: &BTreeMap<String, Progress>) -> Result<Vec<String>> {
        self.database.refresh_with(cx).await?;
        let repairs = self.database.repairs();
        if repairs.iter().any(|repair| repair.unreadable) {
            return Err(self.database.damaged());
        }
        let names: BTreeSet<String> = self.database.resources().into_iter().collect();
        let followed = |name: &&String| self.options.followed.has(name, None);
        let gone: Vec<String> =
            progress.keys().filter(|name| !names.contains(*name)).filter(followed).cloned().collect();
        match gone.first() {
            Some(name) if !repairs.is_empty() => {
                Err(self.database.damaged().with_context("missing resource", name))
            }
            _ => Ok(gone),
        }
    }
}

#[async_trait]
impl Source for TailSource {
    fn capability(&self) -> SourceCapability {
        let mut capability = SourceCapability::LATEST_ONLY;
        capability.before_images = true;
        capability
    }

    fn interval(&self) -> Duration {
        let default = if self.database.store().requests().is_some() { BILLED_INTERVAL } else { INTERVAL };
        self.options.interval.unwrap_or(default)
    }

    async fn resources(&self, cx: &Context) -> Result<Vec<Arc<ResourceSchema>>> {
        self.look(cx, &BTreeMap::new()).await?;
        let mut schemas = Vec::new();
        for (name, _) in self.followed() {
            match self.database.resource(&name) {
                Ok(resource) => schemas.push(resource.schema().clone()),
                // A pass reports it and follows the others.
                Err(error) => tracing::warn!(resource = name, "left out: {}", error.report()),
            }
        }
        Ok(schemas)
    }

    async fn pass(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
    ) -> Result<PassReport> {
        let _working = self.working.lock().await;
        let outbox = self.database.outbox();
        let _pass = outbox.as_deref().map(Outbox::begin_pass);
        self.torn.begin();
        let progress = read_progress(cx, state).await?;
        let gone = self.look(cx, &progress).await?;
        let names = state.get(cx, DATABASE, NAMES).await?;
        let names: Option<BTreeSet<String>> =
            names.map(|text| serde_json::from_slice(&text)).transpose().map_err(|_| corrupt())?;

        let mut report = PassReport::default();
        let mut problem = None;
        let left = match &outbox {
            Some(outbox) => outbox.resolve_all(cx, &self.database).await,
            None => Vec::new(),
        };
        for ((resource, id), error) in left {
            if error.is_temporary() || error.scope() != Scope::Record {
                problem.get_or_insert(error.with_context("resource", resource));
            } else {
                report.undecodable += 1;
                capture.undecodable(&resource, &id, error).await;
            }
        }
        let mut page = Page::new(capture, outbox.as_deref());
        for (name, definition) in self.followed() {
            let resource = match self.database.resource(&name) {
                Ok(resource) => resource,
                Err(error) => {
                    problem.get_or_insert(error);
                    continue;
                }
            };
            let known = progress.get(&name);
            // One that was not there at an earlier pass has no records from before it.
            let born_later = names.as_ref().is_some_and(|names| !names.contains(&name));
            let snapshot = known.map_or(!born_later, |known| known.snapshot);
            let version = resource.version().to_owned();
            let ended = Progress { definition, version, snapshot: false };
            if known.is_none() {
                page.write(Progress { snapshot, ..ended.clone() }.write(&name)?);
            }
            let reread = known.is_some_and(|known| known.definition != ended.definition);
            page.reread = reread;
            let mut comparison = Comparison {
                cx,
                state,
                resource: &resource,
                space: space(&name),
                snapshot,
                reread,
                batch: self.options.batch.max(1),
                torn: &self.torn,
                page: &mut page,
                report: &mut report,
            };
            if let Err(error) = comparison.run().await {
                problem.get_or_insert(error.with_context("resource", &name));
                continue;
            }
            if known != Some(&ended) {
                page.write(ended.write(&name)?);
            }
            page.flush().await?;
        }
        for name in gone {
            drop_resource(cx, state, &mut page, &name, &progress[&name]).await?;
        }
        let all: BTreeSet<String> = self.database.resources().into_iter().collect();
        if self.database.repairs().is_empty() && names.as_ref() != Some(&all) {
            page.write(json_write(DATABASE, NAMES, &all)?);
            page.flush().await?;
        }
        self.bill(cx, state, &mut page).await?;
        report.captured = page.captured;
        self.torn.end();
        problem.map_or(Ok(report), Err)
    }

    async fn snapshot(
        &self,
        cx: &Context,
        state: &dyn SourceState,
        capture: &mut dyn Capture,
        rows: SnapshotRows<'_>,
    ) -> Result<Option<String>> {
        let _working = self.working.lock().await;
        let outbox = self.database.outbox();
        let _pass = outbox.as_deref().map(Outbox::begin_pass);
        let resource = self.database.resource(rows.resource)?;
        let prefix = record_prefix(resource.name())?;
        let mut listing = match self.listings.take(cx, rows.resource, rows.after) {
            Some(listing) => listing,
            None => {
                let after = rows.after.map(|id| record_key(resource.name(), id)).transpose()?;
                resource.store().list(&prefix, after.as_deref())?
            }
        };
        let progress = state.get(cx, PROGRESS, rows.resource).await?;
        let progress = progress.as_deref().map(Progress::read).transpose()?;
        let mut page = Page::new(capture, outbox.as_deref());
        let mut report = PassReport::default();
        let mut comparison = Comparison {
            cx,
            state,
            resource: &resource,
            space: space(resource.name()),
            snapshot: progress.is_none_or(|progress| progress.snapshot),
            reread: true,
            batch: self.options.batch.max(1),
            torn: &self.torn,
            page: &mut page,
            report: &mut report,
        };
        let mut known = Scan::new(cx, state, space(resource.name()), rows.after);
        let (mut last, mut left) = (None, rows.max.max(1));
        while left > 0 {
            let listed = listing.page(cx, left.min(self.options.batch.max(1))).await?;
            let Some(end) = listed.last().and_then(|meta| meta.key.strip_prefix(&prefix)) else { break };
            last = Some(end.to_owned());
            left = left.saturating_sub(listed.len());
            let ids = listed.iter().map(|meta| Arc::from(meta.key.strip_prefix(&prefix).unwrap_or_default()));
            let read = resource.read_many(ids.collect()).await?;
            for (meta, read) in listed.iter().zip(read) {
                let Some(found) = read else { continue };
                let mut remembered = None;
                while let Some((key, value)) = known.next_until(&found.id).await? {
                    // Those in between are deletes that the next pass captures.
                    if *key == *found.id {
                        remembered = Some(value);
                        break;
                    }
                }
                let compared =
                    comparison.compare(meta, &found.id, remembered.as_deref(), found.record).await?;
                let Some((record, previous)) = compared else {
                    if comparison.report.deferred > 0 {
                        // Were the row left out, nothing would bring it later.
                        return Err(Error::new(
                            ErrorKind::Contention,
                            "a record is being written at this moment",
                        )
                        .temporary()
                        .with_context("resource", resource.name())
                        .with_context("id", &found.id));
                    }
                    continue;
                };
                // Every snapshot reads anew: had its rows the ids of an earlier one, the log would take them
                // for duplicates.
                let version = version_of(&meta.version, &cx.random().to_le_bytes());
                comparison.page.change(
                    Change {
                        change_id: ChangeId::derive(
                            resource.name(),
                            &found.id,
                            Operation::Read,
                            &version,
                            Some(previous),
                        ),
                        resource: resource.schema().name.clone(),
                        id: found.id.clone(),
                        operation: Operation::Read,
                        data: Some(record),
                        before: None,
                        timestamp: meta.modified,
                        schema_version: resource.schema().version.clone(),
                        target: Some(rows.target.clone()),
                    },
                    usize::try_from(meta.size).unwrap_or(usize::MAX).saturating_add(256),
                );
                if comparison.page.is_full() {
                    comparison.page.write((rows.progress)(&found.id));
                    comparison.page.flush().await?;
                }
            }
        }
        if let Some(last) = &last {
            page.write((rows.progress)(last));
            page.flush().await?;
            self.listings.park(cx, rows.resource, last, listing);
        }
        Ok(last)
    }

    async fn records(
        &self,
        cx: &Context,
        resource: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<SourceRow>> {
        let mut records = match self.records.take(cx, resource, after) {
            Some(records) => records,
            None => self.database.resource(resource)?.records(after)?,
        };
        let rows = records.page(max).await?;
        if let Some(last) = rows.last() {
            self.records.park(cx, resource, &last.id, records);
        }
        Ok(rows)
    }

    async fn record(&self, _: &Context, resource: &str, id: &str) -> Result<Option<Arc<Record>>> {
        // Without the hooks of the program: what is replicated is what is stored.
        Ok(self.database.resource(resource)?.load(id).await?.map(|(record, _)| Arc::new(record)))
    }
}

async fn read_progress(cx: &Context, state: &dyn SourceState) -> Result<BTreeMap<String, Progress>> {
    let mut progress = BTreeMap::new();
    let mut scan = Scan::new(cx, state, PROGRESS.to_owned(), None);
    while let Some((name, value)) = scan.next().await? {
        progress.insert(name, Progress::read(&value)?);
    }
    Ok(progress)
}

/// Objects that a writer was at when they were read: how many passes in a row, under which token.
#[derive(Debug, Default)]
struct Torn(Mutex<TornNow>);

#[derive(Debug, Default)]
struct TornNow {
    pass: u64,
    objects: HashMap<(String, String), TornObject>,
}

#[derive(Debug)]
struct TornObject {
    token: Vec<u8>,
    times: u32,
    pass: u64,
}

impl Torn {
    fn with<T>(&self, work: impl FnOnce(&mut TornNow) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self) {
        self.with(|now| now.pass += 1);
    }

    /// Forgets what this pass did not meet.
    fn end(&self) {
        self.with(|now| now.objects.retain(|_, object| object.pass == now.pass));
    }

    /// Counts; true when it is no coincidence any more.
    fn is_lasting(&self, resource: &str, id: &str, token: &[u8]) -> bool {
        self.with(|now| {
            let object = now
                .objects
                .entry((resource.to_owned(), id.to_owned()))
                .or_insert_with(|| TornObject { token: token.to_vec(), times: 0, pass: now.pass });
            if object.token != token {
                (object.token, object.times) = (token.to_vec(), 0);
            }
            object.pass = now.pass;
            object.times += 1;
            object.times >= TORN_PASSES
        })
    }

    fn forget(&self, resource: &str, id: &str) {
        self.with(|now| {
            if !now.objects.is_empty() {
                now.objects.remove(&(resource.to_owned(), id.to_owned()));
            }
        });
    }
}

/// Listings that wait for whoever asks for the page after their last one: a directory is not sorted anew for
/// every page, and a store with continuation tokens goes on with its own.
#[derive(Debug)]
struct Parked<T>(Mutex<Vec<(String, String, Duration, T)>>);

impl<T> Default for Parked<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Parked<T> {
    fn take(&self, cx: &Context, resource: &str, after: Option<&str>) -> Option<T> {
        let after = after?;
        let mut parked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cx.monotonic();
        parked.retain(|(_, _, since, _)| now.saturating_sub(*since) < PARKED_FOR);
        let place = parked.iter().position(|(of, last, ..)| of == resource && last == after)?;
        Some(parked.swap_remove(place).3)
    }

    fn park(&self, cx: &Context, resource: &str, last: &str, listing: T) {
        let mut parked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.len() == PARKED {
            parked.remove(0);
        }
        parked.push((resource.to_owned(), last.to_owned(), cx.monotonic(), listing));
    }
}

impl Resource {
    fn version(&self) -> &str {
        self.format().version()
    }
}
