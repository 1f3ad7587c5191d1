//! What the tests over a file and over a server share.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use s3rep_core::{
    Batch, ChangeId, CursorMove, Error, ErrorKind, Failpoints, Operation, Partition, Progress,
    ResourceSchema, RouteMode, RowChange, Scope, Seq, Table, Timestamp,
};
use serde_json::{Value, json};

pub(crate) fn table(mode: RouteMode, attributes: Value) -> Arc<Table> {
    let schema = ResourceSchema::parse("cars", "v1", attributes.as_object().unwrap()).unwrap();
    Arc::new(Table { name: "cars".into(), mode, schema: Arc::new(schema) })
}

pub(crate) fn cars() -> Arc<Table> {
    table(RouteMode::Upsert, json!({"name": "string|required", "price": "number", "doors": "number|integer"}))
}

pub(crate) fn change(seq: u64, key: &str, operation: Operation, record: Option<Value>) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.map(|record| Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId::derive("cars", key, operation, &seq.to_le_bytes(), None),
        timestamp: Timestamp(1_700_000_000_000),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

pub(crate) fn insert(seq: u64, key: &str, record: Value) -> RowChange {
    change(seq, key, Operation::Insert, Some(record))
}

pub(crate) fn batch(table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
    let last = changes.last().map_or(Seq(0), |change| change.seq);
    let cursors = vec![CursorMove { table: table.name.clone(), partition: Partition(0), seq: last }];
    let progress = Progress { replicator: "r".into(), log: "log".into(), fence: 1, cursors };
    Batch { table: table.clone(), changes, progress }
}

/// An error that tells an operator where it happened and what to do.
#[track_caller]
pub(crate) fn assert_error(error: &Error, kind: ErrorKind, is_temporary: bool, scope: Scope) {
    assert_eq!((error.kind(), error.is_temporary(), error.scope()), (kind, is_temporary, scope), "{error:?}");
    assert!(error.advice().is_some(), "no advice: {error:?}");
}

/// Fails at one place, once.
#[derive(Default)]
pub(crate) struct FailOnce(Mutex<Option<&'static str>>);

impl FailOnce {
    pub(crate) fn at(place: &'static str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(place))))
    }
}

impl Failpoints for FailOnce {
    fn hit(&self, name: &'static str) -> Result<(), Error> {
        let mut armed = self.0.lock().unwrap();
        if *armed == Some(name) {
            *armed = None;
            return Err(Error::new(ErrorKind::Unavailable, "killed").temporary());
        }
        Ok(())
    }
}

/// Batches for a table whose names are unique. In the order of the keys a name would be there twice meanwhile.
pub(crate) fn values_that_move() -> [Vec<RowChange>; 2] {
    let named = |seq, key, name| insert(seq, key, json!({ "name": name }));
    [
        vec![named(1, "a", "1"), named(2, "b", "2"), named(3, "c", "gone")],
        vec![
            named(4, "b", "3"),
            named(5, "a", "2"),
            change(6, "c", Operation::Delete, None),
            named(7, "aa", "1"),
        ],
    ]
}

/// Every kind of value, and those that look like another kind.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1000_i32..1000).prop_map(|n| json!(f64::from(n))),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        "[0-9.eE+ -]{0,8}".prop_map(Value::from),
        "\\PC{0,12}|a\0b".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
