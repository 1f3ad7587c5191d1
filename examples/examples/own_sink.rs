//! A destination of your own: `cargo run -p s3rep-examples --example own_sink`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use s3rep::{
    Capability, Mapping, Result, Sink,
    core::{Batch, Context, Outcome},
    engine::{Pipeline, Replicator, context},
    log::{EmbeddedLog, LogOptions},
    s3db::{Database, DatabaseOptions, ResourceConfig, TailOptions, TailSource},
};
use serde_json::json;

/// Prints every change.
#[derive(Debug, Default)]
struct Printer {
    printed: AtomicUsize,
}

#[async_trait::async_trait]
impl Sink for Printer {
    fn capability(&self) -> Capability {
        Capability { append: true, deletes: true, ..Capability::NONE }
    }

    async fn check(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, _: &Context, batch: &Batch) -> Result<Outcome> {
        for change in &batch.changes {
            println!("{} {} {}", batch.table.name, change.operation, change.key);
        }
        self.printed.fetch_add(batch.changes.len(), Ordering::Relaxed);
        Ok(Outcome::default())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let shop = Database::connect_with("memory://shop", options).await?;
    let config = json!({"name": "users", "attributes": {"name": "string"}});
    let users = shop.create_resource(&ResourceConfig::from_value(&config)?).await?;
    users.insert(json!({"id": "u1", "name": "Ada"})).await?;

    let sink = Arc::new(Printer::default());
    let mapping = Mapping::parse(&json!({"users": "people"})).expect("a mapping");
    let (log, _) = EmbeddedLog::open(&dir.path().join("state"), &LogOptions::default())?;
    let source = TailSource::new(shop, TailOptions::default());
    let replicator = Replicator::new("printer", mapping, sink.clone())?;
    let pipeline = Pipeline::new(context::system(), Arc::new(source), Arc::new(log), vec![replicator])?;

    pipeline.run_once().await?;
    users.delete("u1").await?;
    pipeline.run_once().await?;
    assert_eq!(sink.printed.load(Ordering::Relaxed), 2);
    Ok(())
}
