//! The conformance suite of `s3rep-testkit` over a SQLite file.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, sync::Arc};

use async_trait::async_trait;
use libsql::{Builder, Connection, Value};
use s3rep_core::{Capability, DriverConfig, RouteMode, Sink, Table};
use s3rep_libsql::LibsqlConfig;
use s3rep_testkit::{
    oracle::StoredChange,
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::json;
use tempfile::TempDir;

struct Libsql;

fn sink(path: &Path) -> Arc<dyn Sink> {
    let options = json!({"url": path.to_str().unwrap(), "schemaSync": {"enabled": true}});
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
        sink(&place.path().join("out.db"))
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
        Some(sink(Path::new("/no/such/directory/out.db")))
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
        let id = if table.mode == RouteMode::Upsert { "id INTEGER PRIMARY KEY" } else { "id TEXT" };
        let sql = format!("CREATE TABLE {} ({id}, name BLOB)", quoted(&table.name));
        connect(place).await.execute(&sql, ()).await.unwrap();
    }
}

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, suite("libsql", Libsql)).exit();
}
