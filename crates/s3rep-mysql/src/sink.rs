//! The sink.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use s3rep_core::{
    Batch, Capability, Context, Error, ErrorKind, Outcome, Progress, Readback, Result, SchemaSync,
    SchemaSyncOptions, Scope, Sink, StoredCursors,
};
use s3rep_sql::{CURSOR_TABLE, Dialect, Floors, stored_cursors};

use crate::{
    connection::{Pool, Session},
    cursor,
    error::from_mysql,
    log_table::LogTable,
    readback::Reader,
    table::Tables,
    writer,
};

/// A database as a destination. Calls share its pool of connections.
pub(crate) struct MysqlSink {
    pool: Arc<Pool>,
    capability: Capability,
    options: SchemaSyncOptions,
    log_table: Option<LogTable>,
    tables: Tables,
    floors: Floors,
    reader: Reader,
    /// The tables that s3rep itself needs are there.
    is_furnished: AtomicBool,
}

impl MysqlSink {
    pub(crate) fn new(
        pool: Arc<Pool>,
        capability: Capability,
        log_table: Option<String>,
        options: SchemaSyncOptions,
    ) -> Self {
        Self {
            tables: Tables::new(options.on_mismatch, pool.profile()),
            pool,
            capability,
            options,
            log_table: log_table.map(LogTable::new),
            floors: Floors::default(),
            reader: Reader::default(),
            is_furnished: AtomicBool::new(false),
        }
    }

    pub(crate) fn options(&self) -> &SchemaSyncOptions {
        &self.options
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn floors(&self) -> &Floors {
        &self.floors
    }

    pub(crate) fn log_table(&self) -> Option<&LogTable> {
        self.log_table.as_ref()
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) async fn session(&self) -> Result<Session> {
        self.pool.session().await
    }

    /// A session, with the tables that s3rep itself needs. They are made before any transaction, which a statement
    /// that makes a table would end.
    pub(crate) async fn writing(&self) -> Result<Session> {
        let mut session = self.session().await?;
        if !self.is_furnished.load(Ordering::Acquire) {
            cursor::create(&mut session).await?;
            if let Some(log_table) = &self.log_table {
                log_table.create(&mut session).await?;
            }
            self.is_furnished.store(true, Ordering::Release);
        }
        Ok(session)
    }

    /// Nothing that was seen of the database is relied on any longer.
    fn forget(&self) {
        self.tables.forget();
        self.is_furnished.store(false, Ordering::Release);
    }

    fn after<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.forget();
        }
        result
    }
}

impl fmt::Debug for MysqlSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlSink").field("server", &self.pool.place()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for MysqlSink {
    fn capability(&self) -> Capability {
        self.capability
    }

    async fn check(&self, _: &Context) -> Result<()> {
        let mut session = self.session().await?;
        check(&mut session, self.log_table.as_ref())
            .await
            .map_err(|error| error.with_scope(Scope::Sink).with_context("server", self.pool.place()))
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        // Whoever asks for the cursors begins with what is there now.
        self.forget();
        self.floors.forget(replicator);
        let mut session = self.session().await?;
        let rows = cursor::load(&mut session, replicator).await?;
        Ok(stored_cursors(rows.unwrap_or_default()))
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        self.after(writer::apply(self, cx, batch).await)
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        self.after(writer::advance(self, cx, progress).await)
    }

    async fn flush(&self, _: &Context) -> Result<()> {
        self.pool.close_idle().await;
        Ok(())
    }

    async fn close(&self, _: &Context) -> Result<()> {
        self.reader.close().await;
        self.forget();
        self.pool.close().await;
        Ok(())
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.options.enabled.then_some(self as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}

/// The oldest servers with what is used: a collation that compares bytes and spaces, `RENAME COLUMN`.
const OLDEST: [(Dialect, (u16, u16, u16)); 2] =
    [(Dialect::Mysql, (8, 0, 17)), (Dialect::Mariadb, (10, 5, 2))];

/// Proves that the server takes writes, and that the user may keep cursors there. Statements are prepared for that
/// and not run: the server looks at the user's rights all the same.
async fn check(session: &mut Session, log_table: Option<&LogTable>) -> Result<()> {
    let server = session.server()?;
    if OLDEST.iter().any(|(dialect, oldest)| server.dialect == *dialect && server.version < *oldest) {
        let (major, minor, patch) = server.version;
        return Err(Error::new(ErrorKind::Unsupported, "the server is too old")
            .with_context("version", format!("{major}.{minor}.{patch}"))
            .with_advice("use MySQL 8.0.17 or later, or MariaDB 10.5.2 or later"));
    }
    let engines =
        "SELECT 1 FROM information_schema.engines WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT')";
    if session.query(engines, Vec::new()).await.map_err(from_mysql)?.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "the server has no InnoDB, and so no transactions")
            .with_advice("switch InnoDB on at the server"));
    }
    // A server that can only be read refuses it.
    session.run("START TRANSACTION READ WRITE").await.map_err(from_mysql)?;
    session.rollback().await.map_err(from_mysql)?;
    check_cursors(session, server.dialect).await?;
    let Some(log_table) = log_table else { return Ok(()) };
    let statement = match log_table.exists(session).await? {
        true => log_table.statement(server.dialect, 1)?,
        false => log_table.definition(server.dialect)?,
    };
    session.prepare(&statement).await.map_err(|error| from_mysql(error).with_context("option", "logTable"))
}

async fn check_cursors(session: &mut Session, dialect: Dialect) -> Result<()> {
    let statements = match cursor::exists(session).await.map_err(cursor::at_sink)? {
        false => vec![dialect.create_cursor_table(CURSOR_TABLE)],
        true => vec![
            format!("SELECT seq FROM {CURSOR_TABLE} LOCK IN SHARE MODE"),
            format!(
                "INSERT INTO {CURSOR_TABLE} (replicator, table_name, `partition`, seq, log, fence) \
                 VALUES (?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE seq = VALUES(seq)"
            ),
            format!("DELETE FROM {CURSOR_TABLE} WHERE replicator = ?"),
        ],
    };
    for statement in &statements {
        session.prepare(statement).await.map_err(cursor::at_sink)?;
    }
    Ok(())
}
