//! Connections, and transactions that cannot leak.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use mysql_async::{Conn, DriverError, Opts, Params, Row, Value, prelude::Queryable};
use s3rep_core::{Error, ErrorKind, Result, Scope};
use s3rep_sql::Dialect;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::from_mysql;

/// What the client library says.
pub(crate) type Raw<T> = mysql_async::Result<T>;

/// How to connect.
pub(crate) struct Settings {
    pub(crate) opts: Opts,
    /// The server that the configuration speaks of; which one answers is found out when it does.
    pub(crate) profile: Dialect,
    /// Connections at most.
    pub(crate) limit: usize,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
}

/// Once for each connection. Strict, so that nothing is cut, rounded or filled in without a word; in UTC; comparing
/// bytes. Locks are waited for a little, since waiting is the engine's business. A connection whose other side is
/// gone without a word holds its locks no longer than two minutes.
const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
     NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', autocommit = 1, \
     innodb_lock_wait_timeout = 10, lock_wait_timeout = 20, wait_timeout = 120",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// A connection that rested longer is asked whether it lives before it is relied on.
const RESTED: Duration = Duration::from_secs(1);

/// What is known of the server since the connection was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) dialect: Dialect,
    pub(crate) version: (u16, u16, u16),
    /// `max_allowed_packet`.
    pub(crate) max_packet: usize,
    /// Tables whose names differ only by case are one.
    pub(crate) folds_case: bool,
    /// Lists and objects within each other that its JSON may have.
    pub(crate) most_nested: usize,
}

/// MySQL's limit. MariaDB has had one of 32 since it reads JSON, of which the innermost counts, and has it no longer.
const MOST_NESTED: (usize, usize) = (100, 31);

/// Connections to one server.
pub(crate) struct Pool {
    settings: Settings,
    /// Host, port and database, for messages.
    place: String,
    idle: Mutex<Vec<Link>>,
    permits: Arc<Semaphore>,
}

/// A connection with what is known of its server.
struct Link {
    conn: Conn,
    server: Server,
    rests_since: Instant,
}

