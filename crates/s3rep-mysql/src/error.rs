//! The one place where the client library's errors become ours.
//!
//! The server's texts quote values of records (`Duplicate entry 'ada@example.com' for key 'email'`). Of errors about
//! records only the names in them are repeated.

use std::borrow::Cow;

use mysql_async::{DriverError, IoError, TlsError};
use s3rep_core::{Error, ErrorKind, Scope};

/// The codes that MySQL and MariaDB share, and each one's own, by what they mean here.
pub(crate) mod code {
    pub(crate) const UNKNOWN_COLUMN: u16 = 1054;
    pub(crate) const DUPLICATE_COLUMN: u16 = 1060;
    pub(crate) const CANNOT_DROP: u16 = 1091;
    pub(crate) const NO_SUCH_TABLE: u16 = 1146;
    pub(super) const NULL: u16 = 1048;
    pub(super) const ENGINE: u16 = 1030;
    /// Of the server's own file functions (`mysys_err.h`), which it passes on as they are.
    pub(super) const FILES: std::ops::RangeInclusive<u16> = 1..=199;
    pub(super) const DISK_FULL: u16 = 20;
    /// Vitess says everything with it.
    pub(super) const UNKNOWN: u16 = 1105;
    pub(super) const DUPLICATE: &[u16] = &[1062, 1169, 1586];
    /// A value of the wrong kind: numbers, times, characters, JSON.
    pub(super) const VALUE: &[u16] = &[
        1265, 1292, 1300, 1365, 1366, 1367, 1411, 1416, 1525, 3140, 3141, 3142, 3143, 3144, 3145, 3146, 3147,
        3148, 3149, 3150, 3151, 3155, 3156, 3157, 3158,
    ];
    /// Deadlocks, waits that were too long, transactions that met another one when they were committed.
    pub(super) const CONTENTION: &[u16] = &[1020, 1205, 1213, 1412, 1615, 1637, 3101, 3572];
    /// Shutdown, no memory or threads, a session that was ended, a node of a cluster that is not ready.
    pub(super) const UNAVAILABLE: &[u16] = &[
        1037, 1038, 1041, 1047, 1053, 1077, 1079, 1129, 1135, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3032,
        3100, 3169, 4031,
    ];
    /// Passwords, hosts, accounts that are locked or have expired.
    pub(super) const REFUSED_USER: &[u16] = &[1045, 1130, 1251, 1698, 1820, 1862, 3118, 4151];
    /// Columns that are absent, generated or without a default; tables that take no rows.
    pub(super) const SHAPE: &[u16] =
        &[UNKNOWN_COLUMN, DUPLICATE_COLUMN, CANNOT_DROP, 1136, 1288, 1348, 1356, 1364, 1471, 1906, 3105];
    /// Of statements that make or change a table.
    pub(super) const DEFINITION: &[u16] = &[
        1050, 1067, 1069, 1070, 1071, 1072, 1073, 1074, 1101, 1117, 1138, 1163, 1170, 1293, 1294, 1439, 1484,
        1846, 3750, 3780,
    ];
    pub(super) const DAMAGED: &[u16] = &[1034, 1035, 1194, 1195, 1712, 1877];
}

/// The server's code, where the server refused something.
pub(crate) fn code_of(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(error) => Some(error.code),
        _ => None,
    }
}

/// What an error of the client library means to the engine.
pub(crate) fn from_mysql(error: mysql_async::Error) -> Error {
    use mysql_async::Error as E;
    match error {
        E::Server(error) => from_server(error.code, &error.state, &error.message),
        E::Io(IoError::Io(error)) => from_io(&error),
        E::Io(IoError::Tls(error)) => from_tls(&error),
        E::Driver(error) => from_driver(&error),
        // Its text may be anything.
        _ => Error::new(ErrorKind::Unexpected, "the client library of the database failed"),
    }
}

fn sink(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, message).with_scope(Scope::Sink)
}

