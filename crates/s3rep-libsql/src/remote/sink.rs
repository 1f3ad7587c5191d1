//! A database on a server as a destination.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use libsql::Value;
use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Limits, Outcome, Progress, Readback, Result, SchemaSync,
    SchemaSyncOptions, Secret, Sink, StoredCursors, Table,
};
use s3rep_sql::{Admission, Floors, Move, stored_cursors};
use tokio::sync::Mutex;

use super::{
    Address,
    hrana::{Script, When},
    http::Http,
    known::{self, Known},
    readback::Reader,
    writer::{self, contention},
};
use crate::{LibsqlConfig, cursor};

/// 1,000 records and 4 MiB a batch, which is one request: a server takes values and rows of 5 MB. One call at a
/// time, as SQLite has one writer.
const LIMITS: Limits = Limits { records: 1_000, bytes: 4 << 20, record_bytes: 4 << 20, in_flight: 1 };

/// A batch that meets a database which is not as it was known to be is built anew, once.
const TRIES: usize = 2;

/// How long a check waits for a server that does not answer. One that is busy answers after 5 s.
const CHECK: Duration = Duration::from_secs(20);

/// A database on a server as a destination.
pub(crate) struct RemoteSink {
    pub(super) server: Http,
    /// Taken out by a call, and put back only when what became of the call is known.
    known: Mutex<Option<Known>>,
    floors: Floors,
    pub(super) reader: Reader,
    pub(super) options: SchemaSyncOptions,
}

impl RemoteSink {
    pub(crate) fn new(address: Address, token: Option<&Secret>, options: SchemaSyncOptions) -> Result<Self> {
        let server = Http::new(address, token)?;
        Ok(Self {
            server,
            known: Mutex::default(),
            floors: Floors::default(),
            reader: Reader::default(),
            options,
        })
    }

    /// The cursors of a replicator and a table, looked up unless they are known.
    async fn look(&self, known: Option<Known>, progress: &Progress, table: Option<&Table>) -> Result<Known> {
        let replicator = &progress.replicator;
        let earlier = match known {
            Some(known) if known.has(replicator, table) => return Ok(known),
            earlier => earlier,
        };
        let known = Known::load(&self.server, replicator, table, self.options.on_mismatch).await?;
        // Who has lost its cursors to another owner is told so first.
        Admission::of(&known.cursors, progress, "")?;
        Floors::check(&self.floors.below(progress, None), &known.cursors, progress)?;
        Ok(match earlier {
            Some(earlier) => known.with_tables_of(earlier),
            None => known,
        })
    }
}

impl fmt::Debug for RemoteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSink").field("server", &self.server.server()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for RemoteSink {
    fn capability(&self) -> Capability {
        Capability { limits: LIMITS, ..LibsqlConfig::capability() }
    }

    async fn check(&self, _: &Context) -> Result<()> {
        let mut script = Script::default();
        let facts = known::facts(&mut script, When::Always);
        // Nobody sees the table, as it is undone.
        let begin = script.run(When::Always, "BEGIN IMMEDIATE", vec![]);
        let create = script.run(When::Done(begin), "CREATE TABLE IF NOT EXISTS _s3rep_check (x)", vec![]);
        script.run(When::InTransaction, "ROLLBACK", vec![]);
        let mut ran = self.server.run_within(&script, CHECK).await?;
        known::schema_version(&mut ran, facts)?;
        ran.check(begin)?;
        ran.check(create)
    }

    async fn cursors(&self, _: &Context, replicator: &str) -> Result<Option<StoredCursors>> {
        let mut script = Script::default();
        let exists = script.query(When::Always, cursor::exists(), vec![]);
        let cursors = script.query(When::Always, cursor::select(), vec![Value::from(replicator)]);
        // Whoever asks for the cursors begins with what is there now.
        *self.known.lock().await = None;
        self.floors.forget(replicator);
        let mut ran = self.server.run(&script).await?;
        if ran.rows(exists)?.is_empty() {
            return Ok(None);
        }
        let rows = ran.rows(cursors)?.into_iter().map(cursor::decode);
        Ok(stored_cursors(rows.collect::<Result<_>>()?))
    }

    async fn apply(&self, cx: &Context, batch: &Batch) -> Result<Outcome> {
        let mut place = self.known.lock().await;
        let mut earlier = place.take();
        for _ in 0..TRIES {
            let mut known = self.look(earlier.take(), &batch.progress, Some(&batch.table)).await?;
            let written = writer::apply(&self.server, cx, batch, &mut known).await?;
            if let Some(outcome) = written.outcome() {
                if outcome.rejected.is_empty() {
                    self.floors.raise(&batch.progress, Move::Forward);
                }
                *place = Some(known);
                return Ok(outcome);
            }
        }
        Err(contention("the cursors or the tables change while they are written"))
    }

    async fn advance(&self, cx: &Context, progress: &Progress) -> Result<()> {
        let mut place = self.known.lock().await;
        let mut earlier = place.take();
        for _ in 0..TRIES {
            let mut known = self.look(earlier.take(), progress, None).await?;
            let written = writer::advance(&self.server, cx, progress, &mut known).await?;
            if written.outcome().is_some() {
                self.floors.raise(progress, Move::Anywhere);
                *place = Some(known);
                return Ok(());
            }
        }
        Err(contention("the cursors change while they are written"))
    }

    async fn close(&self, _: &Context) -> Result<()> {
        *self.known.lock().await = None;
        self.reader.refresh();
        Ok(())
    }

    fn schema_sync(&self) -> Option<&dyn SchemaSync> {
        self.options.enabled.then_some(self as _)
    }

    fn readback(&self) -> Option<&dyn Readback> {
        Some(self)
    }
}
