//! What holds when connections break: nothing is lost, nothing is there twice.

use std::time::Duration;

use bytes::Bytes;
use s3rep_core::ErrorKind;
use s3rep_s3db::{ObjectStore, PutCondition, S3Options, S3Store};
use s3rep_testkit::proxy::{Fault, Proxy};

use super::{
    common::cx,
    promises::{list, object},
    setup::{Bench, is_helpful, options},
};

async fn proxied(bench: &Bench) -> (Proxy, S3Store) {
    let proxy = Proxy::start(bench.server.address()).await.unwrap();
    let store = bench.store_at(proxy.address(), options());
    // Asked for preconditions, and connected.
    store.put(&cx(), "first", &object(&[], ""), PutCondition::IfAbsent).await.unwrap();
    (proxy, store)
}

pub async fn an_overloaded_server_is_asked_again(bench: Bench) {
    let (proxy, store) = proxied(&bench).await;
    let sent = object(&[("0", "a")], "");
    let before = store.requests().unwrap();
    for condition in [PutCondition::IfAbsent, PutCondition::Always] {
        proxy.fault_times(Fault::Overloaded, 2);
        store.put(&cx(), "k", &sent, condition).await.unwrap();
    }
    proxy.fault_times(Fault::Overloaded, 2);
    assert_eq!(store.get(&cx(), "k").await.unwrap().unwrap(), sent);
    proxy.fault_times(Fault::Overloaded, 2);
    assert!(store.head(&cx(), "k").await.unwrap().is_some());
    proxy.fault_times(Fault::Overloaded, 2);
    assert_eq!(list(&store, "", None, 9).await, ["first", "k"]);
    proxy.fault_times(Fault::Overloaded, 2);
    store.delete(&cx(), "k").await.unwrap();
    let after = store.requests().unwrap();
    let sent = [after.writes - before.writes, after.reads - before.reads, after.lists - before.lists];
    assert!(sent[0] >= 6 && sent[1] >= 6 && sent[2] >= 3, "every attempt counts: {sent:?}");

    proxy.fault(Fault::Overloaded);
    let put = store.put(&cx(), "k", &object(&[], ""), PutCondition::Always).await.unwrap_err();
    let create = store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    let get = store.get(&cx(), "k").await.unwrap_err();
    for error in [put, create, get] {
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::RateLimited, true), "{error}");
    }
    proxy.fault(Fault::None);
    assert_eq!(store.get(&cx(), "k").await.unwrap(), None);
}

pub async fn cut_answers_lose_nothing(bench: Bench) {
    let (proxy, store) = proxied(&bench).await;
    // The server did it, and nobody heard: at the first byte, and in the middle of the head.
    for (n, after) in [0, 20].into_iter().enumerate() {
        let (key, body) = (format!("k{n}"), format!("body {n}"));
        proxy.fault_times(Fault::CutAnswer(after), 1);
        store.put(&cx(), &key, &object(&[("0", "a")], &body), PutCondition::IfAbsent).await.unwrap();
        proxy.fault_times(Fault::CutAnswer(after), 1);
        store.put(&cx(), &key, &object(&[("0", "b")], &body), PutCondition::Always).await.unwrap();
        assert_eq!(store.get(&cx(), &key).await.unwrap().unwrap(), object(&[("0", "b")], &body));
        proxy.fault_times(Fault::CutAnswer(after), 1);
        store.delete(&cx(), "nothing").await.unwrap();
    }
    let body = "0123456789".repeat(30_000);
    store.put(&cx(), "large", &object(&[], &body), PutCondition::Always).await.unwrap();
    for after in [0, 100, 1_000, 150_000] {
        proxy.fault_times(Fault::CutAnswer(after), 2);
        let read = store.get(&cx(), "large").await.unwrap().unwrap();
        assert!(read.body == body, "the body is whole");
    }
    for after in [0, 300, 700] {
        proxy.fault_times(Fault::CutAnswer(after), 2);
        assert_eq!(list(&store, "", None, 2).await, ["first", "k0", "k1", "large"], "cut after {after}");
    }
    assert!(proxy.met() >= 10);
    proxy.fault(Fault::CutAnswer(1_000));
    let error = store.get(&cx(), "large").await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unavailable, true), "{error}");
}

