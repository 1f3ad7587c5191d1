//! The README does what it says.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic and prints"
)]

use s3rep_tests::{Place, destinations};

const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn the_configuration_of_the_readme_runs() {
    let (_, rest) = README.split_once("```yaml\n").unwrap();
    let (config, _) = rest.split_once("```").unwrap();
    let place = Place::with_open_data();
    place.write("s3rep.yaml", config);
    place.run(&["check"]).expect(0);
    place.run(&["run", "--once"]).expect(0);
    place.run(&["verify"]).expect(0);
    place.run(&["status"]).expect(0);
    let rows = destinations::query(&place.path("out.db"), "select count(*) from cars_log").await;
    assert_eq!(rows[0][0].as_deref(), Some("406"));
}

#[test]
fn init_writes_a_configuration_that_says_what_is_missing() {
    let place = Place::new();
    place.run(&["init"]).expect(0).says(&["s3rep check"]);
    place.run(&["check"]).expect(1);
    place.run(&["init"]).expect(2).says(&["exists", "help:"]);
}

#[test]
fn every_task_that_the_readme_names_exists() {
    let tasks = include_str!("../../xtask/src/main.rs");
    for line in README.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask ")) {
        let task = line.split_whitespace().next().unwrap();
        assert!(tasks.contains(&format!("[\"{task}\"")), "there is no `cargo xtask {task}`");
    }
}
