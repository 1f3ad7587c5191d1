//! The conformance suite of `s3rep-testkit` over databases in memory, in files and on S3.
#![allow(clippy::unwrap_used, reason = "a test")]

mod breakable;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use breakable::Breakable;
use libtest_mimic::Arguments;
use s3rep_core::{Capability, DriverConfig, Sink, Table};
use s3rep_s3db::{
    Database, DatabaseOptions, FileOptions, FileStore, MemoryStore, ObjectStore, ResourceConfig, S3dbConfig,
    StoreOptions, open_store_with,
};
use s3rep_testkit::{
    server::{Missing, S3Server, radosgw},
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const BUCKET: &str = "conformance";

/// Where a database is kept.
enum Kind {
    Memory,
    File,
    S3 { server: Arc<S3Server>, places: AtomicU64 },
}

/// A driver over one kind of store, with schema synchronisation or without.
struct S3db {
    kind: Kind,
    schema_sync: bool,
}

struct Place {
    store: Arc<Breakable>,
    _directory: Option<TempDir>,
}

impl S3db {
    fn sink(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn Sink> {
        let options = json!({"connectionString": "memory://", "schemaSync": {"enabled": self.schema_sync}});
        serde_json::from_value::<S3dbConfig>(options).unwrap().over(store).unwrap()
    }
}

#[async_trait]
impl SinkFactory for S3db {
    type Place = Place;

    fn capability(&self) -> Capability {
        S3dbConfig::capability()
    }

    fn offers(&self) -> Offers {
        let schema_sync = self.schema_sync;
        Offers {
            changes: false,
            schema_sync,
            bad_place: true,
            broken_connection: true,
            unfit_table: schema_sync,
        }
    }

    fn has_slow_secrets(&self) -> bool {
        true
    }

    async fn fresh(&self) -> Place {
        let (store, directory): (Arc<dyn ObjectStore>, _) = match &self.kind {
            Kind::Memory => (Arc::new(MemoryStore::new()), None),
            Kind::File => {
                let directory = tempfile::tempdir().unwrap();
                let options = FileOptions { durable: true, ..FileOptions::default() };
                (Arc::new(FileStore::with_options(directory.path().join("db"), options)), Some(directory))
            }
            Kind::S3 { server, places } => {
                let prefix = format!("{BUCKET}/{}", places.fetch_add(1, Ordering::Relaxed));
                (open_store_with(&server.url(&prefix), &StoreOptions::default()).unwrap(), None)
            }
        };
        Place { store: Arc::new(Breakable::new(store)), _directory: directory }
    }

    async fn open(&self, place: &Place) -> Arc<dyn Sink> {
        self.sink(place.store.clone())
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(match self.kind {
            Kind::Memory | Kind::S3 { .. } => {
                let store = Breakable::new(Arc::new(MemoryStore::new()));
                store.break_down();
                self.sink(Arc::new(store))
            }
            Kind::File => self.sink(Arc::new(FileStore::new("/dev/null/database"))),
        })
    }

    async fn break_connection(&self, place: &Place) {
        place.store.break_down();
    }

    async fn mend_connection(&self, place: &Place) {
        place.store.mend();
    }

    async fn make_unfit(&self, place: &Place, table: &Table) {
        let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
        let database = Database::open(place.store.clone(), options).await.unwrap();
        let config: Value = json!({"name": &*table.name, "attributes": {"name": "number"}});
        database.create_resource(&ResourceConfig::from_value(&config).unwrap()).await.unwrap();
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut trials = suite("s3db-memory", S3db { kind: Kind::Memory, schema_sync: true });
    trials.extend(suite("s3db-memory-plain", S3db { kind: Kind::Memory, schema_sync: false }));
    trials.extend(suite("s3db-file", S3db { kind: Kind::File, schema_sync: true }));
    // Listing the tests needs no server.
    let server = (!arguments.list).then(|| runtime.block_on(start()));
    match &server {
        None => {}
        Some(Ok(server)) => {
            let kind = Kind::S3 { server: server.clone(), places: AtomicU64::new(0) };
            trials.extend(suite("s3db-s3", S3db { kind, schema_sync: true }));
        }
        Some(Err(missing)) => trials.push(missing.trial("s3db-s3")),
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: the server ends here.
    drop(server);
    conclusion.exit();
}

async fn start() -> Result<Arc<S3Server>, Missing> {
    let server = radosgw::start().await?;
    server.create_bucket(BUCKET).await;
    Ok(Arc::new(server))
}
