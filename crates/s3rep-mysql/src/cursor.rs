//! Reading and writing the table with the cursors of replicators.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mysql_async::{Row, Value};
use s3rep_core::{CursorMove, Error, ErrorKind, Partition, Progress, Result, Scope};
use s3rep_sql::{CURSOR_TABLE, StoredCursor, signed};

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

/// Whether a cursor may move back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Forward,
    Anywhere,
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

/// What this process has seen committed, and nobody may take back: a server that took over from one that died may
/// never have heard of it, and a backup that was restored has not. Later changes would hide that the ones before are
/// gone.
#[derive(Debug, Default)]
pub(crate) struct Floors(Mutex<HashMap<Place, (Arc<str>, u64)>>);

/// Replicator, table and partition.
type Place = (Arc<str>, Arc<str>, Partition);

/// A table, a partition, and how far it was seen.
pub(crate) type Floor = (Arc<str>, Partition, u64);

impl Floors {
    /// What a look at the cursors has to find, of a table or of all of them. Asked for before the look: other calls
    /// go on meanwhile.
    pub(crate) fn below(&self, progress: &Progress, table: Option<&str>) -> Vec<Floor> {
        let floors = self.lock();
        let known = floors.iter().filter(|((replicator, of, _), (log, _))| {
            let is_told = table.is_none_or(|table| of.is_empty() || **of == *table);
            is_told && *replicator == progress.replicator && *log == progress.log
        });
        known.map(|((_, table, partition), (_, seq))| (table.clone(), *partition, *seq)).collect()
    }

    /// Refuses to go on from cursors that are behind what was seen.
    pub(crate) fn check(floors: &[Floor], stored: &[StoredCursor], replicator: &str) -> Result<()> {
        let is_behind = |(table, partition, seq): &Floor| {
            let is_it =
                |row: &&StoredCursor| *row.table == **table && row.partition == i64::from(partition.0);
            stored.iter().find(is_it).map_or(0, |row| u64::try_from(row.seq).unwrap_or(0)) < *seq
        };
        if !floors.iter().any(is_behind) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the database has lost what it had acknowledged")
            .temporary()
            .with_scope(Scope::Sink)
            .with_context("replicator", replicator)
            .with_advice(
                "look whether another server took over or a backup was restored; restart s3rep, so that it begins \
                 with the cursors that are there",
            ))
    }

    /// These cursors were committed.
    pub(crate) fn raise(&self, progress: &Progress, how: Move) {
        let mut floors = self.lock();
        for CursorMove { table, partition, seq } in &progress.cursors {
            let place = (progress.replicator.clone(), table.clone(), *partition);
            let (log, floor) = floors.entry(place).or_insert_with(|| (progress.log.clone(), 0));
            let keeps = how == Move::Forward && *log == progress.log;
            *floor = if keeps { seq.0.max(*floor) } else { seq.0 };
            log.clone_from(&progress.log);
        }
    }

    /// Whoever asks for the cursors begins with what is there now.
    pub(crate) fn forget(&self, replicator: &str) {
        self.lock().retain(|(of, ..), _| **of != *replicator);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, (Arc<str>, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
