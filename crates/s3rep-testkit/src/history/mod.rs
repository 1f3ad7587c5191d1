//! Random histories from a seed: what a database may go through, with everything that drivers trip over.

mod values;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use s3rep_core::{
    Change, ChangeId, Entry, Operation, Partition, Record, ResourceSchema, RowChange, Seq, Timestamp,
};
use serde_json::{Value, json};

use crate::context::SplitMix;

pub use values::{Awkward, Values, awkward};

/// Ids that have cost somebody data: collations, padding, patterns, quoting, paths, and an order that differs
/// between bytes, UTF-16 units and numbers.
pub const AWKWARD_IDS: &[&str] = &[
    "a",
    "A",
    "a ",
    " a",
    "b",
    "10",
    "9",
    "09",
    "é",
    "e\u{301}",
    "E",
    "straße",
    "STRASSE",
    "日本語",
    "\u{fffd}",
    "😀",
    "100%",
    "a_b",
    "axb",
    "o'clock",
    "say \"hi\"",
    "`tick`",
    "back\\slash",
    "a/b",
    "a.b",
    "x; DROP TABLE cars; --",
    "null",
    "true",
    "ا",
    "a\tb",
    "long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-\
     long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-end-1",
    "long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-\
     long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-end-2",
];

/// What a history is made of.
#[derive(Clone, Debug)]
pub struct HistoryOptions {
    /// How many changes.
    pub changes: usize,
    /// The resources, in a schema of [`schema`] each.
    pub resources: Vec<String>,
    /// How many ids beside those that many changes meet.
    pub tail: usize,
    /// Partitions of the log.
    pub partitions: u16,
    /// Records are deleted.
    pub deletes: bool,
    /// Snapshot rows are among the changes.
    pub reads: bool,
    /// Ids from [`AWKWARD_IDS`]; else short lower-case ones.
    pub awkward_ids: bool,
    /// Records have secrets: encrypting takes some destinations long.
    pub secrets: bool,
    /// Which values records may have.
    pub values: Values,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            changes: 300,
            resources: vec!["cars".to_owned(), "users".to_owned()],
            tail: 60,
            partitions: 16,
            deletes: true,
            reads: true,
            awkward_ids: true,
            secrets: true,
            values: Values::ALL,
        }
    }
}

/// A sequence of changes as the log holds them. Prints its seed.
///
/// ```
/// use s3rep_testkit::history::{History, HistoryOptions};
/// let history = History::generate(7, &HistoryOptions::default());
/// assert_eq!(history.entries.len(), 300);
/// assert_eq!(history.entries, History::generate(7, &HistoryOptions::default()).entries);
/// ```
#[derive(Clone)]
pub struct History {
    /// Makes the same history again.
    pub seed: u64,
    /// The resources.
    pub schemas: Vec<Arc<ResourceSchema>>,
    /// In log order.
    pub entries: Vec<Entry>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "History of {} changes, seed {}", self.entries.len(), self.seed)
    }
}

/// The shape of the generated records: every kind of attribute, one of them required.
///
/// # Panics
/// Never: the definition is valid.
pub fn schema(resource: &str) -> Arc<ResourceSchema> {
    let declaration = json!({
        "name": "string|required",
        "note": "string|optional",
        "count": "number|integer:true|optional",
        "price": "number|optional",
        "active": "boolean|optional",
        "tags": "array|items:string|optional",
        "profile": {"bio": "string|optional", "age": "number|optional"},
        "data": "json|optional",
        "seen": "datetime|optional",
        "day": "dateonly|optional",
        "site": "url|optional",
        "pin": "secret|optional",
    });
    let declaration = declaration.as_object().expect("an object");
    Arc::new(ResourceSchema::parse(resource, "v1", declaration).expect("a valid definition"))
}

struct Generator<'a> {
    random: SplitMix,
    options: &'a HistoryOptions,
    /// Living records and, for all, the number and identity of the last change.
    records: BTreeMap<(usize, String), Known>,
}

#[derive(Default)]
struct Known {
    record: Option<Arc<Record>>,
    changes: u64,
    last: Option<ChangeId>,
}

impl History {
    /// Makes a history from a seed.
    pub fn generate(seed: u64, options: &HistoryOptions) -> Self {
        let mut generator = Generator { random: SplitMix::new(seed), options, records: BTreeMap::new() };
        let mut seq = 0;
        let entries = (0..options.changes)
            .map(|_| {
                // Offsets grow and have holes, as those of a trimmed log or of one that others read too.
                seq += 1 + generator.random.below(3);
                generator.entry(Seq(seq))
            })
            .collect();
        Self { seed, schemas: options.resources.iter().map(|name| schema(name)).collect(), entries }
    }

    /// The changes of one resource as a route without mapping hands them to a sink.
    pub fn row_changes(&self, resource: &str) -> Vec<RowChange> {
        self.entries.iter().filter(|entry| &*entry.change.resource == resource).map(row_change).collect()
    }

    /// The schema of one resource.
    pub fn schema(&self, resource: &str) -> Option<&Arc<ResourceSchema>> {
        self.schemas.iter().find(|schema| &*schema.name == resource)
    }
}

/// An entry as a route without mapping hands it to a sink.
pub fn row_change(entry: &Entry) -> RowChange {
    RowChange {
        key: entry.change.id.clone(),
        operation: entry.change.operation,
        record: entry.change.data.clone(),
        change_id: entry.change.change_id,
        timestamp: entry.change.timestamp,
        seq: entry.seq,
        partition: entry.partition,
    }
}

