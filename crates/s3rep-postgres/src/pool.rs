//! Connections, and transactions that cannot leak.

use std::{
    fmt,
    time::{Duration, Instant},
};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts,
};
use s3rep_core::{Error, ErrorKind, Result, Scope};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    PostgresConfig,
    config::{PoolOptions, millis},
    error::{from_pool, from_postgres},
    tls::Trust,
};

/// Connections to one database.
pub(crate) struct Pool {
    inner: deadpool_postgres::Pool,
    options: PoolOptions,
    /// Host and database, for messages.
    place: String,
}

impl Pool {
    pub(crate) fn new(
        config: tokio_postgres::Config,
        trust: Trust,
        options: &PostgresConfig,
    ) -> Result<Self> {
        let place = place(&config);
        let tls = MakeRustlsConnect::new(trust.client_config()?);
        let manager =
            Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let session = options.session();
        let prepare = Hook::async_fn(move |client, _| {
            let session = session.clone();
            Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
        });
        let pool = &options.pool;
        let inner = deadpool_postgres::Pool::builder(manager)
            .max_size(pool.max.max(1))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: millis(pool.acquire_timeout_millis),
                create: millis(pool.connection_timeout_millis),
                recycle: Some(Duration::from_secs(10)),
            })
            .post_create(prepare)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Unexpected, "the pool of connections cannot be made")
                    .with_scope(Scope::Sink)
                    .with_source(error)
            })?;
        Ok(Self { inner, options: pool.clone(), place })
    }

    /// Host and database.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) async fn session(&self) -> Result<Session> {
        match self.inner.get().await {
            Ok(object) => Ok(Session { object: Some(object), is_clean: true }),
            Err(error) => Err(from_pool(error).with_context("server", &self.place)),
        }
    }

    /// Closes connections that nobody used for a while.
    pub(crate) fn close_idle(&self) {
        let Some(limit) = millis(self.options.idle_timeout_millis) else { return };
        let spare = self.inner.status().size.saturating_sub(self.options.min);
        let mut closed = 0;
        self.inner.retain(|_, metrics| {
            let last_used = metrics.recycled.unwrap_or(metrics.created);
            let is_idle = closed < spare && Instant::now().duration_since(last_used) > limit;
            closed += usize::from(is_idle);
            !is_idle
        });
    }

    /// Closes every connection that nobody uses now.
    pub(crate) fn close(&self) {
        self.inner.retain(|_, _| false);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

fn place(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let host = config.get_hosts().first().map_or_else(String::new, |host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{host}:{port}/{database}")
}

/// A connection from the pool. One whose transaction did not end in good order, or that was dropped in the middle
/// of a statement, is closed and never used again: the server rolls back.
pub(crate) struct Session {
    object: Option<Object>,
    is_clean: bool,
}

impl Session {
    pub(crate) fn client(&self) -> Result<&Object> {
        self.object.as_ref().ok_or_else(|| Error::new(ErrorKind::Unexpected, "the connection is gone"))
    }

    /// From here on the connection is closed unless [`Self::settled`] is called.
    pub(crate) fn unsettled(&mut self) -> Result<&Object> {
        self.is_clean = false;
        self.client()
    }

    /// No transaction is open, and no statement runs.
    pub(crate) fn settled(&mut self) {
        self.is_clean = true;
    }

    pub(crate) async fn run(&mut self, sql: &str) -> Result<()> {
        self.unsettled()?.batch_execute(sql).await.map_err(from_postgres)
    }

    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.run("BEGIN").await
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.run("COMMIT").await?;
        self.settled();
        Ok(())
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        self.run("ROLLBACK").await?;
        self.settled();
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_clean
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
    }
}
