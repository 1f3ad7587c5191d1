//! The whole way from text to configuration, with drivers of the tests' own.

mod accepted;
mod garbage;
mod messages;
mod secrecy;

use std::sync::Arc;

use s3rep_core::{
    Batch, Capability, Context, DriverConfig, Error, ErrorKind, Outcome, Result, SchemaSyncOptions, Secret,
    Sink,
};
use serde::Deserialize;

use super::{Config, ConfigError, Syntax};
use crate::drivers::Driver;

#[derive(Debug)]
struct TestSink {
    capability: Capability,
}

#[async_trait::async_trait]
impl Sink for TestSink {
    fn capability(&self) -> Capability {
        self.capability
    }
    async fn check(&self, _: &Context) -> Result<()> {
        Ok(())
    }
    async fn apply(&self, _: &Context, _: &Batch) -> Result<Outcome> {
        Ok(Outcome::default())
    }
}

/// Like the SQLite driver's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TableConfig {
    url: String,
    auth_token: Option<Secret>,
    #[serde(default)]
    schema_sync: SchemaSyncOptions,
}

impl DriverConfig for TableConfig {
    const NAME: &'static str = "sqlite";
    const ALIASES: &'static [&'static str] = &["libsql", "turso"];
    const DESTINATION: &'static str = "a table";

    fn build(self) -> Result<Arc<dyn Sink>> {
        let _ = (self.auth_token, self.schema_sync);
        if !self.url.starts_with("file:") {
            // A driver should not quote its options; some will.
            return Err(Error::new(ErrorKind::ConfigInvalid, format!("no database at {}", self.url))
                .with_advice("write file:./name.db"));
        }
        Ok(Arc::new(TestSink { capability: Self::capability() }))
    }

    fn capability() -> Capability {
        Capability { upsert: true, append: true, deletes: true, ..Capability::NONE }
    }
}

/// Like a driver for files, with everything that serde can get wrong.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LinesConfig {
    path: std::path::PathBuf,
    #[serde(default)]
    #[allow(dead_code)]
    rotate: Option<Rotate>,
    #[serde(default)]
    #[allow(dead_code)]
    level: Level,
    #[serde(default)]
    #[allow(dead_code)]
    noisy: Noisy,
    #[serde(default, alias = "zip")]
    #[allow(dead_code)]
    compress: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Rotate {
    count: u32,
    share: f64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)]
enum Level {
    #[default]
    Low,
    High,
    Exact(u8),
}

/// Quotes what it does not like.
#[derive(Default, Deserialize)]
#[serde(try_from = "String")]
struct Noisy;

impl TryFrom<String> for Noisy {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "fine" { Ok(Self) } else { Err(format!("cannot parse \"{text}\" at all")) }
    }
}

impl DriverConfig for LinesConfig {
    const NAME: &'static str = "jsonl";
    const DESTINATION: &'static str = "lines";

    fn build(self) -> Result<Arc<dyn Sink>> {
        assert!(self.path != std::path::PathBuf::new(), "the tests never name an empty path");
        Ok(Arc::new(TestSink { capability: Self::capability() }))
    }

    fn capability() -> Capability {
        Capability { append: true, ..Capability::NONE }
    }
}

static DRIVERS: &[Driver] = &[Driver::of::<TableConfig>(), Driver::of::<LinesConfig>()];

fn env(name: &str) -> Option<String> {
    match name {
        "PASSPHRASE" => Some("swordfish-of-env".to_owned()),
        "COUNT" => Some("5".to_owned()),
        "YES" => Some("true".to_owned()),
        _ => None,
    }
}

fn parse(text: &str, syntax: Syntax) -> Result<Config, ConfigError> {
    let name = match syntax {
        Syntax::Yaml => "s3rep.yaml",
        Syntax::Toml => "s3rep.toml",
        Syntax::Json => "s3rep.json",
    };
    Config::parse_with_drivers(text, syntax, name, &env, DRIVERS)
}

fn yaml(text: &str) -> Result<Config, ConfigError> {
    parse(text, Syntax::Yaml)
}

/// What is wrong with the text, as an operator reads it.
#[track_caller]
fn problems(text: &str, syntax: Syntax) -> String {
    match parse(text, syntax) {
        Ok(_) => panic!("nothing is wrong"),
        Err(error) => error.to_string(),
    }
}
