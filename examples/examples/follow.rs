//! Writes a database and follows it into SQLite: `cargo run -p s3rep-examples --example follow`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use s3rep::{
    Replication, Result,
    config::{Config, Syntax},
    engine::context,
    s3db::{Database, DatabaseOptions, ResourceConfig},
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().display();

    // A database in files, as s3db.js would make it. Usually an application has done this.
    std::fs::create_dir(dir.path().join("shop")).expect("the directory is new");
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let shop = Database::connect_with(&format!("file://{at}/shop"), options).await?;
    let users = ResourceConfig::from_value(&json!({
        "name": "users", "attributes": {"name": "string|required", "age": "number|integer|optional"},
    }))?;
    let users = shop.create_resource(&users).await?;
    for (id, name) in [("u1", "Ada"), ("u2", "Grace")] {
        users.insert(json!({"id": id, "name": name})).await?;
    }

    let text = format!(
        "source: {{ url: 'file://{at}/shop' }}\n\
         state: '{at}/state'\n\
         replicators:\n\
         - driver: sqlite\n  \
           resources: [users]\n  \
           config: {{ url: 'file:{at}/out.db', schemaSync: {{ enabled: true }} }}\n"
    );
    let config = Config::parse(&text, Syntax::Yaml, "example.yaml", &|_| None)?;
    let replication = Replication::open(&context::system(), &config).await?;
    let report = replication.pipeline().run_once().await?;
    println!("{} rows written into {at}/out.db", report.written);
    assert_eq!(report.written, 2);

    users.delete("u1").await?;
    let report = replication.pipeline().run_once().await?;
    println!("and {} more change", report.written - 2);
    assert_eq!(report.written, 3);
    Ok(())
}
