//! The one place where what a server says becomes our errors.

use std::{error::Error as StdError, time::Duration};

use hyper::StatusCode;
use s3rep_core::{Error, ErrorKind, Scope};
use serde::Deserialize;

use super::hrana::Failure;

/// A request that did not get there, or whose answer did not come back whole.
pub(crate) fn from_connection(error: impl Into<Box<dyn StdError + Send + Sync>>, is_connect: bool) -> Error {
    let error = Error::new(
        ErrorKind::Unavailable,
        if is_connect { "the server cannot be reached" } else { "the connection to the server broke" },
    )
    .with_source(error)
    .temporary()
    .with_scope(Scope::Sink);
    if is_connect {
        error
            .with_advice("start the server, or correct the url; the cause may be a certificate or a firewall")
    } else {
        error.with_advice("look whether the server is up")
    }
}

/// An answer that is not 200. Of its text only a code is shown: a server may quote the request.
pub(crate) fn from_status(status: StatusCode, body: &[u8], after: Option<Duration>) -> Error {
    let sink = |kind, message: &'static str| Error::new(kind, message).with_scope(Scope::Sink);
    let error = match status.as_u16() {
        401 | 403 => sink(ErrorKind::Unauthenticated, "the server refuses the token")
            .with_advice("look whether authToken is there, has not expired and is one of this database"),
        404 | 405 => sink(ErrorKind::NotFound, "the server has no such database, or is no libSQL server")
            .with_advice("correct the url"),
        300..400 => sink(ErrorKind::ConfigInvalid, "the server sends to another address")
            .with_advice("write the address with https:// or libsql://, or the one it sends to"),
        413 => Error::new(ErrorKind::TooLarge, "the server does not take so much at once"),
        408 => sink(ErrorKind::Timeout, "the server waited too long for the request").temporary(),
        429 => sink(ErrorKind::RateLimited, "the server asks for fewer requests").temporary(),
        500.. => sink(ErrorKind::Unavailable, "the server failed")
            .temporary()
            .with_advice("look into the log of the server"),
        400 if is_of_stream(body) => {
            sink(ErrorKind::Unavailable, "the server has given the connection up").temporary()
        }
        _ => Error::new(ErrorKind::Unexpected, "the server refused the request"),
    };
    let error = match after {
        Some(after) if error.is_temporary() => error.retry_after(after),
        _ => error,
    };
    let error = error.with_context("status", status.as_u16());
    match code_of(body) {
        Some(code) => error.with_context("code", code),
        None => error,
    }
}

/// Whether a server that keeps no such stream says so.
fn is_of_stream(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("STREAM_EXPIRED") || text.contains("baton")
}

fn code_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    let Problem { code } = serde_json::from_slice(body).ok()?;
    is_code(&code).then_some(code)
}

fn is_code(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_good)
}

/// What SQLite says of constraints. Everything else under their code is the text of a trigger, which is the
/// user's and may quote the row.
const CONSTRAINTS: [&str; 5] = [
    "UNIQUE constraint failed",
    "NOT NULL constraint failed",
    "CHECK constraint failed",
    "FOREIGN KEY constraint failed",
    "PRIMARY KEY constraint failed",
];

/// A statement that failed.
pub(crate) fn from_failure(failure: &Failure) -> Error {
    let code = failure.code.as_deref().filter(|code| is_code(code)).unwrap_or_default();
    let message = failure.message.trim_start_matches("SQLite error: ");
    let said = |kind, what: &str| Error::new(kind, format!("{what}: {message}"));
    let sink = |error: Error| error.with_scope(Scope::Sink);
    let is = |part: &str| code.contains(part);
    if is("CONSTRAINT") {
        let error = if CONSTRAINTS.iter().any(|known| message.starts_with(known)) {
            said(ErrorKind::Conflict, "a constraint refused the row")
        } else {
            Error::new(ErrorKind::Conflict, "a trigger of the table refused the row")
        };
        return error.with_scope(Scope::Record);
    }
    if is("MISMATCH") {
        return said(ErrorKind::InvalidValue, "a value does not fit its column").with_scope(Scope::Record);
    }
    if is("TOOBIG") || (code == "ARGS_INVALID" && message.ends_with("too big")) {
        return said(ErrorKind::TooLarge, "a value is too large").with_scope(Scope::Record);
    }
    if code == RESPONSE_TOO_LARGE {
        return Error::new(ErrorKind::TooLarge, "the answer would be too large for the server");
    }
    if ["BUSY", "SQLITE_LOCKED", "TIMEOUT", "INTERRUPT", "SQLITE_SCHEMA"].iter().any(|part| is(part)) {
        return sink(said(ErrorKind::Contention, "another connection holds the database"))
            .temporary()
            .with_advice("end long transactions of other programs on this database");
    }
    if is("FULL") || is("BLOCKED") {
        return sink(said(
            ErrorKind::StorageFull,
            "the server has no space for the database, or its quota is used up",
        ))
        .temporary()
        .with_advice("free space, or raise the quota of the database");
    }
    if is("READONLY") || is("PERM") || is("AUTH") {
        return sink(said(ErrorKind::PermissionDenied, "the database cannot be written"))
            .with_advice("make a token that may write, and write to the primary, not to a replica");
    }
    if is("CORRUPT") || is("NOTADB") {
        return sink(said(ErrorKind::Corrupt, "the database is damaged"))
            .with_advice("restore it from a backup, or name a new one and synchronise anew");
    }
    if is("NOMEM") || is("IOERR") || is("CANTOPEN") || is("STREAM_EXPIRED") {
        return sink(said(ErrorKind::Unavailable, "the server failed"))
            .temporary()
            .with_advice("look into the log of the server");
    }
    from_words(message, code)
}

