//! Writing a batch and its cursors in one transaction.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use deadpool_postgres::Object;
use futures::{SinkExt, future::OptionFuture, join, pin_mut};
use s3rep_core::{
    Batch, Context, Error, ErrorKind, Operation, Outcome, Progress, Rejected, Result, RouteMode, RowChange,
    Scope, Table,
};
use s3rep_sql::{Admission, Floors, Move, signed};
use tokio_postgres::types::{ToSql, Type};

use crate::{
    cursor::{self, Moves},
    encode::{Array, COPY_END, COPY_HEADER, Rows},
    error::from_postgres,
    pool::Session,
    sink::{Known, PostgresSink},
    table::{FINGERPRINT, Prepared},
};

/// Up to here a statement over arrays is at least as fast as `COPY` (measured by `cargo xtask bench sql`).
const ARRAYS: usize = 256;
/// Bytes that are handed to a `COPY` at once.
const COPY_CHUNK: usize = 256 << 10;

/// Guilty records are looked for so long. Those that are found by then are told; the rest is found when the others
/// come again, so that a batch of nothing but guilty records makes progress too.
const SEARCH: Duration = Duration::from_secs(5);

/// A change with its index in the batch.
type Indexed<'a> = (usize, &'a RowChange);

/// A batch on its way into a table.
struct Work<'a> {
    table: &'a Table,
    prepared: Arc<Prepared>,
    /// Rows to write, in the order of their keys.
    writes: Vec<Indexed<'a>>,
    /// Rows to delete.
    deletes: Vec<&'a RowChange>,
}

/// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
pub(crate) async fn apply(sink: &PostgresSink, cx: &Context, batch: &Batch) -> Result<Outcome> {
    if let Some(outcome) = at_once(sink, cx, batch).await? {
        return Ok(outcome);
    }
    let moves = Moves::of(&batch.progress)?;
    let mut session = sink.writing().await?;
    let admission = begin(sink, &mut session, &batch.progress, &moves, Some(&batch.table.name)).await?;
    let prepared = current(sink, session.client()?, &batch.table).await?;
    let due = batch.changes.iter().enumerate().filter(|(_, change)| !admission.covers(change));
    let work = Work::of(&batch.table, prepared, due);
    let rejected = work.write(cx, &mut session).await?;
    if !rejected.is_empty() {
        session.rollback().await?;
        return Ok(Outcome { rejected });
    }
    if let Some(audit) = sink.audit() {
        audit.write(session.client()?, &batch.table, &work.changes()).await?;
    }
    cx.failpoint("postgres.rows")?;
    cursor::store(session.client()?, &batch.progress, &moves, Move::Forward).await?;
    cx.failpoint("postgres.commit")?;
    session.commit().await?;
    cx.failpoint("postgres.committed")?;
    sink.remember(&batch.progress, Move::Forward);
    Ok(Outcome::default())
}

/// Stores cursors without rows.
pub(crate) async fn advance(sink: &PostgresSink, cx: &Context, progress: &Progress) -> Result<()> {
    let moves = Moves::of(progress)?;
    let mut session = sink.writing().await?;
    begin(sink, &mut session, progress, &moves, None).await?;
    cursor::store(session.client()?, progress, &moves, Move::Anywhere).await?;
    cx.failpoint("postgres.commit")?;
    session.commit().await?;
    sink.remember(progress, Move::Anywhere);
    Ok(())
}

/// Begins a transaction that holds the cursors which move, and asks what they say.
async fn begin(
    sink: &PostgresSink,
    session: &mut Session,
    progress: &Progress,
    moves: &Moves,
    table: Option<&str>,
) -> Result<Admission> {
    let floors = sink.floors().below(progress, table);
    let stored = cursor::begin(session, progress, moves, sink.takes_over(progress)).await?;
    let admission = Admission::of(&stored, progress, table.unwrap_or_default())?;
    Floors::check(&floors, &stored, progress)?;
    if admission.replaces_log {
        cursor::replace(session.client()?, progress).await?;
    }
    Ok(admission)
}

