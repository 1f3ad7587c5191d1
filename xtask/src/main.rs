//! Tasks of this repository: `cargo xtask TASK`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod deps;
mod services;

use std::{
    env,
    process::{Command, ExitCode},
};

const HELP: &str = "\
cargo xtask TASK

  test              the whole test suite, as the README names it; installs the servers first
  services up       installs what is missing of the servers that tests run against, and starts SQL servers
                    to keep: private, on free ports, with data under target/services
  services status   which servers are installed, and where those of `up` run
  services down     stops those of `up`, and only them, and removes their data
  lint              formatting, clippy with warnings as errors, docs, dependency directions
  ci                lint, then test
  deps              which crate may depend on which
  bench [NAME …]    every measured figure, next to its limit: read, pass, writes, inserts, outbox, s3, log,
                    engine, sqlite, sql, live, memory, demo, build
  chaos [--kills N] kill -9 while replicating, N times (default 200)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["test"] => test(),
        ["lint"] => lint(),
        ["ci"] => lint().and_then(|()| test()),
        ["deps"] => deps::check(),
        ["services", "up"] => services::up(),
        ["services", "status"] => services::status(),
        ["services", "down"] => services::down(),
        ["bench", ref names @ ..] => {
            let bench = ["bench", "--package", "s3rep-tests", "--bench", "figures", "--"];
            cargo(&[&bench[..], names].concat(), &[])
        }
        ["chaos"] => chaos("200"),
        ["chaos", "--kills", kills] if kills.parse::<u32>().is_ok() => chaos(kills),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    // Tests of a server that is there must not be left out; others say that they are.
    let required = env::var("S3REP_REQUIRE").unwrap_or_else(|_| services::install());
    // The tests of the whole system run this binary.
    cargo(&["build", "--package", "s3rep-cli", "--bin", "s3rep"], &[])?;
    let variables = memory_for_files();
    let mut variables: Vec<_> = variables.iter().map(|dir| ("TMPDIR", *dir)).collect();
    variables.push(("S3REP_REQUIRE", &required));
    cargo(&["test", "--workspace"], &variables)?;
    for example in ["typed", "follow", "own_sink"] {
        cargo(&["run", "--quiet", "--package", "s3rep-examples", "--example", example], &variables)?;
    }
    Ok(())
}

/// Where the tests put their files: in memory, when there is room. They write and delete a hundred thousand
/// small ones, and a disk's file system is slow at giving out names that were just taken back.
fn memory_for_files() -> Option<&'static str> {
    const DIR: &str = "/dev/shm";
    const MEGABYTES: u64 = 2_048;
    let output = Command::new("df").args(["--output=avail", "-m", DIR]).output().ok()?;
    let available: u64 = String::from_utf8(output.stdout).ok()?.lines().nth(1)?.trim().parse().ok()?;
    (available >= MEGABYTES).then_some(DIR)
}

fn lint() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    deps::check()
}

fn chaos(kills: &str) -> Result<(), String> {
    cargo(&["build", "--package", "s3rep-cli", "--bin", "s3rep"], &[])?;
    let args = ["test", "--package", "s3rep-tests", "--test", "crash", "--", "--nocapture"];
    cargo(&args, &[("S3REP_KILLS", kills)])
}

fn cargo(args: &[&str], variables: &[(&str, &str)]) -> Result<(), String> {
    println!("$ cargo {}", args.join(" "));
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(args)
        .envs(variables.iter().copied())
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", args.join(" "))) }
}