fn from_io(error: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return from_rustls(tls);
    }
    match error.kind() {
        // The only files that are opened.
        K::NotFound | K::IsADirectory => {
            sink(ErrorKind::ConfigInvalid, format!("a file that ssl names cannot be read: {error}"))
                .with_advice("look at the paths in ssl.ca, ssl.cert and ssl.key")
        }
        K::PermissionDenied => {
            sink(ErrorKind::PermissionDenied, format!("a file or connection is not allowed: {error}"))
                .with_advice("look at the permissions of the files that ssl names")
        }
        _ => sink(ErrorKind::Unavailable, format!("the connection to the server failed: {error}"))
            .temporary()
            .with_advice("look whether the server runs and takes connections from here"),
    }
}

fn from_tls(error: &TlsError) -> Error {
    match error {
        TlsError::Tls(error) => from_rustls(error),
        _ => sink(ErrorKind::ConfigInvalid, format!("the connection cannot be encrypted: {error}"))
            .with_advice("look at the host name and at ssl.ca, ssl.cert and ssl.key"),
    }
}

fn from_rustls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            sink(ErrorKind::Unauthenticated, format!("the server does not prove who it is: {error}"))
                .with_advice("name who signed its certificate in ssl.ca, or the host as the certificate does")
        }
        rustls::Error::AlertReceived(_) => {
            sink(ErrorKind::Unauthenticated, format!("the server refuses the encrypted connection: {error}"))
                .with_advice("look whether it asks for a client certificate (ssl.cert and ssl.key)")
        }
        _ => sink(ErrorKind::Unavailable, format!("the encrypted connection failed: {error}"))
            .temporary()
            .with_advice("look whether the server speaks TLS 1.2 or 1.3"),
    }
}

fn from_driver(error: &DriverError) -> Error {
    use DriverError as E;
    match error {
        E::NoClientSslFlagFromServer => sink(ErrorKind::ConfigInvalid, "the server offers no encryption")
            .with_advice("switch TLS on at the server, or set ssl to false in a network that you trust"),
        E::NoKeyFound => sink(ErrorKind::ConfigInvalid, "there is no private key in ssl.key")
            .with_advice("write PEM, or the path of a file with it"),
        E::UnknownAuthPlugin { .. }
        | E::MysqlOldPasswordDisabled
        | E::CleartextPluginDisabled
        | E::InvalidParsecSalt => {
            sink(ErrorKind::Unauthenticated, "the server asks for a password in a way that is not supported")
                .with_advice("make a user with mysql_native_password or caching_sha2_password")
        }
        E::PacketTooLarge => too_large(),
        E::ConnectionClosed
        | E::PoolDisconnected
        | E::PacketOutOfOrder
        | E::UnexpectedPacket { .. }
        | E::BadCompressedPacketHeader
        | E::CantParseServerVersion { .. } => {
            sink(ErrorKind::Unavailable, "the connection to the server broke")
                .temporary()
                .with_advice("look at the server's log, and whether this is a MySQL server")
        }
        // Some of them hold rows.
        _ => Error::new(ErrorKind::Unexpected, "the client library of the database failed"),
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "the statement is larger than the server takes")
        .with_advice("raise the server's max_allowed_packet")
}

fn from_server(code: u16, state: &str, message: &str) -> Error {
    let mut error = classify(code, message).with_context("code", format!("{code} ({state})"));
    if error.scope() == Scope::Record
        && let Some((key, name)) = names(code, message)
    {
        error = error.with_context(key, name);
    }
    error
}

fn classify(code: u16, message: &str) -> Error {
    about_record(code)
        .or_else(|| about_table(code, message))
        .or_else(|| about_server(code, message))
        // What nobody has looked at yet may quote anything.
        .unwrap_or_else(|| Error::new(ErrorKind::Unexpected, "the server refused a statement"))
}

/// The texts of these may quote values, that of a trigger among them.
fn about_record(code: u16) -> Option<Error> {
    use ErrorKind::{Conflict, InvalidValue, TooLarge};
    let (kind, message) = match code {
        code if code::DUPLICATE.contains(&code) => (Conflict, "another row has the same unique value"),
        code if code::VALUE.contains(&code) => (InvalidValue, "a value does not fit its column"),
        code::NULL | 1263 => (Conflict, "the column accepts no null"),
        3819 | 4025 => (Conflict, "a check constraint refused the row"),
        1216 | 1452 => (Conflict, "the row refers to one that is not there"),
        1217 | 1451 => (Conflict, "another row refers to this one"),
        1526 | 1748 => (Conflict, "the table has no partition for the row"),
        1644 => (Conflict, "a trigger of the table refused the row"),
        1406 => (InvalidValue, "the text is longer than the column takes"),
        1264 | 1441 | 1690 => (InvalidValue, "the value is out of the range of the column"),
        1118 => (TooLarge, "the row is larger than the table takes"),
        _ => return None,
    };
    Some(Error::new(kind, message).with_scope(Scope::Record))
}

