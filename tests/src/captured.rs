//! A small database that is written without end, and what its log says was captured.

use std::{
    collections::BTreeSet,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use s3rep::{
    Change,
    core::Seq,
    log::EmbeddedLog,
    s3db::{Database, DatabaseOptions, ResourceConfig},
};
use serde_json::json;

use crate::Place;

/// A place with a configuration and a database with the resource `items`, in the directory `database`.
pub async fn items(config: &str) -> Place {
    let place = Place::new();
    place.write("s3rep.yaml", config);
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    std::fs::create_dir(place.path("database")).unwrap();
    let database = Database::connect_with(&url(&place), options).await.unwrap();
    let config: ResourceConfig = serde_json::from_value(json!({
        "name": "items", "attributes": {"name": "string", "n": "number"},
        "partitions": {"byN": {"fields": {"n": "number"}}},
    }))
    .unwrap();
    database.create_resource(&config).await.unwrap();
    place
}

fn url(place: &Place) -> String {
    format!("file://{}", place.path("database").display())
}

/// Another process that writes the database until [`stop_writer`].
pub fn writer(program: &str, place: &Place, seed: u64) -> Child {
    Command::new(program).args([url(place), seed.to_string()]).stdin(Stdio::piped()).spawn().unwrap()
}

/// Lets the writer end in good order.
pub fn stop_writer(mut writer: Child) {
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
}

/// Every captured change, in order. The log keeps what was passed for an hour.
pub async fn changes(place: &Place) -> Vec<Change> {
    let log = EmbeddedLog::open_readonly(&place.path("state")).unwrap();
    let mut changes = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = log.read(after, 1_000, usize::MAX).await.unwrap();
        if page.entries.is_empty() {
            return changes;
        }
        after = page.next;
        changes.extend(page.entries.into_iter().map(|entry| entry.change));
    }
}

/// The ids of all captured changes, in order.
pub async fn logged(place: &Place) -> Vec<String> {
    changes(place).await.iter().map(|change| change.change_id.to_string()).collect()
}

/// Panics unless `found` has every captured change once.
#[track_caller]
pub fn assert_once(what: &str, found: &[String], logged: &[String]) {
    let (distinct, wanted): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), logged.iter().collect());
    assert_eq!(found.len(), distinct.len(), "{what} holds a change twice");
    assert_eq!(distinct, wanted, "{what} does not hold exactly the captured changes");
}

/// How a program ended that is going to: changes keep coming, so every place in it is reached. `wait` would close
/// its standard input and let it end.
pub async fn ended(run: &mut Child) -> ExitStatus {
    loop {
        if let Some(status) = run.try_wait().unwrap() {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
