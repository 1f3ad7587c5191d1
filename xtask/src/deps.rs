//! The directions of dependencies: a crate that is not listed with another may not depend on it.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// `(crate, what it may depend on)`, of the crates of this workspace. Tests may also
/// use [`FOR_TESTS`].
const ALLOWED: &[(&str, &[&str])] = &[
    ("s3rep-core", &[]),
    ("s3rep-engine", &["s3rep-core"]),
    ("s3rep-log", &["s3rep-core"]),
    ("s3rep-js", &["s3rep-core"]),
    ("s3rep-s3db", &["s3rep-core"]),
    ("s3rep-sql", &["s3rep-core"]),
    ("s3rep-libsql", &["s3rep-core", "s3rep-sql"]),
    ("s3rep-mysql", &["s3rep-core", "s3rep-sql"]),
    ("s3rep-postgres", &["s3rep-core", "s3rep-sql"]),
    ("s3rep-files", &["s3rep-core", "s3rep-sql"]),
    ("s3rep-testkit", &["s3rep-core", "s3rep-engine"]),
    (
        "s3rep",
        &[
            "s3rep-core",
            "s3rep-engine",
            "s3rep-js",
            "s3rep-log",
            "s3rep-s3db",
            "s3rep-sql",
            "s3rep-libsql",
            "s3rep-mysql",
            "s3rep-postgres",
            "s3rep-files",
        ],
    ),
    ("s3rep-cli", &["s3rep"]),
    (
        "s3rep-tests",
        &[
            "s3rep",
            "s3rep-core",
            "s3rep-engine",
            "s3rep-log",
            "s3rep-s3db",
            "s3rep-libsql",
            "s3rep-files",
            "s3rep-testkit",
        ],
    ),
    ("s3rep-examples", &["s3rep"]),
    ("xtask", &[]),
];

/// What every crate's tests may use: the testkit, and the engine that it runs sinks in.
const FOR_TESTS: &[&str] = &["s3rep-testkit", "s3rep-engine"];

/// Packages that must not come in: a second TLS stack, or OpenSSL.
const BANNED: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys", "rusqlite"];

pub(crate) fn check() -> Result<(), String> {
    let metadata = metadata()?;
    let mut problems = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own: BTreeSet<&str> =
        packages.iter().filter(|package| package["source"].is_null()).filter_map(name).collect();
    for package in packages {
        let Some(name) = name(package) else { continue };
        if BANNED.contains(&name) {
            problems.push(format!("{name} must not be part of the build"));
        }
        if package["source"].as_str().is_some_and(|source| source.starts_with("git+")) {
            problems.push(format!("{name} is a git dependency"));
        }
        if own.contains(name) {
            check_package(name, package, &own, &mut problems);
        }
    }
    if problems.is_empty() {
        println!("dependency directions hold for {} crates", own.len());
        Ok(())
    } else {
        Err(problems.join("\nxtask: "))
    }
}

fn check_package(name: &str, package: &Value, own: &BTreeSet<&str>, problems: &mut Vec<String>) {
    let Some((_, allowed)) = ALLOWED.iter().find(|(listed, _)| *listed == name) else {
        problems.push(format!("{name} is not listed in xtask/src/deps.rs; say what it may depend on"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let Some(target) = dependency["name"].as_str().filter(|target| own.contains(target)) else {
            continue;
        };
        let is_dev = dependency["kind"].as_str() == Some("dev");
        let is_allowed = allowed.contains(&target) || (is_dev && FOR_TESTS.contains(&target));
        if !is_allowed {
            problems.push(format!("{name} may not depend on {target}"));
        }
    }
}

fn name(package: &Value) -> Option<&str> {
    package["name"].as_str()
}

fn metadata() -> Result<Value, String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata printed no JSON: {error}"))
}
