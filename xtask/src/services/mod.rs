//! The servers that tests run against: installed once, and SQL servers that are started to keep.

mod install;
mod instance;
#[path = "../../../crates/s3rep-testkit/src/server/launch.rs"]
mod launch;

use install::SERVERS;
use instance::{Instance, State};

/// Installs what is missing; returns the names of what is there then, with commas.
pub(crate) fn install() -> String {
    install::install()
}

/// Installs what is missing, and starts what does not run.
pub(crate) fn up() -> Result<(), String> {
    install::install();
    let mut failed = Vec::new();
    for server in SERVERS.iter().filter(|server| (server.is_there)()) {
        let Some(kind) = server.service else { continue };
        match Instance::up(kind, &install::directory()) {
            Ok(instance) => {
                println!("{}: {instance}", server.name);
                println!("  export {}={}", kind.variable(), instance.url());
            }
            Err(problem) => {
                println!("{}: cannot be started: {problem}", server.name);
                failed.push(server.name);
            }
        }
    }
    done(&failed, "not started")
}

/// What is installed, and what runs where.
pub(crate) fn status() -> Result<(), String> {
    for server in SERVERS {
        let state = match server.service.map(State::of) {
            Some(State::Runs(instance)) => instance.to_string(),
            Some(State::Gone(instance)) => format!("{instance}, is gone; `services down` removes its data"),
            _ if (server.is_there)() => "installed; does not run, tests start their own".to_owned(),
            _ => "not installed; `services up` installs it".to_owned(),
        };
        println!("{:<9} {state}", server.name);
    }
    Ok(())
}

/// Stops what `up` started, and removes its data.
pub(crate) fn down() -> Result<(), String> {
    let mut failed = Vec::new();
    for server in SERVERS {
        let Some(kind) = server.service else { continue };
        match instance::down(kind) {
            Ok(what) => println!("{}: {what}", server.name),
            Err(problem) => {
                println!("{}: {problem}", server.name);
                failed.push(server.name);
            }
        }
    }
    done(&failed, "not stopped")
}

fn done(failed: &[&str], what: &str) -> Result<(), String> {
    if failed.is_empty() { Ok(()) } else { Err(format!("{what}: {}", failed.join(", "))) }
}
