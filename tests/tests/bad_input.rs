//! What breaks, and what the program says then: the file or key, and what to do. The others go on, nothing is
//! lost, nothing panics.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use std::{fs, process::Command, time::Duration};

use s3rep_testkit::disk::SmallDisk;
use s3rep_tests::{Place, destinations, records};

const CONFIG: &str = "
source: { url: 'file://./bucket/databases/open-data', interval: 50ms }
state: ./state
replicators:
  - driver: sqlite
    resources: { cars: [cars, { resource: cars_log, mode: append }] }
    config: { url: 'file:./out.db', schemaSync: { enabled: true } }
";

fn place() -> Place {
    let place = Place::with_cars();
    place.write("s3rep.yaml", CONFIG);
    place
}

fn no_panic(text: &str) {
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_named_and_the_others_go_on() {
    let place = place();
    let sidecar = place.open_data().join("resource=cars/data/id=car-007.meta.json");
    let good = fs::read_to_string(&sidecar).unwrap();
    fs::write(&sidecar, "{ this is no sidecar").unwrap();
    // A text that is cut off may still be being written, and is looked at again before it is called broken.
    let ran = place.run(&["run", "--once"]).expect(1).says(&["car-007"]);
    no_panic(&ran.stderr);
    let rows = destinations::query(&place.path("out.db"), "select id from cars").await;
    assert_eq!(rows.len(), 405);
    // Mended, it arrives.
    fs::write(&sidecar, good).unwrap();
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_record_that_is_being_written_is_looked_at_again() {
    let place = place();
    let sidecar = place.open_data().join("resource=cars/data/id=car-007.meta.json");
    let whole = fs::read_to_string(&sidecar).unwrap();
    fs::write(&sidecar, &whole[..100]).unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(600));
        fs::write(&sidecar, whole).unwrap();
    });
    place.run(&["run", "--once"]).expect(0);
    writer.join().unwrap();
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_truncated_s3db_json_is_named_and_deletes_nothing() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    let document = place.open_data().join("s3db.json");
    let whole = fs::read(&document).unwrap();
    fs::write(&document, &whole[..whole.len() / 2]).unwrap();
    let ran = place.run(&["run", "--once"]).expect(1).says(&["s3db.json"]);
    no_panic(&ran.stderr);
    fs::write(&document, whole).unwrap();
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_missing_database_is_named_with_what_to_do() {
    let place = Place::new();
    place.write("s3rep.yaml", CONFIG);
    place.run(&["run", "--once"]).expect(1).says(&["bucket/databases/open-data", "help:"]);
    place.run(&["check"]).expect(1);
}

