//! The sink.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Error, ErrorKind, Operation, Outcome, Readback, Rejected,
    Result, RouteMode, SchemaStrategy, SchemaSync, SchemaSyncOptions, Scope, Secret, Sink, Table,
};
use serde_json::json;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{
    S3dbConfig,
    readback::Reading,
    statement::Statement,
    target::{Target, Targets, configuration},
};
use crate::{
    database::{Database, DatabaseOptions},
    format::{Document, StoredObject},
    resource::{Replica, There},
    store::{ObjectStore, PutCondition},
};

const METADATA: &str = "s3db.json";
/// How long the destination's definitions are believed without a look: others may change them.
const BELIEVED: Duration = Duration::from_secs(5);

/// An s3db database as a destination.
pub(super) struct S3dbSink {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) options: SchemaSyncOptions,
    passphrase: Secret,
    opened: AsyncMutex<Opened>,
    /// The database as it was opened last, for questions that may not wait.
    known: Mutex<Known>,
    requests: Semaphore,
    pub(super) reading: AsyncMutex<Option<Reading>>,
}

#[derive(Default)]
struct Opened {
    database: Option<Database>,
    /// When `s3db.json` was looked at last.
    looked: Option<Duration>,
}

#[derive(Default)]
struct Known {
    database: Option<Database>,
    targets: Targets,
}

/// Whether a call may make the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Existing,
    Created,
}

