//! The `s3rep` command.

mod check;
mod db;
mod demo;
mod init;
mod output;
mod progress;
mod run;
mod schema;
mod status;
mod sync;
mod transform;
mod verify;

use std::{env, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};
use s3rep::{
    Error, ErrorKind,
    config::{Config, ConfigError, LogLevel, ReplicatorConfig},
    core::Context,
    engine::context::{self, KillPoints},
};
use tracing_subscriber::EnvFilter;

/// Changes are made in one thread and dropped in another, many small pieces each: the system's allocator is slow
/// at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Replicates an s3db.js database: every change, in every destination, in order.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: a real database into SQLite, JSON Lines and CSV, in a few seconds
    Demo(demo::DemoArgs),
    /// Write a configuration to start from
    Init(init::InitArgs),
    /// Test a configuration: its text, the source, every destination. Writes nothing
    Check(check::CheckArgs),
    /// Show what schema synchronisation would do to the tables. Writes nothing
    Plan(schema::PlanArgs),
    /// Do what `plan` shows. Not beside a running `s3rep run`
    Apply(schema::ApplyArgs),
    /// Replicate: a snapshot when there is none, then every change, until stopped
    Run(run::RunArgs),
    /// Bring every current record into the destinations anew, then end
    Sync(sync::SyncArgs),
    /// Compare source and destinations record by record
    Verify(verify::VerifyArgs),
    /// Show how far each destination is
    Status(status::StatusArgs),
    /// Try a JavaScript function on records from standard input
    Transform(transform::TransformArgs),
    /// Look into a database and change it
    Db(db::DbArgs),
}

/// The configuration file, for every command that needs one.
#[derive(Args)]
struct ConfigArgs {
    /// The configuration file: YAML, TOML or JSON
    #[arg(short, long, value_name = "FILE", default_value = "s3rep.yaml")]
    config: PathBuf,
}

/// Which replicators a command is about.
#[derive(Args)]
struct Chosen {
    /// Only this replicator, by id; may be repeated
    #[arg(long = "replicator", value_name = "ID")]
    replicators: Vec<String>,
}

impl Chosen {
    fn has(&self, id: &str) -> bool {
        self.replicators.is_empty() || self.replicators.iter().any(|chosen| chosen == id)
    }

    /// Every id that a user named has to be in the configuration.
    fn check(&self, config: &Config) -> Result<(), Error> {
        let is_known = |id: &String| config.replicators.iter().any(|replicator| replicator.id == *id);
        let Some(unknown) = self.replicators.iter().find(|id| !is_known(id)) else { return Ok(()) };
        let names: Vec<_> = config.replicators.iter().map(|replicator| replicator.id.as_str()).collect();
        Err(Error::new(ErrorKind::ConfigInvalid, format!("there is no replicator '{unknown}'"))
            .with_advice(format!("there are {}", names.join(", "))))
    }

    /// Those that are chosen and switched off.
    fn disabled<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = &'a ReplicatorConfig> {
        config.replicators.iter().filter(|replicator| !replicator.enabled && self.has(&replicator.id))
    }
}

/// Why a command did not do its work. Decides the exit code.
#[derive(Debug)]
enum Failure {
    /// Exit code 2.
    Config(ConfigError),
    /// Exit code 2 for what the configuration is to blame for, else 1.
    Error(Error),
    /// Exit code 1, and everything has been said.
    Told,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        let config = Config::load(&self.config, &|name| env::var(name).ok())?;
        start_logging(config.log_level);
        Ok(config)
    }
}

/// `S3REP_LOG` has the last word: a filter such as `debug` or `s3rep_engine=trace`.
fn start_logging(level: Option<LogLevel>) {
    let default = level.unwrap_or(LogLevel::Warn).as_str();
    let filter = EnvFilter::try_from_env("S3REP_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // A second call in one process (the demo) finds the first one's logger: that is fine.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(output::has_terminal())
        .try_init();
}

/// The real context; `S3REP_FAILPOINTS` (see [`KillPoints`]) ends the process at named places, for crash tests.
fn context() -> Result<Context, Failure> {
    let context = context::system();
    match env::var("S3REP_FAILPOINTS") {
        Ok(text) => Ok(context.with_failpoints(Arc::new(KillPoints::parse(&text)?))),
        Err(_) => Ok(context),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match dispatch(Cli::parse().command).await {
        Ok(()) if output::is_broken() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Config(error)) => {
            output::note(error.to_string().trim_end());
            ExitCode::from(2)
        }
        Err(Failure::Error(error)) => {
            output::error(&error);
            ExitCode::from(if error.kind() == ErrorKind::ConfigInvalid { 2 } else { 1 })
        }
    }
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    let cx = context()?;
    match command {
        Command::Demo(args) => demo::demo(args, &cx).await,
        Command::Init(args) => init::init(&args),
        Command::Check(args) => check::check(&args, &cx).await,
        Command::Plan(args) => schema::plan(&args, &cx).await,
        Command::Apply(args) => schema::apply(&args, &cx).await,
        Command::Run(args) => run::run(&args, &cx).await,
        Command::Sync(args) => sync::sync(&args, &cx).await,
        Command::Verify(args) => verify::verify(&args, &cx).await,
        Command::Status(args) => status::status(&args, &cx).await,
        Command::Transform(args) => transform::transform(&args),
        Command::Db(args) => Ok(db::run(args, &cx).await?),
    }
}
