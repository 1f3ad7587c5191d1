//! The program beside a database on a real server that speaks S3, from the first record to `kill -9`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fmt::Write};

use libtest_mimic::{Arguments, Trial};
use s3rep_testkit::server::start_s3;
use s3rep_tests::{Place, destinations};
use serde_json::{Value, json};

const BUCKET: &str = "shop";
/// More than are read at once. The emulator takes some milliseconds for each request.
const RECORDS: usize = 150;

type Case = fn(&Place);

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Listing the tests needs no server.
    let servers = if arguments.list { Vec::new() } else { runtime.block_on(start_s3(BUCKET)) };
    let cases: [(&str, Case); 3] = [
        ("a_bucket_is_followed_into_sqlite_and_another_bucket", follows),
        ("killed_at_every_place_it_goes_on", killed),
        ("wrong_addresses_are_told", wrong_addresses),
    ];
    let mut trials = Vec::new();
    for (name, server) in &servers {
        for (case, run) in cases {
            let title = format!("{name}/{case}");
            trials.push(match server {
                Ok(server) => {
                    let url = server.url(&format!("{BUCKET}/{case}"));
                    Trial::test(title, move || {
                        let place = Place::new();
                        place.write("url", &url);
                        run(&place);
                        Ok(())
                    })
                }
                Err(missing) => missing.trial(&title),
            });
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: servers end here.
    drop(servers);
    conclusion.exit();
}

fn url(place: &Place) -> String {
    std::fs::read_to_string(place.path("url")).unwrap()
}

fn db(place: &Place, args: &[&str], input: &str) -> String {
    place.run_with_input(&[&["db", "--url", &url(place)], args].concat(), input).expect(0).stdout
}

/// A database with items, and a configuration that follows it.
fn fill(place: &Place) {
    db(
        place,
        &["create-resource"],
        r#"{"name": "items", "attributes": {"name": "string", "n": "number"},
            "partitions": {"byN": {"fields": {"n": "number"}}}}"#,
    );
    let mut lines = String::new();
    for n in 0..RECORDS {
        writeln!(lines, r#"{{"id": "i{n:04}", "name": "é {n}", "n": {}}}"#, n % 10).unwrap();
    }
    db(place, &["import", "items", "-"], &lines);
    let url = url(place);
    place.write(
        "s3rep.yaml",
        &format!(
            "source: {{ url: '{url}', interval: 50ms }}\nstate: ./state\nreplicators:\n\
             - driver: sqlite\n  resources: [items]\n  config: {{ url: 'file:./out.db', schemaSync: {{ enabled: true }} }}\n\
             - driver: s3db\n  resources: [items]\n  config: {{ connectionString: '{url}-copy', schemaSync: {{ enabled: true }} }}\n"
        ),
    );
}

fn change(place: &Place) {
    db(place, &["update", "items", "i0007"], r#"{"n": 70, "name": "日本"}"#);
    db(place, &["delete", "items", "i0008", "i0009"], "");
    db(place, &["insert", "items"], r#"{"id": "ü+&?#日本", "name": "", "n": 1}"#);
}

/// Records by id, as `s3rep db` prints them.
fn records(place: &Place, url: &str) -> BTreeMap<String, Value> {
    let ran = place.run(&["db", "--url", url, "export", "items"]).expect(0);
    let records = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| (record["id"].as_str().unwrap().to_owned(), record)).collect()
}

/// What is at the source is at both destinations.
fn is_equal(place: &Place) {
    let source = records(place, &url(place));
    assert_eq!(records(place, &format!("{}-copy", url(place))), source);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rows = runtime.block_on(destinations::by_key(&place.path("out.db"), "SELECT id, name, n FROM items"));
    assert_eq!(rows.len(), source.len());
    place.run(&["verify"]).expect(0);
}

fn follows(place: &Place) {
    fill(place);
    place.run(&["check"]).expect(0);
    place.run(&["run", "--once"]).expect(0);
    assert_eq!(records(place, &url(place)).len(), RECORDS);
    is_equal(place);
    change(place);
    place.run(&["run", "--once"]).expect(0);
    let source = records(place, &url(place));
    assert_eq!(source.len(), RECORDS - 1);
    assert_eq!(source["i0007"], json!({"id": "i0007", "name": "日本", "n": 70}));
    is_equal(place);

    let status = place.run(&["status", "--json"]).expect(0).stdout;
    let bill: Value = serde_json::from_str(status.lines().last().unwrap()).unwrap();
    let requests = &bill["source"]["requests"];
    assert!(requests["lists"].as_u64().unwrap() >= 2, "{bill}");
    assert!(requests["reads"].as_u64().unwrap() >= RECORDS as u64, "{bill}");
    assert_eq!((requests["writes"].as_u64(), requests["deletes"].as_u64()), (Some(0), Some(0)), "{bill}");
    let told = place.run(&["status"]).expect(0).stdout;
    assert!(told.contains("LIST"), "{told}");
}

fn killed(place: &Place) {
    fill(place);
    for (n, failpoint) in
        ["engine.captured", "engine.applied", "log.append", "log.committed"].iter().enumerate()
    {
        db(place, &["update", "items", &format!("i{n:04}")], r#"{"name": "changed"}"#);
        let failpoints = format!("{failpoint}=1");
        let mut run = place.start_with(&["run"], &[("S3REP_FAILPOINTS", &failpoints)]);
        let status = run.wait().unwrap();
        assert_eq!(status.code(), None, "{failpoint} ended in another way:\n{}", place.log());
    }
    place.run(&["run", "--once"]).expect(0);
    is_equal(place);
}

fn wrong_addresses(place: &Place) {
    let good = url(place);
    let bucket = good.replace(&format!("/{BUCKET}/"), "/no-such-bucket/");
    place.run(&["db", "--url", &bucket, "resources"]).expect(1).says(&["no-such-bucket", "help:"]);
    let empty = format!("{good}-nothing");
    place.run(&["db", "--url", &empty, "resources"]).expect(1).says(&["no database", "help:"]);
}