impl S3dbSink {
    pub(super) fn new(store: Arc<dyn ObjectStore>, passphrase: Secret, options: SchemaSyncOptions) -> Self {
        let requests = Semaphore::new(store.parallelism().max(1));
        Self {
            store,
            options,
            passphrase,
            opened: AsyncMutex::default(),
            known: Mutex::default(),
            requests,
            reading: AsyncMutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, with definitions no older than `BELIEVED`; `None` when there is none and it may not be made.
    pub(super) async fn database(&self, cx: &Context, need: Need) -> Result<Option<Database>> {
        let mut opened = self.opened.lock().await;
        let now = cx.monotonic();
        if let Some(database) = &opened.database {
            if opened.looked.is_some_and(|looked| now.saturating_sub(looked) < BELIEVED) {
                return Ok(Some(database.clone()));
            }
            match database.refresh_with(cx).await {
                Ok(changed) => {
                    opened.looked = Some(now);
                    if changed {
                        self.known().targets.clear();
                    }
                    return Ok(opened.database.clone());
                }
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(of_store(error)),
                // It was removed meanwhile: as if it had never been there.
                Err(_) => {}
            }
        }
        *opened = Opened::default();
        *self.known() = Known::default();
        let options = DatabaseOptions {
            passphrase: self.passphrase.clone(),
            create: need == Need::Created,
            context: cx.clone(),
            ..DatabaseOptions::default()
        };
        let database = match Database::open(self.store.clone(), options).await {
            Err(error) if error.kind() == ErrorKind::NotFound && need == Need::Existing => return Ok(None),
            database => database.map_err(of_store)?,
        };
        if let Some(repair) = database.repairs().iter().find(|repair| repair.unreadable) {
            return Err(damaged(&*self.store).with_context("problem", repair));
        }
        *opened = Opened { database: Some(database.clone()), looked: Some(now) };
        self.known().database = Some(database.clone());
        Ok(Some(database))
    }

    /// Looks at `s3db.json` now, whatever is believed.
    pub(super) async fn look(&self, cx: &Context, need: Need) -> Result<Option<Database>> {
        self.opened.lock().await.looked = None;
        self.database(cx, need).await
    }

    /// A table's target by what is known now.
    pub(super) fn known_target(&self, table: &Table) -> Result<Arc<Target>> {
        let mut known = self.known();
        if let Some(target) = known.targets.get(table) {
            return Ok(target);
        }
        let target = Arc::new(Target::new(known.database.as_ref(), table, &self.passphrase)?);
        known.targets.put(table, target.clone());
        Ok(target)
    }

    /// The target of a batch, made or extended if that is what the options say. `None` when there is nothing
    /// to remove from.
    async fn target(&self, cx: &Context, table: &Table, need: Need) -> Result<Option<Arc<Target>>> {
        let Some(_) = self.database(cx, need).await? else { return Ok(None) };
        let fits = |target: &Target| target.replica.is_some() && target.missing.is_empty();
        let target = self.known_target(table)?;
        if fits(&target) {
            return Ok(Some(target));
        }
        let Some(_) = self.look(cx, need).await? else { return Ok(None) };
        let target = self.known_target(table)?;
        match (&target.replica, need) {
            (Some(_), _) if fits(&target) || !self.may_extend(cx, table).await? => return Ok(Some(target)),
            (None, Need::Existing) => return Ok(None),
            (Some(_), Need::Existing) => return Ok(Some(target)),
            (Some(_), Need::Created) => {
                let (resource, attributes) = (table.name.to_string(), target.missing.clone());
                self.run(cx, &Statement::AddAttributes { resource, attributes }).await?;
            }
            (None, Need::Created) => {
                self.may_create(table)?;
                self.run(cx, &Statement::CreateResource(configuration(table))).await?;
            }
        }
        self.known_target(table).map(Some)
    }

    fn may_create(&self, table: &Table) -> Result<()> {
        let SchemaSyncOptions { enabled, strategy, auto_create_table, .. } = &self.options;
        if !enabled || (*auto_create_table && *strategy != SchemaStrategy::ValidateOnly) {
            return Ok(());
        }
        Err(super::schema::missing_table(table, &self.options))
    }

    /// Whether attributes may be added to a resource that is there: by the options, or because it was made
    /// here.
    async fn may_extend(&self, cx: &Context, table: &Table) -> Result<bool> {
        let SchemaSyncOptions { enabled, strategy, auto_create_columns, .. } = &self.options;
        if *enabled {
            return Ok(*auto_create_columns && *strategy == SchemaStrategy::Alter);
        }
        Ok(self.store.head(cx, &mark(&table.name)).await.map_err(of_store)?.is_some())
    }

    /// Does to the database what a statement says.
    pub(super) async fn run(&self, cx: &Context, statement: &Statement) -> Result<()> {
        let Some(database) = self.database(cx, Need::Created).await? else { return Ok(()) };
        match statement {
            Statement::CreateResource(_) => {
                // Before the resource: one that was made here is never taken for another's.
                let text = json!({"createdBy": "s3rep", "at": cx.now().to_string()}).to_string();
                let object = StoredObject::json(text.into());
                let key = mark(statement.resource());
                self.store.put(cx, &key, &object, PutCondition::Always).await.map_err(of_store)?;
            }
            // Before the definition: else records would stay that a resource made anew would read as its own.
            Statement::DropResource { resource } => self.remove_objects(cx, resource).await?,
            _ => {}
        }
        let change = |document: &mut Document, now| statement.run(document, now).map(drop);
        database.change(&change).await.map_err(of_store)?;
        self.known().targets.clear();
        self.look(cx, Need::Created).await.map(drop)
    }

    async fn remove_objects(&self, cx: &Context, resource: &str) -> Result<()> {
        const PAGE: usize = 1_000;
        let mut listing = self.store.list(&format!("resource={resource}/"), None).map_err(of_store)?;
        loop {
            let page = listing.page(cx, PAGE).await.map_err(of_store)?;
            if page.is_empty() {
                return Ok(());
            }
            let keys: Vec<_> = page.into_iter().map(|meta| meta.key).collect();
            self.store.delete_many(cx, &keys).await.into_iter().collect::<Result<()>>().map_err(of_store)?;
        }
    }

    /// Writes the records of a batch, each whole. Those that the format cannot hold are rejected.
    async fn write(&self, cx: &Context, replica: &Replica, batch: &Batch) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        let (mut places, mut rows) = (Vec::new(), Vec::new());
        for (index, change) in batch.changes.iter().enumerate() {
            match (&change.operation, &change.record) {
                (Operation::Delete, _) => {}
                (_, Some(record)) => {
                    places.push(index);
                    rows.push((change.key.clone(), record.clone()));
                }
                (_, None) => {
                    let error = Error::new(ErrorKind::InvalidValue, "the change has no record to write");
                    rejected.push(refused(index, &change.key, batch, error.with_scope(Scope::Record)));
                }
            }
        }
        let encoded = replica.encode(rows).await.map_err(of_store)?;
        let mut ready = Vec::with_capacity(encoded.len());
        for (index, encoded) in places.into_iter().zip(encoded) {
            let Some(change) = batch.changes.get(index) else { continue };
            match encoded {
                Ok(encoded) => ready.push((index, change.key.clone(), encoded)),
                Err(error) => rejected.push(sorted_out(index, &change.key, batch, error)?),
            }
        }
        let ids: Vec<Arc<str>> = ready.iter().map(|(_, id, _)| id.clone()).collect();
        let there = replica.look(cx, &ids).await;
        let mut writes = Vec::with_capacity(ready.len());
        for ((index, id, encoded), there) in ready.into_iter().zip(there) {
            writes.push(async move {
                let outcome = async {
                    let there: Option<There> = there?;
                    let _turn = self.requests.acquire().await;
                    replica.write(cx, &id, &encoded, there.as_ref()).await
                };
                match outcome.await {
                    Ok(()) => Ok(None),
                    Err(error) => sorted_out(index, &id, batch, error).map(Some),
                }
            });
        }
        let refused: Vec<Option<Rejected>> =
            stream::iter(writes).buffer_unordered(self.store.parallelism().max(1)).try_collect().await?;
        rejected.extend(refused.into_iter().flatten());
        Ok(rejected)
    }

    async fn remove(&self, cx: &Context, replica: &Replica, batch: &Batch) -> Result<Vec<Rejected>> {
        let deletes: Vec<(usize, Arc<str>)> = batch
            .changes
            .iter()
            .enumerate()
            .filter(|(_, change)| change.operation == Operation::Delete)
            .map(|(index, change)| (index, change.key.clone()))
            .collect();
        if deletes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Arc<str>> = deletes.iter().map(|(_, id)| id.clone()).collect();
        let outcomes = replica.remove(cx, &ids).await;
        let refused = deletes.iter().zip(outcomes).filter_map(|((index, id), outcome)| {
            outcome.err().map(|error| sorted_out(*index, id, batch, error))
        });
        refused.collect()
    }
}

/// An error about one record rejects it; any other fails the batch.
fn sorted_out(index: usize, id: &str, batch: &Batch, error: Error) -> Result<Rejected> {
    if error.scope() == Scope::Record {
        return Ok(refused(index, id, batch, error));
    }
    Err(of_store(error).with_context("table", &batch.table.name))
}

fn refused(index: usize, id: &str, batch: &Batch, error: Error) -> Rejected {
    Rejected { index, error: error.with_context("table", &batch.table.name).with_context("id", id) }
}

/// What a store says that cannot be reached, or does not let us in, is about every table.
pub(super) fn of_store(error: Error) -> Error {
    let whole = matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::RateLimited
            | ErrorKind::StorageFull
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::Cancelled
    );
    if whole && error.scope() < Scope::Sink { error.with_scope(Scope::Sink) } else { error }
}

