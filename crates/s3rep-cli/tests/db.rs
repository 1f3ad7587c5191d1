//! `s3rep db` as other programs drive it, on a database that s3db.js wrote.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data");

/// A database in a directory of its own.
struct Database {
    directory: PathBuf,
    url: String,
    _temporary: Option<TempDir>,
}

impl Database {
    /// The real one, unpacked once: for reading.
    fn open_data() -> Self {
        static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
        let directory = UNPACKED.get_or_init(|| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("db-open-data");
            if !directory.exists() {
                let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                unpack(fresh.path(), |_| true);
                // Another run may have been faster.
                let _ = std::fs::rename(fresh.path(), &directory);
            }
            directory
        });
        let url = format!("file://{}", directory.join("bucket/databases/open-data").display());
        Self { directory: directory.clone(), url, _temporary: None }
    }

    /// The cars of the real one: for writing.
    fn cars() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        unpack(temporary.path(), |path| path.contains("/s3db.json") || path.contains("/resource=cars"));
        let directory = temporary.path().to_owned();
        let url = format!("file://{}", directory.join("bucket/databases/open-data").display());
        Self { directory, url, _temporary: Some(temporary) }
    }

    /// None yet.
    fn absent() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        let url = format!("file://{}", directory.join("db").display());
        Self { directory, url, _temporary: Some(temporary) }
    }

    fn path(&self) -> &Path {
        &self.directory
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = s3rep();
        command.args(["db", "--url", &self.url]).args(args);
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        run(self.command(args), input)
    }

    /// What a command that succeeds prints, as JSON Lines.
    #[track_caller]
    fn lines(&self, args: &[&str], input: &str) -> Vec<Value> {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What a command that fails with this code says.
    #[track_caller]
    fn fails(&self, args: &[&str], input: &str, code: i32) -> String {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        stderr(&output)
    }
}

fn unpack(into: &Path, wanted: impl Fn(&str) -> bool) {
    let archive = File::open(format!("{DATA}/open-data.tar.gz")).unwrap();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        if wanted(&entry.path().unwrap().to_string_lossy()) {
            assert!(entry.unpack_in(into).unwrap());
        }
    }
}

fn s3rep() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("s3rep"));
    command.env_remove("S3DB_PASSPHRASE").env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
    command
}

