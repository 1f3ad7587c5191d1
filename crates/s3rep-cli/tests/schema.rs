//! `s3rep plan` and `s3rep apply`, and what `--yes` agrees to, with SQLite as the destination.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use s3rep::{
    config::Config,
    core::{ResourceSchema, RouteMode, Table},
    engine::context,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a database of cars and planes, and a configuration.
struct Place {
    dir: TempDir,
}

/// How a command ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard error has each of these texts.
    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
        self
    }

    /// Standard output has each of these texts, in this order.
    #[track_caller]
    fn prints(self, texts: &[&str]) -> Self {
        let mut rest = self.stdout.as_str();
        for text in texts {
            rest = rest.split_once(text).unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.stdout)).1;
        }
        self
    }

    #[track_caller]
    fn prints_nothing(self) -> Self {
        assert_eq!(self.stdout, "");
        self
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: TempDir::new().unwrap() };
        place.configure("{ cars: [cars, { resource: cars_log, mode: append }], planes: planes }", "");
        for name in ["cars", "planes"] {
            let config = json!({"name": name, "attributes": {"name": "string|required"}});
            place.db(&["create-resource"], &config);
        }
        for id in ["c1", "c2"] {
            place.db(&["insert", "cars"], &json!({"id": id, "name": "Ford"}));
        }
        place
    }

    /// One replicator into SQLite, with these routes and options of schema synchronisation.
    fn configure(&self, resources: &str, options: &str) {
        self.configure_with(&format!(
            "  - id: lite\n    driver: sqlite\n    resources: {resources}\n\
             \x20   config: {{ url: 'file:./out.db', schemaSync: {{ enabled: true, {options} }} }}\n"
        ));
    }

    fn configure_with(&self, replicators: &str) {
        let text = format!(
            "source: {{ url: 'file://./db', interval: 50ms }}\nstate: ./state\nreplicators:\n{replicators}"
        );
        fs::write(self.path("s3rep.yaml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("s3rep"));
        command.args(args).current_dir(self.dir.path()).env_remove("S3REP_LOG").env("RUST_BACKTRACE", "0");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args).stdin(Stdio::null()).output().unwrap().into()
    }

    /// `s3rep db …` with a document on its standard input.
    fn db(&self, args: &[&str], input: &Value) {
        let mut command = self.command(&[&["db", "--url", "file://./db"], args].concat());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap()).expect(0);
    }

    /// The cars get another attribute, and one of them has it.
    fn grow(&self) {
        let attributes = json!({"name": "string|required", "mpg": "number"});
        self.db(&["update-attributes", "cars"], &attributes);
        self.db(&["insert", "cars"], &json!({"id": "c3", "name": "Fiat", "mpg": 17}));
    }

    /// The ids in an upsert table, as the destination has them.
    async fn ids(&self, table: &str) -> Vec<String> {
        let config = format!(
            "source: {{ url: 'memory://' }}\nreplicators:\n  - driver: sqlite\n    resources: [{table}]\n\
             \x20   config: {{ url: 'file:{}' }}\n",
            self.path("out.db").display()
        );
        let config = Config::parse(&config, s3rep::config::Syntax::Yaml, "test.yaml", &|_| None).unwrap();
        let schema =
            ResourceSchema::parse(table, "v1", json!({"name": "string|required"}).as_object().unwrap());
        let table = Table { name: table.into(), mode: RouteMode::Upsert, schema: schema.unwrap().into() };
        let sink = &config.replicators[0].sink;
        let rows = sink.readback().unwrap().rows(&context::system(), &table, None, 1_000).await.unwrap();
        sink.close(&context::system()).await.unwrap();
        rows.into_iter().map(|(id, _)| id).collect()
    }
}

