//! `embedded CONFIG SEED`: a program that writes a database and replicates it itself, until its standard input
//! ends. Says every write that it was told is done on its standard output.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and prints")]

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use s3rep::{
    Record, Replicator,
    config::{Config, Syntax},
    engine::context::{self, KillPoints},
    s3db::{Database, DatabaseOptions, Resource},
};
use serde_json::json;

/// Writers at once, each with records of its own.
const WRITERS: u32 = 4;
/// Records of each that are written again and again.
const IDS: u32 = 15;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&args[1]).unwrap();
    let config = Config::parse(&text, Syntax::Yaml, &args[1], &|_| None).unwrap();
    let failpoints = std::env::var("S3REP_FAILPOINTS").unwrap_or_default();
    let context = context::system().with_failpoints(Arc::new(KillPoints::parse(&failpoints).unwrap()));
    let options = DatabaseOptions { context, ..DatabaseOptions::default() };
    let database = Database::connect_with(config.source.url.expose(), options).await.unwrap();
    let replicator = Replicator::builder(&config.state)
        .config(&config)
        .interval(Duration::from_millis(50))
        .build()
        .unwrap();
    database.use_plugin(replicator).await.unwrap();

    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        flag.store(true, Ordering::Relaxed);
    });
    let items = database.resource("items").unwrap();
    let seed: u64 = args[2].parse().unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(items.clone(), ended.clone(), writer, seed + u64::from(writer))))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    database.close().await.unwrap();
}

async fn write(items: Resource, ended: Arc<AtomicBool>, writer: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !ended.load(Ordering::Relaxed) {
        let id = format!("item-{writer}-{:02}", random.random_range(0..IDS));
        let n: u32 = random.random();
        let operation = match items.find::<Record>(&id).await.unwrap() {
            None => {
                items.insert(json!({"id": id, "name": format!("name {n}"), "n": n})).await.unwrap();
                "insert"
            }
            Some(_) if random.random_range(0..4) == 0 => {
                items.delete(&id).await.unwrap();
                "delete"
            }
            Some(_) => {
                items.update(&id, json!({"n": n})).await.unwrap();
                "update"
            }
        };
        println!("{}", json!({"id": id, "operation": operation, "n": n}));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
