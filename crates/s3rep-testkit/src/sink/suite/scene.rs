//! What every case works with: a place, the sink over it, and the engine's part of the contract.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use s3rep_core::{
    Batch, Capability, ChangeId, Context, CursorMove, Error, Operation, Outcome, Partition, Progress,
    Readback, Record, Rejected, ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink, Table, Timestamp,
};
use serde_json::{Value, json};

use super::{
    Checked, Failure, ensure,
    factory::{AnyPlace, Erased},
};
use crate::{
    context, history,
    oracle::{Difference, Oracle, StoredChange},
};

/// Part of every record that the cases send; no error may show it.
pub(super) const MARK: &str = "s3cr3t-v4lue";

/// Partitions of the log that the cases play.
pub(super) const PARTITIONS: u16 = 8;

/// Makes scenes.
#[derive(Clone)]
pub(super) struct Harness {
    factory: Arc<dyn Erased>,
    pub(super) capability: Capability,
    /// What a sink did that is wrong in every case.
    problem: Arc<Mutex<Option<String>>>,
}

impl Harness {
    pub(super) fn new(factory: Arc<dyn Erased>) -> Self {
        Self { capability: factory.capability(), factory, problem: Arc::default() }
    }

    pub(super) fn has_slow_secrets(&self) -> bool {
        self.factory.has_slow_secrets()
    }

    /// Remembers the first answer that is wrong whatever was asked.
    pub(super) fn look_at(&self, answer: &Result<Outcome, Error>, batch: &Batch) {
        if let Some(found) = problem_of_answer(answer, batch) {
            self.problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
        }
    }

    /// The first wrong answer.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A fresh place and a sink over it.
    pub(super) async fn start(&self) -> Scene {
        let place = self.factory.fresh().await;
        let sink = self.factory.open(&place).await;
        Scene {
            harness: self.clone(),
            place,
            sink,
            cx: context::test(),
            replicator: "replicator".into(),
            log: "log-1".into(),
            fence: 1,
            seq: AtomicU64::new(0),
            oracle: Oracle::default(),
        }
    }

    pub(super) async fn bad(&self) -> Option<Arc<dyn Sink>> {
        self.factory.open_bad().await
    }

    /// The modes whose tables the suite can look into.
    pub(super) fn visible_modes(&self) -> Vec<RouteMode> {
        let Capability { upsert, append, readback, .. } = self.capability;
        let mut modes = Vec::new();
        if upsert && readback {
            modes.push(RouteMode::Upsert);
        }
        if append && self.factory.offers().changes {
            modes.push(RouteMode::Append);
        }
        modes
    }
}

/// One place with a sink over it, and the log and owner that write to it.
pub(super) struct Scene {
    harness: Harness,
    place: AnyPlace,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) cx: Context,
    pub(super) replicator: Arc<str>,
    pub(super) log: Arc<str>,
    pub(super) fence: u64,
    seq: AtomicU64,
    /// What the destination should hold.
    pub(super) oracle: Oracle,
}

impl Scene {
    pub(super) fn harness(&self) -> &Harness {
        &self.harness
    }

    pub(super) fn capability(&self) -> Capability {
        self.harness.capability
    }

    /// The process dies and is started again: the sink is dropped as it is.
    pub(super) async fn reopen(&mut self) {
        // The old sink has to be gone before the new one looks: its place may be locked.
        self.sink = Arc::new(Nowhere);
        self.sink = self.harness.factory.open(&self.place).await;
    }

    /// The process ends in good order and is started again.
    pub(super) async fn close_and_reopen(&mut self) -> Checked {
        self.sink.close(&self.cx).await?;
        self.reopen().await;
        Ok(())
    }

    /// A second sink over the same place.
    pub(super) async fn another_sink(&self) -> Arc<dyn Sink> {
        self.harness.factory.open(&self.place).await
    }

    pub(super) async fn break_connection(&self) {
        self.harness.factory.break_connection(&self.place).await;
    }

    pub(super) async fn mend_connection(&self) {
        self.harness.factory.mend_connection(&self.place).await;
    }

    pub(super) async fn make_unfit(&self, table: &Table) {
        self.harness.factory.make_unfit(&self.place, table).await;
    }

    /// A table of [`history::schema`], made by schema synchronisation where there is one.
    pub(super) async fn table(&self, name: &str, mode: RouteMode) -> Checked<Arc<Table>> {
        self.table_of(name, mode, history::schema(name)).await
    }

    pub(super) async fn table_of(
        &self,
        name: &str,
        mode: RouteMode,
        schema: Arc<ResourceSchema>,
    ) -> Checked<Arc<Table>> {
        let table = Arc::new(Table { name: name.into(), mode, schema });
        self.sync(&table).await?;
        Ok(table)
    }

    /// Brings a table into shape as the engine does, before the first change that needs it.
    pub(super) async fn sync(&self, table: &Table) -> Result<(), Error> {
        let Some(sync) = self.sink.schema_sync() else { return Ok(()) };
        let have = sync.inspect(&self.cx, table).await?;
        let plan = sync.plan(table, have.as_ref())?;
        if !plan.statements.is_empty() {
            sync.execute(&self.cx, &plan).await?;
        }
        Ok(())
    }

