//! A program that keeps its users in a database and has them in SQLite too:
//! `cargo run -p s3rep-examples --example typed`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::path::Path;

use s3rep::{
    DriverConfig, Error, ErrorKind, Mapping, Replicator, Result, Route,
    libsql::LibsqlConfig,
    s3db::{Action, Database, DatabaseOptions, ResourceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What the program stores.
#[derive(Serialize)]
struct NewUser {
    email: &'static str,
    country: &'static str,
    age: u32,
    pin: &'static str,
}

/// What it reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    email: String,
    age: u32,
    pin: String,
    created_at: String,
    updated_at: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().display();

    // Without the passphrase the pins cannot be read. On S3 the URL is s3://KEY:SECRET@bucket/prefix.
    std::fs::create_dir(dir.path().join("shop")).expect("the directory is new");
    let options =
        DatabaseOptions { create: true, passphrase: "correct horse".into(), ..DatabaseOptions::default() };
    let shop = Database::connect_with(&format!("file://{at}/shop"), options).await?;
    let config = ResourceConfig::from_value(&json!({
        "name": "users",
        "attributes": {
            "email": "email", "country": "string", "age": "number|integer|min:0", "pin": "secret|optional",
        },
        "timestamps": true,
        "partitions": {"byCountry": {"fields": {"country": "string"}}},
        "idGenerator": "ulid",
    }))?;
    let users = shop.create_resource(&config).await?;

    // One hook puts a record right, another one refuses it.
    users.before(Action::Insert, |mut call| async move {
        let email = call.record["email"].as_str().unwrap_or_default().to_lowercase();
        call.record.insert("email".into(), email.into());
        Ok(call)
    });
    users.before(Action::Delete, |call| async move {
        let is_admin = call.before.as_ref().is_some_and(|user| user["email"] == "admin@example.com");
        if is_admin { Err(Error::new(ErrorKind::PermissionDenied, "the admin stays")) } else { Ok(call) }
    });

    // From here on every write is captured as it is made, and carried into SQLite.
    let sqlite: LibsqlConfig = serde_json::from_value(json!({
        "url": format!("file:{at}/users.db"), "schemaSync": {"enabled": true},
    }))
    .expect("a configuration of the driver");
    let replicator = Replicator::builder(dir.path().join("state"))
        .destination("sqlite", Mapping::new(vec![Route::new("users", "users")]), sqlite.build()?)
        .build()?;
    let replicator = shop.use_plugin(replicator).await?;

    let mut ids = Vec::new();
    for (email, country, age) in [
        ("Admin@Example.com", "FR", 50),
        ("Ada@Example.com", "GB", 36),
        ("grace@example.com", "US", 45),
        ("alan@example.com", "GB", 41),
    ] {
        let user = users.insert(NewUser { email, country, age, pin: "0815" }).await?;
        ids.push(user["id"].as_str().unwrap_or_default().to_owned());
    }
    users.update(&ids[1], json!({"age": 37})).await?;
    users.delete(&ids[2]).await?;
    let refused = users.delete(&ids[0]).await.expect_err("the hook refuses");
    println!("{refused}");

    let ada: User = users.get(&ids[1]).await?;
    assert_eq!((&*ada.email, ada.age, &*ada.pin), ("ada@example.com", 37, "0815"));
    assert!(ada.updated_at >= ada.created_at);
    let old: Vec<User> = users.query(json!({"age": {"$gte": 40}}))?.records().await?;
    assert_eq!(old.len(), 2);
    let british: Vec<User> = users.by_partition("byCountry", json!({"country": "GB"}))?.records().await?;
    assert_eq!(british.iter().map(|user| &*user.id).collect::<Vec<_>>(), [&*ids[1], &*ids[3]]);
    let mut cursor = None;
    loop {
        let page = users.list().page::<User>(2, cursor.as_deref()).await?;
        println!("a page of {}", page.items.len());
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }

    replicator.caught_up().await?;
    let rows = rows(&dir.path().join("users.db")).await.expect("what SQLite has");
    println!("in SQLite: {rows:?}");
    let expected = [("admin@example.com", 50), ("ada@example.com", 37), ("alan@example.com", 41)];
    assert_eq!(rows, expected.map(|(email, age)| (email.to_owned(), age)));
    shop.close().await
}

/// Emails and ages in the order of the ids.
async fn rows(file: &Path) -> libsql::Result<Vec<(String, i64)>> {
    let connection = libsql::Builder::new_local(file).build().await?.connect()?;
    let mut rows = connection.query("SELECT email, age FROM users ORDER BY id", ()).await?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().await? {
        all.push((row.get(0)?, row.get(1)?));
    }
    Ok(all)
}
