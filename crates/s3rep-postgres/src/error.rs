//! The one place where PostgreSQL's errors become ours.

use std::error::Error as _;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use s3rep_core::{Error, ErrorKind, Scope};
use tokio_postgres::error::DbError;

/// What an error of the client library means to the engine.
pub(crate) fn from_postgres(error: tokio_postgres::Error) -> Error {
    if let Some(server) = error.as_db_error() {
        return from_server(server);
    }
    let text = error.to_string();
    if text.contains("TLS") && !is_cut(&error) {
        return Error::new(ErrorKind::Unauthenticated, "the encrypted connection could not be made")
            .with_scope(Scope::Sink)
            .with_source(error)
            .with_advice(
                "look at the option ssl: {ca: …} trusts an authority, {rejectUnauthorized: false} any server",
            );
    }
    if text.contains("authentication") || text.contains("password missing") {
        return Error::new(
            ErrorKind::Unauthenticated,
            "the server wants a proof that the configuration does not have",
        )
        .with_scope(Scope::Sink)
        .with_source(error)
        .with_advice("set user and password");
    }
    let is_of_connection = error.is_closed() || cause(&error).is_some();
    if is_of_connection
        || text.contains("connect")
        || text.contains("timeout")
        || text.contains("communicating")
    {
        return Error::new(ErrorKind::Unavailable, "the database cannot be reached")
            .temporary()
            .with_scope(Scope::Sink)
            .with_source(error)
            .with_advice("look whether the server runs and takes connections from here");
    }
    Error::new(ErrorKind::Unexpected, "the client library of the database failed").with_source(error)
}

fn cause(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    error.source()?.downcast_ref()
}

/// Whether the connection was lost. Certificates and protocols that do not fit are invalid data.
fn is_cut(error: &tokio_postgres::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    cause(error).is_some_and(|cause| !matches!(cause.kind(), InvalidData | InvalidInput))
}

/// What is at stake where no record is: the server may name the kind of error that a record brings about.
pub(crate) fn at_least(scope: Scope, error: Error) -> Error {
    let scope = error.scope().max(scope);
    error.with_scope(scope)
}

/// What an error of the pool means.
pub(crate) fn from_pool(error: PoolError) -> Error {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            at_least(Scope::Sink, from_postgres(error))
        }
        PoolError::Timeout(TimeoutType::Wait) => {
            Error::new(ErrorKind::Unavailable, "no connection of the pool became free in time")
                .temporary()
                .with_scope(Scope::Sink)
                .with_advice("raise pool.max or pool.acquireTimeoutMillis")
        }
        PoolError::Timeout(_) => Error::new(ErrorKind::Unavailable, "no connection was made in time")
            .temporary()
            .with_scope(Scope::Sink)
            .with_advice("look whether the server runs and takes connections from here"),
        other => Error::new(ErrorKind::Unexpected, "the pool of connections failed")
            .with_scope(Scope::Sink)
            .with_source(other),
    }
}

fn from_server(error: &DbError) -> Error {
    let code = error.code().code();
    // What a trigger says is the user's, whatever SQLSTATE it has, and may quote the row; so may what the server says
    // of a statement that a trigger made up.
    let is_raised = matches!(error.routine(), Some("exec_stmt_raise" | "exec_stmt_assert"));
    let message = Some(error.message()).filter(|_| !is_raised && error.where_().is_none());
    let mut ours = classify(code, message).with_context("sqlstate", code);
    // Names only: details and the messages about records quote values.
    for (key, name) in
        [("table", error.table()), ("column", error.column()), ("constraint", error.constraint())]
    {
        if let Some(name) = name.filter(|_| !is_raised) {
            ours = ours.with_context(key, name);
        }
    }
    ours
}

