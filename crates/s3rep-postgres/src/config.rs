//! The driver's configuration.

use std::{sync::Arc, time::Duration};

use s3rep_core::{
    Capability, DriverConfig, Error, ErrorKind, Limits, Result, SchemaSyncOptions, Scope, Secret, Sink,
};
use serde::Deserialize;
use tokio_postgres::config::SslMode;

use crate::{
    address,
    pool::Pool,
    sink::PostgresSink,
    tls::{SslOptions, Trust},
};

/// `config` of the driver `postgres`, with the names of s3db.js's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgresql://user:password@host:5432/database?sslmode=require`, or `host=… user=…`. No default; the options
    /// below take the place of its parts.
    pub connection_string: Option<Secret>,
    /// Host name, address or directory of the socket. Default `localhost`.
    pub host: Option<String>,
    /// Default 5432.
    pub port: Option<u16>,
    /// Default: the user's name, as in PostgreSQL.
    pub database: Option<String>,
    /// No default.
    pub user: Option<String>,
    /// No default.
    pub password: Option<Secret>,
    /// Whether and how the connection is encrypted: true, false or an object. Default: what the connection string
    /// says (`sslmode`, also `verify-full`, `verify-ca` and `no-verify`, or `ssl=true|false`), which without a word is:
    /// if the server offers it, without a look at its certificate.
    pub ssl: Option<SslOptions>,
    /// Connections.
    pub pool: PoolOptions,
    /// A statement that takes longer is cancelled by the server, in milliseconds. Default 30,000: s3rep itself
    /// gives a write up after 30 s, and one that goes on afterwards would only hold locks. 0 is without end.
    pub statement_timeout_millis: Option<u64>,
    /// A table that gets a row for each change that was written: `resource_name`, `operation`, `record_id`, `data`,
    /// `timestamp`, `source`. Made when it is absent. Default none. Changes of one record that arrive together are
    /// written, and told here, once; a route with `mode: append` keeps every one.
    pub log_table: Option<String>,
    /// Whether and how tables are created and altered. Default: not at all, as in s3db.js.
    pub schema_sync: SchemaSyncOptions,
}

/// `pool`: how connections are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolOptions {
    /// Connections at most. Default 10, as in s3db.js; one replicator uses no more than 5.
    pub max: usize,
    /// Connections that are kept however long nothing happens. Default 0.
    pub min: usize,
    /// After so many milliseconds without work a connection is closed. Default 10,000.
    pub idle_timeout_millis: u64,
    /// A connection that takes longer to make has failed, in milliseconds. Default 10,000; 0 is without end.
    pub connection_timeout_millis: u64,
    /// A wait for a free connection that takes longer has failed, in milliseconds. Default 30,000; 0 is without end.
    pub acquire_timeout_millis: u64,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max: 10,
            min: 0,
            idle_timeout_millis: 10_000,
            connection_timeout_millis: 10_000,
            acquire_timeout_millis: 30_000,
        }
    }
}

/// The engine's windows have at most 8,192 rows and 4 MiB but for a single record: a batch is a window, or a part
/// of it. Four calls at a time: while one is encoded here, others are written there.
const LIMITS: Limits = Limits { records: 10_000, bytes: 64 << 20, record_bytes: 64 << 20, in_flight: 4 };

