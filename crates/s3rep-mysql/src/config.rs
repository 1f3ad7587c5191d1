//! The driver's configuration: one set of options, under three names.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};
use s3rep_core::{
    Capability, DriverConfig, Error, ErrorKind, Limits, Result, SchemaSyncOptions, Scope, Secret, Sink,
};
use s3rep_sql::Dialect;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    connection::{Pool, Settings},
    sink::MysqlSink,
};

/// The options of all three drivers, with the names of s3db.js's and of the client library that it uses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MysqlOptions {
    /// `mysql://user:password@host:3306/database`, percent-encoded; `url` is another name for it. The options below
    /// take the place of its parts. Parameters: `ssl` (`true`, `false` or JSON as in the option) and `sslaccept`
    /// (`strict` or `accept_invalid_certs`), which is how PlanetScale hands out its URLs. Default none.
    #[serde(alias = "url")]
    pub connection_string: Option<Secret>,
    /// Host name or address. Default `localhost`, which is reached over TCP like every other.
    pub host: Option<String>,
    /// Default 3306.
    pub port: Option<u16>,
    /// The database with the tables and with s3rep's own table `_s3rep_cursor`. No default; s3rep creates tables, not
    /// databases. A table elsewhere is written `other.table` in the mapping.
    pub database: Option<String>,
    /// `username` is another name for it. No default.
    #[serde(alias = "username")]
    pub user: Option<String>,
    /// Default none.
    pub password: Option<Secret>,
    /// Connections at most. Default 10, as in s3db.js; one replicator uses no more than 5.
    pub connection_limit: usize,
    /// A connection that takes longer to make has failed, in milliseconds. Default 10,000; 0 is without end.
    pub connect_timeout: u64,
    /// A connection without work for so many milliseconds is closed. Default 60,000, which is less than servers
    /// and the boxes between usually wait before they drop it without a word.
    pub idle_timeout: u64,
    /// Whether the connection is encrypted and how the server proves who it is: true, false or an object. Default
    /// false, as in s3db.js; always on with `planetscale`.
    pub ssl: Option<Ssl>,
    /// A table that gets a row for each change that was written, in the same transaction: `resource_name`,
    /// `operation`, `record_id`, `data`, `timestamp`, `source`. Made when it is absent. Default none. Changes of one
    /// record that arrive together are written, and told here, once; a route with `mode: append` keeps every one.
    pub log_table: Option<String>,
    /// Whether and how tables are created and altered. Default: not at all, as in s3db.js.
    pub schema_sync: SchemaSyncOptions,
}

impl Default for MysqlOptions {
    fn default() -> Self {
        Self {
            connection_string: None,
            host: None,
            port: None,
            database: None,
            user: None,
            password: None,
            connection_limit: 10,
            connect_timeout: 10_000,
            idle_timeout: 60_000,
            ssl: None,
            log_table: None,
            schema_sync: SchemaSyncOptions::default(),
        }
    }
}

/// `ssl`: a switch, or how the server proves who it is.
#[derive(Clone, Debug)]
pub enum Ssl {
    /// On with [`SslOptions::default`], or off.
    Switch(bool),
    /// On.
    On(SslOptions),
}

/// The members of `ssl`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SslOptions {
    /// The server needs a certificate for its host name from somebody who is trusted. Default true. Without it the
    /// connection is encrypted and may still end at anyone.
    pub reject_unauthorized: bool,
    /// Who is trusted, in place of Mozilla's list: PEM, or the path of a file with it. Default none.
    pub ca: Option<String>,
    /// The client's own certificate: PEM, or the path of a file with it. Default none.
    pub cert: Option<String>,
    /// The private key of `cert`: PEM, or the path of a file with it. Default none.
    pub key: Option<Secret>,
}

impl Default for SslOptions {
    fn default() -> Self {
        Self { reject_unauthorized: true, ca: None, cert: None, key: None }
    }
}