/// What sqld has no code for.
fn from_words(message: &str, code: &str) -> Error {
    let table = |kind, what: &'static str| Error::new(kind, what).with_scope(Scope::Table);
    if message.starts_with("ON CONFLICT clause does not match") {
        return table(ErrorKind::SchemaMismatch, "the table has no unique constraint on its key column")
            .with_advice("make id the primary key, or _change_id unique in an append table");
    }
    let error = Error::new(ErrorKind::Unexpected, format!("the database refused a statement: {message}"));
    if code.is_empty() { error } else { error.with_context("code", code) }
}

/// Says that fewer rows have to be asked for.
pub(crate) const RESPONSE_TOO_LARGE: &str = "RESPONSE_TOO_LARGE";

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: &str, message: &str) -> Failure {
        Failure { message: message.into(), code: Some(code.into()) }
    }

    #[test]
    fn every_code_says_what_to_do() {
        use ErrorKind as K;
        for (code, message, kind, is_temporary, scope) in [
            (
                "SQLITE_CONSTRAINT",
                "SQLite error: UNIQUE constraint failed: t.u",
                K::Conflict,
                false,
                Scope::Record,
            ),
            (
                "SQLITE_CONSTRAINT_NOTNULL",
                "NOT NULL constraint failed: t.u",
                K::Conflict,
                false,
                Scope::Record,
            ),
            ("SQLITE_MISMATCH", "SQLite error: datatype mismatch", K::InvalidValue, false, Scope::Record),
            ("SQLITE_TOOBIG", "SQLite error: string or blob too big", K::TooLarge, false, Scope::Record),
            ("ARGS_INVALID", "…: string or blob too big", K::TooLarge, false, Scope::Record),
            ("ARGS_INVALID", "value for parameter ?1 not found", K::Unexpected, false, Scope::Batch),
            ("SQLITE_BUSY", "database is locked", K::Contention, true, Scope::Sink),
            ("TRANSACTION_TIMEOUT", "Transaction timed out", K::Contention, true, Scope::Sink),
            ("SQLITE_FULL", "database or disk is full", K::StorageFull, true, Scope::Sink),
            ("BLOCKED", "Database was blocked", K::StorageFull, true, Scope::Sink),
            ("SQLITE_READONLY", "attempt to write", K::PermissionDenied, false, Scope::Sink),
            ("SQLITE_AUTH", "not authorized", K::PermissionDenied, false, Scope::Sink),
            ("SQLITE_CORRUPT", "malformed", K::Corrupt, false, Scope::Sink),
            ("SQLITE_IOERR", "disk I/O error", K::Unavailable, true, Scope::Sink),
            ("STREAM_EXPIRED", "The stream has expired", K::Unavailable, true, Scope::Sink),
            (
                "SQLITE_UNKNOWN",
                "SQLite error: ON CONFLICT clause does not match any",
                K::SchemaMismatch,
                false,
                Scope::Table,
            ),
            ("SQLITE_UNKNOWN", "SQLite error: no such table: t", K::Unexpected, false, Scope::Batch),
            ("no code", "x", K::Unexpected, false, Scope::Batch),
        ] {
            let error = from_failure(&failure(code, message));
            let found = (error.kind(), error.is_temporary(), error.scope());
            assert_eq!(found, (kind, is_temporary, scope), "{code} {message}");
            assert!(scope != Scope::Sink || error.advice().is_some(), "{code}");
        }
    }

    #[test]
    fn every_status_says_what_to_do() {
        use ErrorKind as K;
        for (status, body, kind, is_temporary, scope) in [
            (401, "", K::Unauthenticated, false, Scope::Sink),
            (403, "", K::Unauthenticated, false, Scope::Sink),
            (404, "", K::NotFound, false, Scope::Sink),
            (308, "", K::ConfigInvalid, false, Scope::Sink),
            (413, "", K::TooLarge, false, Scope::Batch),
            (429, "", K::RateLimited, true, Scope::Sink),
            (500, "", K::Unavailable, true, Scope::Sink),
            (503, "", K::Unavailable, true, Scope::Sink),
            (400, r#"{"message":"x","code":"STREAM_EXPIRED"}"#, K::Unavailable, true, Scope::Sink),
            (400, "Received an invalid baton", K::Unavailable, true, Scope::Sink),
            (400, "Cannot deserialize hunter2", K::Unexpected, false, Scope::Batch),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = from_status(status, body.as_bytes(), Some(Duration::from_secs(7)));
            let found = (error.kind(), error.is_temporary(), error.scope());
            assert_eq!(found, (kind, is_temporary, scope), "{status} {body}");
            if is_temporary {
                assert_eq!(
                    error.retry(),
                    s3rep_core::Retry::Temporary { after: Some(Duration::from_secs(7)) }
                );
            }
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn the_words_of_a_trigger_and_codes_that_are_none_are_not_repeated() {
        for failure in
            [failure("SQLITE_CONSTRAINT", "SQLite error: bad row hunter2"), failure("hunter2", "x")]
        {
            assert!(!format!("{:?}", from_failure(&failure)).contains("hunter2"));
        }
    }
}
