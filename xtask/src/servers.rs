//! Installs the servers that tests run against, once: packages of the system, and programs under
//! `target/servers`. What is there already is left alone.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server, as `S3REP_REQUIRE` names it.
struct Server {
    name: &'static str,
    is_there: fn() -> bool,
    install: fn() -> Result<(), String>,
}

/// One line a server.
const SERVERS: &[Server] = &[
    Server { name: "moto", is_there: || moto().exists(), install: install_moto },
    Server { name: "radosgw", is_there: has_radosgw, install: install_radosgw },
];

const MOTO: &str = "5.2.5";
const RADOSGW: [&str; 3] = ["radosgw", "ceph-mon", "ceph-osd"];

/// Installs what is missing; returns the names of what is there then, with commas.
pub(crate) fn install() -> String {
    let mut there = Vec::new();
    for server in SERVERS {
        if (server.is_there)() {
            there.push(server.name);
            continue;
        }
        println!("installing {}", server.name);
        match (server.install)() {
            Ok(()) if (server.is_there)() => there.push(server.name),
            Ok(()) => println!("{} was installed but is not there: its tests are ignored", server.name),
            Err(problem) => println!("{} cannot be installed, its tests are ignored: {problem}", server.name),
        }
    }
    println!("servers for tests: {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") });
    there.join(",")
}

/// Where programs go that are no package of the system; tests look at the same place.
fn directory() -> PathBuf {
    match env::var_os("S3REP_SERVERS") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers"),
    }
}

fn moto() -> PathBuf {
    directory().join(format!("moto-{MOTO}/bin/moto_server"))
}

/// A virtual environment of its own: nothing of the system's Python is changed.
fn install_moto() -> Result<(), String> {
    let environment = directory().join(format!("moto-{MOTO}"));
    let place = environment.display().to_string();
    if run("python3", &["-m", "venv", "--clear", &place]).is_err() {
        // Debian has `venv` in a package of its own.
        apt(&["python3-venv"])?;
        run("python3", &["-m", "venv", "--clear", &place])?;
    }
    let pip = environment.join("bin/pip").display().to_string();
    let package = format!("moto[server]=={MOTO}");
    run(&pip, &["install", "--quiet", "--disable-pip-version-check", &package])
}

fn has_radosgw() -> bool {
    ["radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool"]
        .iter()
        .all(|program| Path::new("/usr/bin").join(program).exists())
}

fn install_radosgw() -> Result<(), String> {
    apt(&RADOSGW)
}

fn apt(packages: &[&str]) -> Result<(), String> {
    let args = [&["install", "-y", "--no-install-recommends"], packages].concat();
    // The lists may be old or absent; updating them takes longer than most installations.
    run("apt-get", &args).or_else(|_| run("apt-get", &["update"]).and_then(|()| run("apt-get", &args)))
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", args.join(" "));
    println!("$ {line}");
    let output = Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default();
    Err(format!("`{line}` failed: {said} (packages of Debian need root)"))
}