    /// The next change of the log.
    pub(super) fn change(&self, key: &str, operation: Operation, record: Option<Record>) -> RowChange {
        let seq = Seq(self.seq.fetch_add(1, Ordering::Relaxed) + 1);
        RowChange {
            key: key.into(),
            operation,
            record: record.map(Arc::new),
            change_id: ChangeId::derive("suite", key, operation, &seq.0.to_le_bytes(), None),
            timestamp: Timestamp(1_700_000_000_000 + i64::try_from(seq.0).unwrap_or(i64::MAX)),
            seq,
            partition: Partition::of("suite", key, PARTITIONS),
        }
    }

    pub(super) fn insert(&self, key: &str, note: &str) -> RowChange {
        self.change(key, Operation::Insert, Some(record(json!({ "note": note }))))
    }

    pub(super) fn update(&self, key: &str, note: &str) -> RowChange {
        self.change(key, Operation::Update, Some(record(json!({ "note": note }))))
    }

    pub(super) fn delete(&self, key: &str) -> RowChange {
        self.change(key, Operation::Delete, None)
    }

    /// Many inserts with keys of their own.
    pub(super) fn inserts(&self, prefix: &str, count: usize) -> Vec<RowChange> {
        (0..count).map(|i| self.insert(&format!("{prefix}-{i:05}"), &format!("row {i}"))).collect()
    }

    pub(super) fn progress(&self, cursors: Vec<CursorMove>) -> Progress {
        Progress { replicator: self.replicator.clone(), log: self.log.clone(), fence: self.fence, cursors }
    }

    /// A batch as the engine makes it: its progress moves the table's cursors to its last changes.
    pub(super) fn batch(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
        let mut ends = BTreeMap::new();
        for change in &changes {
            ends.insert(change.partition, change.seq);
        }
        let cursors = cursor_moves(&table.name, ends);
        Batch { table: table.clone(), changes, progress: self.progress(cursors) }
    }

    /// Hands a batch to the sink, and looks at the errors that come back. A batch beyond the sink's limit of
    /// records goes in pieces, as the engine would cut it.
    pub(super) async fn apply(&self, batch: &Batch) -> Result<Outcome, Error> {
        let mut rejected = Vec::new();
        let mut before = 0;
        for piece in self.pieces(batch) {
            let answer = self.sink.apply(&self.cx, &piece).await;
            self.harness.look_at(&answer, &piece);
            let pieces = answer?.rejected.into_iter();
            rejected.extend(pieces.map(|r| Rejected { index: r.index + before, error: r.error }));
            before += piece.changes.len();
        }
        Ok(Outcome { rejected })
    }

    /// A batch cut at the sink's limit of records. The last piece has the progress of the whole.
    pub(super) fn pieces(&self, batch: &Batch) -> Vec<Batch> {
        let most = self.capability().limits.records;
        if batch.changes.len() <= most {
            return vec![batch.clone()];
        }
        let cut = |changes: &[RowChange]| self.batch(&batch.table, changes.to_vec());
        let mut pieces: Vec<Batch> = batch.changes.chunks(most).map(cut).collect();
        if let Some(last) = pieces.last_mut() {
            last.progress = batch.progress.clone();
        }
        pieces
    }

    /// A batch that has to be taken whole.
    pub(super) async fn write(&mut self, table: &Arc<Table>, changes: Vec<RowChange>) -> Checked {
        let batch = self.batch(table, changes);
        self.write_batch(&batch).await
    }

    pub(super) async fn write_batch(&mut self, batch: &Batch) -> Checked {
        let outcome = self.apply(batch).await?;
        if let Some(rejected) = outcome.rejected.first() {
            let key = &batch.changes[rejected.index].key;
            return Err(Failure(format!("{key:?} was rejected: {:?}", rejected.error)));
        }
        self.expect(batch);
        Ok(())
    }

    /// From now on the destination has to hold these changes.
    pub(super) fn expect(&mut self, batch: &Batch) {
        for change in &batch.changes {
            self.oracle.apply(&batch.table, change);
        }
    }

    pub(super) fn readback(&self) -> Checked<&dyn Readback> {
        self.sink.readback().ok_or_else(|| Failure("the sink claims readback and has none".to_owned()))
    }

    /// Every row that can be read back.
    pub(super) async fn rows(&self, table: &Table) -> Checked<Vec<(String, Record)>> {
        self.rows_by(table, 100).await
    }

