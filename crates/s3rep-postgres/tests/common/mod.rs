//! A server with a database for each test, behind a proxy that can break the way there.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "helpers of tests")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use s3rep_core::{DriverConfig, Sink};
use s3rep_postgres::PostgresConfig;
use s3rep_testkit::{
    proxy::Proxy,
    server::{Missing, SqlServer, postgres},
};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

/// Makes databases.
pub struct Databases {
    pub server: Arc<SqlServer>,
    made: AtomicU64,
}

/// A database, and the way there.
pub struct Place {
    pub direct: String,
    pub proxied: String,
    pub proxy: Proxy,
}

impl Databases {
    pub async fn start() -> Result<Self, Missing> {
        Ok(Self::on(Arc::new(postgres::start().await?)))
    }

    pub fn on(server: Arc<SqlServer>) -> Self {
        Self { server, made: AtomicU64::new(0) }
    }

    /// An empty database with a name of its own.
    pub async fn fresh(&self) -> Place {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("s3rep_test_{}_{number}", std::process::id());
        let admin = connect(&self.server.url("postgres")).await;
        // With an encoding and an order of text that many servers have, and that is not that of bytes.
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let proxy = Proxy::start(self.server.address()).await.unwrap();
        let direct = self.server.url(&name);
        let proxied = direct.replace(self.server.address(), &proxy.address().to_string());
        Place { direct, proxied, proxy }
    }
}

impl Place {
    /// A sink over the database, through the proxy.
    pub fn sink(&self, options: Value) -> Arc<dyn Sink> {
        let mut all =
            json!({"connectionString": self.proxied, "ssl": false, "schemaSync": {"enabled": true}});
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        serde_json::from_value::<PostgresConfig>(all).unwrap().build().unwrap()
    }

    /// A connection that the proxy does not disturb.
    pub async fn client(&self) -> Client {
        connect(&self.direct).await
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn quoted(name: &str) -> String {
    s3rep_sql::Dialect::Postgres.quote_table(name).unwrap()
}