/// By SQLSTATE. Only classes 21 to 23 and their like are about records.
fn classify(code: &str, message: Option<&str>) -> Error {
    let said = |kind, what: &'static str| match message {
        Some(message) => Error::new(kind, format!("{what}: {message}")),
        None => Error::new(kind, what),
    };
    let sink = |error: Error| error.with_scope(Scope::Sink);
    let table = |error: Error| error.with_scope(Scope::Table);
    let record = |kind, what: &'static str| Error::new(kind, what).with_scope(Scope::Record);
    match code {
        "23502" => record(ErrorKind::Conflict, "the column accepts no null"),
        "23503" => record(ErrorKind::Conflict, "the row refers to one that is not there"),
        "23505" => record(ErrorKind::Conflict, "another row has the same unique value"),
        "23514" => record(ErrorKind::Conflict, "a check constraint refused the row"),
        "54000" => record(ErrorKind::TooLarge, "a value is too large for the table or its index"),
        "P0001" => record(ErrorKind::Conflict, "a trigger of the table refused the row"),
        _ if code.starts_with("23") => record(ErrorKind::Conflict, "a constraint refused the row"),
        _ if code.starts_with("22") || code.starts_with("21") => {
            record(ErrorKind::InvalidValue, "a value does not fit its column")
        }
        "42501" => table(said(ErrorKind::PermissionDenied, "the user may not do this"))
            .with_advice("grant SELECT, INSERT, UPDATE and DELETE on the table and on _s3rep_cursor, and USAGE on their schema (CREATE to make them)"),
        "42P01" => table(said(ErrorKind::NotFound, "there is no such table"))
            .with_advice("set schemaSync.enabled to true, or create the table"),
        "3F000" => table(said(ErrorKind::NotFound, "there is no such schema"))
            .with_advice("create the schema: s3rep makes tables, not schemas"),
        "42P10" => table(said(ErrorKind::SchemaMismatch, "the table has no unique index on its key column"))
            .with_advice("make id the primary key, or _change_id unique in an append table"),
        "42703" | "42704" | "42804" | "42846" | "42P07" | "42701" | "55000" => {
            table(said(ErrorKind::SchemaMismatch, "the table is not as expected"))
                .with_advice("run `s3rep plan` to see what differs")
        }
        "42939" | "42602" | "42622" => table(said(ErrorKind::ConfigInvalid, "the name cannot be used")),
        // A statement was prepared for a table that has changed since.
        "0A000" if message.is_some_and(|message| message.contains("cached plan")) => {
            said(ErrorKind::Contention, "the table was changed").temporary().with_scope(Scope::Sink)
        }
        "40001" | "40P01" | "55P03" | "55006" => {
            sink(said(ErrorKind::Contention, "another transaction is in the way")).temporary()
        }
        "57014" => sink(said(ErrorKind::Timeout, "the server cancelled the statement")).temporary()
            .with_advice("raise statementTimeoutMillis and the replicator's timeout, or lower its batchSize"),
        "53100" => sink(said(ErrorKind::StorageFull, "the server has no space left")).temporary()
            .with_advice("free space on the server's disk"),
        "53300" => sink(said(ErrorKind::Unavailable, "the server takes no more connections")).temporary()
            .with_advice("raise the server's max_connections or lower pool.max"),
        "25006" => sink(said(ErrorKind::Unavailable, "the server can only be read now")).temporary()
            .with_advice("connect to the primary (target_session_attrs=read-write)"),
        _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            sink(said(ErrorKind::Unavailable, "the server is not available")).temporary()
        }
        _ if code.starts_with("28") => sink(said(ErrorKind::Unauthenticated, "the server refused the user"))
            .with_advice("look at user, password and the server's pg_hba.conf"),
        "3D000" => sink(said(ErrorKind::NotFound, "there is no such database"))
            .with_advice("create the database: s3rep makes tables, not databases"),
        _ if code.starts_with("XX") => sink(said(ErrorKind::Corrupt, "the server failed"))
            .with_advice("look at the server's log"),
        // Nobody knows what the text holds.
        _ => Error::new(ErrorKind::Unexpected, "the server refused a statement")
            .with_advice("look at the server's log"),
    }
}

/// Whether the error says that the table is not the one that statements were made for.
pub(crate) fn is_about_shape(error: &Error) -> bool {
    error.scope() == Scope::Table || error.kind() == ErrorKind::Contention
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_says_what_is_at_stake() {
        use ErrorKind as K;
        for (code, kind, is_temporary, scope) in [
            ("22001", K::InvalidValue, false, Scope::Record),
            ("22P02", K::InvalidValue, false, Scope::Record),
            ("22P05", K::InvalidValue, false, Scope::Record),
            ("21000", K::InvalidValue, false, Scope::Record),
            ("23502", K::Conflict, false, Scope::Record),
            ("23505", K::Conflict, false, Scope::Record),
            ("23P01", K::Conflict, false, Scope::Record),
            ("P0001", K::Conflict, false, Scope::Record),
            ("54000", K::TooLarge, false, Scope::Record),
            ("42501", K::PermissionDenied, false, Scope::Table),
            ("42P01", K::NotFound, false, Scope::Table),
            ("3F000", K::NotFound, false, Scope::Table),
            ("42703", K::SchemaMismatch, false, Scope::Table),
            ("42P10", K::SchemaMismatch, false, Scope::Table),
            ("40001", K::Contention, true, Scope::Sink),
            ("40P01", K::Contention, true, Scope::Sink),
            ("57014", K::Timeout, true, Scope::Sink),
            ("53100", K::StorageFull, true, Scope::Sink),
            ("53300", K::Unavailable, true, Scope::Sink),
            ("57P01", K::Unavailable, true, Scope::Sink),
            ("08006", K::Unavailable, true, Scope::Sink),
            ("25006", K::Unavailable, true, Scope::Sink),
            ("28P01", K::Unauthenticated, false, Scope::Sink),
            ("3D000", K::NotFound, false, Scope::Sink),
            ("XX001", K::Corrupt, false, Scope::Sink),
            ("42601", K::Unexpected, false, Scope::Batch),
            ("99999", K::Unexpected, false, Scope::Batch),
        ] {
            let error = classify(code, Some("words"));
            assert_eq!(
                (error.kind(), error.is_temporary(), error.scope()),
                (kind, is_temporary, scope),
                "{code}"
            );
        }
    }

    #[test]
    fn messages_about_records_are_not_repeated() {
        for code in ["22P02", "23505", "P0001", "21000", "P0002", "P0004", "42601"] {
            assert!(
                !classify(code, Some("invalid input: \"hunter2\"")).report().contains("hunter2"),
                "{code}"
            );
        }
    }
}
