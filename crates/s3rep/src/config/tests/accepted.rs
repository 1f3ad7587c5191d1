//! Configurations that are right.

use std::{path::Path, time::Duration};

use s3rep_core::{Retention, RouteMode};

use super::*;
use crate::config::LogLevel;

const YAML: &str = r#"
source: { url: "file:///data/open", interval: 1500ms, passphrase: "${PASSPHRASE}", parallelism: 4, resources: [cars, airports] }
state: ./.state
replicators:
  - id: lite
    driver: turso
    resources: { airports: airports, cars: [cars, { resource: cars_log, mode: append }] }
    config: { url: "file:./out.db", schemaSync: { enabled: "${YES}" } }
  - driver: jsonl
    enabled: false
    resources: [cars]
    config: { path: ./lines, rotate: { count: "${COUNT}", share: 1 }, level: { exact: 3 }, zip: true }
  - driver: jsonl
    resources: [airports]
    config: { path: "./$${lines}" }
maxRetries: "${COUNT}"
timeout: 5000
batchSize: 250
retention: { maxBytes: 64MiB, maxAge: 2d, passed: 0 }
shutdownTimeout: 3s
logLevel: warn
"#;

const TOML: &str = r#"
state = "./.state"
maxRetries = "${COUNT}"
timeout = 5000
batchSize = 250
retention = { maxBytes = "64MiB", maxAge = "2d", passed = 0 }
shutdownTimeout = "3s"
logLevel = "warn"

[source]
url = "file:///data/open"
interval = "1500ms"
passphrase = "${PASSPHRASE}"
parallelism = 4
resources = ["cars", "airports"]

[[replicators]]
id = "lite"
driver = "turso"
config = { url = "file:./out.db", schemaSync = { enabled = "${YES}" } }
[replicators.resources]
airports = "airports"
cars = ["cars", { resource = "cars_log", mode = "append" }]

[[replicators]]
driver = "jsonl"
enabled = false
resources = ["cars"]
config = { path = "./lines", rotate = { count = "${COUNT}", share = 1 }, level = { exact = 3 }, zip = true }

[[replicators]]
driver = "jsonl"
resources = ["airports"]
config = { path = "./$${lines}" }
"#;

const JSON: &str = r#"{
	"source": { "url": "file:///data/open", "interval": "1500ms", "passphrase": "${PASSPHRASE}", "parallelism": 4,
		"resources": ["cars", "airports"] },
	"state": ".\/.state",
	"replicators": [
		{ "id": "lite", "driver": "turso",
			"resources": { "airports": "airports", "cars": ["cars", { "resource": "cars_log", "mode": "append" }] },
			"config": { "url": "file:./out.db", "schemaSync": { "enabled": true } } },
		{ "driver": "jsonl", "enabled": false, "resources": ["cars"],
			"config": { "path": "./lines", "rotate": { "count": 5, "share": 1.0 }, "level": { "exact": 3 }, "zip": true } },
		{ "driver": "jsonl", "resources": ["airports"], "config": { "path": "./$${lines}" } }
	],
	"maxRetries": 5,
	"timeout": 5e3,
	"batchSize": 250,
	"retention": { "maxBytes": 67108864, "maxAge": "2d", "passed": 0 },
	"shutdownTimeout": "3s",
	"logLevel": "warn"
}"#;

