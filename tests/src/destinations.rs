//! Destinations as their users see them: SQLite through SQL, JSON Lines line by line.

use std::{collections::BTreeMap, fs, path::Path};

use s3rep::Record;
use serde_json::Value;

/// Every row of a query, as texts; `NULL` is `None`.
pub async fn query(file: &Path, sql: &str) -> Vec<Vec<Option<String>>> {
    let database = libsql::Builder::new_local(file).build().await.unwrap();
    let connection = database.connect().unwrap();
    let mut rows = connection.query(sql, ()).await.unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().await.unwrap() {
        let columns = row.column_count();
        all.push((0..columns).map(|i| text(row.get_value(i).unwrap())).collect());
    }
    all
}

fn text(value: libsql::Value) -> Option<String> {
    match value {
        libsql::Value::Null => None,
        libsql::Value::Integer(number) => Some(number.to_string()),
        libsql::Value::Real(number) => Some(number.to_string()),
        libsql::Value::Text(text) => Some(text),
        libsql::Value::Blob(bytes) => Some(format!("{bytes:?}")),
    }
}

/// The columns of a query's rows by the first one.
pub async fn by_key(file: &Path, sql: &str) -> BTreeMap<String, Vec<Option<String>>> {
    query(file, sql).await.into_iter().map(|mut row| (row.remove(0).unwrap_or_default(), row)).collect()
}

/// Every line of every closed file below a directory, in the order of the file names.
pub fn lines(dir: &Path) -> Vec<Record> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| crate::object(serde_json::from_str::<Value>(&line).unwrap()))
        .collect()
}
