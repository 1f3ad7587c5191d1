//! `s3rep demo`: the whole thing on real data, without a server or a configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use s3rep::{
    Error, ErrorKind, Record, Replication, Result,
    config::{Config, Syntax},
    core::{Context, Source},
    engine::Pipeline,
    replicators,
    s3db::{Database, DatabaseOptions},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Failure, output, progress, run, start_logging, verify};

/// Open data in the format of s3db.js, written by s3db.js: airports, weather and cars.
const DATABASE: &[u8] = include_bytes!("../../../tests/data/open-data.tar.gz");

/// How long the demo waits for a destination before it says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes of each kind that are made while the replication runs.
const CHANGES: usize = 100;

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Work in this directory, which must be new or empty, and keep it
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) async fn demo(args: DemoArgs, cx: &Context) -> Result<(), Failure> {
    start_logging(None);
    let temporary = scratch().map_err(|error| cannot_write("a temporary directory", error))?;
    let dir = match &args.keep {
        Some(dir) => new_directory(dir)?,
        None => temporary.path().to_owned(),
    };
    unpack(&dir)?;
    let config_file = dir.join("s3rep.yaml");
    fs::write(&config_file, configuration(&dir))
        .map_err(|error| cannot_write(&config_file.display().to_string(), error))?;
    let config = Config::parse(&configuration(&dir), Syntax::Yaml, "s3rep.yaml", &|_| None)?;
    // Ended by a signal it takes its files with it, as at any other end.
    let equal = tokio::select! {
        equal = async { replicate(cx, &config, &dir).await?; compare(cx, &config).await } => equal?,
        () = run::signal() => return Err(Failure::Told),
    };
    summary(&dir, args.keep.is_some());
    if equal { Ok(()) } else { Err(Failure::Told) }
}

async fn replicate(cx: &Context, config: &Config, dir: &Path) -> Result<(), Failure> {
    let replication = Replication::open(cx, config).await?;
    let pipeline = replication.pipeline();
    let schemas = replication.source().resources(cx).await?;
    let names: Vec<_> = schemas.iter().map(|schema| &*schema.name).collect();
    output::line(&format!(
        "1. A real s3db.js database ({}) lies in {}",
        names.join(", "),
        database(dir).display()
    ));
    output::line("2. s3rep follows it into SQLite, JSON Lines and CSV, beginning with a snapshot:");
    let shutdown = CancellationToken::new();
    let follow = {
        let (pipeline, shutdown) = (pipeline.clone(), shutdown.clone());
        tokio::spawn(async move { pipeline.follow(shutdown).await })
    };
    let result = follow_along(cx, replication.pipeline(), dir).await;
    shutdown.cancel();
    let ended = follow
        .await
        .map_err(|panic| Error::new(ErrorKind::Unexpected, "the run failed").with_source(panic))?;
    result?;
    ended?;
    Ok(())
}

async fn follow_along(cx: &Context, pipeline: &Pipeline, dir: &Path) -> Result<(), Failure> {
    let snapshot = Instant::now();
    wait_for_everything(pipeline).await?;
    report(pipeline, snapshot.elapsed()).await;
    output::line(&format!(
        "3. Another writer inserts, updates and deletes {CHANGES} records each, while s3rep runs:"
    ));
    let writing = Instant::now();
    change_database(cx, dir).await?;
    wait_for_everything(pipeline).await?;
    report(pipeline, writing.elapsed()).await;
    Ok(())
}

