//! The driver's configuration.

use std::{fmt, path::PathBuf, sync::Arc};

use s3rep_core::{
    Capability, DriverConfig, Error, ErrorKind, Limits, Result, SchemaSyncOptions, Scope, Secret, Sink,
};
use serde::Deserialize;

use crate::{
    local::LocalSink,
    remote::{Address, RemoteSink},
};

/// `config` of the drivers `libsql`, `sqlite` and `turso`.
///
/// ```
/// # use s3rep_core::DriverConfig;
/// let config: s3rep_libsql::LibsqlConfig =
///     serde_json::from_str(r#"{"url": "file:./out.db", "schemaSync": {"enabled": true}}"#).unwrap();
/// let sink = config.build().unwrap();
/// assert!(sink.schema_sync().is_some());
/// ```
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LibsqlConfig {
    /// The database. No default.
    ///
    /// A file: a path, `file:out.db`, or `file:///data/out.db`. The file is created when it is absent, its
    /// directory is not: a typing error would otherwise look like success. A relative path starts from the
    /// working directory of the process.
    ///
    /// A server: `libsql://host` or `https://host`, encrypted, and `http://host:port`, in the clear. `wss://` and
    /// `ws://` mean the same two.
    pub url: String,
    /// The token of a database on a server. Default: none, which suits servers without authentication.
    #[serde(default)]
    pub auth_token: Option<Secret>,
    /// The server that a local file follows, an embedded replica. **Refused**: libSQL's client brings a TLS
    /// library for it that is no longer maintained. Write to the server itself, and its replicas follow.
    #[serde(default)]
    pub sync_url: Option<String>,
    /// Whether and how tables are created and altered. Default: not at all, as in s3db.js.
    #[serde(default)]
    pub schema_sync: SchemaSyncOptions,
}

/// 10,000 records a batch: a commit writes every page that it changed, and with random keys that is a page a
/// record until the pages of the index are used up. Readers of the database wait for no writer. One call at a
/// time, as SQLite has one writer.
const LIMITS: Limits = Limits { records: 10_000, ..Limits::DEFAULT };

impl fmt::Debug for LibsqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and passwords are refused in URLs, and may be there until then.
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        let url = url.rsplit_once('@').map_or(url, |(_, host)| host);
        f.debug_struct("LibsqlConfig")
            .field("url", &url)
            .field("auth_token", &self.auth_token)
            .field("schema_sync", &self.schema_sync)
            .finish_non_exhaustive()
    }
}

impl DriverConfig for LibsqlConfig {
    const NAME: &'static str = "sqlite";
    const ALIASES: &'static [&'static str] = &["libsql", "turso"];
    const DESTINATION: &'static str = "SQLite or libSQL: a file, Turso or another server";

    fn build(self) -> Result<Arc<dyn Sink>> {
        if self.sync_url.is_some() {
            return Err(embedded_replica());
        }
        let token = self.auth_token.filter(|token| !token.expose().is_empty());
        if let Some(address) = Address::parse(&self.url)? {
            return Ok(Arc::new(RemoteSink::new(address, token.as_ref(), self.schema_sync)?));
        }
        let path = file_of(&self.url)?;
        if token.is_some() {
            return Err(token_for_a_file());
        }
        let path = std::path::absolute(&path).map_err(|error| {
            invalid("the path of the database cannot be made absolute").with_source(error)
        })?;
        if path.to_str().is_none() {
            return Err(invalid("the path of the database is not UTF-8"));
        }
        Ok(Arc::new(LocalSink::new(path, self.schema_sync)))
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

fn embedded_replica() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "embedded replicas are not supported: libSQL's client brings a TLS library for them that is no longer \
         maintained",
    )
    .with_scope(Scope::Sink)
    .with_context("option", "syncUrl")
    .with_advice("set url to what syncUrl says and leave syncUrl out: replicas of that database follow it by themselves")
}

fn token_for_a_file() -> Error {
    Error::new(ErrorKind::ConfigInvalid, "a token is for a database on a server, and the url names a file")
        .with_scope(Scope::Sink)
        .with_context("option", "authToken")
        .with_advice(
            "leave authToken out, or write the address of the server, such as libsql://shop-me.turso.io",
        )
}

fn file_of(url: &str) -> Result<PathBuf> {
    let lower = url.to_ascii_lowercase();
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
        .with_advice("write it like file:./out.db, file:///data/out.db or libsql://shop-me.turso.io")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        ] {
            let error = file_of(url).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (kind, Scope::Sink), "{url:?}");
            assert!(error.advice().is_some(), "{url:?}");
        }
    }

    fn config(options: serde_json::Value) -> LibsqlConfig {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn unknown_options_are_refused() {
        let error = serde_json::from_str::<LibsqlConfig>(r#"{"url": "a.db", "password": "hunter2"}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
        assert!(serde_json::from_str::<LibsqlConfig>("{}").is_err());
    }

    #[test]
    fn the_url_says_whether_it_is_a_file_or_a_server() {
        let limits = |url: &str| config(json!({ "url": url })).build().unwrap().capability().limits.records;
        assert_eq!(limits("file:./out.db"), 10_000);
        assert_eq!(limits("http://127.0.0.1:8080"), 1_000);
        assert_eq!(limits("ws://127.0.0.1:8080"), 1_000);
    }

    #[test]
    fn options_that_contradict_are_refused_and_not_shown() {
        for (options, kind, option) in [
            (json!({"url": "a.db", "authToken": "hunter2"}), ErrorKind::ConfigInvalid, "authToken"),
            (json!({"url": "a.db", "syncUrl": "libsql://x"}), ErrorKind::Unsupported, "syncUrl"),
            (json!({"url": "http://x", "authToken": "hunter2\n"}), ErrorKind::ConfigInvalid, "authToken"),
            (json!({"url": "http://x?authToken=hunter2"}), ErrorKind::ConfigInvalid, "url"),
        ] {
            let error = config(options).build().unwrap_err();
            assert_eq!((error.kind(), error.scope()), (kind, Scope::Sink));
            assert!(error.to_string().contains(option) && error.advice().is_some(), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        // A variable that is empty is a token that is not there.
        config(json!({"url": "a.db", "authToken": ""})).build().unwrap();
        config(json!({"url": "a.db", "authToken": null})).build().unwrap();
    }

    #[test]
    fn tokens_are_never_printed() {
        for url in ["http://x", "http://x?authToken=hunter2", "http://me:hunter2@x"] {
            let config = config(json!({"url": url, "authToken": "hunter2"}));
            assert!(!format!("{config:?}").contains("hunter2"));
        }
        let sink = config(json!({"url": "http://x", "authToken": "hunter2"})).build().unwrap();
        assert!(!format!("{sink:?}").contains("hunter2"));
    }
}
