//! Both stores keep the same promises; the file store those about its files too.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;
mod promises;

use std::{fs, path::Path, sync::Arc, time::Duration};

use common::cx;
use promises::{list, object};
use s3rep_core::ErrorKind;
use s3rep_s3db::{FileOptions, FileStore, MemoryStore, ObjectStore, PutCondition};

fn stores() -> (tempfile::TempDir, Vec<Arc<dyn ObjectStore>>) {
    let directory = tempfile::tempdir().unwrap();
    let durable = FileOptions { durable: true, ..FileOptions::default() };
    let stores: Vec<Arc<dyn ObjectStore>> = vec![
        Arc::new(FileStore::new(directory.path().join("plain"))),
        Arc::new(FileStore::with_options(directory.path().join("durable"), durable)),
        Arc::new(MemoryStore::new()),
        Arc::new(MemoryStore::shared("stores-test", "some//prefix").unwrap()),
    ];
    (directory, stores)
}

#[tokio::test]
async fn objects_are_put_read_replaced_and_deleted() {
    let (_directory, stores) = stores();
    for store in stores {
        promises::objects_are_put_read_replaced_and_deleted(store).await;
    }
}

#[tokio::test]
async fn listings_are_in_the_order_of_bytes_in_pages_of_any_size() {
    let (_directory, stores) = stores();
    for store in stores {
        promises::listings_are_in_the_order_of_bytes_in_pages_of_any_size(store).await;
    }
}

#[tokio::test]
async fn keys_cannot_leave_the_store() {
    let (directory, stores) = stores();
    for store in stores {
        promises::keys_cannot_leave_the_store(store).await;
    }
    assert!(!directory.path().join("x").exists());
}

#[tokio::test]
async fn one_of_many_creators_wins() {
    let (_directory, stores) = stores();
    for store in stores {
        promises::one_of_many_creators_wins(store).await;
    }
}

#[tokio::test]
async fn memory_stores_of_one_bucket_share_it() {
    let one = MemoryStore::shared("shared-bucket", "a").unwrap();
    let two = MemoryStore::shared("shared-bucket", "").unwrap();
    one.put(&cx(), "k", &object(&[], ""), PutCondition::Always).await.unwrap();
    assert_eq!(list(&two, "", None, 9).await, ["a/k"]);
    assert_eq!(list(&one, "", None, 9).await, ["k"]);
    drop((one, two));
    assert_eq!(list(&MemoryStore::shared("shared-bucket", "").unwrap(), "", None, 9).await, [""; 0]);
}

/// A file store with one object, and the object's files.
async fn with_object(body: &str) -> (tempfile::TempDir, FileStore, std::path::PathBuf, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(directory.path());
    store.put(&cx(), "d/k", &object(&[("0", "v")], body), PutCondition::Always).await.unwrap();
    let (body, sidecar) = (directory.path().join("d/k"), directory.path().join("d/k.meta.json"));
    (directory, store, body, sidecar)
}

async fn is_being_written(store: &FileStore, file: &Path) {
    let error = store.get(&cx(), "d/k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contention);
    assert!(error.is_temporary());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name) && error.advice().is_some(), "{error}");
}

#[tokio::test]
async fn a_writer_in_the_middle_is_waited_for_and_named() {
    let (_directory, store, body, sidecar) = with_object("body").await;
    let whole = fs::read(&sidecar).unwrap();
    fs::write(&sidecar, &whole[..whole.len() / 2]).unwrap();
    is_being_written(&store, &sidecar).await;
    fs::write(&sidecar, b"").unwrap();
    is_being_written(&store, &sidecar).await;
    fs::write(&sidecar, &whole).unwrap();
    fs::write(&body, "bodY").unwrap();
    is_being_written(&store, &body).await;
    fs::write(&body, "bo").unwrap();
    is_being_written(&store, &body).await;

    // One that ends within some milliseconds is not noticed.
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(15));
        fs::write(&body, "body").unwrap();
    });
    assert_eq!(store.get(&cx(), "d/k").await.unwrap().unwrap().body, "body");
    writer.join().unwrap();
}

