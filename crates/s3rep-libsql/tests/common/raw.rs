//! A look into a server that does not take the way of the sink.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Runs a statement on the server at `host:port`, and returns its rows as the protocol has them.
pub(crate) async fn execute(address: &str, sql: &str) -> Vec<Vec<Value>> {
    let stmt = json!({"sql": sql, "want_rows": true});
    let body = json!({"requests": [{"type": "execute", "stmt": stmt}, {"type": "close"}]}).to_string();
    // HTTP 1.0 has no chunks.
    let head =
        format!("POST /v2/pipeline HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{answer}");
    let answer: Value = serde_json::from_str(body).unwrap();
    let rows = &answer["results"][0]["response"]["result"]["rows"];
    let rows = rows.as_array().unwrap_or_else(|| panic!("{sql}: {answer}"));
    rows.iter().map(|row| row.as_array().unwrap().clone()).collect()
}
