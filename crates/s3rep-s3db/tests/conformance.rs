//! The conformance suite of `s3rep-testkit` over databases in memory and in files.
#![allow(clippy::unwrap_used, reason = "a test")]

mod breakable;

use std::sync::Arc;

use async_trait::async_trait;
use breakable::Breakable;
use s3rep_core::{Capability, DriverConfig, Sink, Table};
use s3rep_s3db::{
    Database, DatabaseOptions, FileOptions, FileStore, MemoryStore, ObjectStore, ResourceConfig, S3dbConfig,
};
use s3rep_testkit::sink::suite::{Offers, SinkFactory, suite};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where a database is kept. S3 joins them as a third kind with a server of the testkit.
#[derive(Clone, Copy)]
enum Kind {
    Memory,
    File,
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
        let (store, directory): (Arc<dyn ObjectStore>, _) = match self.kind {
            Kind::Memory => (Arc::new(MemoryStore::new()), None),
            Kind::File => {
                let directory = tempfile::tempdir().unwrap();
                let options = FileOptions { durable: true, ..FileOptions::default() };
                (Arc::new(FileStore::with_options(directory.path().join("db"), options)), Some(directory))
            }
        };
        Place { store: Arc::new(Breakable::new(store)), _directory: directory }
    }

    async fn open(&self, place: &Place) -> Arc<dyn Sink> {
        self.sink(place.store.clone())
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(match self.kind {
            Kind::Memory => {
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
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        suite("s3db-memory", S3db { kind: Kind::Memory, schema_sync: true }),
        suite("s3db-memory-plain", S3db { kind: Kind::Memory, schema_sync: false }),
        suite("s3db-file", S3db { kind: Kind::File, schema_sync: true }),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
