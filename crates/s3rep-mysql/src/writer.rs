//! Writing a batch and its cursors in one transaction.

use std::{sync::Arc, time::Duration};

use mysql_async::Value;
use s3rep_core::{
    Batch, Context, Error, ErrorKind, Operation, Outcome, Progress, Rejected, Result, RouteMode, RowChange,
    Scope, Table,
};
use s3rep_sql::{Admission, Floors, Move, undeclared};

use crate::{
    connection::{Server, Session},
    cursor,
    error::from_mysql,
    log_table::LogTable,
    sink::MysqlSink,
    table::{Prepared, Statement},
};

/// Up to so many rows there is a statement for each number, above it one for each power of two.
const EXACT: usize = 16;
/// Parameters of a statement, of the 65,535 that the protocol allows: 256 rows of 8 columns. More gain nothing, and both
/// sides keep a description of each as long as the statement is prepared.
const PARAMETERS: usize = 2_048;
/// What a packet has beside the values of rows, and a reserve.
const OVERHEAD: usize = 64 << 10;
/// The client library sends what is larger value by value. A single row may be.
const PAYLOAD: usize = 16 << 20;
/// Guilty records are looked for so long. Those that are found by then are told; the rest is found when the others
/// come again, so that a batch of nothing but guilty records makes progress too.
const SEARCH: Duration = Duration::from_secs(5);

/// Writes all of a batch and moves its cursors, or lists what keeps it from being written.
pub(crate) async fn apply(sink: &MysqlSink, cx: &Context, batch: &Batch) -> Result<Outcome> {
    let mut session = sink.writing().await?;
    let applied = transact(sink, cx, batch, &mut session).await;
    if applied.is_err() {
        session.abandon().await;
    }
    applied
}

async fn transact(sink: &MysqlSink, cx: &Context, batch: &Batch, session: &mut Session) -> Result<Outcome> {
    let Batch { table, changes, progress } = batch;
    let admission = begin(sink, session, progress, Some(&table.name)).await?;
    let due: Vec<_> = changes.iter().enumerate().filter(|(_, change)| !admission.covers(change)).collect();
    if !due.is_empty() {
        let prepared = sink.tables().prepared(session, table).await?;
        let mut work = Work::of(session.server()?, table, &prepared, sink.log_table(), due);
        let mut rejected = std::mem::take(&mut work.rejected);
        work.write(session, cx, &mut rejected).await?;
        if !rejected.is_empty() {
            session.rollback().await.map_err(from_mysql)?;
            sink.tables().forget();
            rejected.sort_unstable_by_key(|rejected| rejected.index);
            rejected.dedup_by_key(|rejected| rejected.index);
            return Ok(Outcome { rejected });
        }
    }
    cx.failpoint("mysql.rows")?;
    cursor::store(session, progress, Move::Forward).await?;
    cx.failpoint("mysql.commit")?;
    session.commit().await.map_err(from_mysql)?;
    sink.floors().raise(progress, Move::Forward);
    cx.failpoint("mysql.committed")?;
    Ok(Outcome::default())
}

/// Stores cursors without rows.
pub(crate) async fn advance(sink: &MysqlSink, cx: &Context, progress: &Progress) -> Result<()> {
    let mut session = sink.writing().await?;
    let advanced = async {
        begin(sink, &mut session, progress, None).await?;
        cursor::store(&mut session, progress, Move::Anywhere).await?;
        cx.failpoint("mysql.commit")?;
        session.commit().await.map_err(from_mysql)?;
        sink.floors().raise(progress, Move::Anywhere);
        Ok(())
    };
    let advanced = advanced.await;
    if advanced.is_err() {
        session.abandon().await;
    }
    advanced
}

/// Begins a transaction that holds the cursors which move, and asks what they say.
async fn begin(
    sink: &MysqlSink,
    session: &mut Session,
    progress: &Progress,
    table: Option<&str>,
) -> Result<Admission> {
    let floors = sink.floors().below(progress, table);
    session.begin().await.map_err(from_mysql)?;
    let stored = cursor::hold(session, progress, table).await?;
    let admission = Admission::of(&stored, progress, table.unwrap_or_default())?;
    Floors::check(&floors, &stored, progress)?;
    if admission.replaces_log {
        cursor::forget(session, &progress.replicator).await?;
    }
    Ok(admission)
}

