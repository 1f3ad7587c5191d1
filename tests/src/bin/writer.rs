//! `writer URL SEED`: another program that writes the database, until its standard input ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use s3rep::s3db::Database;
use s3rep_tests::object;
use serde_json::json;

/// Records that are written again and again.
const IDS: u32 = 60;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut random = StdRng::seed_from_u64(args[2].parse().unwrap());
    let database = Database::connect(&args[1]).await.unwrap();
    let items = database.resource("items").unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        flag.store(true, Ordering::Relaxed);
    });
    while !ended.load(Ordering::Relaxed) {
        let id = format!("item-{:02}", random.random_range(0..IDS));
        let n: u32 = random.random();
        if !items.exists(&id).await.unwrap() {
            items.insert(object(json!({"id": id, "name": format!("name {n}"), "n": n}))).await.unwrap();
        } else if random.random_range(0..4) == 0 {
            items.delete(&id).await.unwrap();
        } else {
            items.update(&id, object(json!({"n": n}))).await.unwrap();
        }
        // Several hundred writes a second: enough to be in the middle of one at any moment.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
