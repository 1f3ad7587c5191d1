//! What a destination has to hold after a history.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use s3rep_core::{ChangeId, Operation, Readback, Record, RowChange, Seq, Table};

/// One row of an append table as it lies in the destination.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredChange {
    /// The key.
    pub key: String,
    /// What happened.
    pub operation: Operation,
    /// Its identity.
    pub change_id: ChangeId,
    /// The record, where the destination gives it back just as it was sent. It is compared then.
    pub record: Option<Record>,
}

/// Folds changes into the expected state of every table.
///
/// A change that comes a second time changes nothing, so a test may feed it every batch that it sends.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    tables: BTreeMap<Arc<str>, Expected>,
}

#[derive(Clone, Debug, Default)]
struct Expected {
    /// The latest change of each key, deletes among them.
    latest: BTreeMap<Arc<str>, RowChange>,
    /// Every change, by its place in the log.
    changes: BTreeMap<Seq, RowChange>,
}

/// How a destination differs from what it should hold. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The row or change should be there.
    Missing(String),
    /// The row or change should not be there.
    Extra(String),
    /// The row is there with other values of these members.
    Different(String, Vec<String>),
    /// The change is there more than once.
    Twice(String),
    /// The changes of the key are not in their order.
    OutOfOrder(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "{key:?} is missing"),
            Self::Extra(key) => write!(f, "{key:?} should not be there"),
            Self::Different(key, members) => write!(f, "{key:?} differs in {}", members.join(", ")),
            Self::Twice(key) => write!(f, "a change of {key:?} is there twice"),
            Self::OutOfOrder(key) => write!(f, "the changes of {key:?} are not in order"),
        }
    }
}

impl Oracle {
    /// A change that the destination took.
    pub fn apply(&mut self, table: &Table, change: &RowChange) {
        let expected = self.tables.entry(table.name.clone()).or_default();
        let latest = expected.latest.entry(change.key.clone()).or_insert_with(|| change.clone());
        if latest.seq < change.seq {
            *latest = change.clone();
        }
        expected.changes.entry(change.seq).or_insert_with(|| change.clone());
    }

    /// The rows of a table: the latest of each key, deleted ones left out. By the bytes of the keys.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (&str, &Record)> {
        self.tables
            .get(table)
            .into_iter()
            .flat_map(|expected| expected.latest.values())
            .filter(|change| change.operation != Operation::Delete)
            .filter_map(|change| Some((&*change.key, change.record.as_deref()?)))
    }

    /// Every change of a table, in log order.
    pub fn changes(&self, table: &str) -> impl Iterator<Item = &RowChange> {
        self.tables.get(table).into_iter().flat_map(|expected| expected.changes.values())
    }

    /// Compares rows as [`Readback::rows`] returned them.
    pub fn compare_rows(
        &self,
        table: &Table,
        readback: &dyn Readback,
        actual: &[(String, Record)],
    ) -> Vec<Difference> {
        let mut actual: HashMap<&str, &Record> =
            actual.iter().map(|(key, record)| (key.as_str(), record)).collect();
        let mut found = Vec::new();
        for (key, sent) in self.rows(&table.name) {
            let Some(row) = actual.remove(key) else {
                found.push(Difference::Missing(key.to_owned()));
                continue;
            };
            match readback.expected(table, key, sent) {
                Ok(expected) if expected == *row => {}
                Ok(expected) => {
                    found.push(Difference::Different(key.to_owned(), different_members(&expected, row)));
                }
                Err(_) => found.push(Difference::Extra(key.to_owned())),
            }
        }
        found.extend(actual.into_keys().map(|key| Difference::Extra(key.to_owned())));
        found.sort();
        found
    }

    /// Compares the rows of an append table, in their order. With `exactly_once` a change that is there twice
    /// is a difference; else only its first appearance counts.
    pub fn compare_changes(
        &self,
        table: &Table,
        actual: &[StoredChange],
        exactly_once: bool,
    ) -> Vec<Difference> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut by_key: BTreeMap<&str, Vec<&StoredChange>> = BTreeMap::new();
        for change in actual {
            if seen.insert(change.change_id) {
                by_key.entry(&change.key).or_default().push(change);
            } else if exactly_once {
                found.insert(Difference::Twice(change.key.clone()));
            }
        }
        let mut expected: BTreeMap<&str, Vec<&RowChange>> = BTreeMap::new();
        for change in self.changes(&table.name) {
            expected.entry(&change.key).or_default().push(change);
        }
        for (key, wanted) in &expected {
            let have = by_key.remove(key).unwrap_or_default();
            if let Some(difference) = compare_key(key, wanted, &have) {
                found.insert(difference);
            }
        }
        found.extend(by_key.into_keys().map(|key| Difference::Extra(key.to_owned())));
        found.into_iter().collect()
    }
}

