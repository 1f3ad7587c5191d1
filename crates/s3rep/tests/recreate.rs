//! Consent to tables that are created anew, from the builder.
#![cfg(feature = "libsql")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use s3rep::{
    DriverConfig, Mapping, Replicator, Result, Route,
    libsql::LibsqlConfig,
    s3db::{Database, DatabaseOptions, ResourceConfig},
};
use serde_json::{Value, json};

/// Replicates a database of one user into a file where there may be a table already.
async fn replicate(dir: &Path, state: &str, attributes: Value, agreed: bool) -> Result<()> {
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let database = Database::connect_with("memory://", options).await?;
    let config = ResourceConfig::from_value(&json!({"name": "users", "attributes": attributes}))?;
    let users = database.create_resource(&config).await?;
    let sqlite: LibsqlConfig = serde_json::from_value(json!({
        "url": format!("file:{}", dir.join("out.db").display()),
        "schemaSync": {"enabled": true, "strategy": "drop-create"},
    }))
    .unwrap();
    let replicator = Replicator::builder(dir.join(state))
        .recreate_tables(agreed)
        .destination("sqlite", Mapping::new(vec![Route::new("users", "users")]), sqlite.build()?)
        .options(s3rep::engine::PipelineOptions {
            drain_timeout: std::time::Duration::ZERO,
            ..Default::default()
        })
        .build()?;
    let replicator = database.use_plugin(replicator).await?;
    users.insert(json!({"id": state, "name": "Ada"})).await?;
    let caught_up = replicator.caught_up().await;
    let _ = database.close().await;
    caught_up
}

#[tokio::test]
async fn a_builder_has_to_agree_to_tables_created_anew() {
    let dir = tempfile::tempdir().unwrap();
    replicate(dir.path(), "first", json!({"name": "string"}), false).await.unwrap();
    let grown = json!({"name": "string", "age": "number|optional"});
    let error = replicate(dir.path(), "second", grown.clone(), false).await.unwrap_err();
    assert!(error.report().contains("recreate_tables"), "{error:?}");
    replicate(dir.path(), "third", grown, true).await.unwrap();
}
