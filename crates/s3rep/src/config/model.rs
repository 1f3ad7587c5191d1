//! The configuration as it is written: one serde model for all syntaxes.
//!
//! Documented for the reader of [`Config`](super::Config), which is what this becomes.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use s3rep_core::{Retention, RetryPolicy, Secret};
use serde::{Deserialize, de::IgnoredAny};

use super::{LogLevel, de::At, quantity};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Model {
    pub(super) source: SourceModel,
    #[serde(default = "default_state")]
    pub(super) state: At<PathBuf>,
    pub(super) replicators: At<Vec<At<ReplicatorModel>>>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default = "default_retries")]
    pub(super) max_retries: u32,
    #[serde(default = "default_timeout", deserialize_with = "quantity::positive_duration")]
    pub(super) timeout: Duration,
    pub(super) batch_size: Option<NonZeroUsize>,
    #[serde(default)]
    pub(super) retention: RetentionModel,
    #[serde(default = "default_shutdown_timeout", deserialize_with = "quantity::duration")]
    pub(super) shutdown_timeout: Duration,
    pub(super) log_level: Option<LogLevel>,
    pub(super) verbose: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceModel {
    pub(super) url: At<Secret>,
    #[serde(default, deserialize_with = "quantity::optional_duration")]
    pub(super) interval: Option<Duration>,
    pub(super) passphrase: Option<Secret>,
    pub(super) resources: Option<At<Vec<At<String>>>>,
    pub(super) parallelism: Option<NonZeroUsize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReplicatorModel {
    pub(super) id: Option<At<String>>,
    pub(super) driver: At<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    pub(super) resources: At<IgnoredAny>,
    pub(super) config: Option<At<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RetentionModel {
    #[serde(deserialize_with = "quantity::size")]
    max_bytes: u64,
    #[serde(deserialize_with = "quantity::positive_duration")]
    max_age: Duration,
    #[serde(deserialize_with = "quantity::duration")]
    passed: Duration,
}

impl Default for RetentionModel {
    fn default() -> Self {
        let Retention { passed, max_age, max_bytes } = Retention::default();
        Self { max_bytes, max_age, passed }
    }
}

impl From<RetentionModel> for Retention {
    fn from(RetentionModel { max_bytes, max_age, passed }: RetentionModel) -> Self {
        Self { passed, max_age, max_bytes }
    }
}

fn yes() -> bool {
    true
}

fn default_state() -> At<PathBuf> {
    At::absent(PathBuf::from("./.s3rep"))
}

fn default_retries() -> u32 {
    RetryPolicy::default().max_retries
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_shutdown_timeout() -> Duration {
    Duration::from_secs(10)
}

/// Options of s3db.js's plugin that have no meaning here, and what to do instead.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("persistReplicatorLog", "remove it; the log and the dead letter queue lie in the 'state' directory"),
    ("replicatorLogResource", "remove it; the log and the dead letter queue lie in the 'state' directory"),
    ("logErrors", "remove it; failed changes lie in the dead letter queue in the 'state' directory"),
    ("replicatorConcurrency", "remove it; every replicator has a lane of its own"),
    ("stopConcurrency", "remove it; 'shutdownTimeout' says how long stopping may take"),
    ("resourceFilter", "list the resources to follow in 'source: { resources: […] }'"),
    ("resourceAllowlist", "list the resources to follow in 'source: { resources: […] }'"),
    ("resourceBlocklist", "list the resources to follow in 'source: { resources: […] }'"),
];
