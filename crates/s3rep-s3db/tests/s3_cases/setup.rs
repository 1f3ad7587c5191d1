//! A place on a server for each case, and the child that looks at its environment.

use std::{env, process::Command, sync::Arc, time::Duration};

use s3rep_core::Error;
use s3rep_s3db::{Connection, ObjectStore, S3Options, S3Store};
use s3rep_testkit::server::S3Server;

use super::common::cx;

pub const BUCKET: &str = "s3rep-tests";
const CHILD: &str = "S3REP_S3_CHILD";

/// A server, and a prefix that nobody else uses.
#[derive(Clone)]
pub struct Bench {
    pub server: Arc<S3Server>,
    case: &'static str,
}

impl Bench {
    pub fn new(server: Arc<S3Server>, case: &'static str) -> Self {
        Self { server, case }
    }

    pub fn url(&self) -> String {
        self.server.url(&format!("{BUCKET}/{}/a%20b", self.case))
    }

    /// The store of this case.
    pub fn store(&self) -> S3Store {
        self.store_with(options())
    }

    pub fn store_with(&self, options: S3Options) -> S3Store {
        store(&self.url(), options)
    }

    /// The store of this case, through somebody at another address.
    pub fn store_at(&self, address: std::net::SocketAddr, options: S3Options) -> S3Store {
        store(&self.url().replace(self.server.address(), &address.to_string()), options)
    }

    pub fn any(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store())
    }
}

/// As by default, with pauses that a test does not feel.
pub fn options() -> S3Options {
    S3Options { backoff: Duration::from_millis(20), ..S3Options::default() }
}

pub fn store(url: &str, options: S3Options) -> S3Store {
    match url.parse().unwrap() {
        Connection::S3(connection) => S3Store::new(&connection, options).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A message helps, and gives nothing away.
pub fn is_helpful(error: &Error, server: &S3Server) {
    let text = format!("{error} {error:?} {}", error.report());
    assert!(error.advice().is_some(), "{text}");
    for secret in [server.access_key, server.secret_key, "hunter2"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Whether this process is one that [`in_child`] started.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Reads `key` from the store of the URL in the environment, and prints the outcome.
#[expect(clippy::print_stdout, reason = "it is read by the test")]
pub fn child() {
    let url = env::var(CHILD).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = store(&url, S3Options { attempts: 1, ..options() });
    match runtime.block_on(store.get(&cx(), "key")) {
        Ok(Some(object)) => println!("read {}", String::from_utf8_lossy(&object.body)),
        Ok(None) => println!("nothing"),
        Err(error) => {
            println!("{:?} {} | {}", error.kind(), error.report(), error.advice().unwrap_or_default())
        }
    }
}

/// What a process with these variables, and no others of AWS, reads from the store.
pub async fn in_child(url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env(CHILD, url).env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
