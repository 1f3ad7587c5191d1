//! SQL servers for tests come up, are killed with all that belongs to them, and come back on the same port.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]
#![allow(clippy::print_stdout, reason = "a child process says where its server is")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write, stdin},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use s3rep_testkit::server::{Missing, SqlServer, mariadb, postgres, sqld};
use tokio::runtime::{Builder, Runtime};

/// Names the server that this program starts, and does nothing else.
const CHILD: &str = "S3REP_TEST_SERVER_OF_CHILD";
/// How long what ends by itself may take.
const SOON: Duration = Duration::from_secs(20);

/// A case, with a server that no other case kills.
type Case = fn(Arc<SqlServer>);

const CASES: [(&str, Case); 2] = [
    ("is_killed_and_comes_back", is_killed_and_comes_back),
    ("ends_with_the_process_that_started_it", |server| ends_with_the_process_that_started_it(server.name)),
];

fn main() {
    if let Ok(name) = env::var(CHILD) {
        return child(&name);
    }
    let mut trials = Vec::new();
    for (name, server) in servers() {
        let server = server.map(Arc::new);
        for (case, run) in CASES {
            trials.push(trial(&format!("{name}::{case}"), &server, run));
        }
        if name == "postgres" {
            trials.push(trial("postgres::takes_its_statements_along", &server, |_| {
                takes_its_statements_along();
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn servers() -> [(&'static str, Result<SqlServer, Missing>); 3] {
    let (postgres, mariadb, sqld) = runtime()
        .block_on(async { tokio::join!(postgres::start_durable(), mariadb::start_durable(), sqld::start()) });
    [("postgres", postgres), ("mariadb", mariadb), ("sqld", sqld)]
}

fn trial(title: &str, server: &Result<Arc<SqlServer>, Missing>, run: Case) -> Trial {
    match server {
        Ok(server) if server.is_private() => {
            let server = server.clone();
            Trial::test(title, move || {
                run(server);
                Ok(())
            })
        }
        Ok(_) => {
            Trial::test(format!("{title} (ignored: a user's own server)"), || Ok(())).with_ignored_flag(true)
        }
        Err(missing) => missing.trial(title),
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_killed_and_comes_back(server: Arc<SqlServer>) {
    let address = server.address().to_owned();
    assert!(server.url("any").contains(&address), "{}", server.url("any"));
    TcpStream::connect(&address).unwrap();
    for _ in 0..2 {
        server.kill().unwrap();
        assert!(TcpStream::connect(&address).is_err(), "killed, and takes connections");
    }
    for _ in 0..2 {
        runtime().block_on(server.restart()).unwrap();
        TcpStream::connect(&address).unwrap();
    }
    assert_eq!(server.address(), address);
    assert_ne!(server.output(), "");
}

/// A statement that computes does not see that the server is gone.
fn takes_its_statements_along() {
    let server = runtime().block_on(postgres::start()).unwrap();
    let statement = Statement::endless(server.address());
    assert!(statement.runs());
    server.kill().unwrap();
    assert!(!statement.runs(), "it outlives the server that was killed");
    runtime().block_on(server.restart()).unwrap();
    let statement = Statement::endless(server.address());
    assert!(statement.runs());
    drop(server);
    assert!(!statement.runs(), "it outlives the server");
}

fn ends_with_the_process_that_started_it(name: &str) {
    // As a killed process leaves its directory behind, it is in one of this process, which every account reaches.
    let mut builder = tempfile::Builder::new();
    let directory = builder.permissions(fs::Permissions::from_mode(0o711)).tempdir_in("/tmp").unwrap();
    let place = directory.path().canonicalize().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .env(CHILD, name)
        .env("TMPDIR", &place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = said(&mut child);
    let statement = (name == "postgres").then(|| Statement::endless(&address));
    assert_ne!(working_in(&place), 0, "nothing to see the end of");
    child.kill().unwrap();
    child.wait().unwrap();
    let since = Instant::now();
    // A process of several threads works nowhere some moments before its port is closed.
    while working_in(&place) > 0 || TcpStream::connect(&address).is_ok() {
        assert!(since.elapsed() < SOON, "it outlives the process that started it");
        thread::sleep(Duration::from_millis(5));
    }
    drop(statement);
}

/// The first line that it prints.
fn said(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn child(name: &str) {
    let server = runtime().block_on(async {
        match name {
            "postgres" => postgres::start().await,
            "mariadb" => mariadb::start().await,
            _ => sqld::start().await,
        }
    });
    let server = server.unwrap();
    println!("{}", server.address());
    // Until it is killed; should the parent fail before that, its end of the pipe is closed.
    let _ = stdin().read(&mut [0]);
}

/// Processes that work in the directory. One that ended and was not waited for works nowhere.
fn working_in(directory: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let works_there = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
    };
    processes.filter(works_there).count()
}

/// A statement of PostgreSQL that computes for ever, said in the bytes of its protocol.
struct Statement {
    _connection: TcpStream,
    /// The process that computes.
    process: u32,
}

impl Statement {
    fn endless(address: &str) -> Self {
        let mut connection = TcpStream::connect(address).unwrap();
        let version = 196_608_u32.to_be_bytes();
        send(&mut connection, &[&version[..], b"user\0postgres\0database\0postgres\0\0"].concat());
        let process = u32::from_be_bytes(answer(&mut connection, b'K')[..4].try_into().unwrap());
        answer(&mut connection, b'Z');
        connection.write_all(b"Q").unwrap();
        send(&mut connection, b"DO $$ BEGIN RAISE NOTICE 'now'; LOOP END LOOP; END $$\0");
        answer(&mut connection, b'N');
        Self { _connection: connection, process }
    }

    fn runs(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.process)).is_ok()
    }
}

/// A message's length, which counts itself, and what it says.
fn send(connection: &mut TcpStream, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap();
    connection.write_all(&[&length.to_be_bytes()[..], body].concat()).unwrap();
}

/// The next message of this kind.
fn answer(connection: &mut TcpStream, kind: u8) -> Vec<u8> {
    loop {
        let mut head = [0; 5];
        connection.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        connection.read_exact(&mut body).unwrap();
        if head[0] == kind {
            return body;
        }
        assert_ne!(head[0], b'E', "{}", String::from_utf8_lossy(&body));
    }
}