#[tokio::test]
async fn half_created_and_half_deleted_objects_are_none() {
    let (_directory, store, body, sidecar) = with_object("").await;
    let whole = fs::read(&sidecar).unwrap();
    fs::remove_file(&sidecar).unwrap();
    // Being created: not listed, and whoever asks for it is told.
    assert_eq!(list(&store, "", None, 9).await, [""; 0]);
    // The body was written before, but the test's file system says when the name was made.
    fs::rename(&body, body.with_extension("x")).unwrap();
    fs::rename(body.with_extension("x"), &body).unwrap();
    is_being_written(&store, &sidecar).await;
    let creation = store.put(&cx(), "d/k", &object(&[], ""), PutCondition::IfAbsent).await;
    assert_eq!(creation.unwrap_err().kind(), ErrorKind::Contention);
    // A writer that died: no object, and its name is free again.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(store.get(&cx(), "d/k").await.unwrap(), None);
    store.put(&cx(), "d/k", &object(&[("0", "new")], ""), PutCondition::IfAbsent).await.unwrap();
    assert!(store.get(&cx(), "d/k").await.unwrap().is_some());
    // Deleting removes the body first.
    fs::remove_file(&body).unwrap();
    fs::write(&sidecar, whole).unwrap();
    assert_eq!(store.get(&cx(), "d/k").await.unwrap(), None);
    assert_eq!(store.head(&cx(), "d/k").await.unwrap(), None);
    assert_eq!(list(&store, "", None, 9).await, [""; 0]);
    store.put(&cx(), "d/k", &object(&[], "x"), PutCondition::IfAbsent).await.unwrap();
    assert_eq!(store.get(&cx(), "d/k").await.unwrap().unwrap().body, "x");
}

#[tokio::test]
async fn what_other_programs_leave_behind_is_no_object() {
    let (directory, store, _, _) = with_object("").await;
    fs::write(directory.path().join("d/k.tmp.1700000000000.abc123"), "half").unwrap();
    fs::write(directory.path().join("d/k.meta.json.tmp.1700000000000.abc123"), "{").unwrap();
    fs::create_dir(directory.path().join("d/empty")).unwrap();
    assert_eq!(list(&store, "", None, 9).await, ["d/k"]);
    assert!(fs::read_dir(directory.path().join(".s3rep-tmp")).unwrap().next().is_none(), "nothing is left");
    let error = store.put(&cx(), "d/x.meta.json", &object(&[], ""), PutCondition::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    use std::io::Write;
    let (_directory, store, body, sidecar) = with_object("x").await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(b"the body ".repeat(50).as_slice()).unwrap();
    let packed = packer.finish().unwrap();
    fs::write(&body, &packed).unwrap();
    let text = serde_json::json!({"metadata": {}, "size": packed.len(), "compressed": true});
    fs::write(&sidecar, text.to_string()).unwrap();
    assert_eq!(store.get(&cx(), "d/k").await.unwrap().unwrap().body.len(), 450);
    fs::write(&body, [1; 20]).unwrap();
    fs::write(&sidecar, r#"{"metadata":{},"size":20,"compressed":true}"#).unwrap();
    let error = store.get(&cx(), "d/k").await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Corrupt, false));
}

#[tokio::test]
async fn versions_change_with_every_write_even_within_one_tick() {
    let (_directory, store, _, _) = with_object("").await;
    for n in 0..200 {
        let before = store.head(&cx(), "d/k").await.unwrap().unwrap();
        store
            .put(&cx(), "d/k", &object(&[("0", &(n % 10).to_string())], ""), PutCondition::Always)
            .await
            .unwrap();
        let after = store.head(&cx(), "d/k").await.unwrap().unwrap();
        // Equal tokens are allowed while the object is younger than the resolution: it is looked at again.
        assert!(before.version != after.version || !before.settled);
    }
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(store.head(&cx(), "d/k").await.unwrap().unwrap().settled);
}

#[tokio::test]
async fn missing_directories_and_impossible_names_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(directory.path().join("nowhere"));
    let error = store.list("resource=r/data/", None).unwrap().page(&cx(), 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");

    let store = FileStore::new(directory.path());
    assert_eq!(list(&store, "resource=r/data/", None, 9).await, [""; 0]);
    let long = format!("d/id={}", "x".repeat(300));
    let error = store.put(&cx(), &long, &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    store.put(&cx(), "d/k", &object(&[], ""), PutCondition::IfAbsent).await.unwrap();
    let error = store.put(&cx(), "d/k/l", &object(&[], ""), PutCondition::IfAbsent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.advice().is_some());
    let error = store.put(&cx(), "d", &object(&[], ""), PutCondition::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
}
