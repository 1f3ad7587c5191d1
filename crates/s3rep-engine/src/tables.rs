//! Tables of a destination: what schema synchronisation would do to them, and doing it together with what the log
//! has to remember of it.
//!
//! A table that is made where there was one before is empty, while the cursors say that it is full. So the log
//! remembers the tables of each replicator, and a snapshot is asked for before such a table is made: a crash
//! between the two costs a snapshot and no row.

use s3rep_core::{ChangeLog, Context, Event, Result, SchemaPlan, Seq, SyncKind, Table};

use crate::{observer::Observer, replicator::Replicator, snapshot};

/// What schema synchronisation would do to a table; its statements are empty when the table fits. `None` when
/// the replicator has no schema synchronisation. Writes nothing.
///
/// # Errors
/// [`SchemaMismatch`](s3rep_core::ErrorKind::SchemaMismatch) when the table does not fit and may not be changed;
/// when the destination cannot be read.
pub async fn plan_table(cx: &Context, replicator: &Replicator, table: &Table) -> Result<Option<SchemaPlan>> {
    let Some(schema) = replicator.sink().schema_sync() else { return Ok(None) };
    let have = schema.inspect(cx, table).await?;
    schema.plan(table, have.as_ref()).map(Some)
}

/// Runs plans for the tables of one replicator, and keeps the books on them.
pub(crate) struct Tables<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) log: &'a dyn ChangeLog,
    /// Held while a snapshot request is read and written: the capture works requests off meanwhile.
    pub(crate) requests: &'a tokio::sync::Mutex<()>,
    pub(crate) observer: &'a Observer,
    pub(crate) replicator: &'a Replicator,
}

impl Tables<'_> {
    /// Plans and, if need be, executes.
    ///
    /// # Errors
    /// As [`plan_table`] and [`Tables::execute`].
    pub(crate) async fn sync(&self, table: &Table) -> Result<()> {
        match plan_table(self.cx, self.replicator, table).await? {
            Some(plan) => {
                for warning in &plan.warnings {
                    tracing::warn!(replicator = %self.replicator.id(), table = %table.name, warning);
                }
                for note in &plan.notes {
                    tracing::info!(replicator = %self.replicator.id(), table = %table.name, note);
                }
                self.execute(table, &plan).await.map(drop)
            }
            None => self.remember(table).await,
        }
    }

    /// Runs a plan that the replicator's options agree to. Returns whether a snapshot was asked for, because the
    /// table is empty now and was not before.
    ///
    /// # Errors
    /// As [`Replicator::consents_to`], with nothing done; when the log cannot be written or a statement fails.
    /// Then the same may be tried again.
    pub(crate) async fn execute(&self, table: &Table, plan: &SchemaPlan) -> Result<bool> {
        self.replicator.consents_to(table, plan)?;
        let is_emptied = self.is_emptied_by(table, plan).await?;
        if is_emptied {
            let _requests = self.requests.lock().await;
            snapshot::request_resource(self.cx, self.log, self.replicator.id(), &table.schema.name).await?;
        }
        if let (Some(kind), Some(schema)) = (plan.kind(), self.replicator.sink().schema_sync()) {
            schema.execute(self.cx, plan).await?;
            self.observer.emit(Event::TableSynced {
                replicator: self.replicator.id().clone(),
                table: table.name.clone(),
                kind,
                statements: plan.statements.len(),
            });
        }
        self.remember(table).await?;
        Ok(is_emptied)
    }

    async fn remember(&self, table: &Table) -> Result<()> {
        snapshot::remember_table(self.cx, self.log, self.replicator.id(), &table.name).await
    }

    /// Whether the plan leaves a table without the rows that the cursors say are in it.
    async fn is_emptied_by(&self, table: &Table, plan: &SchemaPlan) -> Result<bool> {
        let had_rows = match plan.kind() {
            None | Some(SyncKind::Altered) => return Ok(false),
            Some(SyncKind::Recreated) => true,
            Some(SyncKind::Created) => {
                snapshot::had_table(self.cx, self.log, self.replicator.id(), &table.name).await?
            }
        };
        Ok(had_rows && self.has_moved().await?)
    }

    /// Whether any cursor of the replicator stands beyond the beginning. Otherwise everything is still to come.
    async fn has_moved(&self) -> Result<bool> {
        let id = self.replicator.id();
        let states = self.log.replicators(self.cx).await?;
        let own = states.iter().find(|state| *state.replicator == **id);
        if own.is_some_and(|state| state.cursors.iter().any(|&seq| seq > Seq(0))) {
            return Ok(true);
        }
        // The destination's cursors move before the log's.
        let sink = self.replicator.sink();
        if !sink.capability().transactional_cursor {
            return Ok(false);
        }
        let stored = sink.cursors(self.cx, id).await?;
        Ok(stored.is_some_and(|stored| {
            stored.log == self.log.id() && stored.cursors.iter().any(|cursor| cursor.seq > Seq(0))
        }))
    }
}