/// Ends it as an operator does.
fn stop(mut child: Child) {
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_plan_is_shown_and_applied_and_then_fits() {
    let place = Place::new();
    place
        .run(&["plan"])
        .expect(0)
        .prints(&[
            "-- replicator lite, table cars: creates\nCREATE TABLE IF NOT EXISTS \"cars\" (",
            ");\n-- replicator lite, table cars_log: creates\nCREATE TABLE",
            ");\n-- replicator lite, table planes: creates\nCREATE TABLE",
        ])
        .says(&["0 tables fit, 3 need changes\n"]);
    assert!(!place.path("out.db").exists() && !place.path("state").exists(), "plan writes nothing");

    let applied = place.run(&["apply"]).expect(0).prints(&["CREATE TABLE", "CREATE TABLE", "CREATE TABLE"]);
    assert_eq!(applied.stderr, "0 tables fit, 3 were changed\n");
    place.run(&["plan"]).expect(0).prints_nothing().says(&["3 tables fit, 0 need changes\n"]);
    place.run(&["apply"]).expect(0).prints_nothing().says(&["3 tables fit, 0 were changed\n"]);
    // The first run brings everything, once.
    place.run(&["run", "--once"]).expect(0).says(&["4 rows written"]);
    place.run(&["verify"]).expect(0);
    assert_eq!(place.ids("cars").await, ["c1", "c2"]);

    place.grow();
    place
        .run(&["plan"])
        .expect(0)
        .prints(&["table cars: alters\nALTER TABLE \"cars\" ADD COLUMN \"mpg\"", ";\n"])
        .says(&["1 table fits, 2 need changes"]);
    place.run(&["apply"]).expect(0).says(&["1 table fits, 2 were changed"]);
    place.run(&["plan"]).expect(0).prints_nothing();
    place.run(&["run", "--once"]).expect(0).says(&["2 rows written"]);
    place.run(&["verify"]).expect(0);
}

#[test]
fn a_plan_as_json_is_an_object_a_table() {
    let place = Place::new();
    place.run(&["apply"]).expect(0);
    place.grow();
    let planned = place.run(&["plan", "--json"]).expect(0).says(&["1 table fits, 2 need changes"]);
    let planned: Vec<Value> =
        planned.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [cars, _, planes] = &planned[..] else { panic!("{planned:?}") };
    assert_eq!((&cars["replicator"], &cars["table"]), (&json!("lite"), &json!("cars")));
    assert!(cars["statements"][0].as_str().unwrap().contains("ADD COLUMN"), "{cars}");
    assert_eq!((&cars["creates"], &cars["destructive"]), (&json!(false), &json!(false)));
    assert_eq!((&planes["statements"], &planes["warnings"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn a_table_is_created_anew_with_consent_only_and_its_rows_come_back() {
    let place = Place::new();
    place.configure(
        "{ cars: [cars, { resource: cars_log, mode: append }], planes: planes }",
        "strategy: drop-create",
    );
    place.run(&["run", "--once"]).expect(0);
    place.grow();
    place
        .run(&["plan"])
        .expect(0)
        .prints(&["table cars: recreates (loses every row)\nDROP TABLE", "CREATE TABLE"])
        .says(&["1 table fits, 2 need changes"]);
    let checked = place.run(&["check"]).expect(0);
    assert!(checked.stdout.contains("drops table cars and creates it anew"), "{}", checked.stdout);

    // A table that is only missing goes on beside those that are refused.
    place.configure(
        "{ cars: [cars, { resource: cars_log, mode: append }], planes: [planes, { resource: hangar }] }",
        "strategy: drop-create",
    );
    let refused = place.run(&["apply"]).expect(1).says(&[
        "every row in it would be lost",
        "table: cars,",
        "table: cars_log,",
        "without their history",
        "s3rep apply --yes",
        "1 table fits, 1 was changed, 2 have problems",
    ]);
    assert!(refused.stdout.contains("hangar") && !refused.stdout.contains("DROP"), "{}", refused.stdout);
    assert_eq!(place.ids("cars").await, ["c1", "c2"]);
    place.run(&["run", "--once"]).expect(1).says(&["table: cars", "s3rep apply --yes", "s3rep run --yes"]);
    place.run(&["sync"]).expect(1).says(&["s3rep apply --yes"]);
    assert_eq!(place.ids("cars").await, ["c1", "c2"]);

    place.run(&["apply", "--yes"]).expect(0).prints(&["DROP TABLE", "CREATE TABLE"]).says(&[
        "replicator lite, table cars is empty: the next `s3rep run` brings its records",
        "2 tables fit, 2 were changed",
    ]);
    assert!(place.ids("cars").await.is_empty());
    place.run(&["plan"]).expect(0).prints_nothing().says(&["4 tables fit, 0 need changes"]);
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
    assert_eq!(place.ids("cars").await, ["c1", "c2", "c3"]);
}

#[tokio::test]
async fn run_and_sync_agree_with_yes() {
    for command in [&["run", "--once", "--yes"][..], &["sync", "--yes"]] {
        let place = Place::new();
        place.configure("{ cars: cars }", "strategy: drop-create");
        place.run(&["run", "--once"]).expect(0);
        place.grow();
        place.run(command).expect(0);
        place.run(&["verify"]).expect(0);
        assert_eq!(place.ids("cars").await, ["c1", "c2", "c3"]);
        place.run(&["run", "--once"]).expect(0);
    }
}

#[test]
fn a_table_with_a_problem_keeps_no_other_from_its_own() {
    let place = Place::new();
    place.configure("{ cars: cars }", "");
    place.run(&["apply"]).expect(0);
    // A table of rows cannot become one of changes.
    place.configure("{ cars: { resource: cars, mode: append }, planes: planes }", "");
    for command in ["plan", "apply"] {
        let ran = place.run(&[command]).expect(1).prints(&["table planes: creates", "CREATE TABLE"]);
        ran.says(&["error: ", "table: cars", "replicator: lite", "help: ", "1 has a problem"]);
    }
    let planned = place.run(&["plan", "--json"]).expect(1);
    let lines: Vec<Value> = planned.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["error"].as_str().unwrap().contains("cars"), "{lines:?}");
    assert_eq!(lines[1]["statements"], json!([]));
}

#[test]
fn replicators_are_chosen_and_those_without_schema_synchronisation_say_so() {
    let place = Place::new();
    place.configure_with(
        "  - id: lite\n    driver: sqlite\n    resources: [cars, boats]\n\
         \x20   config: { url: 'file:./out.db', schemaSync: { enabled: true } }\n\
         \x20 - id: lines\n    driver: jsonl\n    resources: [cars]\n    config: { path: ./lines }\n\
         \x20 - id: off\n    enabled: false\n    driver: sqlite\n    resources: [cars]\n\
         \x20   config: { url: 'file:./off.db', schemaSync: { enabled: true } }\n",
    );
    for command in ["plan", "apply"] {
        place.run(&[command]).expect(0).prints(&["replicator lite, table cars: creates"]).says(&[
            "replicator lines: no schema synchronisation",
            "replicator lite: the source has no resource 'boats' yet",
            "replicator off: disabled",
        ]);
    }
    assert!(!place.path("off.db").exists() && !place.path("lines").exists());
    fs::remove_file(place.path("out.db")).unwrap();
    for command in ["plan", "apply"] {
        place.run(&[command, "--replicator", "lines"]).expect(0).prints_nothing();
        place.run(&[command, "--replicator", "nobody"]).expect(2).says(&["there is no replicator 'nobody'"]);
    }
    assert!(!place.path("out.db").exists());
}

#[test]
fn beside_a_running_s3rep_a_plan_is_shown_and_not_applied() {
    let place = Place::new();
    let running = place.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    while !place.run(&["plan"]).stderr.contains("3 tables fit") {
        std::thread::sleep(Duration::from_millis(20));
    }
    place.run(&["apply"]).expect(1).prints_nothing().says(&[
        "another process uses this state directory",
        &running.id().to_string(),
        "a running s3rep holds it",
    ]);
    stop(running);
    place.run(&["apply"]).expect(0);
}