/// The texts of these have names only.
fn about_table(code: u16, text: &str) -> Option<Error> {
    use ErrorKind::{ConfigInvalid, NotFound, PermissionDenied, SchemaMismatch, Unsupported};
    let (kind, message, advice) = match code {
        code if code::SHAPE.contains(&code) => {
            (SchemaMismatch, "the table is not as expected", "run `s3rep plan` to see what differs")
        }
        code if code::DEFINITION.contains(&code) => {
            (SchemaMismatch, "the table cannot be made so", "make or alter the table by hand")
        }
        code::NO_SUCH_TABLE | 1051 => {
            (NotFound, "there is no such table", "set schemaSync.enabled to true, or create the table")
        }
        1142 | 1143 => (PermissionDenied, "the user may not do this", GRANT),
        1059 | 1102 | 1103 | 1166 => (ConfigInvalid, "the name cannot be used", "map it to another name"),
        1235 => (Unsupported, "the server does not do this", "use an unsharded keyspace, or MySQL itself"),
        _ => return None,
    };
    let error = Error::new(kind, format!("{message}: {text}"));
    Some(error.with_scope(Scope::Table).with_advice(advice))
}

fn about_server(code: u16, text: &str) -> Option<Error> {
    let says =
        |kind, message: &str, advice| Some(sink(kind, format!("{message}: {text}")).with_advice(advice));
    let for_now = |kind, message, advice| says(kind, message, advice).map(Error::temporary);
    use ErrorKind::{
        ConfigInvalid, Contention, Corrupt, NotFound, PermissionDenied, RateLimited, StorageFull, Timeout,
        Unauthenticated, Unavailable, Unsupported,
    };
    match code {
        code if code::CONTENTION.contains(&code) => for_now(
            Contention,
            "another transaction is in the way",
            "look for long transactions of other programs on these tables",
        ),
        code if code::UNAVAILABLE.contains(&code) => {
            for_now(Unavailable, "the server is not available", "look at the server's log")
        }
        // Its text has the user's name and address.
        code if code::REFUSED_USER.contains(&code) => {
            Some(sink(Unauthenticated, "the server refuses the user").with_advice(
                "look at user and password, from which hosts the user may connect, and whether only with ssl",
            ))
        }
        code if code::DAMAGED.contains(&code) => {
            says(Corrupt, "the table is damaged", "look at the server's log")
        }
        1317 | 1969 | 3024 => for_now(
            Timeout,
            "the server ended the statement",
            "raise the server's limit for statements, or lower the replicator's batchSize",
        ),
        1021 | 1114 | code::DISK_FULL => {
            for_now(StorageFull, "the server has no space left", "free space on the server's disk")
        }
        code::ENGINE if text.contains("error 28") => {
            for_now(StorageFull, "the server has no space left", "free space on the server's disk")
        }
        1040 | 1203 => for_now(
            Unavailable,
            "the server takes no more connections",
            "raise the server's max_connections, or lower connectionLimit",
        ),
        1226 => for_now(
            RateLimited,
            "the user has used up its share of the server",
            "raise the user's limits, or lower connectionLimit",
        ),
        1461 => for_now(
            Unavailable,
            "the server takes no more prepared statements",
            "raise the server's max_prepared_stmt_count",
        ),
        1290 | 1792 | 1836 => for_now(
            Unavailable,
            "the server can only be read now",
            "connect to the primary, or set read_only to 0 there",
        ),
        1044 | 1227 | 1370 | 1410 => says(PermissionDenied, "the user may not do this", GRANT),
        1049 => says(
            NotFound,
            "there is no such database",
            "create the database: s3rep makes tables, not databases",
        ),
        1115 | 1273 => says(
            Unsupported,
            "the server is too old",
            "use MySQL 8.0.17 or later, or MariaDB 10.5.2 or later",
        ),
        1665 => says(
            ConfigInvalid,
            "the server cannot write its binary log",
            "set the server's binlog_format to ROW or MIXED",
        ),
        3159 => says(ConfigInvalid, "the server takes encrypted connections only", "set ssl to true"),
        1153 | 1162 | 1301 | 2020 => Some(too_large()),
        1713 => {
            Some(Error::new(ErrorKind::TooLarge, "the changes are larger than the server's undo log takes"))
        }
        code::UNKNOWN => Some(from_vitess(text)),
        code if code::FILES.contains(&code) => {
            for_now(Unavailable, "the server failed at a file of its own", "look at the server's log")
        }
        _ => None,
    }
}