fn compare_key(key: &str, wanted: &[&RowChange], have: &[&StoredChange]) -> Option<Difference> {
    let wanted_ids: Vec<_> = wanted.iter().map(|change| (change.change_id, change.operation)).collect();
    let have_ids: Vec<_> = have.iter().map(|change| (change.change_id, change.operation)).collect();
    if wanted_ids != have_ids {
        let key = key.to_owned();
        let wanted: HashSet<_> = wanted_ids.into_iter().collect();
        let have: HashSet<_> = have_ids.into_iter().collect();
        return Some(if wanted.difference(&have).next().is_some() {
            Difference::Missing(key)
        } else if have.difference(&wanted).next().is_some() {
            Difference::Extra(key)
        } else {
            Difference::OutOfOrder(key)
        });
    }
    wanted.iter().zip(have).find_map(|(wanted, have)| {
        let (wanted, have) = (wanted.record.as_deref()?, have.record.as_ref()?);
        (wanted != have).then(|| Difference::Different(key.to_owned(), different_members(wanted, have)))
    })
}

/// The members whose values differ, by name.
pub fn different_members(one: &Record, other: &Record) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use s3rep_core::{Partition, RouteMode, Timestamp};
    use serde_json::json;

    use super::*;

    fn change(key: &str, seq: u64, operation: Operation) -> RowChange {
        RowChange {
            key: key.into(),
            operation,
            record: json!({ "n": seq }).as_object().cloned().map(Arc::new),
            change_id: ChangeId::derive("r", key, operation, &seq.to_le_bytes(), None),
            timestamp: Timestamp(0),
            seq: Seq(seq),
            partition: Partition(0),
        }
    }

    fn stored(change: &RowChange) -> StoredChange {
        StoredChange {
            key: change.key.to_string(),
            operation: change.operation,
            change_id: change.change_id,
            record: change.record.as_deref().cloned(),
        }
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let table = Table { name: "t".into(), mode: RouteMode::Append, schema: crate::history::schema("t") };
        let changes = [
            change("a", 1, Operation::Insert),
            change("a", 2, Operation::Delete),
            change("b", 3, Operation::Insert),
        ];
        let mut oracle = Oracle::default();
        changes.iter().chain(&changes[..2]).for_each(|change| oracle.apply(&table, change));
        assert_eq!(oracle.rows("t").map(|(key, _)| key).collect::<Vec<_>>(), ["b"]);
        let [a1, a2, b] = changes.each_ref().map(stored);
        let compare = |actual: &[&StoredChange], once| {
            let actual: Vec<_> = actual.iter().copied().cloned().collect();
            oracle.compare_changes(&table, &actual, once)
        };
        let a = || "a".to_owned();
        assert_eq!(compare(&[&b, &a1, &a2], true), []);
        assert_eq!(compare(&[&b, &a1, &a2, &a1], false), []);
        assert_eq!(compare(&[&b, &a1, &a2, &a1], true), [Difference::Twice(a())]);
        assert_eq!(compare(&[&b, &a2, &a1], true), [Difference::OutOfOrder(a())]);
        assert_eq!(compare(&[&b, &a2], true), [Difference::Missing(a())]);
        let other = StoredChange { record: Some(Record::new()), ..a1.clone() };
        assert_eq!(compare(&[&b, &other, &a2], true), [Difference::Different(a(), vec!["n".to_owned()])]);
        let foreign = StoredChange { key: "c".to_owned(), change_id: ChangeId([0; 16]), ..b.clone() };
        assert_eq!(compare(&[&b, &a1, &a2, &foreign], true), [Difference::Extra("c".to_owned())]);
    }
}