impl Generator<'_> {
    fn entry(&mut self, seq: Seq) -> Entry {
        let resource = self.random.below(self.options.resources.len() as u64) as usize;
        let id = self.id();
        let key = (resource, id);
        let before = self.records.get(&key).and_then(|known| known.record.clone());
        let operation = match (&before, self.random.below(10)) {
            // Deleted twice: a source that lost its state says so again.
            (_, 0) if self.options.deletes => Operation::Delete,
            (Some(_), 1) if self.options.deletes => Operation::Delete,
            (_, 2) if self.options.reads => Operation::Read,
            (Some(_), _) => Operation::Update,
            (None, 3) => Operation::Update,
            (None, _) => Operation::Insert,
        };
        let data = match operation {
            // The last known record, or nothing but the id.
            Operation::Delete => before.clone().filter(|_| self.random.below(2) == 0),
            Operation::Read if before.is_some() => before.clone(),
            _ => Some(Arc::new(self.record(&key.1))),
        };
        let resource_name = &self.options.resources[resource];
        let known = self.records.entry(key.clone()).or_default();
        let change_id =
            ChangeId::derive(resource_name, &key.1, operation, &known.changes.to_le_bytes(), known.last);
        known.changes += 1;
        known.last = Some(change_id);
        known.record = data.clone().filter(|_| operation != Operation::Delete);
        let at = Timestamp(1_700_000_000_000 + i64::try_from(seq.0).unwrap_or(i64::MAX) * 10);
        Entry {
            seq,
            partition: Partition::of(resource_name, &key.1, self.options.partitions),
            logged_at: Timestamp(at.0 + 5),
            change: Change {
                change_id,
                resource: resource_name.as_str().into(),
                id: key.1.as_str().into(),
                operation,
                data,
                before: None,
                timestamp: at,
                schema_version: "v1".into(),
                target: None,
            },
        }
    }

    /// Half of the changes meet a few ids, the rest a long tail.
    fn id(&self) -> String {
        const HOT: u64 = 12;
        let hot = self.random.below(2) == 0;
        match (self.options.awkward_ids, hot) {
            (true, true) => AWKWARD_IDS[self.random.below(HOT) as usize].to_owned(),
            (true, false) if self.random.below(2) == 0 => {
                AWKWARD_IDS[self.random.below(AWKWARD_IDS.len() as u64) as usize].to_owned()
            }
            (false, true) => format!("hot-{}", self.random.below(HOT)),
            _ => format!("id-{:04}", self.random.below(self.options.tail.max(1) as u64)),
        }
    }

    /// A record of [`schema`]: the required attribute, and each optional one more often than not.
    fn record(&self, id: &str) -> Record {
        static ALL: OnceLock<Vec<Awkward>> = OnceLock::new();
        let all = ALL.get_or_init(awkward);
        let mut record = Record::new();
        if self.random.below(2) == 0 {
            record.insert("id".to_owned(), id.into());
        }
        let name = format!("name {}", self.random.below(1_000));
        record.insert("name".to_owned(), name.into());
        for (attribute, value) in self.ordinary() {
            if self.random.below(3) > 0 && (self.options.secrets || attribute != "pin") {
                record.insert(attribute.to_owned(), value);
            }
        }
        if self.random.below(2) == 0 {
            let Awkward { attribute, value, needs, .. } = &all[self.random.below(all.len() as u64) as usize];
            if self.options.values.allow(*needs) && (self.options.secrets || *attribute != "pin") {
                record.insert((*attribute).to_owned(), value.clone());
            }
        }
        record
    }

    fn ordinary(&self) -> [(&'static str, Value); 11] {
        let n = self.random.below(1_000_000);
        let tag = |i: u64| format!("tag {}", (n >> i) % 7);
        [
            ("note", format!("note {n}, ä, 日本").into()),
            ("count", (i64::try_from(n).unwrap_or(0) - 500_000).into()),
            ("price", ((n * 2 + 1) as f64 / 8.0).into()),
            ("active", n.is_multiple_of(2).into()),
            ("tags", json!([tag(0), tag(3)])),
            ("profile", json!({"bio": format!("bio {n}"), "age": n % 100})),
            ("data", json!({"n": n, "list": [1, null, {"deep": [true]}]})),
            ("seen", Timestamp(1_600_000_000_000 + i64::try_from(n).unwrap_or(0)).to_string().into()),
            ("day", format!("20{:02}-0{}-1{}", n % 100, 1 + n % 9, n % 10).into()),
            ("site", format!("https://example.com/{n}?q=a%20b").into()),
            ("pin", format!("pin-{n}").into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn histories_have_what_they_promise() {
        let history = History::generate(3, &HistoryOptions { changes: 3_000, ..HistoryOptions::default() });
        let entries = &history.entries;
        assert!(entries.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        let ids: HashSet<_> = entries.iter().map(|entry| entry.change.change_id).collect();
        assert_eq!(ids.len(), entries.len(), "change ids are unique");
        for operation in [Operation::Insert, Operation::Update, Operation::Delete, Operation::Read] {
            assert!(entries.iter().any(|entry| entry.change.operation == operation), "{operation}");
        }
        for entry in entries {
            let Change { resource, id, operation, data, .. } = &entry.change;
            assert_eq!(entry.partition, Partition::of(resource, id, 16));
            assert!(data.is_some() || *operation == Operation::Delete);
            let schema = history.schema(resource).unwrap();
            for (name, value) in data.iter().flat_map(|data| data.iter()) {
                assert!(name == "id" || schema.attribute(name).is_some(), "{name}");
                assert!(name != "name" || value.is_string());
            }
        }
    }

    #[test]
    fn plain_values_leave_out_what_a_destination_may_refuse() {
        let options = HistoryOptions { values: Values::PLAIN, ..HistoryOptions::default() };
        let text = format!("{:?}", History::generate(5, &options).row_changes("cars"));
        assert!(!text.contains("9007199254740993") && !text.contains("\\0"));
    }
}