    /// The same in pages of `max` rows.
    pub(super) async fn rows_by(&self, table: &Table, max: usize) -> Checked<Vec<(String, Record)>> {
        self.sink.flush(&self.cx).await?;
        let readback = self.readback()?;
        let mut rows: Vec<(String, Record)> = Vec::new();
        loop {
            let after = rows.last().map(|(key, _)| key.clone());
            let page = readback.rows(&self.cx, table, after.as_deref(), max).await?;
            ensure!(page.len() <= max, "a page of {} rows instead of at most {max}", page.len());
            if page.is_empty() {
                return Ok(rows);
            }
            for row in page {
                if let Some((last, _)) = rows.last() {
                    ensure!(last.as_bytes() < row.0.as_bytes(), "{:?} comes after {last:?}", row.0);
                }
                rows.push(row);
            }
        }
    }

    /// The rows of an append table.
    pub(super) async fn changes(&self, table: &Table) -> Checked<Vec<StoredChange>> {
        self.sink.flush(&self.cx).await?;
        Ok(self.harness.factory.changes(&self.place, table).await)
    }

    /// Checks that a table holds what it should.
    pub(super) async fn verify(&self, table: &Table, when: &str) -> Checked {
        let differences = match table.mode {
            RouteMode::Upsert => {
                let rows = self.rows(table).await?;
                self.oracle.compare_rows(table, self.readback()?, &rows)
            }
            RouteMode::Append => {
                let changes = self.changes(table).await?;
                let exactly_once = self.capability().transactional_cursor;
                self.oracle.compare_changes(table, &changes, exactly_once)
            }
        };
        ensure!(differences.is_empty(), "{when}, table {}: {}", table.name, list(&differences));
        Ok(())
    }

    /// The cursors stored for the scene's replicator, by table and partition.
    pub(super) async fn cursors(&self) -> Checked<BTreeMap<(String, u16), u64>> {
        let stored = self.sink.cursors(&self.cx, &self.replicator).await?;
        let cursors = stored.map(|stored| stored.cursors).unwrap_or_default();
        let mut by_place = BTreeMap::new();
        for cursor in cursors {
            let place = (cursor.table.to_string(), cursor.partition.0);
            ensure!(by_place.insert(place, cursor.seq.0).is_none(), "a cursor is there twice");
        }
        Ok(by_place)
    }
}

/// The moves of a table's cursors to these places.
pub(super) fn cursor_moves(table: &str, ends: BTreeMap<Partition, Seq>) -> Vec<CursorMove> {
    let table: Arc<str> = table.into();
    ends.into_iter().map(|(partition, seq)| CursorMove { table: table.clone(), partition, seq }).collect()
}

/// The moves as [`Scene::cursors`] gives them.
pub(super) fn by_place(moves: &[CursorMove]) -> BTreeMap<(String, u16), u64> {
    moves.iter().map(|m| ((m.table.to_string(), m.partition.0), m.seq.0)).collect()
}

/// A record of [`history::schema`] with the required attribute and these members.
pub(super) fn record(members: Value) -> Record {
    let mut record = Record::new();
    record.insert("name".to_owned(), MARK.into());
    if let Value::Object(members) = members {
        record.extend(members);
    }
    record
}

fn list(differences: &[Difference]) -> String {
    const SHOWN: usize = 8;
    let mut texts: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
    if differences.len() > SHOWN {
        texts.push(format!("and {} more", differences.len() - SHOWN));
    }
    texts.join("; ")
}

/// What is wrong with an answer, whatever was asked.
fn problem_of_answer(result: &Result<Outcome, Error>, batch: &Batch) -> Option<String> {
    match result {
        Err(error) => leak(error),
        Ok(outcome) => {
            let mut indexes: Vec<usize> = outcome.rejected.iter().map(|r| r.index).collect();
            indexes.sort_unstable();
            if indexes.windows(2).any(|pair| pair[0] == pair[1]) {
                return Some("a record is listed as rejected twice".to_owned());
            }
            if indexes.last().is_some_and(|last| *last >= batch.changes.len()) {
                return Some("a rejected record has an index outside of the batch".to_owned());
            }
            outcome.rejected.iter().find_map(|rejected| {
                if rejected.error.scope() != Scope::Record {
                    return Some(format!(
                        "a record was rejected with an error about more than it: {:?}",
                        rejected.error
                    ));
                }
                leak(&rejected.error)
            })
        }
    }
}

/// An error that shows a value of a record, said without showing it.
fn leak(error: &Error) -> Option<String> {
    let texts = [
        ("its message", error.to_string()),
        ("its report", error.report()),
        ("its Debug form", format!("{error:?}")),
        ("its Debug form", format!("{error:#?}")),
        ("its advice", error.advice().unwrap_or_default().to_owned()),
    ];
    let (place, _) = texts.iter().find(|(_, text)| text.contains(MARK))?;
    Some(format!("an error of kind {:?} shows the value of a record in {place}", error.kind()))
}

/// Stands in for a sink that was dropped.
#[derive(Debug)]
struct Nowhere;

#[async_trait::async_trait]
impl Sink for Nowhere {
    fn capability(&self) -> Capability {
        Capability::NONE
    }
    async fn check(&self, _: &Context) -> Result<(), Error> {
        Ok(())
    }
    async fn apply(&self, _: &Context, _: &Batch) -> Result<Outcome, Error> {
        Ok(Outcome::default())
    }
}
