//! `kill -9` of the real program, at random times and at named places, while another process writes.
//!
//! `S3REP_KILLS` sets the number of kills of each kind, `S3REP_SEED` the seed, which is printed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use s3rep::{Operation, Record};
use s3rep_tests::{
    Place,
    captured::{assert_once, changes, ended, items, logged, stop_writer, writer},
    destinations, records,
};
use serde_json::Value;

const CONFIG: &str = "
source: { url: 'file://./database', interval: 20ms }
state: ./state
replicators:
  - driver: sqlite
    resources: { items: [items, { resource: items_log, mode: append }] }
    config: { url: 'file:./out.db', schemaSync: { enabled: true } }
  - driver: jsonl
    resources: [items]
    config: { path: ./lines, maxRecords: 50 }
";

/// Every place in the program where a test may break it.
const PLACES: &[&str] = &[
    "engine.capture",
    "engine.captured",
    "engine.apply",
    "engine.applied",
    "engine.commit",
    "engine.committed",
    "log.append",
    "log.appended",
    "log.commit",
    "log.committed",
    "libsql.rows",
    "libsql.commit",
    "libsql.committed",
    "files.data",
    "files.cursor",
    "files.committed",
    "files.closed",
];

fn seed() -> u64 {
    let seed = env::var("S3REP_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("S3REP_SEED={seed}");
    seed
}

fn kills() -> usize {
    env::var("S3REP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// After the last kill: one run to the end, then everything has to be everywhere, once.
async fn check(place: &Place) {
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
    let out = place.path("out.db");

    let expected = records(&place.path("database"), "items").await;
    let rows = destinations::by_key(&out, "select id, name, cast(n as integer) from items").await;
    assert_eq!(rows.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (id, record) in &expected {
        let wanted = vec![record["name"].as_str().map(str::to_owned), Some(record["n"].to_string())];
        assert_eq!(rows[id], wanted, "{id}");
    }

    let logged = logged(place).await;
    let appended: Vec<_> = destinations::query(&out, "select _change_id from items_log order by rowid").await;
    let appended: Vec<String> = appended.into_iter().map(|mut row| row.remove(0).unwrap()).collect();
    assert_once("items_log", &appended, &logged);
    let lines = destinations::lines(&place.path("lines/items"));
    let written: Vec<_> = lines.iter().map(|line| line["_change_id"].as_str().unwrap().to_owned()).collect();
    assert_once("lines", &written, &logged);
    println!("{} changes captured, each once in the append table and in the lines", logged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_random_times() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let place = items(CONFIG).await;
    let writer = writer(env!("CARGO_BIN_EXE_writer"), &place, seed);
    let kills = kills();
    for _ in 0..kills {
        let mut run = place.start(&["run"]);
        tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself:\n{}", place.log());
        run.kill().unwrap();
        run.wait().unwrap();
    }
    stop_writer(writer);
    check(&place).await;
    println!("{kills} kills at random times");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_named_places() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let place = items(CONFIG).await;
    let writer = writer(env!("CARGO_BIN_EXE_writer"), &place, seed);
    let kills = kills();
    for i in 0..kills {
        let failpoint = format!("{}={}", PLACES[i % PLACES.len()], random.random_range(1..6));
        let mut run = place.start_with(&["run"], &[("S3REP_FAILPOINTS", &failpoint)]);
        let status = ended(&mut run).await;
        assert_eq!(status.code(), None, "{failpoint} ended in another way:\n{}", place.log());
    }
    stop_writer(writer);
    check(&place).await;
    println!("{kills} kills at named places");
}

/// Every place in a write of an embedded database where a test may break it.
const WRITE_PLACES: &[&str] = &[
    "s3db.intend",
    "s3db.intended",
    "s3db.stored",
    "s3db.referenced",
    "s3db.unreferenced",
    "s3db.settle",
    "s3db.settled",
    "log.append",
    "log.appended",
];

fn embedded(place: &Place, seed: u64, variables: &[(&str, &str)]) -> Child {
    let said = File::options().create(true).append(true).open(place.path("said")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_embedded"))
        .arg("s3rep.yaml")
        .arg(seed.to_string())
        .envs(variables.iter().copied())
        .current_dir(place.path(""))
        .stdin(Stdio::piped())
        .stdout(said)
        .spawn()
        .unwrap()
}

/// Each write that was said to be done is in the log as a change of its own, and every change goes on where the
/// one before it ended.
async fn check_embedded(place: &Place) {
    check(place).await;
    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    for change in changes(place).await {
        let known = records.remove(&*change.id);
        let data = change.data.as_deref().cloned().unwrap_or_default();
        match change.operation {
            Operation::Insert | Operation::Read => assert_eq!(known, None, "{change:?}"),
            Operation::Update => assert_eq!(known.as_ref(), change.before.as_deref(), "{change:?}"),
            Operation::Delete => assert_eq!(known.as_ref(), Some(&data), "{change:?}"),
        }
        if change.operation != Operation::Delete {
            *told.entry((change.id.to_string(), data["n"].to_string())).or_default() += 1;
            records.insert(change.id.to_string(), data);
        }
    }
    let said = fs::read_to_string(place.path("said")).unwrap();
    let said: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for write in said.iter().filter(|write| write["operation"] != "delete") {
        let key = (write["id"].as_str().unwrap().to_owned(), write["n"].to_string());
        assert!(told.contains_key(&key), "{write} was said to be done and is not in the log");
    }
    println!("{} writes said to be done, each captured as a version of its own", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_an_embedded_writer_at_named_places() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let place = items(CONFIG).await;
    let kills = kills();
    for i in 0..kills {
        let failpoint = format!("{}={}", WRITE_PLACES[i % WRITE_PLACES.len()], random.random_range(1..20));
        println!("{failpoint}");
        let mut run = embedded(&place, random.random(), &[("S3REP_FAILPOINTS", &failpoint)]);
        let status = ended(&mut run).await;
        assert_eq!(status.code(), None, "{failpoint} ended in another way");
    }
    check_embedded(&place).await;
    println!("{kills} kills at named places");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_an_embedded_writer_at_random_times() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let place = items(CONFIG).await;
    let kills = kills();
    for _ in 0..kills {
        let mut run = embedded(&place, random.random(), &[]);
        tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
        run.kill().unwrap();
        run.wait().unwrap();
    }
    check_embedded(&place).await;
    println!("{kills} kills at random times");
}
