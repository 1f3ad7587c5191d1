//! Where a server is.

use hyper::Uri;
use s3rep_core::{Error, ErrorKind, Result, Scope};

/// How a scheme is spoken to. WebSockets are another way to the same server.
const SCHEMES: [(&str, &str); 5] = [
    ("libsql://", "https://"),
    ("https://", "https://"),
    ("wss://", "https://"),
    ("http://", "http://"),
    ("ws://", "http://"),
];

/// Where the batches of a database are sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Address {
    /// Takes batches of statements.
    pub(crate) endpoint: Uri,
    /// Host and port, for messages.
    pub(crate) server: String,
}

impl Address {
    /// The address in a URL; `None` when the URL is not one of a server.
    pub(crate) fn parse(url: &str) -> Result<Option<Self>> {
        let scheme = SCHEMES.iter().find(|(scheme, _)| {
            url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let Some((scheme, spoken)) = scheme else { return Ok(None) };
        let rest = url[scheme.len()..].trim_end_matches('/');
        if rest.contains(['?', '#']) {
            return Err(invalid("the url has parameters, which are not supported")
                .with_advice("write the url without '?', and a token as the option authToken"));
        }
        if rest.contains('@') {
            return Err(invalid("the url has a user or password, which a libSQL server does not take")
                .with_advice("write the url without them, and a token as the option authToken"));
        }
        let uri: Uri = format!("{spoken}{rest}/v3/pipeline")
            .parse()
            .map_err(|_| invalid("the url has no valid host"))?;
        let server = match uri.authority() {
            Some(authority) if !authority.host().is_empty() => authority.to_string(),
            _ => return Err(invalid("the url has no valid host")),
        };
        Ok(Some(Self { endpoint: uri, server }))
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message)
        .with_scope(Scope::Sink)
        .with_context("option", "url")
        .with_advice("write it like libsql://shop-me.turso.io or http://127.0.0.1:8080")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers() {
        for (url, endpoint, server) in [
            ("libsql://shop-me.turso.io", "https://shop-me.turso.io/v3/pipeline", "shop-me.turso.io"),
            ("LIBSQL://shop-me.turso.io/", "https://shop-me.turso.io/v3/pipeline", "shop-me.turso.io"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v3/pipeline", "127.0.0.1:8080"),
            ("ws://[::1]:8080", "http://[::1]:8080/v3/pipeline", "[::1]:8080"),
            ("wss://db.example/a/b/", "https://db.example/a/b/v3/pipeline", "db.example"),
        ] {
            let address = Address::parse(url).unwrap().unwrap();
            assert_eq!((address.endpoint.to_string().as_str(), address.server.as_str()), (endpoint, server));
        }
        for url in ["out.db", "file:out.db", "libsql:out.db", "", "é://x"] {
            assert_eq!(Address::parse(url).unwrap(), None, "{url}");
        }
    }

    #[test]
    fn what_a_server_has_no_place_for_is_refused_and_not_shown() {
        for url in [
            "libsql://",
            "http://:8080",
            "http://a b",
            "https://x?authToken=hunter2",
            "libsql://x?tls=0",
            "https://x#hunter2",
            "https://me:hunter2@x",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Sink), "{url}");
            assert!(error.advice().is_some() && !format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
