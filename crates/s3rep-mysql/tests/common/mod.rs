//! A server for the tests, and a database of its own for each.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use mysql_async::{Conn, Opts, Row, prelude::Queryable};
use s3rep_core::{DriverConfig, Sink};
use s3rep_mysql::MariadbConfig;
use s3rep_testkit::{
    proxy::Proxy,
    server::{Missing, SqlServer, mariadb},
};
use serde_json::{Value, json};

/// The server, in which each place gets a database.
pub struct Databases {
    pub server: Arc<SqlServer>,
    /// Names of this process's own: the server may be a user's, and shared.
    prefix: String,
    count: AtomicU64,
}

impl Databases {
    pub async fn start() -> Result<Self, Missing> {
        Ok(Self::on(mariadb::start().await?))
    }

    pub fn on(server: SqlServer) -> Self {
        Self::shared(Arc::new(server))
    }

    pub fn shared(server: Arc<SqlServer>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        Self { server, prefix: format!("s3rep_{now:x}_"), count: AtomicU64::new(0) }
    }

    /// A fresh database behind a proxy of its own.
    pub async fn fresh(self: &Arc<Self>) -> Place {
        let database = format!("{}{}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.connect("mysql").await;
        admin.query_drop(format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await.unwrap();
        admin.disconnect().await.unwrap();
        let proxy = Proxy::start(self.server.address()).await.unwrap();
        Place { databases: self.clone(), database, proxy }
    }

    async fn connect(&self, database: &str) -> Conn {
        Conn::new(Opts::from_url(&self.server.url(database)).unwrap()).await.unwrap()
    }
}

/// A database and the way to it.
pub struct Place {
    databases: Arc<Databases>,
    pub database: String,
    pub proxy: Proxy,
}

impl Place {
    /// A sink over it, behind the proxy.
    pub fn sink(&self, more: Value) -> Arc<dyn Sink> {
        let mut options = self.options();
        options["schemaSync"] = json!({"enabled": true});
        for (name, value) in more.as_object().unwrap() {
            options[name.as_str()] = value.clone();
        }
        sink(options)
    }

    /// How to connect, through the proxy.
    pub fn options(&self) -> Value {
        let url = self.databases.server.url(&self.database);
        let address = self.proxy.address();
        json!({"url": url, "host": address.ip().to_string(), "port": address.port()})
    }

    /// A connection of the test's own, past the proxy.
    pub async fn client(&self) -> Conn {
        self.databases.connect(&self.database).await
    }

    pub async fn run(&self, statements: &str) {
        let mut client = self.client().await;
        client.query_drop(statements).await.unwrap();
        client.disconnect().await.unwrap();
    }

    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        let mut client = self.client().await;
        let rows = client.query(sql).await.unwrap();
        client.disconnect().await.unwrap();
        rows
    }

    pub async fn number(&self, sql: &str) -> u64 {
        mysql_async::from_row(self.rows(sql).await.swap_remove(0))
    }
}

pub fn sink(options: Value) -> Arc<dyn Sink> {
    serde_json::from_value::<MariadbConfig>(options).unwrap().build().unwrap()
}

pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
