//! Reading and writing the table with the cursors of replicators.

use deadpool_postgres::Object;
use futures::{future::OptionFuture, join};
use s3rep_core::{CursorMove, Error, Progress, Result, Scope};
use s3rep_sql::{CURSOR_TABLE, Dialect, Move, StoredCursor, signed};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{
    error::{at_least, from_postgres},
    pool::Session,
};

/// So that two connections do not make the table at the same time, which PostgreSQL answers with an error.
const LOCK: i64 = 0x7333_7265_7020_6375;

/// What stops this table stops everything.
fn failed(error: tokio_postgres::Error) -> Error {
    match from_postgres(error) {
        error if error.scope() < Scope::Sink => {
            error.with_scope(Scope::Sink).with_context("table", CURSOR_TABLE)
        }
        error => error,
    }
}

/// Whether the database has cursors at all.
pub(crate) async fn exists(client: &Object) -> Result<bool> {
    let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&CURSOR_TABLE]).await;
    row.and_then(|row| row.try_get(0)).map_err(failed)
}

/// Creates the table, unless it is there.
pub(crate) async fn create(session: &mut Session) -> Result<()> {
    if exists(session.client()?).await? {
        return Ok(());
    }
    let create = async {
        session.begin().await?;
        session.run(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
        session.run(&Dialect::Postgres.create_cursor_table(CURSOR_TABLE)).await?;
        session.commit().await
    };
    create.await.map_err(|error| at_least(Scope::Sink, error))
}

const ALL: &str =
    "SELECT table_name, \"partition\"::int8, seq, log, fence FROM _s3rep_cursor WHERE replicator = $1";

/// Every cursor of a replicator.
pub(crate) async fn load(client: &Object, replicator: &str) -> Result<Vec<StoredCursor>> {
    let statement = client.prepare_cached(ALL).await.map_err(failed)?;
    let rows = client.query(&statement, &[&replicator]).await.map_err(failed)?;
    rows.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<StoredCursor> {
    let read = || {
        Ok::<_, tokio_postgres::Error>(StoredCursor {
            table: row.try_get(0)?,
            partition: row.try_get(1)?,
            seq: row.try_get(2)?,
            log: row.try_get(3)?,
            fence: row.try_get(4)?,
        })
    };
    read().map_err(failed)
}

/// Cursor moves as arrays.
pub(crate) struct Moves {
    tables: Vec<String>,
    partitions: Vec<i32>,
    seqs: Vec<i64>,
    fence: i64,
}

impl Moves {
    pub(crate) fn of(progress: &Progress) -> Result<Self> {
        let mut cursors: Vec<&CursorMove> = progress.cursors.iter().collect();
        // Locked in one order by everybody.
        cursors.sort_unstable_by(|a, b| (&a.table, a.partition).cmp(&(&b.table, b.partition)));
        Ok(Self {
            tables: cursors.iter().map(|cursor| cursor.table.to_string()).collect(),
            partitions: cursors.iter().map(|cursor| cursor.partition.0.into()).collect(),
            seqs: cursors.iter().map(|cursor| signed(cursor.seq.0)).collect::<Result<_>>()?,
            fence: signed(progress.fence)?,
        })
    }
}

/// Begins a transaction and takes hold of the cursors that move, so that nobody else moves them before it ends:
/// also not an earlier attempt, whose connection was lost and that the server may still carry out. For that they
/// have to be there. Returns every cursor of the replicator.
///
/// An owner that `takes_over` marks all of them first. Attempts of the one before it, which may move others than
/// these, have ended then, and those that the server has not begun find themselves fenced off.
pub(crate) async fn begin(
    session: &mut Session,
    progress: &Progress,
    moves: &Moves,
    takes_over: bool,
) -> Result<Vec<StoredCursor>> {
    const TAKE_OVER: &str = "WITH old AS (SELECT table_name, \"partition\" FROM _s3rep_cursor \
        WHERE replicator = $1 AND fence < $2 ORDER BY table_name, \"partition\" FOR UPDATE) \
        UPDATE _s3rep_cursor AS c SET fence = $2 FROM old WHERE c.replicator = $1 \
        AND c.table_name = old.table_name AND c.\"partition\" = old.\"partition\"";
    const ENSURE: &str = "INSERT INTO _s3rep_cursor (replicator, table_name, \"partition\", seq, log, fence) \
        SELECT $1, t, p, 0, $4, $5 FROM unnest($2::text[], $3::int4[]) AS m(t, p) ON CONFLICT DO NOTHING";
    const HOLD: &str = "SELECT 1 FROM _s3rep_cursor c JOIN unnest($2::text[], $3::int4[]) AS m(t, p) \
        ON c.table_name = m.t AND c.\"partition\" = m.p WHERE c.replicator = $1 \
        ORDER BY c.table_name, c.\"partition\" FOR UPDATE OF c";
    let client = session.unsettled()?;
    let take_over = OptionFuture::from(takes_over.then(|| client.prepare_cached(TAKE_OVER)));
    let (ensure, hold, all) =
        (client.prepare_cached(ENSURE), client.prepare_cached(HOLD), client.prepare_cached(ALL));
    let (take_over, ensure, hold, all) = join!(take_over, ensure, hold, all);
    let take_over = take_over.transpose().map_err(failed)?;
    let (ensure, hold, all) = (ensure.map_err(failed)?, hold.map_err(failed)?, all.map_err(failed)?);
    let (replicator, log) = (&*progress.replicator, &*progress.log);
    let Moves { tables, partitions, fence, .. } = moves;
    let take_over_values: [&(dyn ToSql + Sync); 2] = [&replicator, fence];
    let ensure_values: [&(dyn ToSql + Sync); 5] = [&replicator, tables, partitions, &log, fence];
    let hold_values: [&(dyn ToSql + Sync); 3] = [&replicator, tables, partitions];
    let all_values: [&(dyn ToSql + Sync); 1] = [&replicator];
    // Polled together, they go out in this order without waiting for each other.
    let (begun, taken, ensured, held, rows) = join!(
        client.batch_execute("BEGIN"),
        OptionFuture::from(take_over.as_ref().map(|take_over| client.execute(take_over, &take_over_values))),
        client.execute(&ensure, &ensure_values),
        client.query(&hold, &hold_values),
        client.query(&all, &all_values),
    );
    begun.map_err(failed)?;
    taken.transpose().map_err(failed)?;
    ensured.map_err(failed)?;
    held.map_err(failed)?;
    rows.map_err(failed)?.iter().map(stored).collect()
}

/// Forgets every cursor of a replicator, which are of another log, and takes hold of the ones that move again.
pub(crate) async fn replace(client: &Object, progress: &Progress) -> Result<()> {
    client
        .execute(
            "DELETE FROM _s3rep_cursor WHERE replicator = $1 AND log <> $2",
            &[&&*progress.replicator, &&*progress.log],
        )
        .await
        .map(drop)
        .map_err(failed)
}

/// Stores cursors and fence. Part of the caller's transaction.
pub(crate) async fn store(client: &Object, progress: &Progress, moves: &Moves, how: Move) -> Result<()> {
    const FORWARD: &str = "INSERT INTO _s3rep_cursor AS c (replicator, table_name, \"partition\", seq, log, fence) \
        SELECT $1, t, p, s, $5, $6 FROM unnest($2::text[], $3::int4[], $4::int8[]) AS m(t, p, s) \
        ON CONFLICT (replicator, table_name, \"partition\") DO UPDATE \
        SET seq = greatest(c.seq, excluded.seq), log = excluded.log, fence = excluded.fence";
    const ANYWHERE: &str = "INSERT INTO _s3rep_cursor AS c (replicator, table_name, \"partition\", seq, log, fence) \
        SELECT $1, t, p, s, $5, $6 FROM unnest($2::text[], $3::int4[], $4::int8[]) AS m(t, p, s) \
        ON CONFLICT (replicator, table_name, \"partition\") DO UPDATE \
        SET seq = excluded.seq, log = excluded.log, fence = excluded.fence";
    if progress.cursors.is_empty() {
        return Ok(());
    }
    let sql = if how == Move::Forward { FORWARD } else { ANYWHERE };
    let types = [Type::TEXT, Type::TEXT_ARRAY, Type::INT4_ARRAY, Type::INT8_ARRAY, Type::TEXT, Type::INT8];
    let statement = client.prepare_typed_cached(sql, &types).await.map_err(failed)?;
    let Moves { tables, partitions, seqs, fence } = moves;
    client
        .execute(&statement, &[&&*progress.replicator, tables, partitions, seqs, &&*progress.log, fence])
        .await
        .map(drop)
        .map_err(failed)
}