/// The statements for a table as it is inside this transaction.
async fn current(sink: &PostgresSink, client: &Object, table: &Table) -> Result<Arc<Prepared>> {
    if let Some(known) = sink.tables().known(table) {
        let statement =
            client.prepare_cached(&format!("SELECT {FINGERPRINT}")).await.map_err(from_postgres)?;
        let row = client.query_one(&statement, &[&known.name]).await.map_err(from_postgres)?;
        let fingerprint: Option<String> = row.try_get(0).map_err(from_postgres)?;
        if fingerprint.is_some_and(|fingerprint| fingerprint == known.fingerprint) {
            return Ok(known);
        }
        sink.tables().forget();
    }
    sink.tables().prepared(client, table, sink.options().on_mismatch).await
}

/// A small batch in one round trip: everything goes out at once, and the first statement fails unless cursors and
/// table are as they were at the end of the last batch. `None` when that cannot be said, or when a row needs a
/// closer look.
async fn at_once(sink: &PostgresSink, cx: &Context, batch: &Batch) -> Result<Option<Outcome>> {
    let Batch { table, changes, progress } = batch;
    if changes.is_empty() || changes.len() > ARRAYS || progress.cursors.is_empty() || sink.audit().is_some() {
        return Ok(None);
    }
    let (Some(prepared), Some(known)) = (sink.tables().known(table), sink.known_seqs(progress)) else {
        return Ok(None);
    };
    let is_covered = |change: &RowChange| {
        let seq = known.seq(&"".into(), change.partition).max(known.seq(&table.name, change.partition));
        change.seq.0 <= seq
    };
    if changes.iter().any(is_covered) {
        return Ok(None);
    }
    let work = Work::of(table, prepared, changes.iter().enumerate());
    let writes: Vec<_> = work.writes.iter().map(|(_, change)| *change).collect();
    let Ok(arrays) = work.rows().arrays(&writes) else { return Ok(None) };
    cx.failpoint("postgres.rows")?;
    cx.failpoint("postgres.commit")?;
    let mut session = sink.pool().session().await?;
    if !work.send_at_once(&mut session, progress, &known, &arrays).await? {
        return Ok(None);
    }
    cx.failpoint("postgres.committed")?;
    sink.remember(progress, Move::Forward);
    Ok(Some(Outcome::default()))
}

/// Moves the cursors, or divides by zero when they are not where they should be.
const GUARD: &str = "WITH moved AS (UPDATE _s3rep_cursor AS c SET seq = greatest(c.seq, m.new) \
    FROM unnest($3::text[], $4::int4[], $5::int8[], $6::int8[]) AS m(t, p, old, new) \
    WHERE c.replicator = $2 AND c.table_name = m.t AND c.\"partition\" = m.p AND c.seq = m.old AND c.log = $7 \
    AND c.fence = $8 RETURNING 1) \
    SELECT 1 / (CASE WHEN (SELECT count(*) FROM moved) = cardinality($3::text[]) AND NOT EXISTS \
    (SELECT 1 FROM _s3rep_cursor WHERE replicator = $2 AND fence > $8) AND ";

impl<'a> Work<'a> {
    fn of(table: &'a Table, prepared: Arc<Prepared>, changes: impl Iterator<Item = Indexed<'a>>) -> Self {
        let is_delete =
            |change: &RowChange| table.mode == RouteMode::Upsert && change.operation == Operation::Delete;
        // A key that the column cannot hold is no row's, and the server might take it for another that is.
        let changes = changes.filter(|(_, change)| !is_delete(change) || prepared.may_have(change));
        let (deletes, mut writes): (Vec<_>, Vec<_>) = changes.partition(|(_, change)| is_delete(change));
        // Everybody locks rows in one order, and neighbours in an index are cheaper one after the other. Changes
        // of one record stay in theirs.
        writes.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        let mut deletes: Vec<_> = deletes.into_iter().map(|(_, change)| change).collect();
        deletes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Self { table, prepared, writes, deletes }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { table: self.table, targets: &self.prepared.targets, wires: &self.prepared.wires }
    }

