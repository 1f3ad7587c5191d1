//! What every store promises; each promise is tested on a store that is empty.
#![allow(unreachable_pub, reason = "shared by several tests")]

use std::sync::Arc;

use bytes::Bytes;
use s3rep_core::ErrorKind;
use s3rep_s3db::{ObjectStore, PutCondition, StoredObject};

use super::common::cx;

pub fn object(metadata: &[(&str, &str)], body: &str) -> StoredObject {
    StoredObject {
        metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        body: Bytes::from(body.to_owned()),
        content_type: Some("application/octet-stream".to_owned()),
    }
}

pub async fn list(store: &dyn ObjectStore, prefix: &str, after: Option<&str>, max: usize) -> Vec<String> {
    let mut listing = store.list(prefix, after).unwrap();
    let mut keys = Vec::new();
    loop {
        let page = listing.page(&cx(), max).await.unwrap();
        if page.is_empty() {
            return keys;
        }
        assert!(page.len() <= max);
        keys.extend(page.into_iter().map(|meta| meta.key));
    }
}

pub async fn objects_are_put_read_replaced_and_deleted(store: Arc<dyn ObjectStore>) {
    let (cx, key) = (cx(), "resource=r/data/id=wïth space & +?#😀");
    assert_eq!(store.get(&cx, key).await.unwrap(), None);
    assert_eq!(store.head(&cx, key).await.unwrap(), None);
    let first = object(&[("0", "a"), ("_v", "v1")], "");
    store.put(&cx, key, &first, PutCondition::IfAbsent).await.unwrap();
    assert_eq!(store.get(&cx, key).await.unwrap().unwrap(), first);
    let before = store.head(&cx, key).await.unwrap().unwrap();
    assert_eq!((before.size, before.key.as_str()), (0, key));

    let error = store.put(&cx, key, &first, PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    for body in ["{\"x\":1}", "", "", "longer"] {
        let next = object(&[("0", "b")], body);
        store.put(&cx, key, &next, PutCondition::Always).await.unwrap();
        assert_eq!(store.get(&cx, key).await.unwrap().unwrap(), next);
    }
    let after = store.head(&cx, key).await.unwrap().unwrap();
    assert_ne!(after.version, before.version);
    assert_eq!(after.size, 6);

    store.delete(&cx, key).await.unwrap();
    store.delete(&cx, key).await.unwrap();
    assert_eq!(store.get(&cx, key).await.unwrap(), None);
    assert_eq!(list(&*store, "", None, 10).await, Vec::<String>::new());
}

pub async fn listings_are_in_the_order_of_bytes_in_pages_of_any_size(store: Arc<dyn ObjectStore>) {
    let keys = ["a", "a.b", "a0/x/y", "a/z", "b/1", "b/2/3", "b/2/4", "b/2.5", "b/é", "b/~", "c/", "ab/c/d"];
    let mut expected: Vec<&str> =
        keys.iter().copied().filter(|key| !key.ends_with('/') && *key != "a").collect();
    expected.sort_unstable();
    for key in &expected {
        store.put(&cx(), key, &object(&[], ""), PutCondition::IfAbsent).await.unwrap();
    }
    for max in [1, 2, 3, 100] {
        assert_eq!(list(&*store, "", None, max).await, expected);
    }
    for prefix in ["a", "a/", "b/", "b/2", "b/2/", "a0/x/", "zz", "zz/y"] {
        for after in [None, Some("a/z"), Some("b/2"), Some("b/2/3"), Some("b/2/"), Some("zzz"), Some("")] {
            let wanted: Vec<_> = expected
                .iter()
                .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| **key > after))
                .collect();
            let listed = list(&*store, prefix, after, 2).await;
            assert_eq!(listed.iter().collect::<Vec<_>>(), wanted, "{prefix:?} after {after:?}");
        }
    }
}

pub async fn keys_cannot_leave_the_store(store: Arc<dyn ObjectStore>) {
    for key in ["../x", "a/../../x", "..", ""] {
        let error = store.put(&cx(), key, &object(&[], ""), PutCondition::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{key}");
        assert!(store.get(&cx(), key).await.is_err());
        assert!(store.delete(&cx(), key).await.is_err());
    }
    store.put(&cx(), "p/x/../id=1", &object(&[], ""), PutCondition::Always).await.unwrap();
    assert_eq!(list(&*store, "", None, 9).await, ["p/id=1"]);
}

pub async fn one_of_many_creators_wins(store: Arc<dyn ObjectStore>) {
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.put(&cx(), "k", &object(&[("n", &n.to_string())], "x"), PutCondition::IfAbsent).await
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        }
    }
    assert_eq!(won, 1);
    assert!(store.get(&cx(), "k").await.unwrap().is_some());
}