impl<'de> Deserialize<'de> for Ssl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Ssl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or an object with rejectUnauthorized, ca, cert and key")
            }

            fn visit_bool<E>(self, is_on: bool) -> Result<Ssl, E> {
                Ok(Ssl::Switch(is_on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ssl, A::Error> {
                SslOptions::deserialize(MapAccessDeserializer::new(map)).map(Ssl::On)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// What the three drivers do differently. Which server answers is found out when it does.
#[derive(Clone, Copy, Debug)]
struct Profile {
    /// Until then.
    dialect: Dialect,
    needs_tls: bool,
    limits: Limits,
}

/// The engine's windows have at most 8,192 rows, and 4 MiB but for a single record; a record that is larger than
/// the server's `max_allowed_packet` is refused by itself. Four calls at a time: while one is encoded here, others
/// are written there.
const LIMITS: Limits = Limits { records: 10_000, bytes: 64 << 20, record_bytes: 64 << 20, in_flight: 4 };
/// PlanetScale ends transactions after 20 s or 100,000 rows, and messages at 16 MiB.
const PLANETSCALE: Limits = Limits { records: 5_000, bytes: 8 << 20, record_bytes: 8 << 20, in_flight: 4 };

/// A driver of its own over the same options.
macro_rules! driver {
    ($(#[$doc:meta])* $config:ident, $name:literal, $destination:literal, $profile:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(transparent)]
        pub struct $config(
            /// The options.
            pub MysqlOptions,
        );

        impl DriverConfig for $config {
            const NAME: &'static str = $name;
            const DESTINATION: &'static str = $destination;

            fn build(self) -> Result<Arc<dyn Sink>> {
                self.0.build(&$profile)
            }

            fn capability() -> Capability {
                $profile.capability()
            }
        }
    };
}

driver!(
    /// `config` of the driver `mysql`.
    ///
    /// ```
    /// # use s3rep_core::DriverConfig;
    /// let config: s3rep_mysql::MysqlConfig = serde_json::from_str(
    ///     r#"{"host": "db.example.com", "database": "shop", "user": "s3rep", "password": "…", "ssl": true}"#,
    /// ).unwrap();
    /// assert!(config.build().unwrap().schema_sync().is_none());
    /// ```
    MysqlConfig,
    "mysql",
    "MySQL 8.0.17 and later",
    Profile { dialect: Dialect::Mysql, needs_tls: false, limits: LIMITS }
);
driver!(
    /// `config` of the driver `mariadb`.
    MariadbConfig,
    "mariadb",
    "MariaDB 10.5 and later",
    Profile { dialect: Dialect::Mariadb, needs_tls: false, limits: LIMITS }
);
driver!(
    /// `config` of the driver `planetscale`: always encrypted, and in smaller transactions.
    PlanetscaleConfig,
    "planetscale",
    "PlanetScale",
    Profile { dialect: Dialect::Mysql, needs_tls: true, limits: PLANETSCALE }
);

impl Profile {
    fn capability(&self) -> Capability {
        Capability {
            upsert: true,
            append: true,
            deletes: true,
            partial_failure: true,
            transactional_cursor: true,
            readback: true,
            limits: self.limits,
        }
    }
}

impl MysqlOptions {
    fn build(self, profile: &Profile) -> Result<Arc<dyn Sink>> {
        if self.connection_limit == 0 {
            return Err(invalid("connectionLimit", "it is 0, and nothing could be written"));
        }
        if let Some(table) = &self.log_table {
            profile
                .dialect
                .check_table_name(table)
                .map_err(|error| error.with_scope(Scope::Sink).with_context("option", "logTable"))?;
        }
        let millis = |millis| (millis > 0).then(|| Duration::from_millis(millis));
        let settings = Settings {
            opts: self.connection(profile)?,
            profile: profile.dialect,
            limit: self.connection_limit,
            connect_timeout: millis(self.connect_timeout),
            idle_timeout: millis(self.idle_timeout),
        };
        let pool = Pool::new(settings);
        Ok(Arc::new(MysqlSink::new(pool, profile.capability(), self.log_table, self.schema_sync)))
    }

    fn connection(&self, profile: &Profile) -> Result<Opts> {
        let (mut builder, ssl_of_url) = match &self.connection_string {
            Some(url) => parts(url.expose())?,
            None => (OptsBuilder::default().ip_or_hostname("localhost"), None),
        };
        if let Some(host) = &self.host {
            builder = builder.ip_or_hostname(bare(host));
        }
        if let Some(port) = self.port {
            builder = builder.tcp_port(port);
        }
        if let Some(database) = &self.database {
            builder = builder.db_name(Some(database));
        }
        if let Some(user) = &self.user {
            builder = builder.user(Some(user));
        }
        if let Some(password) = &self.password {
            builder = builder.pass(Some(password.expose()));
        }
        let ssl = self.ssl.as_ref().or(ssl_of_url.as_ref());
        let builder = builder
            .ssl_opts(tls(ssl, profile)?)
            // It would leave the host and go through a file of the same machine.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .stmt_cache_size(STATEMENTS);
        let opts = Opts::from(builder);
        if opts.db_name().is_none_or(str::is_empty) {
            return Err(invalid("database", "there is none")
                .with_advice("name the database in `database` or in the URL; s3rep does not create it"));
        }
        Ok(opts)
    }
}

/// So that a connection whose other side is gone ends in minutes and not in hours.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Prepared statements that a connection keeps: some two dozen for each table that is written.
const STATEMENTS: usize = 64;

/// Reads a URL. Its text is never part of an error.
fn parts(url: &str) -> Result<(OptsBuilder, Option<Ssl>)> {
    const OPTION: &str = "connectionString";
    let url = url.split('#').next().unwrap_or_default();
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let rest = ["mysql://", "mariadb://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| invalid(OPTION, "it does not begin with mysql://"))?;
    let opts = Opts::from_url(&format!("mysql://{rest}"))
        .map_err(|_| invalid(OPTION, "it is no URL; parts with signs such as / or @ are percent-encoded"))?;
    let mut ssl = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        ssl = Some(match (name, value) {
            ("ssl", json) => {
                ssl_of(json).ok_or_else(|| invalid(OPTION, "its parameter ssl is not understood"))?
            }
            ("sslaccept", "strict") => Ssl::Switch(true),
            ("sslaccept", "accept_invalid_certs") => {
                Ssl::On(SslOptions { reject_unauthorized: false, ..SslOptions::default() })
            }
            _ => {
                return Err(invalid(OPTION, "it has a parameter that is not known")
                    .with_context("parameter", name)
                    .with_advice("write it as an option of its own"));
            }
        });
    }
    let host = bare(opts.ip_or_hostname()).to_owned();
    Ok((OptsBuilder::from_opts(opts).ip_or_hostname(host), ssl))
}

/// An address of version 6 without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `true`, `false` or the option as JSON, percent-encoded or not.
fn ssl_of(text: &str) -> Option<Ssl> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    serde_json::from_slice(&bytes).ok()
}

fn tls(ssl: Option<&Ssl>, profile: &Profile) -> Result<Option<SslOpts>> {
    let options = match ssl {
        None if profile.needs_tls => SslOptions::default(),
        Some(Ssl::Switch(false)) if profile.needs_tls => {
            return Err(invalid("ssl", "PlanetScale takes encrypted connections only")
                .with_advice("leave the option out"));
        }
        None | Some(Ssl::Switch(false)) => return Ok(None),
        Some(Ssl::Switch(true)) => SslOptions::default(),
        Some(Ssl::On(options)) => options.clone(),
    };
    let identity = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Some(ClientIdentity::new(pem(cert), pem(key.expose()))),
        (None, None) => None,
        (Some(_), None) => return Err(invalid("ssl", "it has a cert without its key")),
        (None, Some(_)) => return Err(invalid("ssl", "it has a key without its cert")),
    };
    let roots: Vec<_> = options.ca.iter().map(|ca| pem(ca)).collect();
    Ok(Some(
        SslOpts::default()
            .with_client_identity(identity)
            .with_disable_built_in_roots(!roots.is_empty())
            .with_root_certs(roots)
            .with_danger_accept_invalid_certs(!options.reject_unauthorized),
    ))
}

/// PEM, or the path of a file with it.
fn pem<T: From<Vec<u8>> + From<PathBuf>>(text: &str) -> T {
    if text.contains("-----BEGIN") { text.as_bytes().to_vec().into() } else { PathBuf::from(text).into() }
}

fn invalid(option: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message)
        .with_scope(Scope::Sink)
        .with_context("option", option)
        .with_advice("write it like mysql://user:password@host:3306/database, or as host, user and so on")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MYSQL: Profile = Profile { dialect: Dialect::Mysql, needs_tls: false, limits: LIMITS };
    const TLS_ONLY: Profile = Profile { needs_tls: true, ..MYSQL };

    fn options(options: Value) -> MysqlOptions {
        serde_json::from_value(options).unwrap()
    }

    fn opts(given: Value) -> Result<Opts> {
        options(given).connection(&MYSQL)
    }

    #[test]
    fn urls_and_options_say_the_same() {
        for given in [
            json!({"url": "mysql://me:p%40ss%2Fw@db:3307/shop"}),
            json!({"connectionString": "mariadb://me:p%40ss%2Fw@db:3307/shop"}),
            json!({"host": "db", "port": 3307, "database": "shop", "user": "me", "password": "p@ss/w"}),
            json!({"url": "mysql://x:y@elsewhere/other", "host": "db", "port": 3307, "database": "shop",
                   "username": "me", "password": "p@ss/w"}),
        ] {
            let opts = opts(given.clone()).unwrap();
            let found = (opts.ip_or_hostname(), opts.tcp_port(), opts.db_name(), opts.user(), opts.pass());
            assert_eq!(found, ("db", 3307, Some("shop"), Some("me"), Some("p@ss/w")), "{given}");
            assert!(opts.ssl_opts().is_none() && !opts.prefer_socket());
        }
        let usual = opts(json!({"database": "d"})).unwrap();
        assert_eq!((usual.ip_or_hostname(), usual.tcp_port()), ("localhost", 3306));
        for given in [json!({"url": "mysql://[::1]/d"}), json!({"host": "[::1]", "database": "d"})] {
            assert_eq!(opts(given).unwrap().ip_or_hostname(), "::1");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_advice() {
        for given in [
            json!({}),
            json!({"url": "mysql://db"}),
            json!({"url": "postgres://db/d"}),
            json!({"url": "mysql://db:port/d"}),
            json!({"url": "mysql://db/d?ssl=maybe"}),
            json!({"url": "mysql://db/d?charset=latin1"}),
            json!({"database": "d", "ssl": {"cert": "a.pem"}}),
            json!({"database": "d", "ssl": {"key": "a.pem"}}),
        ] {
            let error = opts(given.clone()).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Sink), "{given}");
            assert!(error.advice().is_some() && error.to_string().contains("option: "), "{given}");
        }
        for given in [
            json!({"database": "d", "connectionLimit": 0}),
            json!({"database": "d", "logTable": "_s3rep_cursor"}),
        ] {
            assert_eq!(options(given).build(&MYSQL).unwrap_err().kind(), ErrorKind::ConfigInvalid);
        }
    }

    #[test]
    fn tls_is_on_where_it_has_to_be() {
        let of =
            |given: Value, profile| options(given).connection(profile).map(|opts| opts.ssl_opts().cloned());
        assert!(of(json!({"database": "d"}), &MYSQL).unwrap().is_none());
        assert!(of(json!({"database": "d", "ssl": false}), &MYSQL).unwrap().is_none());
        let on = of(json!({"database": "d", "ssl": true}), &MYSQL).unwrap().unwrap();
        assert!(!on.accept_invalid_certs() && !on.disable_built_in_roots());
        assert!(of(json!({"database": "d"}), &TLS_ONLY).unwrap().is_some());
        assert!(of(json!({"database": "d", "ssl": false}), &TLS_ONLY).is_err());
        assert!(of(json!({"url": "mysql://db/d?ssl=false"}), &TLS_ONLY).is_err());
        for url in [
            "mysql://db/d?ssl={\"rejectUnauthorized\":false}",
            "mysql://db/d?ssl=%7B%22rejectUnauthorized%22%3Afalse%7D",
            "mysql://db/d?sslaccept=accept_invalid_certs",
        ] {
            assert!(of(json!({ "url": url }), &MYSQL).unwrap().unwrap().accept_invalid_certs(), "{url}");
        }
        assert!(of(json!({"url": "mysql://db/d?sslaccept=strict"}), &MYSQL).unwrap().is_some());
        let own = json!({"database": "d", "ssl": {"ca": "/ca.pem", "cert": "-----BEGIN CERTIFICATE-----", "key": "/key.pem"}});
        let own = of(own, &MYSQL).unwrap().unwrap();
        assert!(own.disable_built_in_roots() && own.client_identity().is_some());
        assert_eq!(format!("{:?}", own.root_certs()), r#"[Path("/ca.pem")]"#);
    }

    #[test]
    fn no_secret_is_shown() {
        let given = json!({
            "url": "mysql://me:hunter2@db/shop?x=hunter2", "password": "hunter2",
            "ssl": {"cert": "c.pem", "key": "-----BEGIN hunter2"},
        });
        let config = options(given);
        let error = config.connection(&MYSQL).unwrap_err();
        let sink = options(json!({"url": "mysql://me:hunter2@db/shop"})).build(&MYSQL).unwrap();
        for text in [format!("{config:?} {config:#?}"), format!("{error:?}"), format!("{sink:?} {sink:#?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        let error =
            serde_json::from_str::<MysqlConfig>(r#"{"passwrod": "hunter2"}"#).unwrap_err().to_string();
        assert!(error.contains("passwrod") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn unknown_members_of_ssl_are_refused() {
        let error = serde_json::from_str::<MysqlConfig>(r#"{"ssl": {"rejectunauthorized": false}}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rejectunauthorized") && error.contains("rejectUnauthorized"), "{error}");
        assert!(serde_json::from_str::<MysqlConfig>(r#"{"ssl": "yes"}"#).is_err());
    }
}