impl DriverConfig for PostgresConfig {
    const NAME: &'static str = "postgres";
    const ALIASES: &'static [&'static str] = &["postgresql"];
    const DESTINATION: &'static str = "PostgreSQL 12 and later";

    fn build(self) -> Result<Arc<dyn Sink>> {
        let (config, trust) = self.connection()?;
        // The server's own limit; it would refuse every session.
        if self.statement_timeout_millis.is_some_and(|timeout| i32::try_from(timeout).is_err()) {
            return Err(invalid("statementTimeoutMillis", "it is more than the server takes")
                .with_advice("write at most 2147483647, or 0 for no end"));
        }
        let pool = Pool::new(config, trust, &self)?;
        if let Some(table) = &self.log_table {
            s3rep_sql::Dialect::Postgres
                .check_table_name(table)
                .map_err(|error| error.with_scope(Scope::Sink).with_context("option", "logTable"))?;
        }
        Ok(Arc::new(PostgresSink::new(pool, self.log_table, self.schema_sync)))
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

impl PostgresConfig {
    fn connection(&self) -> Result<(tokio_postgres::Config, Trust)> {
        let text = self.connection_string.as_ref().map_or("", Secret::expose);
        let (config, trust) = address::parse(text)?;
        let mut config = address::moved(&config, self.host.as_deref(), self.port);
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        if config.get_user().is_none() {
            return Err(invalid("user", "there is no user: name one in `user` or in `connectionString`"));
        }
        if config.get_application_name().is_none() {
            config.application_name("s3rep");
        }
        if let Some(timeout) = millis(self.pool.connection_timeout_millis) {
            config.connect_timeout(timeout);
        }
        let trust = match &self.ssl {
            None => trust,
            Some(ssl) => {
                let trust = ssl.trust()?;
                config.ssl_mode(if ssl.is_on() { SslMode::Require } else { SslMode::Disable });
                trust
            }
        };
        Ok((config, trust))
    }

    /// What every session begins with: times are UTC, numbers have all their digits.
    pub(crate) fn session(&self) -> String {
        let timeout = self.statement_timeout_millis.unwrap_or(30_000);
        format!(
            "SET TIME ZONE 'UTC'; SET client_encoding TO 'UTF8'; SET extra_float_digits TO 3; \
             SET client_min_messages TO warning; SET statement_timeout TO {timeout}"
        )
    }
}

/// Zero stands for no limit.
pub(crate) fn millis(number: u64) -> Option<Duration> {
    (number > 0).then(|| Duration::from_millis(number))
}

pub(crate) fn invalid(option: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message.into())
        .with_scope(Scope::Sink)
        .with_context("option", option)
        .with_advice("write it like postgresql://user:password@host:5432/database")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn built(options: serde_json::Value) -> Result<Arc<dyn Sink>> {
        serde_json::from_value::<PostgresConfig>(options).unwrap().build()
    }

    #[test]
    fn a_destination_is_named_by_a_string_or_by_parts() {
        built(json!({"connectionString": "postgresql://me:hunter2@db.example.com:5433/x?sslmode=require"}))
            .unwrap();
        built(json!({"host": "db", "port": 5433, "database": "x", "user": "me", "password": "hunter2"}))
            .unwrap();
        built(json!({"user": "me", "ssl": false, "pool": {"max": 3, "min": 1, "idleTimeoutMillis": 1}}))
            .unwrap();
    }

    #[test]
    fn options_take_the_place_of_the_strings_parts() {
        use tokio_postgres::config::Host;
        let options =
            json!({"connectionString": "postgresql://me:hunter2@prod:1/x", "host": "staging", "port": 2});
        let config: PostgresConfig = serde_json::from_value(options).unwrap();
        let (config, _) = config.connection().unwrap();
        assert_eq!(config.get_hosts(), [Host::Tcp("staging".to_owned())]);
        assert_eq!(config.get_ports(), [2]);
        assert_eq!((config.get_user(), config.get_dbname()), (Some("me"), Some("x")));
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        for (options, option) in [
            (json!({}), "user"),
            (json!({"connectionString": "postgres://hunter2:hunter2@host:port/x"}), "connectionString"),
            (json!({"connectionString": "hunter2"}), "connectionString"),
            (json!({"user": "me", "logTable": "pg_catalog.x"}), "logTable"),
            (json!({"user": "me", "statementTimeoutMillis": 1_u64 << 31}), "statementTimeoutMillis"),
            (json!({"user": "me", "ssl": {"ca": "/no/such/hunter3"}}), "ssl.ca"),
            (json!({"user": "me", "ssl": {"cert": "hunter2"}}), "ssl.cert"),
        ] {
            let error = built(options).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Sink), "{error:?}");
            assert!(error.to_string().contains(&format!("option: {option}")), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let unknown = serde_json::from_value::<PostgresConfig>(json!({"usr": "hunter2"})).unwrap_err();
        assert!(unknown.to_string().contains("usr"), "{unknown}");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let options = json!({"connectionString": "postgresql://me:hunter2@h/d", "password": "hunter2"});
        let config: PostgresConfig = serde_json::from_value(options).unwrap();
        let printed = format!("{config:?} {:?}", config.clone().build().unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
