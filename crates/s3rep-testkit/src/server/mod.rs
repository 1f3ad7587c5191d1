//! Real servers for tests: private, on a free port of the loopback interface, gone with the test.
//!
//! A server is started in its own temporary directory and stopped by its own process id when it is dropped. It
//! also ends when the test process is killed. `cargo xtask services up` installs the programs; a test whose server
//! is not installed is reported as ignored, with the reason, unless `S3REP_REQUIRE` names the server or is `all`:
//! then it fails. `cargo xtask test` sets it for what it installed.
//!
//! A SQL server of the user's own is taken instead of a private one when its variable has a URL, see [`SqlServer`].

#[cfg(feature = "s3")]
mod client;
mod launch;
pub mod mariadb;
pub mod moto;
mod place;
pub mod postgres;
mod process;
pub mod radosgw;
mod sql;
pub mod sqld;

use std::{
    fmt,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[cfg(feature = "s3")]
pub use client::start_s3;
use libtest_mimic::{Failed, Trial};
use process::Process;
pub use sql::SqlServer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a server may take to answer its first request. The slowest takes 3 s on an idle machine.
const READY: Duration = Duration::from_secs(60);
/// A port can be taken between the moment it is found free and the moment the server listens.
const STARTS: u32 = 3;

/// A running server that speaks the protocol of S3.
#[derive(Debug)]
pub struct S3Server {
    /// Its name, as in `S3REP_REQUIRE`.
    pub name: &'static str,
    /// Scheme, host and port.
    pub endpoint: String,
    /// Access key id of its one user.
    pub access_key: &'static str,
    /// Secret access key of its one user.
    pub secret_key: &'static str,
    /// Whether it refuses wrong signatures.
    pub checks_signatures: bool,
    /// Stopped before the directory goes.
    processes: Vec<Process>,
    _directory: tempfile::TempDir,
}

impl S3Server {
    /// The connection string of a bucket and a prefix.
    pub fn url(&self, bucket_and_prefix: &str) -> String {
        let (scheme, host) = self.endpoint.split_once("://").unwrap_or_default();
        let (key, secret) = (encoded(self.access_key), encoded(self.secret_key));
        format!("{scheme}://{key}:{secret}@{host}/{bucket_and_prefix}")
    }

    /// Host and port, for a proxy in front of it.
    pub fn address(&self) -> &str {
        self.endpoint.split_once("://").unwrap_or_default().1
    }

    /// What its programs printed last, for the message of a failure.
    pub fn output(&self) -> String {
        self.processes.iter().map(Process::output).collect()
    }
}

/// Percent-encoded, for the credentials of a URL.
pub fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Why something that a test needs is not there.
#[derive(Debug)]
pub struct Missing {
    /// The server, or what else a test needs.
    pub name: &'static str,
    /// Why.
    pub reason: String,
}

impl Missing {
    /// A program that `cargo xtask services up` installs.
    fn program(name: &'static str, reason: &str) -> Self {
        Self { name, reason: format!("{reason}; `cargo xtask services up` installs it") }
    }

    /// Whether `S3REP_REQUIRE` says that this server must be there.
    pub fn is_required(&self) -> bool {
        is_required(self.name)
    }

    /// A test in place of one that needs the server: ignored with the reason, or failed where it is required.
    pub fn trial(&self, title: &str) -> Trial {
        if self.is_required() {
            let reason = self.to_string();
            return Trial::test(title, move || Err(Failed::from(reason)));
        }
        Trial::test(format!("{title} (ignored: {self})"), || Ok(())).with_ignored_flag(true)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Whether `S3REP_REQUIRE`, a list of names or `all`, has the name.
pub fn is_required(name: &str) -> bool {
    let required = std::env::var("S3REP_REQUIRE").unwrap_or_default();
    required.split([',', ' ']).any(|listed| listed == name || listed == "all")
}

/// Where `cargo xtask services up` puts what is no package of the system: `S3REP_SERVERS`, or `target/servers` of
/// the workspace.
pub fn installed() -> PathBuf {
    match std::env::var_os("S3REP_SERVERS") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers"),
    }
}

/// A port that is free now.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
    Ok(listener.local_addr().map_err(|error| format!("no free port: {error}"))?.port())
}

fn private_directory() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))
}

/// Waits until the server answers a request over HTTP.
async fn answers(port: u16, process: &Process) -> Result<(), String> {
    let since = Instant::now();
    while since.elapsed() < READY {
        if let Some(status) = process.ended() {
            return Err(format!("it ended at once ({status}): {}", process.output()));
        }
        if request(port).await.is_ok_and(|answer| answer.starts_with("HTTP/1.")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no answer within {} s: {}", READY.as_secs(), process.output()))
}

async fn request(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; 16];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
