//! What servers say that no test server says when it is wanted.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use s3rep_core::{ErrorKind, Scope};
use s3rep_s3db::{ObjectStore, PutCondition, S3Options, S3Store};

use super::{
    common::cx,
    fake::{Fake, answer, refusal},
    promises::{list, object},
    setup::{in_child, options, store},
};

fn at(fake: &Fake) -> S3Store {
    store(&fake.url("b/p"), options())
}

pub async fn metadata_of_others_is_read() {
    let fake = Fake::start(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-amz-meta-a: =?UTF-8?B?w7HDoQ==?=\r\n\
            x-amz-meta-b: =?UTF-8?Q?=C3=B1_x?=\r\nx-amz-meta-empty: \r\nx-amz-meta-text: =?UTF-8?Q?ascii?=\r\n"
            .to_vec();
        answer.extend("x-amz-meta-utf: grüße 😀\r\n".as_bytes());
        answer.extend(b"x-amz-meta-latin: gr\xfc\xdfe\r\n\r\n");
        answer
    })
    .await;
    let there = at(&fake).get(&cx(), "k").await.unwrap().unwrap();
    let text =
        |key: &str| there.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    assert_eq!(
        ["a", "b", "empty", "text", "utf", "latin"].map(text),
        [Some("ñá"), Some("ñ x"), Some(""), Some("=?UTF-8?Q?ascii?="), Some("grüße 😀"), Some("grüße")]
    );
    assert_eq!(there.content_type, None);
}

pub async fn metadata_that_is_left_out_is_an_error() {
    let fake = Fake::start(|_| answer(200, &[("x-amz-missing-meta", "2")], "")).await;
    let error = at(&fake).get(&cx(), "k").await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::InvalidValue, Scope::Record));
}

pub async fn another_region_is_named() {
    let header = [("x-amz-bucket-region", "eu-west-1")];
    for (status, code) in [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (400, "")] {
        let fake = Fake::start(move |request| match (request.method.as_str(), code) {
            ("HEAD", _) | (_, "") => answer(status, &header, ""),
            _ => refusal(status, &header, code),
        })
        .await;
        let store = at(&fake);
        let errors = [
            store.get(&cx(), "k").await.unwrap_err(),
            store.head(&cx(), "k").await.unwrap_err(),
            store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err(),
            store.list("", None).unwrap().page(&cx(), 9).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::ConfigInvalid, false), "{error}");
            assert!(error.advice().is_some_and(|advice| advice.contains("?region=eu-west-1")), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}

pub async fn a_clock_that_differs_is_named() {
    let fake = Fake::start(|_| refusal(403, &[], "RequestTimeTooSkewed")).await;
    let error = at(&fake).get(&cx(), "k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(error.to_string().contains("clock"), "{error}");
}

pub async fn a_page_that_is_no_answer_of_s3() {
    let fake = Fake::start(|_| answer(200, &[], "<!doctype html><title>Console</title>")).await;
    let error = at(&fake).list("", None).unwrap().page(&cx(), 9).await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unexpected, false), "{error}");
    assert!(error.advice().is_some());
    let fake = Fake::start(|_| answer(418, &[], "no tea")).await;
    let error = at(&fake).get(&cx(), "k").await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Unexpected, Scope::Batch), "{error}");
}

pub async fn without_preconditions_a_look_comes_before_the_write() {
    let exists = std::sync::Arc::new(AtomicUsize::new(0));
    let there = exists.clone();
    let fake = Fake::start(move |request| match request.method.as_str() {
        "HEAD" if there.load(Ordering::Relaxed) == 0 => answer(404, &[], ""),
        "GET" if there.load(Ordering::Relaxed) == 0 => refusal(404, &[], "NoSuchKey"),
        "DELETE" => answer(204, &[], ""),
        _ => answer(200, &[("ETag", "\"e\"")], ""),
    })
    .await;
    let store = at(&fake);
    store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap();
    let methods: Vec<_> = fake.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["PUT", "PUT", "DELETE", "HEAD", "PUT"], "asked once, then looked");
    exists.store(1, Ordering::Relaxed);
    let error = store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    store.modify(&cx(), "k", &|_| Ok(Some(Bytes::from_static(b"1")))).await.unwrap();
    let last = fake.seen().pop().unwrap();
    assert_eq!((last.method.as_str(), last.header("if-match"), &*last.body), ("PUT", None, &b"1"[..]));
}

