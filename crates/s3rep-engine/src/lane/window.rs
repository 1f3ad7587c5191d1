//! A window: what one read of the log means for the tables of one replicator. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

use s3rep_core::{CursorMove, Entry, Limits, Page, Partition, Record, RouteMode, RowChange, Seq, Table};

use super::position::Positions;
use crate::{replicator::Replicator, schemas::Schemas};

/// Entries read at once: enough to make a commit's cost vanish, few enough to stay small in memory.
pub(super) const WINDOW_ENTRIES: usize = 8_192;
/// Bytes read at once. With one window being read, one waiting and one being written, a replicator holds
/// about three times this, whatever waits in the log.
pub(super) const WINDOW_BYTES: usize = 4 << 20;

/// What one read of the log means for the tables of one replicator.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Rows for each table, in the order of the tables' first appearance.
    pub(super) tables: Vec<TableWork>,
    /// The last entry of each partition, routed or not.
    pub(super) ends: BTreeMap<Partition, Seq>,
    /// Where the next window begins.
    pub(super) next: Seq,
    /// Entries that could not be read.
    pub(super) damaged: Vec<(Seq, Option<Partition>)>,
}

/// Rows for one table, in log order.
#[derive(Debug)]
pub(super) struct TableWork {
    pub(super) table: Arc<Table>,
    pub(super) changes: Vec<RowChange>,
}

/// Makes windows out of pages.
#[derive(Debug)]
pub(super) struct Router {
    replicator: Arc<Replicator>,
    schemas: Schemas,
    start: Positions,
    tables: HashMap<Arc<str>, Vec<Arc<Table>>>,
}

impl Router {
    pub(super) fn new(replicator: Arc<Replicator>, schemas: Schemas, start: Positions) -> Self {
        Self { replicator, schemas, start, tables: HashMap::new() }
    }

    pub(super) fn route(&mut self, page: Page) -> Window {
        self.refresh_tables();
        let mut window = Window { next: page.next, damaged: page.damaged, ..Window::default() };
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for entry in page.entries {
            // Where the destination stands further already, its cursor must not go back with the log's.
            window.ends.insert(entry.partition, entry.seq.max(self.start.of(entry.partition)));
            let is_for_others =
                entry.change.target.as_ref().is_some_and(|target| target != self.replicator.id());
            if is_for_others || self.start.passed(entry.partition, entry.seq) {
                continue;
            }
            self.route_entry(&entry, &mut window, &mut places);
        }
        for work in &mut window.tables {
            if work.table.mode == RouteMode::Upsert {
                coalesce(&mut work.changes);
            }
        }
        window
    }

    fn route_entry(&mut self, entry: &Entry, window: &mut Window, places: &mut HashMap<Arc<str>, usize>) {
        let change = &entry.change;
        for (i, route) in self.replicator.mapping().routes(&change.resource).enumerate() {
            if !route.accepts(change.operation)
                || self.start.passed_in(&route.table, entry.partition, entry.seq)
            {
                continue;
            }
            let tables = self.tables.entry(change.resource.clone()).or_insert_with(|| {
                let schema = self.schemas.of(&change.resource);
                let routes = self.replicator.mapping().routes(&change.resource);
                routes.map(|route| Arc::new(self.replicator.table(route, schema.clone()))).collect()
            });
            let table = &tables[i];
            let place = *places.entry(table.name.clone()).or_insert_with(|| {
                window.tables.push(TableWork { table: table.clone(), changes: Vec::new() });
                window.tables.len() - 1
            });
            window.tables[place].changes.push(RowChange {
                key: change.id.clone(),
                operation: change.operation,
                record: change.data.clone(),
                change_id: change.change_id,
                timestamp: change.timestamp,
                seq: entry.seq,
                partition: entry.partition,
            });
        }
    }

    /// Drops tables whose shape is no longer the source's.
    fn refresh_tables(&mut self) {
        self.tables.retain(|resource, tables| {
            let schema = self.schemas.of(resource);
            tables.iter().all(|table| Arc::ptr_eq(&table.schema, &schema))
        });
    }
}

/// Keeps the last change of each key.
fn coalesce(changes: &mut Vec<RowChange>) {
    // From the end: the first time that a key is met is its last change.
    let mut met: HashSet<&str, RandomState> =
        HashSet::with_capacity_and_hasher(changes.len(), RandomState::default());
    let superseded: Vec<usize> = changes
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, change)| !met.insert(&change.key))
        .map(|(i, _)| i)
        .collect();
    let mut superseded = superseded.into_iter().rev().peekable();
    if superseded.peek().is_some() {
        let mut i = 0..;
        changes.retain(|_| superseded.next_if_eq(&i.next().unwrap_or_default()).is_none());
    }
}

/// Rows that are worth a call of their own: below, what a second call at the same time saves is less than what it
/// costs, which in databases is a transaction.
const LANE_ROWS: usize = 1_000;

