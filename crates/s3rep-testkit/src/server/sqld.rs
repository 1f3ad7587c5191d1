//! sqld 0.24.32, libSQL's server, with one database and without authentication.

use std::{io, path::Path};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Missing, SqlServer,
    launch::Kind,
    sql::{self, Loss},
};

/// Starts one. What it acknowledged outlives its being killed.
///
/// With `S3REP_TEST_SQLD_URL` nothing is started, and the server is the user's own.
///
/// # Errors
/// [`Missing`] with the reason when it is not installed or does not come up.
pub async fn start() -> Result<SqlServer, Missing> {
    sql::start(Kind::Sqld, Loss::Never).await
}

/// Starts one with its data in this directory, which keeps what it acknowledged.
///
/// # Errors
/// As [`start`].
pub async fn start_in(directory: &Path) -> Result<SqlServer, Missing> {
    sql::start_in(Kind::Sqld, directory).await
}

/// Runs a statement on the server at `host:port`, not in the way that the driver does, and returns its rows as the
/// protocol has them.
///
/// # Panics
/// When the server cannot be reached, or refuses the statement.
pub async fn execute(address: &str, sql: &str) -> Vec<Vec<Value>> {
    let answer = post(address, sql).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let rows = answer["results"][0]["response"]["result"]["rows"].as_array();
    let rows = rows.unwrap_or_else(|| panic!("{sql}: {answer}"));
    rows.iter().filter_map(|row| row.as_array().cloned()).collect()
}

async fn post(address: &str, sql: &str) -> io::Result<Value> {
    let stmt = json!({"sql": sql, "want_rows": true});
    let body = json!({"requests": [{"type": "execute", "stmt": stmt}, {"type": "close"}]}).to_string();
    // HTTP 1.0 has no chunks.
    let head =
        format!("POST /v2/pipeline HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).map_err(|_| io::Error::other(answer.clone()))
}