    fn changes(&self) -> Vec<&'a RowChange> {
        let mut changes: Vec<_> =
            self.writes.iter().map(|(_, change)| *change).chain(self.deletes.iter().copied()).collect();
        changes.sort_unstable_by_key(|change| change.seq);
        changes
    }

    /// Writes the rows. Returns those that cannot be written; then nothing of the batch may stay.
    async fn write(&self, cx: &Context, session: &mut Session) -> Result<Vec<Rejected>> {
        let client = session.client()?;
        if !self.deletes.is_empty() {
            let statement = client.prepare_cached(&self.prepared.delete).await.map_err(from_postgres)?;
            client.execute(&statement, &[&self.delete_keys()]).await.map_err(from_postgres)?;
        }
        if self.writes.is_empty() {
            return Ok(Vec::new());
        }
        if self.writes.len() <= ARRAYS {
            return match self.arrays_of(&self.writes) {
                Ok(arrays) => self.write_arrays(cx, client, &arrays).await,
                Err(_) => Ok(self.unfit()),
            };
        }
        let Some(tuples) = self.tuples() else { return Ok(self.unfit()) };
        self.write_tuples(cx, client, tuples).await
    }

    /// Whether each row should be new to the table.
    fn is_new(&self) -> bool {
        self.table.mode == RouteMode::Append
            || self
                .writes
                .iter()
                .all(|(_, change)| matches!(change.operation, Operation::Insert | Operation::Read))
    }

    async fn write_tuples(&self, cx: &Context, client: &Object, tuples: Bytes) -> Result<Vec<Rejected>> {
        if self.is_new() && self.prepared.tries_direct() {
            match attempt(client, copy(client, &self.prepared.copy, tuples.clone())).await? {
                None => return Ok(Vec::new()),
                Some(_) => self.prepared.direct_failed(),
            }
        }
        let staged = async {
            if self.table.mode == RouteMode::Append {
                // A stage does not keep the order of its rows.
                for piece in self.writes.chunks(ARRAYS) {
                    self.execute_arrays(client, &self.arrays_of(piece)?).await?;
                }
                return Ok(());
            }
            client.batch_execute(&self.prepared.create_stage).await.map_err(from_postgres)?;
            copy(client, &self.prepared.copy_to_stage, tuples).await?;
            let merge = client.prepare_cached(&self.prepared.merge).await.map_err(from_postgres)?;
            client.execute(&merge, &[]).await.map(drop).map_err(from_postgres)
        };
        match attempt(client, staged).await? {
            None => Ok(Vec::new()),
            Some(_) => self.find_guilty(cx, client).await,
        }
    }

    async fn write_arrays(&self, cx: &Context, client: &Object, arrays: &[Array]) -> Result<Vec<Rejected>> {
        match (attempt(client, self.execute_arrays(client, arrays)).await?, &*self.writes) {
            (None, _) => Ok(Vec::new()),
            (Some(error), [write]) => Ok(vec![self.rejected(*write, error)]),
            _ => self.find_guilty(cx, client).await,
        }
    }

    async fn execute_arrays(&self, client: &Object, arrays: &[Array]) -> Result<()> {
        let Prepared { upsert, upsert_types, .. } = &*self.prepared;
        let statement = client.prepare_typed_cached(upsert, upsert_types).await.map_err(from_postgres)?;
        client.execute(&statement, &parameters(arrays)).await.map(drop).map_err(from_postgres)
    }

    /// Halves the rows until each that the database refuses is alone, or until it is time to tell of some.
    async fn find_guilty(&self, cx: &Context, client: &Object) -> Result<Vec<Rejected>> {
        let since = cx.monotonic();
        let is_over = |limit: Duration| cx.monotonic().saturating_sub(since) > limit;
        let mut guilty = Vec::new();
        let (first, second) = self.writes.split_at(self.writes.len() / 2);
        let mut pieces = vec![second, first];
        while let Some(piece) = pieces.pop() {
            match (self.try_again(client, piece).await?, piece) {
                (None, _) => {}
                (Some(error), [write]) => guilty.push((*write, error)),
                _ => {
                    let (first, second) = piece.split_at(piece.len() / 2);
                    pieces.extend([second, first]);
                }
            }
            if pieces.is_empty() || (!guilty.is_empty() && is_over(SEARCH)) {
                self.acquit(client, &mut guilty, || is_over(SEARCH * 2)).await?;
                // Without anyone to tell of, all rows have to be written: the search goes on.
                if !guilty.is_empty() {
                    break;
                }
            }
        }
        let rejected = guilty.into_iter().map(|(write, error)| self.rejected(write, error));
        let mut rejected: Vec<_> = rejected.collect();
        rejected.sort_unstable_by_key(|rejected| rejected.index);
        Ok(rejected)
    }

    /// Tries what was refused until nothing more goes through: another row may have given up a unique value since.
    /// Back and forth, as values are often handed on along the order of keys.
    async fn acquit(
        &self,
        client: &Object,
        guilty: &mut Vec<(Indexed<'a>, Error)>,
        is_over: impl Fn() -> bool,
    ) -> Result<()> {
        if self.table.mode == RouteMode::Append {
            // Each change stays in its place.
            return Ok(());
        }
        let mut before = usize::MAX;
        while !guilty.is_empty() && guilty.len() < before && !is_over() {
            before = guilty.len();
            for (write, error) in std::mem::take(guilty).into_iter().rev() {
                let is_waiting = error.kind() == ErrorKind::Conflict && !is_over();
                let again = if is_waiting { self.try_again(client, &[write]).await? } else { Some(error) };
                guilty.extend(again.map(|error| (write, error)));
            }
        }
        Ok(())
    }

    async fn try_again(&self, client: &Object, writes: &[Indexed<'a>]) -> Result<Option<Error>> {
        if writes.is_empty() {
            return Ok(None);
        }
        let arrays = self.arrays_of(writes)?;
        attempt(client, self.execute_arrays(client, &arrays)).await
    }

    fn rejected(&self, (index, change): Indexed<'_>, error: Error) -> Rejected {
        let error = error
            .with_operation("apply")
            .with_context("table", &self.table.name)
            .with_context("key", &change.key);
        Rejected { index, error }
    }

    fn arrays_of(&self, writes: &[Indexed<'a>]) -> Result<Vec<Array>> {
        let changes: Vec<_> = writes.iter().map(|(_, change)| *change).collect();
        self.rows().arrays(&changes)
    }

    /// The rows for `COPY`; `None` when one does not fit.
    fn tuples(&self) -> Option<Bytes> {
        let rows = self.rows();
        let mut tuples = BytesMut::with_capacity(self.writes.len() * 128);
        tuples.put_slice(COPY_HEADER);
        for (_, change) in &self.writes {
            rows.tuple(change, &mut tuples).ok()?;
        }
        tuples.put_i16(COPY_END);
        Some(tuples.freeze())
    }

    /// Every row that does not fit into its columns.
    fn unfit(&self) -> Vec<Rejected> {
        let rows = self.rows();
        let mut scratch = BytesMut::new();
        let unfit = self.writes.iter().filter_map(|write| {
            scratch.clear();
            let error = rows.tuple(write.1, &mut scratch).err()?;
            Some(self.rejected(*write, error))
        });
        let mut unfit: Vec<_> = unfit.collect();
        unfit.sort_unstable_by_key(|rejected| rejected.index);
        unfit
    }

    fn delete_keys(&self) -> Array {
        Array::of_texts(self.deletes.iter().map(|change| &*change.key))
    }

    /// One round trip; false when the database has found something else than expected, and nothing was done.
    async fn send_at_once(
        &self,
        session: &mut Session,
        progress: &Progress,
        known: &Known,
        arrays: &[Array],
    ) -> Result<bool> {
        let Prepared { upsert, upsert_types, delete, name, fingerprint, .. } = &*self.prepared;
        let client = session.unsettled()?;
        let guard = format!("{GUARD} {FINGERPRINT} = $9 THEN 1 ELSE 0 END)");
        let types = [
            Type::TEXT,
            Type::TEXT,
            Type::TEXT_ARRAY,
            Type::INT4_ARRAY,
            Type::INT8_ARRAY,
            Type::INT8_ARRAY,
            Type::TEXT,
            Type::INT8,
            Type::TEXT,
        ];
        let guard = client.prepare_typed_cached(&guard, &types).await.map_err(from_postgres)?;
        let upsert = client.prepare_typed_cached(upsert, upsert_types).await.map_err(from_postgres)?;
        let delete = client.prepare_cached(delete).await.map_err(from_postgres)?;
        let cursors = &progress.cursors;
        let tables: Vec<_> = cursors.iter().map(|cursor| &*cursor.table).collect();
        let partitions: Vec<_> = cursors.iter().map(|cursor| i32::from(cursor.partition.0)).collect();
        let old = cursors
            .iter()
            .map(|cursor| signed(known.seq(&cursor.table, cursor.partition)))
            .collect::<Result<Vec<_>>>()?;
        let new = cursors.iter().map(|cursor| signed(cursor.seq.0)).collect::<Result<Vec<_>>>()?;
        let (replicator, log, fence) = (&*progress.replicator, &*progress.log, signed(progress.fence)?);
        let guarded: [&(dyn ToSql + Sync); 9] =
            [name, &replicator, &tables, &partitions, &old, &new, &log, &fence, fingerprint];
        let values = parameters(arrays);
        let keys = self.delete_keys();
        let keys: [&(dyn ToSql + Sync); 1] = [&keys];
        // Polled together, they go out in this order without waiting for each other. After a failure the server
        // passes over the others, and COMMIT rolls back.
        let (begun, guarded, deleted, written, committed) = join!(
            client.batch_execute("BEGIN"),
            client.execute(&guard, &guarded),
            OptionFuture::from((!self.deletes.is_empty()).then(|| client.execute(&delete, &keys))),
            OptionFuture::from((!self.writes.is_empty()).then(|| client.execute(&upsert, &values))),
            client.batch_execute("COMMIT"),
        );
        begun.map_err(from_postgres)?;
        committed.map_err(from_postgres)?;
        session.settled();
        let (deleted, written) = (deleted.transpose(), written.transpose());
        let failure = guarded.err().or(deleted.err()).or(written.err());
        match failure {
            None => Ok(true),
            // Whatever it was, the long way finds out.
            Some(error) if error.as_db_error().is_some() => Ok(false),
            Some(error) => Err(from_postgres(error)),
        }
    }
}

fn parameters(arrays: &[Array]) -> Vec<&(dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as _).collect()
}

/// Runs something inside a savepoint. An error about records is returned and undone; others are errors.
async fn attempt(client: &Object, work: impl Future<Output = Result<()>>) -> Result<Option<Error>> {
    // Polled together, they go out in this order without waiting for each other.
    let (saved, worked) = join!(client.batch_execute("SAVEPOINT attempt"), work);
    saved.map_err(from_postgres)?;
    match worked {
        Ok(()) => {
            client.batch_execute("RELEASE SAVEPOINT attempt").await.map_err(from_postgres)?;
            Ok(None)
        }
        Err(error) if error.scope() == Scope::Record => {
            let undo = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt";
            client.batch_execute(undo).await.map_err(from_postgres)?;
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

async fn copy(client: &Object, sql: &str, tuples: Bytes) -> Result<()> {
    let statement = client.prepare_cached(sql).await.map_err(from_postgres)?;
    let sink = client.copy_in::<_, Bytes>(&statement).await.map_err(from_postgres)?;
    pin_mut!(sink);
    let mut left = tuples;
    while !left.is_empty() {
        let chunk = left.split_to(left.len().min(COPY_CHUNK));
        sink.send(chunk).await.map_err(from_postgres)?;
    }
    sink.finish().await.map(drop).map_err(from_postgres)
}