pub async fn cut_requests_lose_nothing(bench: Bench) {
    let (proxy, store) = proxied(&bench).await;
    let body = "0123456789".repeat(20_000);
    let sent = object(&[("0", "a")], &body);
    for (n, condition) in [PutCondition::IfAbsent, PutCondition::Always].into_iter().enumerate() {
        for after in [0, 100, 100_000] {
            let key = format!("k{n}-{after}");
            proxy.fault_times(Fault::CutRequest(after), 2);
            store.put(&cx(), &key, &sent, condition).await.unwrap();
            assert!(store.get(&cx(), &key).await.unwrap().unwrap() == sent, "{key}");
        }
    }
    assert_eq!(proxy.met(), 12);
    assert_eq!(list(&store, "k", None, 100).await.len(), 6);
}

pub async fn an_echo_is_told_from_somebody_else(bench: Bench) {
    let (proxy, store) = proxied(&bench).await;
    let (ours, theirs) = (object(&[("0", "ours")], ""), object(&[("0", "theirs")], ""));
    bench.store().put(&cx(), "k", &theirs, PutCondition::Always).await.unwrap();
    for fault in [Fault::CutRequest(10), Fault::CutAnswer(0)] {
        proxy.fault_times(fault, 1);
        let error = store.put(&cx(), "k", &ours, PutCondition::IfAbsent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(store.get(&cx(), "k").await.unwrap().unwrap(), theirs);
    // A refusal that comes at once is no echo, even of the same object.
    let error = store.put(&cx(), "k", &theirs, PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

pub async fn changes_survive_cut_answers(bench: Bench) {
    let (proxy, store) = proxied(&bench).await;
    for n in 0..3_u8 {
        // What is appended is known again: the change is made once, whatever was heard of it.
        let append = |body: Option<Bytes>| {
            let mut body = body.unwrap_or_default().to_vec();
            let is_there = body.contains(&n);
            body.push(n);
            Ok((!is_there).then(|| body.into()))
        };
        proxy.fault_times(Fault::CutAnswer(0), 1);
        store.modify(&cx(), "k", &append).await.unwrap();
    }
    assert_eq!(store.get(&cx(), "k").await.unwrap().unwrap().body, &[0_u8, 1, 2][..]);
}

pub async fn a_server_that_says_nothing(bench: Bench) {
    let (proxy, _) = proxied(&bench).await;
    let options = S3Options { attempts: 2, attempt_timeout: Duration::from_millis(200), ..options() };
    let store = bench.store_at(proxy.address(), options);
    proxy.fault(Fault::BlackHole);
    let get = store.get(&cx(), "k").await.unwrap_err();
    let listed = store.list("", None).unwrap().page(&cx(), 9).await.unwrap_err();
    let put = store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    for error in [get, listed, put] {
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Timeout, true), "{error}");
        assert!(error.to_string().contains("/s3rep-tests"), "{error}");
    }
    proxy.fault(Fault::Delay(Duration::from_millis(5)));
    assert_eq!(store.get(&cx(), "k").await.unwrap(), None);
}

pub async fn a_server_that_is_gone(bench: Bench) {
    let (proxy, _) = proxied(&bench).await;
    let address = proxy.address();
    proxy.fault(Fault::Refuse);
    let store = bench.store_at(address, S3Options { attempts: 2, ..options() });
    let closing = store.get(&cx(), "k").await.unwrap_err();
    drop(proxy);
    let get = store.get(&cx(), "k").await.unwrap_err();
    let put = store.put(&cx(), "k", &object(&[], ""), PutCondition::Always).await.unwrap_err();
    let create = store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    let listed = store.list("", None).unwrap().page(&cx(), 9).await.unwrap_err();
    for error in [closing, get, put, create, listed] {
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unavailable, true), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        is_helpful(&error, &bench.server);
    }
}
