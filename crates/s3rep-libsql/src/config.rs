//! The driver's configuration.

use std::{path::PathBuf, sync::Arc};

use s3rep_core::{
    Capability, DriverConfig, Error, ErrorKind, Limits, Result, SchemaSyncOptions, Scope, Sink,
};
use serde::Deserialize;

use crate::sink::LibsqlSink;

/// `config` of the drivers `libsql`, `sqlite` and `turso`.
///
/// ```
/// # use s3rep_core::DriverConfig;
/// let config: s3rep_libsql::LibsqlConfig =
///     serde_json::from_str(r#"{"url": "file:./out.db", "schemaSync": {"enabled": true}}"#).unwrap();
/// let sink = config.build().unwrap();
/// assert!(sink.schema_sync().is_some());
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LibsqlConfig {
    /// The database file: a path, `file:out.db`, or `file:///data/out.db`. No default. The file is created
    /// when it is absent, its directory is not: a typing error would otherwise look like success. A relative
    /// path starts from the working directory of the process.
    pub url: String,
    /// Whether and how tables are created and altered. Default: not at all, as in s3db.js.
    #[serde(default)]
    pub schema_sync: SchemaSyncOptions,
}

/// 10,000 records a batch: a commit writes every page that it changed, and with random keys that is a page a
/// record until the pages of the index are used up. Readers of the database wait for no writer. One call at a
/// time, as SQLite has one writer.
const LIMITS: Limits = Limits { records: 10_000, ..Limits::DEFAULT };

impl DriverConfig for LibsqlConfig {
    const NAME: &'static str = "sqlite";
    const ALIASES: &'static [&'static str] = &["libsql", "turso"];
    const DESTINATION: &'static str = "SQLite or libSQL database file";

    fn build(self) -> Result<Arc<dyn Sink>> {
        let path = file_of(&self.url)?;
        let path = std::path::absolute(&path).map_err(|error| {
            invalid("the path of the database cannot be made absolute").with_source(error)
        })?;
        if path.to_str().is_none() {
            return Err(invalid("the path of the database is not UTF-8"));
        }
        Ok(Arc::new(LibsqlSink::new(path, self.schema_sync)))
    }

    fn capability() -> Capability {
        Capability {
            upsert: true,
            append: true,
            deletes: true,
            partial_failure: true,
            transactional_cursor: true,
            readback: true,
            limits: LIMITS,
        }
    }
}

fn file_of(url: &str) -> Result<PathBuf> {
    let lower = url.to_ascii_lowercase();
    if ["libsql://", "http://", "https://", "ws://", "wss://"].iter().any(|scheme| lower.starts_with(scheme))
    {
        return Err(Error::new(ErrorKind::Unsupported, "remote libSQL databases are not supported")
            .with_scope(Scope::Sink)
            .with_context("option", "url")
            .with_advice("remote libSQL comes later; use the path of a local file, such as file:./out.db"));
    }
    let path = match lower.strip_prefix("file:") {
        Some(_) => file_url(&url["file:".len()..])?,
        None if url.contains("://") => return Err(invalid("the url has a scheme that is not known")),
        None => url.to_owned(),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(invalid("the url names no file"));
    }
    if path.contains('\0') {
        return Err(invalid("the url contains a NUL character"));
    }
    if path == ":memory:" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a database in memory would be gone with the process",
        )
        .with_scope(Scope::Sink)
        .with_context("option", "url")
        .with_advice("use the path of a file, such as file:./out.db"));
    }
    Ok(path.into())
}

/// The path in what follows `file:`.
fn file_url(rest: &str) -> Result<String> {
    if rest.contains(['?', '#']) {
        return Err(invalid("the url has parameters, which are not supported"));
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => path,
            _ => return Err(invalid("the url names a host; a file has none")),
        },
    };
    percent_decoded(path).ok_or_else(|| invalid("the url has a '%' that is not followed by two digits"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message)
        .with_scope(Scope::Sink)
        .with_context("option", "url")
        .with_advice("write it like file:./out.db or file:///data/out.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_files() {
        for (url, path) in [
            ("file:./out.db", "./out.db"),
            ("file:out.db", "out.db"),
            ("out.db", "out.db"),
            ("./a dir/out.db", "./a dir/out.db"),
            ("FILE:///abs/out.db", "/abs/out.db"),
            ("file://localhost/abs/out.db", "/abs/out.db"),
            ("file:a%20b%C3%A9.db", "a bé.db"),
            ("100%.db", "100%.db"),
        ] {
            assert_eq!(file_of(url).unwrap(), PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_with_advice() {
        for (url, kind) in [
            ("", ErrorKind::ConfigInvalid),
            ("file:", ErrorKind::ConfigInvalid),
            ("dir/", ErrorKind::ConfigInvalid),
            ("a\0b", ErrorKind::ConfigInvalid),
            ("file:a%00b", ErrorKind::ConfigInvalid),
            ("file:a%0", ErrorKind::ConfigInvalid),
            ("file:a%é0", ErrorKind::ConfigInvalid),
            ("file://host/a.db", ErrorKind::ConfigInvalid),
            ("file:a.db?mode=memory", ErrorKind::ConfigInvalid),
            ("postgres://x/y", ErrorKind::ConfigInvalid),
            (":memory:", ErrorKind::Unsupported),
            ("file::memory:", ErrorKind::Unsupported),
            ("libsql://db.turso.io", ErrorKind::Unsupported),
            ("https://db.turso.io", ErrorKind::Unsupported),
        ] {
            let error = file_of(url).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (kind, Scope::Sink), "{url:?}");
            assert!(error.advice().is_some(), "{url:?}");
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        let error = serde_json::from_str::<LibsqlConfig>(r#"{"url": "a.db", "authToken": "hunter2"}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("authToken") && !error.contains("hunter2"), "{error}");
        assert!(serde_json::from_str::<LibsqlConfig>("{}").is_err());
    }
}
