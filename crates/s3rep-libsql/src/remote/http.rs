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

    /// Sends JSON, and returns what a server answers that took it, within a time.
    pub(crate) async fn post(&self, json: Vec<u8>, within: Duration) -> Result<Bytes> {
        let answer = tokio::time::timeout(within, self.exchange(json)).await.unwrap_or_else(|_| {
            let message = format!("no answer from the server within {} s", within.as_secs());
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

#[cfg(test)]
mod tests {
    use rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    // Of nobody: an authority, and the certificate of `localhost` that it signed, with its key.
    const AUTHORITY: &[u8] = include_bytes!("fixtures/authority.der");
    const LOCALHOST: &[u8] = include_bytes!("fixtures/localhost.der");
    const KEY: &[u8] = include_bytes!("fixtures/localhost.key.der");

    /// A server that answers with the request that it heard; returns its port.
    async fn echo() -> u16 {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY.to_vec()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(LOCALHOST.to_vec())], key)
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that does not trust the certificate goes away.
                let Ok(mut client) = acceptor.accept(client).await else { continue };
                let mut heard = vec![0; 4096];
                let read = client.read(&mut heard).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {read}\r\n\r\n");
                client.write_all(head.as_bytes()).await.unwrap();
                client.write_all(&heard[..read]).await.unwrap();
                client.shutdown().await.unwrap();
            }
        });
        port
    }

    fn client(url: &str, roots: RootCertStore) -> Http {
        let address = Address::parse(url).unwrap().unwrap();
        Http::with_roots(address, Some(&Secret::from("hunter2")), roots).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_is_checked_with_its_authority_and_name() {
        let port = echo().await;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(AUTHORITY)).unwrap();

        let trusted = client(&format!("libsql://localhost:{port}"), roots.clone());
        let heard = trusted.post(b"{}".to_vec(), CONNECT).await.unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.starts_with("POST /v3/pipeline HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("authorization: Bearer hunter2\r\n"), "{heard}");

        for (url, roots) in [
            (format!("libsql://localhost:{port}"), RootCertStore::empty()),
            (format!("wss://127.0.0.1:{port}"), roots),
        ] {
            let error = client(&url, roots).post(b"{}".to_vec(), CONNECT).await.unwrap_err();
            assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unavailable, true));
            let said = format!("{error:?}");
            assert!(said.contains("certificate") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn the_system_has_certificates_or_says_what_to_do() {
        match native_roots() {
            Ok(roots) => assert!(!roots.is_empty()),
            Err(error) => assert!(error.advice().is_some()),
        }
    }
}