/// Returns when a pass that began after the call has been made and every replicator has what it found.
async fn wait_for_everything(pipeline: &Pipeline) -> Result<(), Failure> {
    use s3rep::core::Event;
    use tokio::sync::broadcast::error::RecvError;
    // Only passes that end from now on.
    let mut events = pipeline.events();
    let _bars = progress::show(pipeline);
    let complete = async {
        // The first pass that ends may have begun before; the second one has not.
        let mut passes = 0;
        while passes < 2 {
            match events.recv().await {
                Ok(Event::PassCompleted { .. }) => passes += 1,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
        let end = progress::end_of_log(pipeline).await;
        while pipeline.progress().iter().any(|lane| lane.position < end) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, complete).await.is_err() {
        report(pipeline, PATIENCE).await;
        return Err(Error::new(ErrorKind::Timeout, "the destinations did not get everything in time").into());
    }
    Ok(())
}

async fn report(pipeline: &Pipeline, elapsed: Duration) {
    let end = progress::end_of_log(pipeline).await;
    for lane in pipeline.progress() {
        output::line(&format!("     {}", progress::describe(&lane, end)));
    }
    output::line(&format!("     after {:.1} s", elapsed.as_secs_f64()));
}

/// What an application would do to its database meanwhile.
async fn change_database(cx: &Context, dir: &Path) -> Result<()> {
    let options = DatabaseOptions { context: cx.clone(), ..DatabaseOptions::default() };
    let database = Database::connect_with(&url(dir), options).await?;
    let cars = database.resource("cars")?;
    for i in 0..CHANGES {
        let car = json!({
            "id": format!("demo-{i:03}"), "name": format!("demo car {i}"), "cylinders": 4, "weight_lbs": 2_000 + i,
            "acceleration": 12.5, "year": "2026-01-01", "origin": "Demo", "tags": ["demo", "new"],
            "engine": {"cylinders": 4, "horsepower": 90},
        });
        cars.insert(object(car)).await?;
    }
    for i in 0..CHANGES {
        cars.update(&format!("car-{:03}", i + 1), object(json!({"mpg": 30.5 + i as f64}))).await?;
    }
    let airports = database.resource("airports")?;
    for row in airports.page(None, CHANGES).await? {
        airports.delete(&row.id).await?;
    }
    Ok(())
}

fn object(value: serde_json::Value) -> Record {
    match value {
        serde_json::Value::Object(record) => record,
        _ => Record::new(),
    }
}

async fn compare(cx: &Context, config: &Config) -> Result<bool, Failure> {
    output::line("4. `s3rep verify` compares source and destinations, record by record:");
    let source = s3rep::open_source(cx, &config.source).await?;
    let mut equal = true;
    for replicator in replicators(config)? {
        equal &= verify::compare(cx, &*source, &replicator, false).await?;
    }
    Ok(equal)
}

fn summary(dir: &Path, kept: bool) {
    if kept {
        let dir = dir.display();
        output::line(&format!(
            "\nIn {dir} lie the database (bucket), out.db (try: sqlite3 {dir}/out.db 'select * from cars limit 3'), \
             lines, csv and the configuration.\nGo on: s3rep run -c {dir}/s3rep.yaml, and in another terminal: s3rep status -c {dir}/s3rep.yaml"
        ));
    } else {
        output::line(
            "\nEverything was temporary. To look inside: s3rep demo --keep DIR. To replicate a database of your own: s3rep init",
        );
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("bucket/databases/open-data")
}

fn url(dir: &Path) -> String {
    format!("file://{}", database(dir).display())
}

fn configuration(dir: &Path) -> String {
    let (url, dir) = (url(dir), dir.display());
    format!(
        "source: {{ url: \"{url}\", interval: 500ms }}\n\
         state: \"{dir}/state\"\n\
         replicators:\n\
         \x20 - driver: sqlite\n\
         \x20   resources: {{ airports: airports, weather: weather, cars: [cars, {{ resource: cars_log, mode: append }}] }}\n\
         \x20   config: {{ url: \"file:{dir}/out.db\", schemaSync: {{ enabled: true }} }}\n\
         \x20 - driver: jsonl\n\
         \x20   resources: [airports, weather, cars]\n\
         \x20   config: {{ path: \"{dir}/lines\" }}\n\
         \x20 - driver: csv\n\
         \x20   resources: [airports, weather, cars]\n\
         \x20   config: {{ path: \"{dir}/csv\" }}\n"
    )
}

/// A directory that goes away. In memory where there is plenty of room: the database is 18,840 small files, and
/// a disk's file system may take long for so many.
fn scratch() -> std::io::Result<tempfile::TempDir> {
    const MEMORY: &str = "/dev/shm";
    const ROOM: u64 = 512 << 20;
    let room =
        rustix::fs::statvfs(MEMORY).map_or(0, |file_system| file_system.f_bavail * file_system.f_frsize);
    let builder = tempfile::Builder::new().prefix("s3rep-demo-").to_owned();
    if room >= ROOM
        && let Ok(dir) = builder.tempdir_in(MEMORY)
    {
        return Ok(dir);
    }
    builder.tempdir()
}

fn new_directory(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).map_err(|error| cannot_write(&dir.display().to_string(), error))?;
    let is_empty =
        fs::read_dir(dir).map_err(|error| cannot_write(&dir.display().to_string(), error))?.next().is_none();
    if !is_empty {
        return Err(Error::new(ErrorKind::ConfigInvalid, "the directory is not empty")
            .with_context("directory", dir.display())
            .with_advice("name a new one"));
    }
    dir.canonicalize().map_err(|error| cannot_write(&dir.display().to_string(), error))
}

fn unpack(dir: &Path) -> Result<()> {
    tar::Archive::new(flate2::read::GzDecoder::new(DATABASE))
        .unpack(dir)
        .map_err(|error| cannot_write(&dir.display().to_string(), error))
}

fn cannot_write(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::StorageFull, "cannot write")
        .with_context("file", what)
        .with_advice("free some space, or name another directory with --keep")
        .with_source(error)
}
