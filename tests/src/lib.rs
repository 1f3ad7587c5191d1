//! What the tests of the whole system share: the program under test, a place to run it in, and eyes that see
//! the destinations without s3rep's help.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test may panic")]

pub mod captured;
pub mod destinations;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use s3rep::{Record, s3db::Database};
use serde_json::Value;
use tempfile::TempDir;

/// The database of open data that s3db.js wrote.
const OPEN_DATA: &[u8] = include_bytes!("../data/open-data.tar.gz");

/// The `s3rep` program, built with the profile of this test.
pub fn s3rep() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "s3rep-cli", "--bin", "s3rep"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the program under test could not be built");
        profile.join("s3rep")
    })
}

/// A directory with a database, a configuration and whatever a run leaves there.
pub struct Place {
    dir: TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: TempDir::with_prefix("s3rep-test-").unwrap() }
    }

    /// One with the real database in `bucket/databases/open-data`.
    pub fn with_open_data() -> Self {
        Self::with_files(|_| true)
    }

    /// The same with the 406 cars only: quicker to unpack than 18,840 files.
    pub fn with_cars() -> Self {
        Self::with_files(|path| !path.contains("resource=") || path.contains("resource=cars/"))
    }

    fn with_files(wanted: impl Fn(&str) -> bool) -> Self {
        let place = Self::new();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(OPEN_DATA));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if wanted(entry.path().unwrap().to_str().unwrap()) {
                entry.unpack_in(place.path("")).unwrap();
            }
        }
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of the real database.
    pub fn open_data(&self) -> PathBuf {
        self.path("bucket/databases/open-data")
    }

    /// Writes a file, and the directories on the way.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `s3rep ARGS`, with this directory as its working directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(s3rep());
        command.args(args).current_dir(self.dir.path()).env_remove("S3REP_LOG").env_remove("S3DB_PASSPHRASE");
        command
    }

    /// Runs `s3rep ARGS` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs `s3rep ARGS` to its end with this on its standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Starts `s3rep ARGS`; its output goes to the file `run.log` here.
    pub fn start(&self, args: &[&str]) -> Child {
        self.start_with(args, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("run.log")).unwrap();
        self.command(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// What started programs printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("run.log")).unwrap_or_default()
    }
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code, `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Panics unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless standard error has every one of these texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
        self
    }
}

/// Every record of a resource, by id, read through the library.
pub async fn records(database: &Path, resource: &str) -> BTreeMap<String, Record> {
    let database = Database::connect(&format!("file://{}", database.display())).await.unwrap();
    let resource = database.resource(resource).unwrap();
    let mut records = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = resource.page(after.as_deref(), 1_000).await.unwrap();
        let Some(last) = page.last() else { return records };
        after = Some(last.id.to_string());
        for row in page {
            records.insert(row.id.to_string(), Record::clone(&row.record.unwrap()));
        }
    }
}

/// A JSON object.
#[track_caller]
pub fn object(value: Value) -> Record {
    match value {
        Value::Object(record) => record,
        other => panic!("not an object: {other}"),
    }
}
