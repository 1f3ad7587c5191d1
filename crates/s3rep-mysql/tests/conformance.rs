//! The conformance suite of `s3rep-testkit` over a MariaDB server, or over the one of `S3REP_TEST_MYSQL_URL`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Databases, Place, quoted};
use libtest_mimic::Arguments;
use mysql_async::prelude::Queryable;
use s3rep_core::{Capability, DriverConfig, RouteMode, Sink, Table};
use s3rep_mysql::MariadbConfig;
use s3rep_testkit::{
    oracle::StoredChange,
    proxy::Fault,
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::json;

struct Mariadb(Arc<Databases>);

#[async_trait]
impl SinkFactory for Mariadb {
    type Place = Place;

    fn capability(&self) -> Capability {
        MariadbConfig::capability()
    }

    fn offers(&self) -> Offers {
        Offers {
            changes: true,
            schema_sync: true,
            bad_place: true,
            broken_connection: true,
            unfit_table: true,
        }
    }

    async fn fresh(&self) -> Place {
        self.0.fresh().await
    }

    async fn open(&self, place: &Place) -> Arc<dyn Sink> {
        place.sink(json!({}))
    }

    async fn changes(&self, place: &Place, table: &Table) -> Vec<StoredChange> {
        let name = quoted(&table.name).replace('.', "`.`");
        let sql = format!("SELECT id, _operation, _change_id FROM {name} ORDER BY _changed_at");
        let mut client = place.client().await;
        let rows: Vec<(String, String, String)> = client.query(sql).await.unwrap();
        client.disconnect().await.unwrap();
        let stored = |(key, operation, change_id): (String, String, String)| StoredChange {
            key,
            operation: operation.parse().unwrap(),
            change_id: change_id.parse().unwrap(),
            record: None,
        };
        rows.into_iter().map(stored).collect()
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(common::sink(json!({"host": "127.0.0.1", "port": 1, "user": "nobody", "database": "d"})))
    }

    async fn break_connection(&self, place: &Place) {
        place.proxy.fault(Fault::Refuse);
    }

    async fn mend_connection(&self, place: &Place) {
        place.proxy.fault(Fault::None);
    }

    async fn make_unfit(&self, place: &Place, table: &Table) {
        let id = if table.mode == RouteMode::Upsert { "id BIGINT PRIMARY KEY" } else { "id VARCHAR(255)" };
        place.run(&format!("CREATE TABLE {} ({id}, name BLOB)", quoted(&table.name))).await;
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Listing the tests needs no server.
    let databases = (!arguments.list).then(|| runtime.block_on(Databases::start()).map(Arc::new));
    let trials = match &databases {
        None => Vec::new(),
        Some(Ok(databases)) => suite("mariadb", Mariadb(databases.clone())),
        Some(Err(missing)) => vec![missing.trial("mariadb")],
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: the server ends here.
    drop(databases);
    conclusion.exit();
}