/// For s3rep's own table, the tables of routes, and schema synchronisation.
const GRANT: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON the database TO the user, and CREATE, ALTER, DROP for \
                     schemaSync; without CREATE, make the tables by hand, _s3rep_cursor too";

/// PlanetScale puts everything into one code. Its texts have statements with their values, and are never repeated.
fn from_vitess(message: &str) -> Error {
    let has = |part: &str| message.contains(part);
    if has("row count exceeded") || has("larger than max") {
        Error::new(ErrorKind::TooLarge, "the transaction is larger than the server takes")
            .with_advice("lower the replicator's batchSize")
    } else if has("DDL") && has("disabled") {
        sink(ErrorKind::PermissionDenied, "the server takes no changes of tables on this branch").with_advice(
            "make the table on a development branch and deploy it, or switch safe migrations off",
        )
    } else if has("code = ResourceExhausted") {
        sink(ErrorKind::RateLimited, "the server is asked for too much").temporary()
    } else if has("code = DeadlineExceeded") || has("code = Canceled") {
        sink(ErrorKind::Timeout, "the server ended the statement")
            .temporary()
            .with_advice("lower the replicator's batchSize: a transaction may last 20 s")
    } else if has("code = Aborted") {
        sink(ErrorKind::Contention, "the server ended the transaction").temporary()
    } else if has("code = Unavailable") {
        sink(ErrorKind::Unavailable, "the server is not available").temporary()
    } else {
        Error::new(ErrorKind::Unexpected, "the server refused a statement")
    }
}

/// The names of columns and constraints in the text of an error about a record.
fn names(code: u16, message: &str) -> Option<(&'static str, &str)> {
    let quoted = |text: &'static str, quote: char| -> Option<&str> {
        let start = message.find(text)? + text.len();
        message[start..].split(quote).next()
    };
    match code {
        // The value stands before it, and may say anything; the last one is the server's.
        code if code::DUPLICATE.contains(&code) => {
            let name = message.rsplit_once("for key '")?.1.strip_suffix('\'')?;
            Some(("index", name))
        }
        code::NULL | 1263 => Some(("column", quoted("Column '", '\'')?)),
        1264 | 1265 | 1406 => {
            Some(("column", quoted("for column '", '\'').or_else(|| quoted("for column `", '`'))?))
        }
        3819 => Some(("constraint", quoted("Check constraint '", '\'')?)),
        4025 => Some(("constraint", quoted("CONSTRAINT `", '`')?)),
        1451 | 1452 => Some(("constraint", quoted("CONSTRAINT `", '`')?)),
        _ => None,
    }
}