#[test]
fn an_unknown_attribute_type_is_told_and_carried_as_text() {
    let place = place();
    let document = place.open_data().join("s3db.json");
    let text = fs::read_to_string(&document).unwrap();
    fs::write(&document, text.replace("\"origin\": \"string|maxlength:16\"", "\"origin\": \"bogus\""))
        .unwrap();
    let ran = place.run(&["check"]).expect(0);
    assert!(ran.stdout.contains("bogus") && ran.stdout.contains("origin"), "{}", ran.stdout);
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_state_directory_in_use_is_refused_with_the_process_that_uses_it() {
    let place = place();
    let mut running = place.start(&["run"]);
    while !place.path("out.db").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    place.run(&["run", "--once"]).expect(1).says(&["state", &running.id().to_string(), "help:"]);
    // Looking is allowed.
    place.run(&["status"]).expect(0);
    Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(running.wait().unwrap().success(), "{}", place.log());
}

#[test]
fn a_log_with_flipped_bits_is_set_aside_or_read_around_and_the_destination_is_right_again() {
    for seed in 0..6 {
        let place = place();
        place.run(&["run", "--once"]).expect(0);
        let log = place.path("state/log.db");
        let mut bytes = fs::read(&log).unwrap();
        for i in 0..200_usize {
            let at = (seed * 7_919 + i * 104_729) % bytes.len();
            bytes[at] ^= 1 << (i % 8);
        }
        fs::write(&log, bytes).unwrap();
        let ran = place.run(&["run", "--once"]);
        no_panic(&ran.stderr);
        assert_ne!(ran.code, None, "{}", ran.stderr);
        if ran.code != Some(0) {
            // What it says is enough to get going again.
            assert!(ran.stderr.contains("help:") || ran.stderr.contains("s3rep sync"), "{}", ran.stderr);
            place.run(&["sync"]).expect(0);
        }
        place.run(&["verify"]).expect(0);
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_stops_its_replicator_and_says_which_column() {
    let place = place();
    destinations::query(&place.path("out.db"), "create table cars (id text primary key, name text)").await;
    let config = CONFIG
        .replace("schemaSync: { enabled: true }", "schemaSync: { enabled: true, strategy: validate-only }");
    place.write("s3rep.yaml", &config);
    let ran = place.run(&["run", "--once"]).expect(1).says(&["cars", "mpg", "help:"]);
    no_panic(&ran.stderr);
    // With the default strategy the missing columns are added.
    place.write(
        "s3rep.yaml",
        &CONFIG.replace("cars: [cars, { resource: cars_log, mode: append }]", "cars: cars"),
    );
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_destination_that_is_no_database_is_left_as_it_is() {
    let place = place();
    place.write(
        "out.db",
        "this is somebody's letter, and long enough to have a header of a hundred bytes or more, all text",
    );
    let before = fs::read(place.path("out.db")).unwrap();
    place.run(&["run", "--once"]).expect(1).says(&["out.db", "help:"]);
    assert_eq!(fs::read(place.path("out.db")).unwrap(), before);
}

#[test]
fn a_deleted_destination_is_filled_again() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    fs::remove_file(place.path("out.db")).unwrap();
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_destination_that_is_deleted_while_it_is_written_is_filled_again() {
    let place = place();
    let url = ["db", "--url", "file://./bucket/databases/open-data"];
    let mut running = place.start(&["run"]);
    while !place.run(&["verify"]).stdout.contains("cars_log: 406 records, equal") {
        std::thread::sleep(Duration::from_millis(20));
    }
    for file in ["out.db", "out.db-wal", "out.db-shm"] {
        let _ = fs::remove_file(place.path(file));
    }
    place.run_with_input(&[&url[..], &["update", "cars", "car-001"]].concat(), r#"{"mpg": 1}"#).expect(0);
    while place.run(&["verify"]).code != Some(0) {
        assert!(running.try_wait().unwrap().is_none(), "{}", place.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Command::new("kill").arg(running.id().to_string()).status().unwrap();
    assert!(running.wait().unwrap().success(), "{}", place.log());
}

#[tokio::test]
async fn a_table_that_was_dropped_by_hand_is_filled_again() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    destinations::query(&place.path("out.db"), "drop table cars").await;
    let url = ["db", "--url", "file://./bucket/databases/open-data"];
    place.run_with_input(&[&url[..], &["update", "cars", "car-001"]].concat(), r#"{"mpg": 1}"#).expect(0);
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[tokio::test]
async fn a_resource_that_is_removed_while_nobody_looks_takes_its_rows_along() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    let document = place.open_data().join("s3db.json");
    let mut database: serde_json::Value = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
    database["resources"].as_object_mut().unwrap().remove("cars");
    fs::write(&document, serde_json::to_vec_pretty(&database).unwrap()).unwrap();
    place.run(&["run", "--once"]).expect(0);
    assert!(destinations::query(&place.path("out.db"), "select id from cars").await.is_empty());
}

#[test]
fn an_object_with_a_name_that_is_no_id_stops_nothing() {
    let place = place();
    let data = place.open_data().join("resource=cars/data");
    for name in ["id=50%off", "id=a=b"] {
        fs::copy(data.join("id=car-001"), data.join(name)).unwrap();
        fs::copy(data.join("id=car-001.meta.json"), data.join(format!("{name}.meta.json"))).unwrap();
    }
    place.run(&["run", "--once"]).expect(1).says(&["50%off", "a=b"]);
    assert!(place.run(&["verify"]).stdout.contains("cars: 406 records, equal"));
}

#[tokio::test]
async fn a_table_that_is_made_anew_is_filled_again() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    destinations::query(&place.path("out.db"), "alter table cars drop column mpg").await;
    place.write(
        "s3rep.yaml",
        &CONFIG
            .replace("schemaSync: { enabled: true }", "schemaSync: { enabled: true, strategy: drop-create }"),
    );
    let url = ["db", "--url", "file://./bucket/databases/open-data"];
    place.run_with_input(&[&url[..], &["update", "cars", "car-001"]].concat(), r#"{"mpg": 1}"#).expect(0);
    place.run(&["run", "--once"]).expect(1).says(&["cars", "--yes"]);
    place.run(&["run", "--once", "--yes"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_sync_takes_out_what_was_deleted_meanwhile() {
    let place = place();
    let without_upsert = CONFIG.replace("cars: [cars, ", "cars: [").replace(" } ] }", " }] }");
    place.run(&["run", "--once"]).expect(0);
    place.write("s3rep.yaml", &without_upsert);
    place.run(&["run", "--once"]).expect(0);
    place.run(&["db", "--url", "file://./bucket/databases/open-data", "delete", "cars", "car-011"]).expect(0);
    place.run(&["run", "--once"]).expect(0);
    place.write("s3rep.yaml", CONFIG);
    place.run(&["run", "--once"]).expect(0).says(&["verify --repair"]);
    assert!(place.run(&["verify"]).expect(1).stdout.contains("car-011: extra"));
    place.run(&["sync"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[tokio::test]
async fn drift_is_found_and_mended() {
    let place = place();
    place.run(&["run", "--once"]).expect(0);
    let out = place.path("out.db");
    destinations::query(&out, "delete from cars where id = 'car-001'").await;
    destinations::query(&out, "update cars set name = 'wrong' where id = 'car-002'").await;
    destinations::query(&out, "insert into cars (id, name, cylinders, weight_lbs, acceleration, year, origin) values ('extra', 'x', 1, 1, 1, 'y', 'o')").await;
    let ran = place.run(&["verify"]).expect(1);
    for line in ["car-001: missing", "car-002: different (name)", "extra: extra"] {
        assert!(ran.stdout.contains(line), "no {line:?} in:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("wrong"), "a value was printed");
    place.run(&["verify", "--repair"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once_with_its_place() {
    let place = place();
    place.write(
        "s3rep.yaml",
        "source: { url: 'file://./x', intervall: 1s }\nreplicators:\n  - driver: sqllite\n    resources: [cars]\n    \
         config: { url: 'file:./out.db' }\n  - driver: jsonl\n    resources: { cars: { tabel: x } }\n    config: { path: ./lines }\n",
    );
    for command in ["run", "check", "verify", "status", "sync"] {
        place.run(&[command]).expect(2).says(&[
            "s3rep.yaml:1:",
            "interval",
            "s3rep.yaml:3:",
            "sqlite",
            "s3rep.yaml:7:",
            "tabel",
        ]);
    }
    place.run(&["run", "-c", "absent.yaml"]).expect(2).says(&["absent.yaml"]);
    place.run(&["run", "--bogus"]).expect(2);
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let place = place();
    let disk = match SmallDisk::new(50) {
        Ok(disk) => disk,
        Err(missing) => {
            assert!(!missing.is_required(), "S3REP_REQUIRE is set: {missing}");
            return eprintln!("IGNORED: a_full_disk_stops_nothing_for_good: {missing}");
        }
    };
    let out = disk.path().join("out.db").display().to_string();
    place.write("s3rep.yaml", &CONFIG.replace("./out.db", &out));
    disk.fill(100 << 10);
    place.run(&["run", "--once"]).expect(1).says(&["out.db", "help:"]);
    disk.free();
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
}

#[tokio::test]
async fn a_stopped_run_leaves_everything_for_the_next() {
    let place = place();
    let mut running = place.start(&["run"]);
    while !place.path("out.db").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(running.wait().unwrap().success(), "{}", place.log());
    place.run(&["run", "--once"]).expect(0);
    let rows = destinations::query(&place.path("out.db"), "select id from cars").await;
    assert_eq!(rows.len(), records(&place.open_data(), "cars").await.len());
}