/// The rows of a batch on their way.
struct Work<'a> {
    server: Server,
    table: &'a Table,
    prepared: &'a Prepared,
    log_table: Option<&'a LogTable>,
    due: Vec<(usize, &'a RowChange)>,
    deletes: Vec<Row>,
    writes: Vec<Row>,
    logged: Vec<Row>,
    rejected: Vec<Rejected>,
}

/// The parameters of one row.
struct Row {
    /// Index into the batch's changes.
    index: usize,
    values: Vec<Value>,
    bytes: usize,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Delete,
    Write,
    Log,
}

impl<'a> Work<'a> {
    fn of(
        server: Server,
        table: &'a Table,
        prepared: &'a Prepared,
        log_table: Option<&'a LogTable>,
        mut due: Vec<(usize, &'a RowChange)>,
    ) -> Self {
        if table.mode == RouteMode::Upsert {
            // Each key is there once, so the order is free; that of the index costs less.
            due.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        }
        let (deletes, writes, logged, rejected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut work = Self { server, table, prepared, log_table, due, deletes, writes, logged, rejected };
        work.encode();
        work
    }

    fn encode(&mut self) {
        let due = std::mem::take(&mut self.due);
        for &(index, change) in &due {
            let encoded = self.row(index, change);
            let encoded =
                encoded.and_then(|(kind, row)| Ok((kind, self.fitting(row)?, self.log(index, change)?)));
            match encoded {
                Ok((kind, row, logged)) => {
                    if kind == Kind::Delete { &mut self.deletes } else { &mut self.writes }.push(row);
                    self.logged.extend(logged);
                }
                Err(error) => self.rejected.push(Rejected { index, error: self.at(error, change) }),
            }
        }
        self.tell_undeclared(&due);
        self.due = due;
    }

    fn row(&self, index: usize, change: &RowChange) -> Result<(Kind, Row)> {
        let is_delete = change.operation == Operation::Delete;
        if is_delete && self.table.mode == RouteMode::Upsert {
            return Ok((Kind::Delete, Row::new(index, vec![Value::from(&*change.key)])));
        }
        if change.record.is_none() && !is_delete {
            return Err(
                Error::new(ErrorKind::InvalidValue, "the change has no record").with_scope(Scope::Record)
            );
        }
        let schema = &self.table.schema;
        let values = self.prepared.columns.iter().map(|column| column.value(schema, change));
        Ok((Kind::Write, Row::new(index, values.collect::<Result<_>>()?)))
    }

    fn log(&self, index: usize, change: &RowChange) -> Result<Option<Row>> {
        let Some(log_table) = self.log_table else { return Ok(None) };
        let values = log_table.row(self.table, change, self.server.most_nested);
        self.fitting(Row::new(index, values)).map(Some)
    }

    fn fitting(&self, row: Row) -> Result<Row> {
        if row.bytes + OVERHEAD <= self.server.max_packet {
            return Ok(row);
        }
        Err(Error::new(ErrorKind::TooLarge, "the row is larger than the server takes")
            .with_scope(Scope::Record)
            .with_context("bytes", row.bytes)
            .with_context("max_allowed_packet", self.server.max_packet)
            .with_advice("raise the server's max_allowed_packet"))
    }

    fn tell_undeclared(&self, due: &[(usize, &RowChange)]) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let Prepared { targets, .. } = self.prepared;
        let records = due.iter().filter_map(|(_, change)| change.record.as_deref());
        let members: usize = records.map(|record| undeclared(targets, &self.table.schema, record)).sum();
        if members > 0 {
            tracing::debug!(table = %self.table.name, members, "members without a column are left out");
        }
    }

    /// Writes the rows, and adds those that the server refuses.
    async fn write(&self, session: &mut Session, cx: &Context, rejected: &mut Vec<Rejected>) -> Result<()> {
        let since = cx.monotonic();
        // What is deleted may hold a unique value that another row is to have.
        for (kind, rows) in
            [(Kind::Delete, &self.deletes), (Kind::Write, &self.writes), (Kind::Log, &self.logged)]
        {
            let mut pieces = self.pieces(kind, rows);
            pieces.reverse();
            while let Some(rows) = pieces.pop() {
                let Err(error) = self.execute(session, kind, rows).await else { continue };
                match (error.scope(), rows) {
                    (Scope::Record, [row]) => {
                        rejected.push(Rejected { index: row.index, error: self.at_row(error, row) });
                    }
                    // The statement did nothing, and the transaction goes on: the server took it back.
                    (Scope::Record, rows) => {
                        let (first, second) = rows.split_at(step(rows.len() / 2));
                        pieces.extend([second, first]);
                    }
                    _ => return Err(error.with_operation("apply").with_context("table", &self.table.name)),
                }
                if !rejected.is_empty() && cx.monotonic().saturating_sub(since) > SEARCH {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn execute(&self, session: &mut Session, kind: Kind, rows: &[Row]) -> Result<()> {
        let sql: Arc<str> = match kind {
            Kind::Delete => self.prepared.statement(self.table, Statement::Delete(rows.len()))?,
            Kind::Write => self.prepared.statement(self.table, Statement::Write(rows.len()))?,
            Kind::Log => {
                let Some(log_table) = self.log_table else { return Ok(()) };
                log_table.statement(self.server.dialect, rows.len())?.into()
            }
        };
        let mut params: Vec<Value> = rows.iter().flat_map(|row| row.values.iter().cloned()).collect();
        if kind == Kind::Delete {
            // Each key once to find the row, once to compare it byte by byte.
            params.extend_from_within(..);
        }
        session.execute(&sql, params).await.map_err(from_mysql)
    }

    /// The rows cut into statements: few kinds of them, as each is prepared, and none larger than a packet.
    fn pieces<'r>(&self, kind: Kind, rows: &'r [Row]) -> Vec<&'r [Row]> {
        let parameters = match kind {
            Kind::Delete => 2,
            _ => rows.first().map_or(1, |row| row.values.len().max(1)),
        };
        let most = step(PARAMETERS / parameters);
        let copies = if kind == Kind::Delete { 2 } else { 1 };
        let room = self.server.max_packet.min(PAYLOAD).saturating_sub(OVERHEAD);
        let mut pieces = Vec::new();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |row: &&Row| {
                bytes += row.bytes * copies;
                bytes <= room
            };
            let count = rest.iter().take(most).take_while(fits).count();
            let (piece, after) = rest.split_at(step(count));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    fn at_row(&self, error: Error, row: &Row) -> Error {
        match self.due.iter().find(|(index, _)| *index == row.index) {
            Some((_, change)) => self.at(error, change),
            None => error,
        }
    }

    fn at(&self, error: Error, change: &RowChange) -> Error {
        error.with_operation("apply").with_context("table", &self.table.name).with_context("key", &change.key)
    }
}

impl Row {
    fn new(index: usize, values: Vec<Value>) -> Self {
        // Type and length beside the value itself.
        let bytes = values.iter().map(|value| value.bin_len() as usize + 2).sum();
        Self { index, values, bytes }
    }
}

/// The largest number of rows up to this one that there is a statement for; at least one.
fn step(rows: usize) -> usize {
    match rows {
        0 => 1,
        1..=EXACT => rows,
        _ => 1 << rows.ilog2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_few_sizes() {
        for (rows, size) in
            [(0, 1), (1, 1), (15, 15), (16, 16), (17, 16), (31, 16), (32, 32), (500, 256), (512, 512)]
        {
            assert_eq!(step(rows), size, "{rows}");
        }
        let mut sizes: Vec<_> = (1..=PARAMETERS / 8).map(step).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!((sizes.len(), sizes.last()), (20, Some(&256)));
    }
}