pub async fn etags_in_quotes_for_servers_that_want_them() {
    let fake = Fake::start(|request| match (request.method.as_str(), request.header("if-match")) {
        ("PUT", Some(etag)) if etag != "\"e\"" => refusal(412, &[], "PreconditionFailed"),
        ("DELETE", _) => answer(204, &[], ""),
        _ => answer(200, &[("ETag", "\"e\"")], "0"),
    })
    .await;
    at(&fake).modify(&cx(), "k", &|_| Ok(Some("1".into()))).await.unwrap();
    let last = fake.seen().pop().unwrap();
    assert_eq!((last.method.as_str(), last.header("if-match")), ("PUT", Some("\"e\"")));
}

pub async fn conflicts_are_tried_again() {
    let writes = AtomicUsize::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PUT" if request.target.contains("probe") && writes.fetch_add(1, Ordering::Relaxed) == 1 => {
            refusal(412, &[], "PreconditionFailed")
        }
        "PUT" if !request.target.contains("probe") && writes.fetch_add(1, Ordering::Relaxed) < 4 => {
            refusal(409, &[], "ConditionalRequestConflict")
        }
        "DELETE" => answer(204, &[], ""),
        _ => answer(200, &[("ETag", "\"e\"")], ""),
    })
    .await;
    let store = at(&fake);
    store.put(&cx(), "k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap();
    assert_eq!(fake.seen().iter().filter(|request| request.method == "PUT").count(), 5);
}

pub async fn a_date_decides_what_is_settled() {
    for (date, settled) in [
        (Some("Mon, 01 Jan 2024 00:00:13 GMT"), false),
        (Some("Mon, 01 Jan 2024 00:00:14 GMT"), true),
        // Before the object was written: clocks of one server differ.
        (Some("Sun, 31 Dec 2023 23:59:59 GMT"), false),
        (Some("soon"), false),
        (None, false),
    ] {
        let fake = Fake::start(move |request| {
            let mut headers = vec![("Last-Modified", "Mon, 01 Jan 2024 00:00:10 GMT"), ("ETag", "\"e\"")];
            headers.extend(date.map(|date| ("Date", date)));
            match request.method.as_str() {
                "HEAD" => answer(200, &headers, "").strip_suffix(b"").unwrap().to_vec(),
                _ => answer(200, &headers, &listing(&["k"], None)),
            }
        })
        .await;
        let store = at(&fake);
        let head = store.head(&cx(), "k").await.unwrap().unwrap();
        let listed = store.list("", None).unwrap().page(&cx(), 9).await.unwrap();
        assert_eq!((head.settled, head.modified.0), (settled, 1_704_067_210_000), "{date:?}");
        assert_eq!(listed, [head]);
    }
}

/// A page of a listing of keys under `p/`, with milliseconds as some servers have them.
fn listing(keys: &[&str], next: Option<&str>) -> String {
    let contents: String = keys
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>p/{key}</Key><LastModified>2024-01-01T00:00:10.900Z</LastModified>\
                 <ETag>&quot;e&quot;</ETag><Size>0</Size></Contents>"
            )
        })
        .collect();
    let next = next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>"));
    format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>{}{contents}</ListBucketResult>",
        next.is_some(),
        next.unwrap_or_default()
    )
}

