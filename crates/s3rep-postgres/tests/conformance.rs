//! The conformance suite of `s3rep-testkit` over a PostgreSQL server.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Databases, Place, quoted};
use libtest_mimic::Arguments;
use s3rep_core::{Capability, DriverConfig, RouteMode, Sink, Table};
use s3rep_postgres::PostgresConfig;
use s3rep_testkit::{
    oracle::StoredChange,
    proxy::Fault,
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::json;

struct Postgres(Arc<Databases>);

#[async_trait]
impl SinkFactory for Postgres {
    type Place = Place;

    fn capability(&self) -> Capability {
        PostgresConfig::capability()
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
        let sql = format!("SELECT id, _operation, _change_id FROM {} ORDER BY _row", quoted(&table.name));
        let rows = place.client().await.query(&sql, &[]).await.unwrap();
        let stored = |row: &tokio_postgres::Row| StoredChange {
            key: row.get(0),
            operation: row.get::<_, String>(1).parse().unwrap(),
            change_id: row.get::<_, String>(2).parse().unwrap(),
            record: None,
        };
        rows.iter().map(stored).collect()
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        let options =
            json!({"host": "127.0.0.1", "port": 1, "user": "nobody", "schemaSync": {"enabled": true}});
        Some(serde_json::from_value::<PostgresConfig>(options).unwrap().build().unwrap())
    }

    async fn break_connection(&self, place: &Place) {
        place.proxy.fault(Fault::Refuse);
    }

    async fn mend_connection(&self, place: &Place) {
        place.proxy.fault(Fault::None);
    }

    async fn make_unfit(&self, place: &Place, table: &Table) {
        let id = if table.mode == RouteMode::Upsert { "id BIGINT PRIMARY KEY" } else { "id TEXT" };
        let sql = format!("CREATE TABLE {} ({id}, name BYTEA)", quoted(&table.name));
        place.client().await.batch_execute(&sql).await.unwrap();
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Listing the tests needs no server.
    let databases = (!arguments.list).then(|| runtime.block_on(Databases::start()).map(Arc::new));
    let trials = match &databases {
        None => Vec::new(),
        Some(Ok(databases)) => suite("postgres", Postgres(databases.clone())),
        Some(Err(missing)) => vec![missing.trial("postgres")],
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: the server ends here.
    drop(databases);
    conclusion.exit();
}
