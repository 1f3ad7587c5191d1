//! Reading and writing the table with the cursors of replicators.

use mysql_async::{Row, Value};
use s3rep_core::{CursorMove, Error, ErrorKind, Progress, Result, Scope};
use s3rep_sql::{CURSOR_TABLE, Move, StoredCursor, signed};

use crate::{
    connection::{Raw, Session},
    error::{code, code_of, from_mysql},
};

/// Rows a statement: few enough for its parameters, and replicators seldom have more cursors.
const CHUNK: usize = 1_000;

/// Creates the table, unless it is there. It ends whatever transaction is open, as every such statement does.
pub(crate) async fn create(session: &mut Session) -> Result<()> {
    // Whoever may not create tables may have been given this one.
    if exists(session).await.map_err(at_sink)? {
        return Ok(());
    }
    let sql = session.server()?.dialect.create_cursor_table(CURSOR_TABLE);
    session.run(&sql).await.map_err(at_sink)
}

/// Whether the database has cursors at all.
pub(crate) async fn exists(session: &mut Session) -> Raw<bool> {
    match session.run(&format!("SELECT 1 FROM {CURSOR_TABLE} LIMIT 0")).await {
        Ok(()) => Ok(true),
        Err(error) if code_of(&error) == Some(code::NO_SUCH_TABLE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What stops this table stops everything.
pub(crate) fn at_sink(error: mysql_async::Error) -> Error {
    from_mysql(error).with_context("table", CURSOR_TABLE).with_scope(Scope::Sink)
}

/// Every cursor of a replicator, `None` when the database has none at all.
pub(crate) async fn load(session: &mut Session, replicator: &str) -> Result<Option<Vec<StoredCursor>>> {
    let sql =
        format!("SELECT table_name, `partition`, seq, log, fence FROM {CURSOR_TABLE} WHERE replicator = ?");
    match session.query(&sql, vec![replicator.into()]).await {
        Ok(rows) => rows.into_iter().map(stored).collect::<Result<_>>().map(Some),
        Err(error) if code_of(&error) == Some(code::NO_SUCH_TABLE) => Ok(None),
        Err(error) => Err(at_sink(error)),
    }
}

/// Takes hold of the cursors that move, so that nobody else moves them before this transaction ends: also not an
/// earlier attempt, whose connection was lost and that the server may still carry out. For that they have to be
/// there. Where none moves, all of the replicator's are held as they are: an owner that takes over waits.
///
/// Returns the cursors that say something to a batch of `table`, or all of the replicator's. First in the caller's
/// transaction.
pub(crate) async fn hold(
    session: &mut Session,
    progress: &Progress,
    table: Option<&str>,
) -> Result<Vec<StoredCursor>> {
    if progress.cursors.is_empty() {
        let sql = format!("SELECT 1 FROM {CURSOR_TABLE} WHERE replicator = ? LOCK IN SHARE MODE");
        session.query(&sql, vec![(&*progress.replicator).into()]).await.map_err(at_sink)?;
    } else {
        // Finds each row by its key and locks no other one, which a SELECT … FOR UPDATE of several rows may do.
        let at_beginning = |_: &CursorMove| 0;
        insert(session, progress, at_beginning, "seq = seq").await?;
    }
    let mut sql =
        format!("SELECT table_name, `partition`, seq, log, fence FROM {CURSOR_TABLE} WHERE replicator = ?");
    let mut params = vec![Value::from(&*progress.replicator)];
    if let Some(table) = table {
        sql.push_str(" AND (table_name IN ('', ?) OR fence > ? OR BINARY log <> ?)");
        params.extend([table.into(), signed(progress.fence)?.into(), (&*progress.log).into()]);
    }
    let rows = session.query(&sql, params).await.map_err(at_sink)?;
    rows.into_iter().map(stored).collect()
}

/// Forgets every cursor of a replicator. Part of the caller's transaction.
pub(crate) async fn forget(session: &mut Session, replicator: &str) -> Result<()> {
    let sql = format!("DELETE FROM {CURSOR_TABLE} WHERE replicator = ?");
    session.execute(&sql, vec![replicator.into()]).await.map_err(at_sink)
}

/// Stores cursors and fence. Part of the caller's transaction.
pub(crate) async fn store(session: &mut Session, progress: &Progress, how: Move) -> Result<()> {
    let update = match how {
        Move::Forward => "seq = GREATEST(seq, VALUES(seq)), log = VALUES(log), fence = VALUES(fence)",
        Move::Anywhere => "seq = VALUES(seq), log = VALUES(log), fence = VALUES(fence)",
    };
    insert(session, progress, |cursor| cursor.seq.0, update).await
}

/// One row for each cursor that moves, in the order in which everybody locks them.
async fn insert(
    session: &mut Session,
    progress: &Progress,
    seq: impl Fn(&CursorMove) -> u64,
    update: &str,
) -> Result<()> {
    let mut cursors: Vec<&CursorMove> = progress.cursors.iter().collect();
    cursors.sort_unstable_by(|a, b| (&a.table, a.partition).cmp(&(&b.table, b.partition)));
    let fence = signed(progress.fence)?;
    for cursors in cursors.chunks(CHUNK) {
        let rows = vec!["(?, ?, ?, ?, ?, ?)"; cursors.len()].join(", ");
        let sql = format!(
            "INSERT INTO {CURSOR_TABLE} (replicator, table_name, `partition`, seq, log, fence) VALUES {rows} \
             ON DUPLICATE KEY UPDATE {update}"
        );
        let mut params = Vec::with_capacity(cursors.len() * 6);
        for cursor in cursors {
            params.extend([
                Value::from(&*progress.replicator),
                Value::from(&*cursor.table),
                Value::from(cursor.partition.0),
                Value::from(signed(seq(cursor))?),
                Value::from(&*progress.log),
                Value::from(fence),
            ]);
        }
        session.execute(&sql, params).await.map_err(at_sink)?;
    }
    Ok(())
}

fn stored(row: Row) -> Result<StoredCursor> {
    let [table, partition, seq, log, fence] = row.unwrap().try_into().map_err(|_| odd())?;
    Ok(StoredCursor {
        table: text(table)?,
        partition: integer(&partition)?,
        seq: integer(&seq)?,
        log: text(log)?,
        fence: integer(&fence)?,
    })
}

fn text(value: Value) -> Result<String> {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| odd()),
        _ => Err(odd()),
    }
}

fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Int(integer) => Ok(*integer),
        Value::UInt(integer) => i64::try_from(*integer).map_err(|_| odd()),
        _ => Err(odd()),
    }
}

fn odd() -> Error {
    Error::new(ErrorKind::Corrupt, "the table of cursors holds a value of another type")
        .with_scope(Scope::Sink)
        .with_context("table", CURSOR_TABLE)
        .with_advice("look whether it was changed by hand")
}