fn damaged(store: &dyn ObjectStore) -> Error {
    Error::new(ErrorKind::Corrupt, "s3db.json of the destination is damaged, and is not written over")
        .with_scope(Scope::Sink)
        .with_context("file", store.place(METADATA))
        .with_advice("restore it from a backup, or let the application that owns the database write it again")
}

/// The object that says that a resource was made here: such a one may be extended. It is where s3db.js keeps
/// the data of plugins, so that the definition itself is the source's to the letter.
fn mark(resource: &str) -> String {
    format!("plugin=s3rep/created/{resource}")
}

impl fmt::Debug for S3dbSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3dbSink").field("location", &self.store.location()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for S3dbSink {
    fn capability(&self) -> Capability {
        S3dbConfig::capability()
    }

    async fn check(&self, cx: &Context) -> Result<()> {
        let about = |error: Error| of_store(error).with_scope(Scope::Sink).with_operation("check");
        if self.look(cx, Need::Existing).await.map_err(about)?.is_none() {
            let mut listing = self.store.list("", None).map_err(about)?;
            match listing.page(cx, 1).await {
                // A directory that is missing is made too.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(about(error)),
                _ => {}
            }
            tracing::info!(location = self.store.location(), "no database yet: the first change makes it");
        }
        Ok(())
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        if batch.table.mode == RouteMode::Append {
            return Err(Error::new(ErrorKind::Unsupported, "an s3db resource holds the latest records only")
                .with_scope(Scope::Table)
                .with_context("table", &batch.table.name)
                .with_advice("leave out mode: append, or replicate into files or SQL for a history"));
        }
        if batch.changes.is_empty() {
            return Ok(Outcome::default());
        }
        let writes = batch.changes.iter().any(|change| change.operation != Operation::Delete);
        let need = if writes { Need::Created } else { Need::Existing };
        let target = self.target(cx, &batch.table, need).await?;
        let Some(replica) = target.as_ref().and_then(|target| target.replica.as_ref()) else {
            return Ok(Outcome::default());
        };
        let mut rejected = self.write(cx, replica, batch).await?;
        rejected.extend(self.remove(cx, replica, batch).await?);
        rejected.sort_by_key(|rejected| rejected.index);
        Ok(Outcome { rejected })
    }

    async fn close(&self, _: &Context) -> Result<()> {
        *self.opened.lock().await = Opened::default();
        *self.known() = Known::default();
        *self.reading.lock().await = None;
        Ok(())
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.options.enabled.then_some(self as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}
