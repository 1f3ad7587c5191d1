//! The sink.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Error, ErrorKind, Outcome, Partition, Progress, Readback,
    Result, SchemaSync, SchemaSyncOptions, Scope, Sink, StoredCursors,
};
use s3rep_sql::{Floors, Move, stored_cursors};
use tokio::sync::OnceCell;

use crate::{
    PostgresConfig,
    audit::Audit,
    cursor,
    error::{from_postgres, is_about_shape},
    pool::{Pool, Session},
    readback::Reader,
    table::Tables,
    writer,
};

/// A database as a destination. Calls share its pool of connections.
pub(crate) struct PostgresSink {
    pool: Pool,
    options: SchemaSyncOptions,
    audit: Option<Audit>,
    tables: Tables,
    known: Mutex<Option<Known>>,
    floors: Floors,
    has_cursors: Mutex<Arc<OnceCell<()>>>,
    reader: Reader,
}

/// The cursors as this process stored them last. Nobody else moves them unless it is fenced off, which the
/// database finds out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    replicator: Arc<str>,
    log: Arc<str>,
    fence: u64,
    seqs: HashMap<(Arc<str>, Partition), u64>,
}

impl PostgresSink {
    pub(crate) fn new(pool: Pool, log_table: Option<String>, options: SchemaSyncOptions) -> Self {
        Self {
            pool,
            options,
            audit: log_table.map(Audit::new),
            tables: Tables::default(),
            known: Mutex::default(),
            floors: Floors::default(),
            has_cursors: Mutex::default(),
            reader: Reader::default(),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn options(&self) -> &SchemaSyncOptions {
        &self.options
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    pub(crate) fn floors(&self) -> &Floors {
        &self.floors
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// A session with the tables that s3rep itself needs.
    pub(crate) async fn writing(&self) -> Result<Session> {
        let mut session = self.pool.session().await?;
        let has_cursors = self.has_cursors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        has_cursors.get_or_try_init(|| cursor::create(&mut session)).await?;
        if let Some(audit) = &self.audit {
            audit.create(&mut session).await?;
        }
        Ok(session)
    }

    /// Nothing that was seen of the database is believed any longer.
    pub(crate) fn forget(&self) {
        self.tables.forget();
        *self.known() = None;
        *self.has_cursors.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cursors that a batch moves, as they stand now; `None` when not all of them are known.
    pub(crate) fn known_seqs(&self, progress: &Progress) -> Option<Known> {
        let known = self.known();
        let known = known.as_ref().filter(|known| known.is_of(progress))?;
        let has = |cursor: &s3rep_core::CursorMove| {
            known.seqs.contains_key(&(cursor.table.clone(), cursor.partition))
        };
        progress.cursors.iter().all(has).then(|| known.clone())
    }

    /// Whether this process has stored no cursor yet as this owner, or has given up what it knew.
    pub(crate) fn takes_over(&self, progress: &Progress) -> bool {
        self.known().as_ref().is_none_or(|known| !known.is_of(progress))
    }

    /// These cursors were stored.
    pub(crate) fn remember(&self, progress: &Progress, how: Move) {
        self.floors.raise(progress, how);
        let mut known = self.known();
        if known.as_ref().is_none_or(|known| !known.is_of(progress)) {
            *known = Some(Known {
                replicator: progress.replicator.clone(),
                log: progress.log.clone(),
                fence: progress.fence,
                seqs: HashMap::new(),
            });
        }
        let Some(known) = known.as_mut() else { return };
        for cursor in &progress.cursors {
            let seq = known.seqs.entry((cursor.table.clone(), cursor.partition)).or_default();
            *seq = if how == Move::Forward { cursor.seq.0.max(*seq) } else { cursor.seq.0 };
        }
    }

    /// Gives up what an error has put in doubt.
    fn after(&self, error: &Error) {
        *self.known() = None;
        if is_about_shape(error) || error.scope() >= Scope::Sink {
            self.forget();
        }
    }
}

impl Known {
    fn is_of(&self, progress: &Progress) -> bool {
        (&self.replicator, &self.log, self.fence) == (&progress.replicator, &progress.log, progress.fence)
    }

    /// Where a cursor stands; it is before the beginning when it is not known.
    pub(crate) fn seq(&self, table: &Arc<str>, partition: Partition) -> u64 {
        self.seqs.get(&(table.clone(), partition)).copied().unwrap_or_default()
    }
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSink").field("server", &self.pool.place()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn capability(&self) -> Capability {
        PostgresConfig::capability()
    }

    async fn check(&self, _: &Context) -> Result<()> {
        let mut session = self.pool.session().await?;
        check(&mut session).await?;
        session.settled();
        Ok(())
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        // Whoever asks for the cursors begins with what is there now.
        self.forget();
        self.floors.forget(replicator);
        let mut session = self.pool.session().await?;
        let client = session.unsettled()?;
        let rows =
            if cursor::exists(client).await? { cursor::load(client, replicator).await? } else { Vec::new() };
        session.settled();
        Ok(stored_cursors(rows))
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        let applied = writer::apply(self, cx, batch).await;
        if let Err(error) = &applied {
            self.after(error);
        }
        applied
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        let advanced = writer::advance(self, cx, progress).await;
        if let Err(error) = &advanced {
            self.after(error);
        }
        advanced
    }

    async fn flush(&self, _: &Context) -> Result<()> {
        self.pool.close_idle();
        Ok(())
    }

    async fn close(&self, _: &Context) -> Result<()> {
        self.reader.refresh().await;
        self.forget();
        self.pool.close();
        Ok(())
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.options.enabled.then_some(self as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}

/// Proves that the server takes writes, and that the user may keep cursors there.
async fn check(session: &mut Session) -> Result<()> {
    const SQL: &str = "SELECT current_setting('server_version_num')::int4, \
        pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on', current_schema()::text, \
        coalesce((SELECT bool_and(has_table_privilege(to_regclass('_s3rep_cursor'), p)) \
                  FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p), \
                 has_schema_privilege(current_schema(), 'CREATE'), false), \
        has_database_privilege(current_database(), 'TEMPORARY')";
    let row = session.unsettled()?.query_one(SQL, &[]).await.map_err(from_postgres)?;
    let read = || {
        Ok::<_, tokio_postgres::Error>((
            row.try_get::<_, i32>(0)?,
            row.try_get::<_, bool>(1)?,
            row.try_get::<_, Option<String>>(2)?,
            row.try_get::<_, bool>(3)?,
            row.try_get::<_, bool>(4)?,
        ))
    };
    let (version, is_read_only, schema, may_keep_cursors, may_stage) = read().map_err(from_postgres)?;
    let refuse = |kind, message: &'static str, advice: &'static str| {
        Err(Error::new(kind, message).with_scope(Scope::Sink).with_advice(advice))
    };
    if version < 120_000 {
        return refuse(
            ErrorKind::Unsupported,
            "the server is older than PostgreSQL 12",
            "upgrade the server",
        );
    }
    if is_read_only {
        return refuse(
            ErrorKind::PermissionDenied,
            "the server can only be read",
            "connect to the primary (target_session_attrs=read-write)",
        );
    }
    if schema.is_none() {
        return refuse(
            ErrorKind::NotFound,
            "there is no schema to keep the cursors in",
            "create the schema that the user's search_path names",
        );
    }
    if !may_keep_cursors {
        return refuse(
            ErrorKind::PermissionDenied,
            "the user may not keep cursors",
            "grant CREATE on the schema, or SELECT, INSERT, UPDATE, DELETE on its table _s3rep_cursor",
        );
    }
    if !may_stage {
        return refuse(
            ErrorKind::PermissionDenied,
            "the user may not make temporary tables",
            "grant TEMPORARY on the database",
        );
    }
    Ok(())
}
