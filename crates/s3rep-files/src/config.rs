//! The drivers' configuration.

use std::{path::PathBuf, sync::Arc};

use s3rep_core::{Capability, DriverConfig, Error, ErrorKind, Limits, Result, Scope, Sink};
use serde::Deserialize;

use crate::{format::Format, sink::FilesSink};

/// `config` of the drivers `jsonl` and `csv`.
///
/// ```
/// # use s3rep_core::DriverConfig;
/// let config: s3rep_files::JsonlConfig =
///     serde_json::from_str(r#"{"path": "./lines", "maxRecords": 100000}"#).unwrap();
/// assert!(!config.build().unwrap().capability().upsert);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesOptions {
    /// The directory, created when it is absent. No default. One replicator writes to it; give each its own.
    pub path: String,
    /// A file is closed before it grows beyond this many bytes; a longer line gets a file of its own. Default
    /// 67,108,864 (64 MiB): large enough for loaders, small enough to mail.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// A file is closed when it has this many lines. Default: no limit.
    #[serde(default)]
    pub max_records: Option<u64>,
    /// A file is closed when it is this many seconds old, so that what a quiet table has becomes usable.
    /// Default 3,600 (one hour); looked at with every batch and when the replicator is idle.
    #[serde(default = "default_max_age")]
    pub max_age_seconds: u64,
}

fn default_max_bytes() -> u64 {
    64 << 20
}

fn default_max_age() -> u64 {
    3_600
}

/// `config` of the driver `jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct JsonlConfig(pub FilesOptions);

/// `config` of the driver `csv`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct CsvConfig(pub FilesOptions);

/// 5,000 changes a batch: three syncs of the disk for many lines. One call at a time: there is one cursor
/// file.
const CAPABILITY: Capability = Capability {
    append: true,
    deletes: true,
    partial_failure: true,
    transactional_cursor: true,
    readback: true,
    limits: Limits { records: 5_000, ..Limits::DEFAULT },
    ..Capability::NONE
};

impl DriverConfig for JsonlConfig {
    const NAME: &'static str = "jsonl";
    const DESTINATION: &'static str = "JSON Lines files";

    fn build(self) -> Result<Arc<dyn Sink>> {
        build(self.0, Format::Jsonl)
    }

    fn capability() -> Capability {
        CAPABILITY
    }
}

impl DriverConfig for CsvConfig {
    const NAME: &'static str = "csv";
    const DESTINATION: &'static str = "CSV files";

    fn build(self) -> Result<Arc<dyn Sink>> {
        build(self.0, Format::Csv)
    }

    fn capability() -> Capability {
        CAPABILITY
    }
}

fn build(options: FilesOptions, format: Format) -> Result<Arc<dyn Sink>> {
    let FilesOptions { path, max_bytes, max_records, max_age_seconds } = &options;
    if path.is_empty() || path.contains('\0') {
        return Err(invalid("path", "the path names no directory"));
    }
    for (option, value) in [
        ("maxBytes", *max_bytes),
        ("maxRecords", max_records.unwrap_or(1)),
        ("maxAgeSeconds", *max_age_seconds),
    ] {
        if value == 0 {
            return Err(invalid(option, "the limit is zero, so that no file could hold anything"));
        }
    }
    let path: PathBuf = std::path::absolute(path)
        .map_err(|error| invalid("path", "the path cannot be made absolute").with_source(error))?;
    Ok(Arc::new(FilesSink::new(path, options, format)))
}

fn invalid(option: &str, message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message)
        .with_scope(Scope::Sink)
        .with_context("option", option)
        .with_advice("write it like { path: ./lines, maxBytes: 67108864, maxAgeSeconds: 3600 }")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_have_defaults_and_limits() {
        let config: JsonlConfig = serde_json::from_value(json!({"path": "./lines"})).unwrap();
        let FilesOptions { max_bytes, max_records, max_age_seconds, .. } = config.0;
        assert_eq!((max_bytes, max_records, max_age_seconds), (67_108_864, None, 3_600));
        for (wrong, name) in [
            (json!({"path": ""}), "path"),
            (json!({"path": "a\0"}), "path"),
            (json!({"path": "x", "maxBytes": 0}), "maxBytes"),
            (json!({"path": "x", "maxRecords": 0}), "maxRecords"),
            (json!({"path": "x", "maxAgeSeconds": 0}), "maxAgeSeconds"),
        ] {
            let error = serde_json::from_value::<CsvConfig>(wrong).unwrap().build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains(name), "{error}");
        }
        for unreadable in
            [json!({}), json!({"path": "x", "maxbytes": 1}), json!({"path": "x", "maxBytes": -1})]
        {
            assert!(serde_json::from_value::<JsonlConfig>(unreadable).is_err());
        }
    }
}
