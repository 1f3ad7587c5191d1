//! Requests to a server, over a plain or an encrypted connection that is kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use s3rep_core::{Error, ErrorKind, Result, Scope, Secret};

use super::{address::Address, error};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. The engine gives a write up earlier; this ends what nobody watches.
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer that is read. Servers send 10 MB at most.
const LARGEST: usize = 64 << 20;
/// The largest answer that is read when it tells of a problem.
const LARGEST_PROBLEM: usize = 64 << 10;

/// A server.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    server: Arc<str>,
    authorization: Option<HeaderValue>,
}

impl Http {
    pub(crate) fn new(address: Address, token: Option<&Secret>) -> Result<Self> {
        let roots = if address.is_encrypted() { native_roots()? } else { RootCertStore::empty() };
        Self::with_roots(address, token, roots)
    }

    fn with_roots(address: Address, token: Option<&Secret>, roots: RootCertStore) -> Result<Self> {
        // The provider is named, as there may be none that the process has chosen.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Unexpected, "TLS cannot be set up").with_source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // A request is sent again only when a kept connection turns out to be dead before a byte was written.
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let authorization = token.map(bearer).transpose()?;
        Ok(Self { client, endpoint: address.endpoint, server: address.server.into(), authorization })
    }

    /// Host and port, for messages.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Sends JSON, and returns what a server answers that took it.
    pub(crate) async fn post(&self, json: Vec<u8>) -> Result<Bytes> {
        let answer = tokio::time::timeout(ANSWER, self.exchange(json)).await.unwrap_or_else(|_| {
            let message = format!("no answer from the server within {} s", ANSWER.as_secs());
            Err(Error::new(ErrorKind::Timeout, message).temporary().with_scope(Scope::Sink))
        });
        answer.map_err(|error| error.with_context("server", &self.server))
    }

    async fn exchange(&self, json: Vec<u8>) -> Result<Bytes> {
        let mut request = Request::new(Full::from(json));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.client.request(request).await.map_err(|error| {
            let is_connect = error.is_connect();
            error::from_connection(error, is_connect)
        })?;
        let (head, body) = answer.into_parts();
        let is_good = head.status == StatusCode::OK;
        let body = Limited::new(body, if is_good { LARGEST } else { LARGEST_PROBLEM });
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if is_good => return Err(error::from_connection(error, false)),
            // The status says enough.
            Err(_) => Bytes::new(),
        };
        if is_good {
            return Ok(body);
        }
        let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(error::from_status(head.status, &body, after.map(Duration::from_secs)))
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Error::new(ErrorKind::ConfigInvalid, "the token has a character that no token has")
            .with_scope(Scope::Sink)
            .with_context("option", "authToken")
            .with_advice("look whether a line break or a part of another value came along with it")
    })?;
    // So that no Debug form shows it.
    value.set_sensitive(true);
    Ok(value)
}

/// The certificates that the system trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn native_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems have a certificate now and then that cannot be read; the others are as good without it.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "the system has no certificates to check servers with",
        )
        .with_scope(Scope::Sink)
        .with_advice(
            "install the package ca-certificates, or name a file with certificates in SSL_CERT_FILE",
        ));
    }
    Ok(roots)
}
