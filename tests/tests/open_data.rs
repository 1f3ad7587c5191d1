//! The real database through the real program: what `s3rep db` prints and what arrives is what s3db.js reads.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{collections::BTreeMap, io::Read};

use s3rep::Record;
use s3rep_tests::{Place, destinations, object};
use serde_json::{Value, json};

/// What s3db.js reads back, by resource and id.
fn expected() -> BTreeMap<String, BTreeMap<String, Record>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("../data/open-data.records.jsonl.gz")[..])
        .read_to_string(&mut text)
        .unwrap();
    let mut all: BTreeMap<String, BTreeMap<String, Record>> = BTreeMap::new();
    for line in text.lines() {
        let mut line = object(serde_json::from_str(line).unwrap());
        let record = object(line.remove("record").unwrap());
        let resource = line["resource"].as_str().unwrap().to_owned();
        all.entry(resource).or_default().insert(record["id"].as_str().unwrap().to_owned(), record);
    }
    all
}

/// Numbers as JavaScript sees them: 18 is 18.0.
fn as_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(as_doubles).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), as_doubles(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn export_prints_what_s3db_js_reads() {
    let place = Place::with_open_data();
    let mut compared = 0;
    for (resource, records) in expected() {
        let ran =
            place.run(&["db", "--url", "file://./bucket/databases/open-data", "export", &resource]).expect(0);
        let exported: BTreeMap<_, _> = ran
            .stdout
            .lines()
            .map(|line| object(serde_json::from_str(line).unwrap()))
            .map(|record| (record["id"].as_str().unwrap().to_owned(), record))
            .collect();
        assert_eq!(exported.len(), records.len());
        for (id, record) in records {
            assert_eq!(as_doubles(&json!(exported[&id])), as_doubles(&json!(record)), "{resource} {id}");
            compared += 1;
        }
    }
    assert_eq!(compared, 5_243);
}

#[tokio::test]
async fn sqlite_and_json_lines_hold_what_s3db_js_reads() {
    let place = Place::with_open_data();
    place.write(
        "s3rep.toml",
        r#"
        state = "./state"
        [source]
        url = "file://./bucket/databases/open-data"
        [[replicators]]
        driver = "sqlite"
        resources = ["airports", "weather", "cars"]
        config = { url = "file:./out.db", schemaSync = { enabled = true } }
        [[replicators]]
        driver = "jsonl"
        resources = ["airports", "weather", "cars"]
        config = { path = "./lines" }
        "#,
    );
    place.run(&["run", "--once", "-c", "s3rep.toml"]).expect(0);
    place.run(&["verify", "-c", "s3rep.toml"]).expect(0);
    let expected = expected();
    let cars = destinations::by_key(
        &place.path("out.db"),
        "select id, name, mpg, tags, json_extract(engine, '$.cylinders'), createdAt from cars",
    )
    .await;
    for (id, record) in &expected["cars"] {
        let row = &cars[id];
        assert_eq!(row[0].as_deref(), record["name"].as_str());
        assert_eq!(
            row[1].as_deref().map(|n| n.parse::<f64>().unwrap()),
            record.get("mpg").and_then(Value::as_f64)
        );
        assert_eq!(row[2].as_deref().map(|t| serde_json::from_str(t).unwrap()), record.get("tags").cloned());
        assert_eq!(row[4].as_deref(), record["createdAt"].as_str());
    }
    let (mut lines, mut records) = (0, 0);
    for (resource, expected) in &expected {
        records += expected.len();
        for line in destinations::lines(&place.path("lines").join(resource)) {
            let id = line["id"].as_str().unwrap();
            let members: Record = line
                .iter()
                .filter(|(name, _)| !name.starts_with('_'))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect();
            assert_eq!(as_doubles(&json!(members)), as_doubles(&json!(expected[id])), "{resource} {id}");
            lines += 1;
        }
    }
    assert_eq!((lines, records), (5_243, 5_243));
}

#[tokio::test]
async fn another_program_writes_through_s3rep_db_while_s3rep_follows() {
    let place = Place::with_open_data();
    let url = ["db", "--url", "file://./bucket/databases/open-data"];
    place.write(
        "s3rep.json",
        r#"{"source": {"url": "file://./bucket/databases/open-data", "interval": "50ms"}, "state": "./state",
            "replicators": [{"driver": "libsql", "resources": {"cars": "autos"},
                             "config": {"url": "file:./out.db", "schemaSync": {"enabled": true}}}]}"#,
    );
    let mut running = place.start(&["run", "-c", "s3rep.json"]);
    let car = r#"{"id":"new","name":"ñandú \"quoted\"","cylinders":3,"weight_lbs":900,"acceleration":20.5,"year":"2026-01-01","origin":"Demo"}"#;
    place.run_with_input(&[&url[..], &["insert", "cars"]].concat(), car).expect(0);
    place.run_with_input(&[&url[..], &["update", "cars", "car-001"]].concat(), r#"{"mpg": 99.5}"#).expect(0);
    place.run(&[&url[..], &["delete", "cars", "car-002"]].concat()).expect(0);
    std::process::Command::new("kill").arg(running.id().to_string()).status().unwrap();
    running.wait().unwrap();
    place.run(&["run", "--once", "-c", "s3rep.json"]).expect(0);
    let autos = destinations::by_key(&place.path("out.db"), "select id, name, mpg from autos").await;
    assert_eq!(autos["new"][0].as_deref(), Some("ñandú \"quoted\""));
    assert_eq!(autos["car-001"][1].as_deref(), Some("99.5"));
    assert!(!autos.contains_key("car-002"));
    place.run(&["verify", "-c", "s3rep.json"]).expect(0);
}

#[test]
fn the_demo_ends_with_everything_equal() {
    let place = Place::new();
    let ran = place.run(&["demo", "--keep", "./kept"]).expect(0);
    assert_eq!(ran.stdout.matches(", equal").count(), 10, "{}", ran.stdout);
    let config = place.path("kept/s3rep.yaml");
    place.run(&["verify", "-c", config.to_str().unwrap()]).expect(0);
    place.run(&["status", "--json", "-c", config.to_str().unwrap()]).expect(0);
    place.run(&["demo", "--keep", "./kept"]).expect(2).says(&["not empty"]);
}