/// What an error means to a statement that makes or changes a table: whatever is about records there is about those
/// that are in the table already.
pub(crate) fn from_ddl(error: mysql_async::Error) -> Error {
    let code = code_of(&error);
    let error = from_mysql(error);
    if error.scope() > Scope::Batch || error.is_temporary() {
        return error;
    }
    let error_kind =
        if error.kind() == ErrorKind::Unexpected { ErrorKind::Unexpected } else { ErrorKind::SchemaMismatch };
    let ours = Error::new(error_kind, "the server refused to change the table").with_scope(Scope::Table);
    let ours = ours.with_advice("look at the rows that are there, and change the table by hand");
    match code {
        Some(code) => ours.with_context("code", code),
        None => ours,
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    fn server(code: u16, message: &str) -> Error {
        from_mysql(mysql_async::Error::Server(ServerError {
            code,
            message: message.to_owned(),
            state: "HY000".to_owned(),
        }))
    }

    #[test]
    fn every_code_says_what_is_at_stake() {
        use ErrorKind as K;
        for (code, kind, is_temporary, scope) in [
            (1062, K::Conflict, false, Scope::Record),
            (1586, K::Conflict, false, Scope::Record),
            (1048, K::Conflict, false, Scope::Record),
            (1451, K::Conflict, false, Scope::Record),
            (1452, K::Conflict, false, Scope::Record),
            (3819, K::Conflict, false, Scope::Record),
            (4025, K::Conflict, false, Scope::Record),
            (1644, K::Conflict, false, Scope::Record),
            (1264, K::InvalidValue, false, Scope::Record),
            (1265, K::InvalidValue, false, Scope::Record),
            (1292, K::InvalidValue, false, Scope::Record),
            (1366, K::InvalidValue, false, Scope::Record),
            (1406, K::InvalidValue, false, Scope::Record),
            (1690, K::InvalidValue, false, Scope::Record),
            (3140, K::InvalidValue, false, Scope::Record),
            (3157, K::InvalidValue, false, Scope::Record),
            (1118, K::TooLarge, false, Scope::Record),
            (1153, K::TooLarge, false, Scope::Batch),
            (2020, K::TooLarge, false, Scope::Batch),
            (1205, K::Contention, true, Scope::Sink),
            (1213, K::Contention, true, Scope::Sink),
            (1317, K::Timeout, true, Scope::Sink),
            (3024, K::Timeout, true, Scope::Sink),
            (1969, K::Timeout, true, Scope::Sink),
            (1021, K::StorageFull, true, Scope::Sink),
            (1114, K::StorageFull, true, Scope::Sink),
            (1040, K::Unavailable, true, Scope::Sink),
            (1203, K::Unavailable, true, Scope::Sink),
            (1226, K::RateLimited, true, Scope::Sink),
            (1290, K::Unavailable, true, Scope::Sink),
            (1792, K::Unavailable, true, Scope::Sink),
            (1836, K::Unavailable, true, Scope::Sink),
            (1053, K::Unavailable, true, Scope::Sink),
            (1927, K::Unavailable, true, Scope::Sink),
            (4031, K::Unavailable, true, Scope::Sink),
            (1045, K::Unauthenticated, false, Scope::Sink),
            (1698, K::Unauthenticated, false, Scope::Sink),
            (1044, K::PermissionDenied, false, Scope::Sink),
            (1227, K::PermissionDenied, false, Scope::Sink),
            (1142, K::PermissionDenied, false, Scope::Table),
            (1143, K::PermissionDenied, false, Scope::Table),
            (1049, K::NotFound, false, Scope::Sink),
            (1146, K::NotFound, false, Scope::Table),
            (1054, K::SchemaMismatch, false, Scope::Table),
            (1364, K::SchemaMismatch, false, Scope::Table),
            (1072, K::SchemaMismatch, false, Scope::Table),
            (1059, K::ConfigInvalid, false, Scope::Table),
            (1273, K::Unsupported, false, Scope::Sink),
            (1665, K::ConfigInvalid, false, Scope::Sink),
            (3159, K::ConfigInvalid, false, Scope::Sink),
            (1235, K::Unsupported, false, Scope::Table),
            (3750, K::SchemaMismatch, false, Scope::Table),
            (1047, K::Unavailable, true, Scope::Sink),
            (3101, K::Contention, true, Scope::Sink),
            (1064, K::Unexpected, false, Scope::Batch),
            (1105, K::Unexpected, false, Scope::Batch),
            (9999, K::Unexpected, false, Scope::Batch),
        ] {
            let error = server(code, "words");
            let found = (error.kind(), error.is_temporary(), error.scope());
            assert_eq!(found, (kind, is_temporary, scope), "{code}");
            assert!(error.to_string().contains(&format!("code: {code} (HY000)")), "{error}");
            if scope >= Scope::Table {
                assert!(error.advice().is_some(), "no advice: {error:?}");
            }
        }
        assert_eq!(server(1030, "Got error 28 from storage engine").kind(), K::StorageFull);
        assert_eq!(server(1030, "Got error 1 from storage engine").kind(), K::Unexpected);
    }

    #[test]
    fn names_are_repeated_and_values_are_not() {
        for (code, message, name) in [
            (1062, "Duplicate entry 'hunter2' for key 'email'", "index: email"),
            (1062, "Duplicate entry 'hunter2' for key 'cars.email'", "index: cars.email"),
            (1062, "Duplicate entry 'x' for key 'hunter2'' for key 'email'", "index: email"),
            (1048, "Column 'name' cannot be null", "column: name"),
            (1406, "Data too long for column 'note' at row 3", "column: note"),
            (1264, "Out of range value for column 'n' at row 1", "column: n"),
            (1292, "Incorrect datetime value: 'hunter2' for column 'seen' at row 1", ""),
            (1366, "Incorrect string value: 'hunter2' for column `b`.`t`.`name` at row 1", ""),
            (1690, "BIGINT value is out of range in '(hunter2 + 1)'", ""),
            (1644, "bad row hunter2", ""),
            (3140, "Invalid JSON text: \"hunter2\"", ""),
            (3819, "Check constraint 'cars_chk_1' is violated.", "constraint: cars_chk_1"),
            (4025, "CONSTRAINT `cars.price` failed for `b`.`cars`", "constraint: cars.price"),
            (
                1452,
                "Cannot add or update a child row: a foreign key constraint fails (`b`.`t`, CONSTRAINT `fk` FOREIGN KEY",
                "constraint: fk",
            ),
            (1105, "syntax error in `insert … 'hunter2'`", ""),
            (1064, "near 'hunter2'", ""),
            (9999, "hunter2", ""),
        ] {
            let text = server(code, message).report();
            assert!(!text.contains("hunter2") && text.contains(name), "{text}");
        }
    }

    #[test]
    fn planetscale_says_what_it_means_in_words() {
        use ErrorKind as K;
        for (message, kind, is_temporary) in [
            (
                "vttablet: rpc error: code = Aborted desc = transaction 1: ended at … exceeded timeout: 20s",
                K::Contention,
                true,
            ),
            (
                "vttablet: rpc error: code = Unavailable desc = error reading from server: EOF",
                K::Unavailable,
                true,
            ),
            ("vttablet: rpc error: code = DeadlineExceeded desc = …", K::Timeout, true),
            ("vttablet: rpc error: code = ResourceExhausted desc = pool exhausted", K::RateLimited, true),
            ("grpc: received message larger than max (20 vs. 10)", K::TooLarge, false),
            ("direct DDL is disabled", K::PermissionDenied, false),
            ("anything else", K::Unexpected, false),
        ] {
            let error = server(1105, message);
            assert_eq!((error.kind(), error.is_temporary()), (kind, is_temporary), "{message}");
        }
    }

    #[test]
    fn lost_connections_are_temporary_and_wrong_certificates_are_not() {
        use std::io;
        let io = |error: io::Error| from_mysql(mysql_async::Error::from(error));
        for kind in
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof]
        {
            let error = io(kind.into());
            assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unavailable, true), "{kind}");
            assert_eq!(error.scope(), Scope::Sink);
        }
        assert_eq!(io(io::ErrorKind::NotFound.into()).kind(), ErrorKind::ConfigInvalid);
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io(io::Error::new(io::ErrorKind::InvalidData, untrusted));
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unauthenticated, false));
        let closed = from_mysql(DriverError::ConnectionClosed.into());
        assert_eq!((closed.kind(), closed.is_temporary()), (ErrorKind::Unavailable, true));
        let payload = DriverError::UnexpectedPacket { payload: b"hunter2".to_vec() };
        assert!(!format!("{:?}", from_mysql(payload.into())).contains("104, 117"));
    }

    #[test]
    fn statements_about_tables_are_not_about_records() {
        let error = |code| {
            let state = "HY000".to_owned();
            from_ddl(ServerError { code, message: "Duplicate entry 'hunter2'".to_owned(), state }.into())
        };
        assert_eq!((error(1265).kind(), error(1265).scope()), (ErrorKind::SchemaMismatch, Scope::Table));
        assert_eq!((error(9999).kind(), error(9999).scope()), (ErrorKind::Unexpected, Scope::Table));
        assert_eq!(error(1205).kind(), ErrorKind::Contention);
        assert!(!error(1062).report().contains("hunter2"));
    }
}
