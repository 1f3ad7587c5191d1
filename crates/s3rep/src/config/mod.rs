//! The configuration file of `s3rep run`: YAML, TOML or JSON, one shape.
//!
//! ```yaml
//! source: { url: "file:///data/databases/open-data", interval: 1s, passphrase: "${S3DB_PASSPHRASE:-}" }
//! state: ./.s3rep
//! replicators:
//!   - id: lite
//!     driver: sqlite
//!     resources: { airports: airports, cars: [cars, { resource: cars_log, mode: append }] }
//!     config: { url: "file:./out.db", schemaSync: { enabled: true } }
//! ```
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `source.url` | required | connection string of the database to follow |
//! | `source.interval` | the source's own: 1 s, on S3 10 s | how long to wait between two passes |
//! | `source.passphrase` | s3db.js's default | what attributes of type `secret` are encrypted with |
//! | `source.resources` | all | names of the resources to follow |
//! | `source.parallelism` | the source's own | objects read at the same time |
//! | `state` | `./.s3rep` | directory of the log, the cursors and the dead letter queue |
//! | `replicators` | required | the destinations |
//! | `enabled` | true | off: nothing is replicated |
//! | `maxRetries` | 3 | tries after the first before a record is parked; outages never use them up |
//! | `timeout` | 30 s | a write that takes longer has failed |
//! | `batchSize` | the destination's own | changes a write at most; the destination's own limit holds too |
//! | `retention.maxBytes` | 10 GiB | the log is not kept larger |
//! | `retention.maxAge` | 7 d | no change is kept longer |
//! | `retention.passed` | 1 h | what every replicator has written is kept this long |
//! | `shutdownTimeout` | 10 s | how long stopping waits for destinations; the rest stays in the log |
//! | `logLevel` | the program's | `error`, `warn`, `info`, `debug` or `trace`; `verbose: true` means `debug` |
//!
//! A replicator has `driver` and `resources` (see [`Mapping::parse`]), and may have `id`, `enabled` (true) and
//! `config`, the driver's own options. **Give an `id`**: it names the replicator's progress in the state
//! directory. The default is the driver's canonical name, `sqlite`, and `sqlite-2` for the second without an
//! id, so that removing the first one would hand its progress to the second.
//!
//! Durations are text (`500ms`, `10s`, `5m`, `1h30m`, `7d`) or, as s3db.js has them, a number of milliseconds;
//! sizes are a number of bytes or text (`64MiB`, `10GB`).
//!
//! **Paths** are relative to the working directory of the process, as for docker and vector, not to the file:
//! the same file means the same thing wherever it is kept.
//!
//! **Environment**: `${NAME}` and `${NAME:-default}` in a value, never in a key; `$$` is a literal `$`. It is
//! put in after the syntax has been read, so that a value cannot become syntax, and stays text; options that
//! are numbers, true or false read such text. No message shows it.

pub(crate) mod build;
mod de;
mod env;
mod load;
mod model;
mod node;
mod problem;
mod quantity;
mod read;
mod resolve;
mod secrets;
mod syntax;
mod toml;
mod yaml;

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use s3rep_core::{Mapping, Retention, Secret, Sink};
use serde::Deserialize;

use crate::drivers::Driver;

pub use problem::{ConfigError, Place, Problem};
pub use syntax::Syntax;

/// What `s3rep init` writes.
pub const TEMPLATE: &str = include_str!("template.yaml");

/// A configuration that has been read and checked; nothing is connected yet.
#[derive(Debug)]
pub struct Config {
    /// The database to follow.
    pub source: SourceConfig,
    /// The directory of the log, the cursors and the dead letter queue.
    pub state: PathBuf,
    /// The destinations in the order of the file, disabled ones included. At least one, each with an id of
    /// its own.
    pub replicators: Vec<ReplicatorConfig>,
    /// Tries after the first before a record is parked.
    pub max_retries: u32,
    /// A write that takes longer has failed.
    pub timeout: Duration,
    /// Changes a write at most, above zero; the sink's own limit holds too. `None` leaves it to the sink.
    pub batch_size: Option<usize>,
    /// How much of the log is kept.
    pub retention: Retention,
    /// How long stopping waits for destinations.
    pub shutdown_timeout: Duration,
    /// How much is logged, when the file says so.
    pub log_level: Option<LogLevel>,
    /// Agrees to drop tables and create them anew where `schemaSync.strategy` is `drop-create`
    /// ([`DeliveryOptions::recreate_tables`](s3rep_engine::DeliveryOptions::recreate_tables)). False after reading:
    /// no file can say it, only the program that read the file, as `s3rep run --yes` does.
    pub recreate_tables: bool,
}

/// The database to follow.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its connection string. May hold credentials, hence a secret: show
    /// [`Database::location`](s3rep_s3db::Database) instead.
    pub url: Secret,
    /// How long to wait between two passes; above zero. `None` leaves it to the source.
    pub interval: Option<Duration>,
    /// What attributes of type `secret` are encrypted with. `None` is s3db.js's default.
    pub passphrase: Option<Secret>,
    /// The resources to follow, at least one; `None` for all.
    pub resources: Option<Vec<String>>,
    /// Objects read at the same time; above zero. `None` leaves it to the source.
    pub parallelism: Option<usize>,
}

/// One destination.
pub struct ReplicatorConfig {
    /// Names its progress in the state directory.
    pub id: String,
    /// The driver.
    pub driver: &'static Driver,
    /// Whether it replicates; false when the whole configuration is disabled.
    pub enabled: bool,
    /// Which resources go into which tables, every mode supported by the sink.
    pub mapping: Mapping,
    /// The destination, not connected yet.
    pub sink: Arc<dyn Sink>,
}

// By hand, because a sink's own Debug is not ours to trust with secrets.
impl fmt::Debug for ReplicatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatorConfig")
            .field("id", &self.id)
            .field("driver", &self.driver.name())
            .field("enabled", &self.enabled)
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs an operator.
    Error,
    /// And what may need one.
    Warn,
    /// And what happens at large.
    Info,
    /// And what happens in detail. s3db.js's `verbose: true`.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Its name, as tracing's filters understand it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
