//! Random histories: whatever is written and whenever a pass is made or cut off, the changes add up to the
//! database. `S3REP_SEED` repeats one.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]
#![allow(clippy::print_stdout, reason = "the seed is printed")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Log, all, both, config, record};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use s3rep_core::ErrorKind;
use s3rep_s3db::{Database, Resource, TailOptions, TailSource};
use serde_json::json;

fn seed() -> u64 {
    let seed = std::env::var("S3REP_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("S3REP_SEED={seed}");
    seed
}

async fn create(database: &Database, name: &str) -> Resource {
    let definition = json!({
        "name": name,
        "attributes": {"text": "string|optional", "n": "number|optional", "part": "string|optional"},
        "behavior": "body-overflow",
        "partitions": {"byPart": {"fields": {"part": "string"}}},
    });
    database.create_resource(&config(definition)).await.unwrap()
}

/// One random write, by whoever is fast enough: what is there already or gone already is no failure.
async fn write(random: &mut StdRng, resource: &Resource, ids: u32) {
    let id = format!("id-{}", random.random_range(0..ids));
    // Now and then a record that does not fit into metadata, so that there is a body.
    let length = if random.random_range(0..10) == 0 { 3000 } else { random.random_range(0..20) };
    let fields = record(json!({
        "text": "x".repeat(length), "n": random.random_range(0..50), "part": format!("p{}", random.random_range(0..3)),
    }));
    let done = match random.random_range(0..10) {
        0..4 => {
            let mut new = fields;
            new.insert("id".to_owned(), json!(id));
            resource.insert(new).await.map(drop)
        }
        4..8 => resource.update(&id, fields).await.map(drop),
        _ => resource.delete(&id).await,
    };
    if let Err(error) = done {
        assert!(matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound), "{error:?}");
    }
}

#[tokio::test]
async fn captured_changes_add_up_to_the_database() {
    let seed = seed();
    for (name, _directory, database) in both().await {
        let mut random = StdRng::seed_from_u64(seed);
        let mut resources = vec![create(&database, "one").await];
        let mut log = Log::default();
        let options = TailOptions { batch: random.random_range(1..40), ..TailOptions::default() };
        let mut tail = TailSource::new(database.clone(), options.clone());
        for step in 0..600 {
            let resource = &resources[random.random_range(0..resources.len())];
            write(&mut random, resource, 40).await;
            match random.random_range(0..30) {
                0..3 => drop(log.pass(&tail).await.unwrap()),
                3 => {
                    log.fail_after = Some(random.random_range(0..2));
                    let _ = log.pass(&tail).await;
                    log.fail_after = None;
                }
                // Another process goes on.
                4 => tail = TailSource::new(database.clone(), options.clone()),
                5 if step > 200 && resources.len() == 1 => resources.push(create(&database, "two").await),
                _ => {}
            }
        }
        log.pass(&tail).await.unwrap();
        for resource in &resources {
            assert_eq!(log.rows(resource.name()), all(resource).await, "{name}");
        }
        assert_eq!(log.pass(&tail).await.unwrap(), [], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_stop_for_a_pass() {
    let seed = seed();
    for (name, _directory, database) in both().await {
        let resource = create(&database, "one").await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (resource, stop) = (resource.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut random = StdRng::seed_from_u64(seed + writer);
                    while !stop.load(Ordering::Relaxed) {
                        write(&mut random, &resource, 60).await;
                    }
                })
            })
            .collect();
        let (tail, mut log) = (TailSource::new(database.clone(), TailOptions::default()), Log::default());
        let mut captured = 0;
        for _ in 0..60 {
            captured += log.pass(&tail).await.unwrap().len();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        captured += log.pass(&tail).await.unwrap().len();
        assert!(captured > 100, "{captured}");
        assert_eq!(log.rows("one"), all(&resource).await, "{name}");
        assert_eq!(log.undecodable, []);
        // Nobody writes any more: the references of every record are in step.
        let mut expected = Vec::new();
        for (id, record) in all(&resource).await {
            expected.extend(resource.format().partition_keys(&id, &record).unwrap());
        }
        expected.sort();
        let keys = common::keys(&database).await;
        assert_eq!(keys.into_iter().filter(|key| key.contains("/partition=")).collect::<Vec<_>>(), expected);
    }
}