/// Splits rows into lists whose partitions are disjoint, so that they can be written at the same time without
/// sharing a key: as many as the sink takes, and no more than the rows are worth.
pub(super) fn by_partition(changes: Vec<RowChange>, limits: &Limits) -> Vec<Vec<RowChange>> {
    let lanes = changes.len().div_ceil(limits.records.clamp(1, LANE_ROWS)).min(limits.in_flight);
    if lanes <= 1 {
        return vec![changes];
    }
    let mut groups = vec![Vec::new(); lanes];
    for change in changes {
        groups[usize::from(change.partition.0) % lanes].push(change);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Cuts rows into batches within the sink's limits, in order. Rows that are too large for any batch are left
/// to stand alone.
pub(super) fn cut(changes: Vec<RowChange>, limits: &Limits) -> Vec<Vec<RowChange>> {
    let may_exceed_bytes = limits.bytes < 2 * WINDOW_BYTES || changes.len() == 1;
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0_usize);
    for change in changes {
        let size = if may_exceed_bytes { size_of_row(&change) } else { 0 };
        if batch.len() == limits.records.max(1) || (!batch.is_empty() && bytes + size > limits.bytes) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        batch.push(change);
        bytes += size;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// The size that limits speak of: the record as JSON text.
pub(super) fn size_of_row(change: &RowChange) -> usize {
    change.key.len() + change.record.as_deref().map_or(0, json_size)
}

fn json_size(record: &Record) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and every record is valid JSON.
    let _ = serde_json::to_writer(&mut count, record);
    count.0
}

/// The cursors of one table after these rows.
pub(super) fn table_cursors(table: &Arc<str>, changes: &[RowChange]) -> Vec<CursorMove> {
    let mut ends = BTreeMap::new();
    for change in changes {
        ends.insert(change.partition, change.seq);
    }
    cursors(table, &ends)
}

/// The moves that bring a table's cursors (or the replicator's, for an empty name) to `ends`.
pub(super) fn cursors(table: &Arc<str>, ends: &BTreeMap<Partition, Seq>) -> Vec<CursorMove> {
    ends.iter().map(|(&partition, &seq)| CursorMove { table: table.clone(), partition, seq }).collect()
}

#[cfg(test)]
mod tests {
    use s3rep_core::{Change, ChangeId, Mapping, Operation, Timestamp};

    use super::*;

    fn row(key: &str, seq: u64) -> RowChange {
        RowChange {
            key: key.into(),
            operation: Operation::Update,
            record: Some(Arc::new(Record::from_iter([("n".to_owned(), seq.into())]))),
            change_id: ChangeId([0; 16]),
            timestamp: Timestamp(0),
            seq: Seq(seq),
            partition: Partition(seq as u16 % 3),
        }
    }

    fn rows(keys: &[&str]) -> Vec<RowChange> {
        keys.iter().zip(1..).map(|(key, seq)| row(key, seq)).collect()
    }

    fn seqs(rows: &[RowChange]) -> Vec<u64> {
        rows.iter().map(|row| row.seq.0).collect()
    }

    #[test]
    fn the_last_change_of_each_key_stays_in_its_place() {
        for (keys, kept) in [
            (&["a", "b", "a", "c", "b"][..], &[3, 4, 5][..]),
            (&["a", "a", "a"], &[3]),
            (&["a", "b"], &[1, 2]),
            (&[], &[]),
        ] {
            let mut changes = rows(keys);
            coalesce(&mut changes);
            assert_eq!(seqs(&changes), kept, "{keys:?}");
        }
    }

    #[test]
    fn what_the_destination_has_is_skipped_and_its_cursor_does_not_go_back() {
        let entry = |seq| Entry {
            seq: Seq(seq),
            partition: Partition(0),
            logged_at: Timestamp(0),
            change: Change {
                change_id: ChangeId([0; 16]),
                resource: "cars".into(),
                id: format!("car-{seq}").into(),
                operation: Operation::Insert,
                data: Some(Arc::default()),
                before: None,
                timestamp: Timestamp(0),
                schema_version: "v1".into(),
                target: (seq == 12).then(|| "another".into()),
            },
        };
        let mapping = Mapping::new(vec![s3rep_core::Route::new("cars", "cars")]);
        let sink = Arc::new(s3rep_testkit::sink::MemorySink::new());
        let replicator = Arc::new(Replicator::new("copy", mapping, sink).unwrap());
        let mut router = Router::new(replicator, Schemas::default(), Positions::new(vec![Seq(10)]));
        let page =
            |seqs: &[u64]| Page { entries: seqs.iter().map(|&seq| entry(seq)).collect(), ..Page::default() };

        let passed = router.route(page(&[3, 4]));
        assert!(passed.tables.is_empty());
        assert_eq!(passed.ends[&Partition(0)], Seq(10));
        let mixed = router.route(page(&[10, 11, 12]));
        assert_eq!(seqs(&mixed.tables[0].changes), [11]);
        assert_eq!(mixed.ends[&Partition(0)], Seq(12));
    }

    #[test]
    fn batches_stay_within_the_limits_and_in_order() {
        let limits = Limits { records: 3, bytes: 25, ..Limits::DEFAULT };
        // Each row counts its key and {"n":1}: 8 bytes.
        let batches = cut(rows(&["a", "b", "c", "d", "e"]), &limits);
        assert_eq!(batches.iter().map(|batch| seqs(batch)).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4, 5]]);
        let one_each = cut(rows(&["a", "b"]), &Limits { bytes: 1, ..Limits::DEFAULT });
        assert_eq!(one_each.len(), 2);
    }

    #[test]
    fn groups_share_no_partition_and_lose_nothing() {
        let limits = Limits { records: 3, in_flight: 2, ..Limits::DEFAULT };
        let groups = by_partition(rows(&["a", "b", "c", "d", "e", "f"]), &limits);
        let partitions = |group: &[RowChange]| group.iter().map(|row| row.partition).collect::<HashSet<_>>();
        assert!(partitions(&groups[0]).is_disjoint(&partitions(&groups[1])));
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 6);
        assert_eq!(by_partition(rows(&["a", "b", "c"]), &limits).len(), 1, "one batch is one call");
    }
}