#[test]
fn the_three_syntaxes_say_the_same() {
    for (text, syntax) in
        [(YAML, Syntax::Yaml), (TOML, Syntax::Toml), (JSON, Syntax::Json), (JSON, Syntax::Yaml)]
    {
        let config = parse(text, syntax).unwrap_or_else(|error| panic!("{syntax:?}: {error}"));
        assert_eq!(config.source.url.expose(), "file:///data/open");
        assert_eq!(config.source.interval, Some(Duration::from_millis(1_500)));
        assert_eq!(config.source.passphrase.as_ref().map(|p| p.expose()), Some("swordfish-of-env"));
        assert_eq!(config.source.parallelism, Some(4));
        assert_eq!(config.source.resources.as_deref(), Some(&["cars".to_owned(), "airports".to_owned()][..]));
        assert_eq!(config.state, Path::new("./.state"));
        assert_eq!((config.max_retries, config.batch_size), (5, Some(250)));
        assert_eq!(
            (config.timeout, config.shutdown_timeout),
            (Duration::from_secs(5), Duration::from_secs(3))
        );
        let retention =
            Retention { passed: Duration::ZERO, max_age: Duration::from_secs(172_800), max_bytes: 64 << 20 };
        assert_eq!(config.retention, retention);
        assert_eq!(config.log_level, Some(LogLevel::Warn));

        let ids: Vec<_> =
            config.replicators.iter().map(|r| (r.id.as_str(), r.driver.name(), r.enabled)).collect();
        assert_eq!(ids, [("lite", "sqlite", true), ("jsonl", "jsonl", false), ("jsonl-2", "jsonl", true)]);
        let routes: Vec<_> = config.replicators[0]
            .mapping
            .all_routes()
            .iter()
            .map(|route| (&*route.resource, &*route.table, route.mode))
            .collect();
        let log = ("cars", "cars_log", Some(RouteMode::Append));
        assert_eq!(routes, [("airports", "airports", None), ("cars", "cars", None), log]);
        assert!(config.replicators[0].sink.capability().upsert);
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = yaml(
        "source: { url: 'file:///d' }\nreplicators: [{ driver: sqlite, resources: [a], config: { url: 'file:x' } }]",
    )
    .unwrap();
    assert_eq!(config.state, Path::new("./.s3rep"));
    assert_eq!((config.max_retries, config.batch_size), (3, None));
    assert_eq!((config.timeout, config.shutdown_timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!(config.retention, Retention::default());
    assert!(config.log_level.is_none() && config.source.interval.is_none() && config.replicators[0].enabled);
}

#[test]
fn disabled_as_a_whole_and_verbose() {
    let config = yaml(
        "enabled: false\nverbose: true\nsource: { url: 'file:///d' }\n\
         replicators: [{ driver: sqlite, resources: [a], config: { url: 'file:x' } }]",
    )
    .unwrap();
    assert!(!config.replicators[0].enabled);
    assert_eq!(config.log_level, Some(LogLevel::Debug));
}

#[test]
fn anchors_aliases_and_merges() {
    let config = yaml(
        "source: { url: 'file:///d' }\n\
         replicators:\n\
         \x20 - &first { id: a, driver: sqlite, resources: &all [x, y], config: { url: 'file:a' } }\n\
         \x20 - { <<: *first, id: b }\n\
         \x20 - { <<: [{ id: c }, *first], resources: *all }\n",
    )
    .unwrap();
    let ids: Vec<_> = config.replicators.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(config.replicators.iter().all(|r| r.mapping.all_routes().len() == 2));
}

#[test]
fn the_template_is_a_configuration() {
    let config = yaml(crate::config::TEMPLATE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.replicators.len(), 2);
    // And with everything that is commented out in it.
    let all: String = crate::config::TEMPLATE
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            // An option, not a sentence.
            Some(option) if option.starts_with(char::is_lowercase) => {
                format!("{}{option}\n", &line[..line.len() - option.len() - 2])
            }
            _ => format!("{line}\n"),
        })
        .collect::<String>()
        .replace("S3DB_PASSPHRASE", "PASSPHRASE");
    let config = yaml(&all).unwrap_or_else(|error| panic!("{error}\n{all}"));
    assert_eq!(config.replicators[0].mapping.all_routes().len(), 3);
    assert!(config.source.passphrase.is_some() && config.log_level.is_some());
}

#[test]
fn files_are_read_by_their_ending() {
    let directory = tempfile::tempdir().unwrap();
    let text = "source: { url: 'file:///d' }\nreplicators: []\n";
    for (name, marks) in [
        ("a.yaml", "replicators"),
        ("a.YML", "replicators"),
        ("a.conf", "replicators"),
        ("a.toml", "not TOML"),
        ("a.json", "not JSON"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let error = Config::load(&path, &env).unwrap_err().to_string();
        assert!(error.contains(marks), "{name}: {error}");
    }
}

#[test]
#[cfg(all(feature = "libsql", feature = "files"))]
fn the_real_drivers_take_the_template() {
    let config = Config::parse(crate::config::TEMPLATE, Syntax::Yaml, "s3rep.yaml", &env);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert!(config.replicators[0].sink.capability().upsert);
    let wrong = crate::config::TEMPLATE.replace("path: ./lines", "pth: ./lines, maxRecrods: 7");
    let told = Config::parse(&wrong, Syntax::Yaml, "s3rep.yaml", &env).unwrap_err().to_string();
    assert!(
        told.contains("unknown key 'maxRecrods' in 'config'\n  help: did you mean 'maxRecords'?"),
        "{told}"
    );
}