pub async fn keys_that_are_not_ours_are_left_out() {
    let fake =
        Fake::start(|_| answer(200, &[], &listing(&["a", "dir/", "x//y", "x/../y", "x+y", "z%2Fz"], None)))
            .await;
    assert_eq!(list(&at(&fake), "", None, 9).await, ["a", "x y", "z/z"]);
    let fake = Fake::start(|_| answer(200, &[], &listing(&["a"], None))).await;
    let error = at(&fake).list("b", None).unwrap().page(&cx(), 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
}

pub async fn deletes_of_many_tell_of_each() {
    let fake = Fake::start(|request| {
        assert!(request.header("content-md5").is_some() && request.target.contains("delete"));
        answer(
            200,
            &[],
            "<DeleteResult><Error><Key>p/b</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
             <Error><Key>p/c</Key><Code>InternalError</Code><Message>oops</Message></Error></DeleteResult>",
        )
    })
    .await;
    let keys = ["a", "b", "c"].map(str::to_owned);
    let kinds: Vec<_> = at(&fake)
        .delete_many(&cx(), &keys)
        .await
        .into_iter()
        .map(|o| o.err().map(|e| (e.kind(), e.is_temporary())))
        .collect();
    assert_eq!(
        kinds,
        [None, Some((ErrorKind::PermissionDenied, false)), Some((ErrorKind::Unavailable, true))]
    );

    // Google's server has no such call.
    let fake = Fake::start(|request| match request.method.as_str() {
        "POST" => refusal(501, &[], "NotImplemented"),
        _ => answer(204, &[], ""),
    })
    .await;
    assert!(at(&fake).delete_many(&cx(), &keys).await.iter().all(Result::is_ok));
    assert_eq!(fake.seen().iter().filter(|request| request.method == "DELETE").count(), 3);
}

pub async fn nobody_signs_when_anonymous() {
    let fake = Fake::start(|_| refusal(404, &[], "NoSuchKey")).await;
    let url = fake.url("b").replace("KEY:hunter2@", "");
    store(&format!("{url}?anonymous=true"), options()).get(&cx(), "k").await.unwrap();
    assert_eq!(fake.seen()[0].header("authorization"), None);
    at(&fake).get(&cx(), "k").await.unwrap();
    assert!(fake.seen()[1].header("authorization").is_some_and(|text| text.contains("/us-east-1/s3/")));
    store(&fake.url("b?region=eu-west-1&sessionToken=tok"), options()).get(&cx(), "k").await.unwrap();
    let signed = fake.seen().pop().unwrap();
    assert!(signed.header("authorization").is_some_and(|text| text.contains("/eu-west-1/s3/")));
    assert_eq!(signed.header("x-amz-security-token"), Some("tok"));
}

pub async fn without_credentials() {
    let fake = Fake::start(|_| refusal(404, &[], "NoSuchKey")).await;
    let url = fake.url("b").replace("KEY:hunter2@", "");
    let said = in_child(&url, &[]).await;
    assert!(said.starts_with("Unauthenticated") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    assert!(fake.seen().is_empty());
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S"), ("AWS_SESSION_TOKEN", "T")];
    assert_eq!(in_child(&url, &keys).await, "nothing\n");
}

pub async fn one_page_ahead_and_no_more() {
    let pages = AtomicUsize::new(0);
    let fake = Fake::start(move |_| {
        let page = pages.fetch_add(1, Ordering::Relaxed);
        let keys = [format!("{page:03}a"), format!("{page:03}b")];
        answer(200, &[], &listing(&[&keys[0], &keys[1]], (page < 50).then_some("next")))
    })
    .await;
    let store = store(&fake.url("b/p"), S3Options { page: 2, ..options() });
    let mut listing = store.list("", None).unwrap();
    assert_eq!(listing.page(&cx(), 1).await.unwrap().len(), 1);
    assert_eq!(store.requests().unwrap().lists, 1, "one page may be all that is wanted");
    for _ in 0..3 {
        assert_eq!(listing.page(&cx(), 1).await.unwrap().len(), 1);
    }
    // Two pages are taken, the third is on the way; a fourth would come only when it is asked for.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(store.requests().unwrap().lists, 3);
    drop(listing);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(store.requests().unwrap().lists, 3);
}
