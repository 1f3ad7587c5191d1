//! The s3db.js database: its stored format, object stores, resources and the tail source.
//!
//! A [`Database`] is a directory of records in an object store: [`FileStore`] or [`MemoryStore`], both behind
//! [`ObjectStore`]. What s3db.js 21 wrote is read, and what is written here s3db.js reads. [`TailSource`]
//! follows a database that anybody writes.
//!
//! ```
//! use s3rep_s3db::{Database, DatabaseOptions, ResourceConfig};
//! use s3rep_core::Record;
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> s3rep_core::Result<()> {
//! let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
//! let shop = Database::connect_with("memory://", options).await?;
//! let config: ResourceConfig = serde_json::from_value(json!({
//!     "name": "cars",
//!     "attributes": {"model": "string|required", "year": "number", "origin": "string"},
//!     "partitions": {"byOrigin": {"fields": {"origin": "string"}}},
//! })).expect("a configuration as s3db.js takes it");
//! let cars = shop.create_resource(&config).await?;
//!
//! cars.insert(json!({"id": "car-1", "model": "Fiesta", "year": 1976, "origin": "Europe"})).await?;
//! cars.update("car-1", json!({"year": 1977})).await?;
//! assert_eq!(cars.get::<Record>("car-1").await?["year"], 1977);
//!
//! let european: Vec<Record> = cars.by_partition("byOrigin", json!({"origin": "Europe"}))?.records().await?;
//! assert_eq!(european[0]["id"], "car-1");
//! # Ok(())
//! # }
//! ```

mod context;
mod database;
mod events;
mod format;
mod hooks;
mod lock;
mod outbox;
mod plugin;
mod resource;
mod sequence;
mod sink;
mod store;
mod suggest;
mod tail;
mod url;

pub use database::{Database, DatabaseOptions};
pub use events::{DatabaseEvent, Events};
#[doc(hidden)]
pub use format::primitives;
pub use format::{
    Behavior, Document, Encoded, Entropy, Partition, Repair, ResourceConfig, ResourceEntry, ResourceFormat,
    Stamps, StoredObject, check_id, id_of_key, new_id, partition_prefix, record_key, record_prefix,
};
pub use hooks::{Action, Call};
pub use outbox::{Followed, Outbox};
pub use plugin::Plugin;
pub use resource::{Page, Query, Records, Resource};
pub use sink::S3dbConfig;
pub use store::{
    BodyChange, FileOptions, FileStore, Listing, MemoryStore, ObjectMeta, ObjectStore, PutCondition, Requests,
};
#[cfg(feature = "s3")]
pub use store::{S3Options, S3Store};
pub use tail::{RequestBill, TailOptions, TailSource};
pub use url::{Connection, S3Connection, S3Credentials, StoreOptions, open_store, open_store_with};