fn run(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command may end without having read all of it.
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn id(record: &Value) -> &str {
    record["id"].as_str().unwrap()
}

#[test]
fn export_is_what_s3db_js_reads() {
    let database = Database::open_data();
    let expected: Vec<Value> =
        BufReader::new(GzDecoder::new(File::open(format!("{DATA}/open-data.records.jsonl.gz")).unwrap()))
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
    let mut total = 0;
    for resource in ["airports", "cars", "weather"] {
        let mut expected: Vec<&Value> =
            expected.iter().filter(|line| line["resource"] == resource).map(|line| &line["record"]).collect();
        expected.sort_by_key(|record| id(record).to_owned());
        let exported = database.lines(&["export", resource], "");
        assert_eq!(exported.len(), expected.len(), "{resource}");
        for (exported, expected) in exported.iter().zip(expected) {
            assert_eq!(exported, expected);
            assert!(exported.as_object().unwrap().keys().all(|name| !name.starts_with('_')));
        }
        total += exported.len();
        assert_eq!(database.lines(&["count", resource], ""), [json!(exported.len())]);
    }
    assert_eq!(total, 5_243);
}

#[test]
fn resources_as_a_table_and_as_json() {
    let database = Database::open_data();
    let table = stdout(&database.run(&["resources", "--count"], ""));
    let row = table.lines().find(|line| line.trim_start().starts_with("airports")).unwrap();
    assert!(row.contains("v0") || row.contains("v1"), "{table}");
    assert!(row.contains("byState") && row.contains("3376"), "{table}");
    let lines = database.lines(&["resources", "--json", "--count"], "");
    let counts: Vec<_> =
        lines.iter().map(|row| (row["resource"].as_str().unwrap(), &row["records"])).collect();
    assert!(counts.contains(&("cars", &json!(406))), "{counts:?}");
    assert!(database.lines(&["resources", "--json"], "")[0].get("records").is_none());
}

#[test]
fn one_record_and_some() {
    let database = Database::open_data();
    let all = database.lines(&["export", "airports"], "");
    assert_eq!(database.lines(&["get", "airports", id(&all[7])], ""), [all[7].clone()]);
    assert_eq!(database.lines(&["list", "airports", "--limit", "300"], ""), all[..300]);
    assert_eq!(database.lines(&["list", "airports", "--limit", "0"], "").len(), 0);

    let alaska: Vec<_> = all.iter().filter(|record| record["state"] == "AK").cloned().collect();
    assert!(!alaska.is_empty());
    let by_state = ["--partition", "byState", "--where", "state=AK"];
    assert_eq!(database.lines(&[&["list", "airports"][..], &by_state].concat(), ""), alaska);
    let count = database.lines(&[&["count", "airports", "--json"][..], &by_state].concat(), "");
    assert_eq!(count, [json!({"resource": "airports", "count": alaska.len()})]);
}

#[test]
fn records_of_a_real_database_are_changed() {
    let database = Database::cars();
    let [template] = &database.lines(&["list", "cars", "--limit", "1"], "")[..] else { panic!() };
    let mut record = template.clone();
    record["id"] = json!("new-1");
    let stored = database.lines(&["insert", "cars"], &record.to_string());
    assert_eq!(stored, database.lines(&["get", "cars", "new-1"], ""));
    assert_eq!(database.lines(&["count", "cars"], ""), [json!(407)]);
    let updated = database.lines(&["update", "cars", "new-1"], &json!({"name": "changed"}).to_string());
    assert_eq!(updated[0]["name"], "changed");
    assert_eq!(updated[0].as_object().unwrap().len(), stored[0].as_object().unwrap().len());
    assert_eq!(database.lines(&["delete", "cars", "new-1"], "").len(), 0);
    assert_eq!(database.lines(&["count", "cars"], ""), [json!(406)]);
}

#[test]
fn insert_update_delete() {
    let database = Database::absent();
    let config = json!({
        "name": "airports",
        "attributes": {"name": "string|required", "state": "string"},
        "partitions": {"byState": {"fields": {"state": "string"}}},
    });
    let created = database.lines(&["create-resource"], &config.to_string());
    assert_eq!(created[0]["partitions"], json!(["byState"]));
    let record = json!({"id": "new-1", "name": "Nome", "state": "AK"});
    assert_eq!(database.lines(&["insert", "airports"], &record.to_string()), std::slice::from_ref(&record));
    assert_eq!(database.lines(&["get", "airports", "new-1"], ""), std::slice::from_ref(&record));
    let in_alaska = |database: &Database| {
        let args = ["list", "airports", "--partition", "byState", "--where", "state=AK"];
        database.lines(&args, "").iter().any(|record| id(record) == "new-1")
    };
    assert!(in_alaska(&database));

    let again = database.fails(&["insert", "airports"], &record.to_string(), 1);
    assert!(again.contains("exists already") && again.contains("new-1"), "{again}");

    let updated = database.lines(&["update", "airports", "new-1"], r#"{"state": "TX"}"#);
    assert_eq!(updated, [json!({"id": "new-1", "name": "Nome", "state": "TX"})]);
    assert!(!in_alaska(&database));

    assert_eq!(database.lines(&["delete", "airports", "new-1"], "").len(), 0);
    let gone = database.fails(&["delete", "airports", "new-1"], "", 1);
    assert!(gone.contains("no such record") && gone.contains("new-1"), "{gone}");
    database.fails(&["get", "airports", "new-1"], "", 1);
    database.fails(&["update", "airports", "new-1"], "{}", 1);
    // One without an id gets one.
    assert!(
        !id(&database.lines(&["insert", "airports"], r#"{"name": "Unalakleet", "state": "AK"}"#)[0])
            .is_empty()
    );
}

#[test]
fn a_database_from_nothing_with_a_passphrase() {
    let database = Database::absent();
    let none = database.fails(&["resources"], "", 1);
    assert!(none.contains("no database here") && none.contains("help:"), "{none}");
    assert!(!database.path().join("db").exists());
    // A mistake in the configuration makes none either.
    database.fails(&["create-resource"], r#"{"name": "users"}"#, 2);
    database.fails(&["create-resource"], r#"{"name": "users", "attributs": {}}"#, 2);
    assert!(!database.path().join("db").exists());

    let config = json!({"name": "users", "attributes": {"name": "string|required", "pin": "secret"}});
    let created = database.lines(&["create-resource"], &config.to_string());
    assert_eq!(created[0]["resource"], "users");
    let mut insert = database.command(&["insert", "users", "--passphrase", "hunter2"]);
    insert.env("S3DB_PASSPHRASE", "another one that --passphrase overrides");
    let output = run(insert, r#"{"id": "u1", "name": "Ada", "pin": "0815"}"#);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let mut get = database.command(&["get", "users", "u1"]);
    get.env("S3DB_PASSPHRASE", "hunter2");
    let output = run(get, "");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["pin"], "0815");
    assert!(!stored_text(database.path()).contains("0815"));

    let wrong = database.run(&["get", "users", "u1"], "");
    assert!(!stdout(&wrong).contains("0815"));
}

/// Everything below a directory in one text.
fn stored_text(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&stored_text(&path));
        } else {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    text
}

#[test]
fn import_reports_bad_lines_and_goes_on() {
    let database = Database::absent();
    let config = r#"{"name": "things", "attributes": {"n": "number|required"}}"#;
    database.lines(&["create-resource"], config);
    let text = "\u{feff}{\"id\": \"a\", \"n\": 1}\n\n{\"id\": \"b\", \"n\": 2\n[3]\n{\"id\": \"a\", \"n\": 4}\n\
                {\"id\": \"e\", \"n\": \"many\"}\n\u{1}\n{\"id\": \"f\", \"n\": 6}";
    let file = database.path().join("things.jsonl");
    std::fs::write(&file, text).unwrap();
    let told = database.fails(&["import", "things", file.to_str().unwrap()], "", 1);
    let lines: Vec<_> =
        told.lines().filter_map(|line| line.strip_prefix("line ")?.split(':').next()).collect();
    assert_eq!(lines, ["3", "4", "5", "6", "7"], "{told}");
    assert!(told.contains("2 records inserted into 'things'") && told.contains("5 lines were not imported"));
    assert!(!told.contains("many"), "a value of a record is shown: {told}");
    let there: Vec<_> = database.lines(&["export", "things"], "").iter().map(|r| id(r).to_owned()).collect();
    assert_eq!(there, ["a", "f"]);

    // What is exported can be imported, through a pipe.
    let exported = stdout(&database.run(&["export", "things"], ""));
    let copy = Database::absent();
    copy.lines(&["create-resource"], config);
    let output = copy.run(&["import", "things", "-"], &exported);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""), "{}", stderr(&output));
    assert_eq!(stdout(&copy.run(&["export", "things"], "")), exported);
}

#[test]
fn a_record_that_cannot_be_read_does_not_hide_the_others() {
    let database = Database::cars();
    let cars = database.lines(&["export", "cars"], "");
    let broken = id(&cars[3]);
    let data = database.path().join("bucket/databases/open-data/resource=cars/data");
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == format!("id={broken}.meta.json") {
            std::fs::write(path, "{\"metadata\": {\"_v\": \"v99999\"").unwrap();
        }
    }
    let output = database.run(&["export", "cars"], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), cars.len() - 1, "{}", stderr(&output));
    assert!(stderr(&output).contains(broken) && stderr(&output).contains("one record could not be read"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let database = Database::open_data();
    let mut command = database.command(&["export", "airports"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
    assert!(first.starts_with('{'));
}

#[test]
fn usage_errors_end_with_2() {
    let database = Database::open_data();
    for args in [
        &["frobnicate"][..],
        &["get", "airports"],
        &["list", "airports", "--where", "state=AK"],
        &["list", "airports", "--partition", "byState", "--where", "AK"],
        &["list", "airports", "--limit", "many"],
    ] {
        database.fails(args, "", 2);
    }
    let mut command = s3rep();
    command.args(["db", "resources"]);
    let output = run(command, "");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--url"), "{}", stderr(&output));
    database.fails(&["insert", "airports"], " ", 2);
    database.fails(&["insert", "airports"], "{\"id\": 1, ", 1);
    database.fails(&["insert", "airports"], "[]", 1);
    let unknown = database.fails(&["export", "airport"], "", 1);
    assert!(unknown.contains("airports"), "{unknown}");
    database.fails(&["list", "airports", "--partition", "byNothing"], "", 1);
    database.fails(&["import", "airports", "no such file.jsonl"], "", 1);
}

#[test]
fn no_credential_is_shown() {
    for url in [
        "s3://key:hunter2@bucket",
        "hunter2",
        "hunter2://x",
        "file://\0hunter2",
        "postgres://me:hunter2@host/",
        "memory://hunter2/%ff",
    ] {
        let mut command = s3rep();
        command.args(["db", "--passphrase", "hunter2", "resources", "--url"]).arg(url.replace('\0', "%00"));
        let output = run(command, "");
        let said = stderr(&output) + &stdout(&output);
        // A path is no credential.
        let path_is_shown = url.starts_with("file:") || url.starts_with("memory:");
        assert_ne!(output.status.code(), Some(101), "{said}");
        assert!(path_is_shown || !said.contains("hunter2"), "{said}");
    }
    let mut command = s3rep();
    command.args(["db", "--help"]).env("S3DB_PASSPHRASE", "hunter2");
    assert!(!stdout(&run(command, "")).contains("hunter2"));
}

#[test]
fn a_closed_input_does_not_hang() {
    let database = Database::open_data();
    let mut child = database
        .command(&["insert", "airports"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("still waiting");
}