impl Pool {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let opts = &settings.opts;
        let database = opts.db_name().unwrap_or_default();
        let place = format!("{}:{}/{database}", opts.ip_or_hostname(), opts.tcp_port());
        let permits = Arc::new(Semaphore::new(settings.limit));
        Arc::new(Self { settings, place, idle: Mutex::default(), permits })
    }

    /// Host, port and database.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The server that the configuration speaks of.
    pub(crate) fn profile(&self) -> Dialect {
        self.settings.profile
    }

    /// A connection that nobody else uses, when there is one.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Session> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| {
            Error::new(ErrorKind::Cancelled, "the destination was closed").with_scope(Scope::Sink)
        })?;
        let link = match self.rested().await {
            Some(link) => link,
            None => self.connect().await.map_err(|error| error.with_context("server", &self.place))?,
        };
        Ok(Session { link: Some(link), state: State::Clean, pool: self.clone(), _permit: permit })
    }

    /// A connection that was used before and still lives.
    async fn rested(&self) -> Option<Link> {
        loop {
            let mut link = self.idle().pop()?;
            if link.rests_since.elapsed() < RESTED {
                return Some(link);
            }
            let limit = self.settings.connect_timeout.unwrap_or(Duration::MAX);
            if let Ok(Ok(())) = tokio::time::timeout(limit, link.conn.ping()).await {
                return Some(link);
            }
            tracing::debug!(server = %self.place, "a connection was lost while it rested");
        }
    }

    async fn connect(&self) -> Result<Link> {
        static RING: Once = Once::new();
        // Whoever was first chose another one; that is as good.
        RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let connecting = async {
            let mut conn = Conn::new(self.settings.opts.clone()).await?;
            for statement in SESSION {
                conn.query_drop(statement).await?;
            }
            let server = Server::of(&mut conn).await?;
            Ok(Link { conn, server, rests_since: Instant::now() })
        };
        let connected = match self.settings.connect_timeout {
            None => Ok(connecting.await),
            Some(limit) => tokio::time::timeout(limit, connecting).await,
        };
        match connected {
            Ok(connected) => connected.map_err(from_mysql),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "no connection was made in time")
                .temporary()
                .with_scope(Scope::Sink)
                .with_advice(
                    "look whether the server runs and takes connections from here, or raise connectTimeout",
                )),
        }
    }

    /// Closes connections that nobody used for a while.
    pub(crate) async fn close_idle(&self) {
        let Some(limit) = self.settings.idle_timeout else { return };
        let mut idle = mem::take(&mut *self.idle());
        let mut old = Vec::new();
        for link in idle.extract_if(.., |link| link.rests_since.elapsed() > limit) {
            old.push(link);
        }
        self.idle().append(&mut idle);
        disconnect(old).await;
    }

    /// Closes every connection that nobody uses now.
    pub(crate) async fn close(&self) {
        let idle = mem::take(&mut *self.idle());
        disconnect(idle).await;
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn disconnect(links: Vec<Link>) {
    for link in links {
        if let Err(error) = link.conn.disconnect().await {
            tracing::debug!(error = %from_mysql(error).report(), "a connection did not end in good order");
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Server {
    async fn of(conn: &mut Conn) -> Raw<Self> {
        const SQL: &str = "SELECT VERSION(), @@max_allowed_packet, @@lower_case_table_names, \
            JSON_VALID(CONCAT(REPEAT('[', 32), REPEAT(']', 32)))";
        let row: Option<(String, u64, u64, Option<u64>)> = conn.query_first(SQL).await?;
        let (version, max_packet, folding, is_deep) = row.unwrap_or_default();
        Ok(Self {
            dialect: if version.contains("MariaDB") { Dialect::Mariadb } else { Dialect::Mysql },
            version: parse_version(&version),
            max_packet: usize::try_from(max_packet).unwrap_or(usize::MAX),
            folds_case: folding != 0,
            most_nested: if is_deep == Some(1) { MOST_NESTED.0 } else { MOST_NESTED.1 },
        })
    }

    /// A server that nobody has spoken to yet.
    pub(crate) fn unseen(dialect: Dialect) -> Self {
        let most_nested = if dialect == Dialect::Mariadb { MOST_NESTED.1 } else { MOST_NESTED.0 };
        Self { dialect, version: (0, 0, 0), max_packet: usize::MAX, folds_case: false, most_nested }
    }
}

fn parse_version(text: &str) -> (u16, u16, u16) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// A connection from the pool. One whose transaction did not end in good order, or that was dropped in the middle
/// of a statement, is closed and never used again: the server rolls back.
pub(crate) struct Session {
    link: Option<Link>,
    state: State,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is open.
    Clean,
    /// A transaction is open.
    Open,
    /// A statement is under way, or nobody knows.
    Unknown,
}

impl Session {
    pub(crate) fn server(&self) -> Result<Server> {
        let link = self.link.as_ref();
        link.map(|link| link.server).ok_or_else(|| from_mysql(DriverError::ConnectionClosed.into()))
    }

    /// The database of the connection.
    pub(crate) fn database(&self) -> &str {
        self.pool.settings.opts.db_name().unwrap_or_default()
    }

    /// Runs a statement without parameters, as text.
    pub(crate) async fn run(&mut self, sql: &str) -> Raw<()> {
        let (conn, after) = self.enter()?;
        let done = conn.query_drop(sql).await;
        self.leave(after, done)
    }

    /// Runs a statement and returns its rows. It stays prepared.
    pub(crate) async fn query(&mut self, sql: &str, params: Vec<Value>) -> Raw<Vec<Row>> {
        let (conn, after) = self.enter()?;
        let done = conn.exec(sql, positional(params)).await;
        self.leave(after, done)
    }

    /// Runs a statement that has no rows. It stays prepared.
    pub(crate) async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Raw<()> {
        let (conn, after) = self.enter()?;
        let done = conn.exec_drop(sql, positional(params)).await;
        self.leave(after, done)
    }

    /// Makes the server parse a statement and look at the user's rights to it, and not run it.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Raw<()> {
        let (conn, after) = self.enter()?;
        let prepared = async {
            let statement = conn.prep(sql).await?;
            conn.close(statement).await
        };
        let done = prepared.await;
        self.leave(after, done)
    }

    /// What a statement's columns are, as the server says with its answer.
    pub(crate) async fn columns(&mut self, sql: &str) -> Raw<Vec<mysql_async::Column>> {
        let (conn, after) = self.enter()?;
        let looked = async {
            let result = conn.query_iter(sql).await?;
            let columns = result.columns_ref().to_vec();
            result.drop_result().await.map(|()| columns)
        };
        let done = looked.await;
        self.leave(after, done)
    }

    pub(crate) async fn begin(&mut self) -> Raw<()> {
        self.run("START TRANSACTION").await?;
        self.state = State::Open;
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Raw<()> {
        self.end("COMMIT").await
    }

    pub(crate) async fn rollback(&mut self) -> Raw<()> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, sql: &str) -> Raw<()> {
        let (conn, _) = self.enter()?;
        conn.query_drop(sql).await?;
        self.state = State::Clean;
        Ok(())
    }

    /// Ends a transaction that failed. What cannot be rolled back ends with its connection.
    pub(crate) async fn abandon(&mut self) {
        if self.state == State::Open
            && let Err(error) = self.rollback().await
        {
            tracing::debug!(error = %from_mysql(error).report(), "rollback failed");
        }
    }

    /// The connection itself, which does not come back.
    pub(crate) fn into_conn(mut self) -> Option<Conn> {
        self.link.take().map(|link| link.conn)
    }

    /// From here to [`Self::leave`] the connection is not known to be usable.
    fn enter(&mut self) -> Raw<(&mut Conn, State)> {
        let after = mem::replace(&mut self.state, State::Unknown);
        match self.link.as_mut() {
            Some(link) if after != State::Unknown => Ok((&mut link.conn, after)),
            _ => Err(DriverError::ConnectionClosed.into()),
        }
    }

    fn leave<T>(&mut self, state: State, done: Raw<T>) -> Raw<T> {
        // A refusal of the server is an answer like another; some of them have ended the transaction, which then
        // is not gone on with.
        if done.as_ref().map_or_else(|error| !error.is_fatal(), |_| true) {
            self.state = state;
        }
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if self.state == State::Clean {
            link.rests_since = Instant::now();
            self.pool.idle().push(link);
        }
    }
}

fn positional(params: Vec<Value>) -> Params {
    if params.is_empty() { Params::Empty } else { Params::Positional(params) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        for (text, version) in [
            ("10.11.19-MariaDB-0+deb12u1", (10, 11, 19)),
            ("8.0.35", (8, 0, 35)),
            ("8.0.21-Vitess", (8, 0, 21)),
            ("9.1", (9, 1, 0)),
            ("", (0, 0, 0)),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
