//! MariaDB, with the one user `root` and no password. It stands for MySQL too, which no registry has for everyone;
//! `S3REP_TEST_MYSQL_URL` puts a real one in its place.

use std::path::Path;

use super::{
    Missing, SqlServer,
    launch::Kind,
    sql::{self, Loss},
};

/// Starts one that never waits for its disk: a crash of the server takes back the commits of the last second.
///
/// With `S3REP_TEST_MYSQL_URL` nothing is started, and the server is the user's own, MySQL or MariaDB.
///
/// # Errors
/// [`Missing`] with the reason when it is not installed or does not come up.
pub async fn start() -> Result<SqlServer, Missing> {
    sql::start(Kind::Mariadb, Loss::Possible).await
}

/// Starts one as [`start`] does that keeps what it acknowledged, for tests that kill it and for measurements.
///
/// # Errors
/// As [`start`].
pub async fn start_durable() -> Result<SqlServer, Missing> {
    sql::start(Kind::Mariadb, Loss::Never).await
}

/// Starts one with its data in this directory, which keeps what it acknowledged.
///
/// # Errors
/// As [`start`].
pub async fn start_in(directory: &Path) -> Result<SqlServer, Missing> {
    sql::start_in(Kind::Mariadb, directory).await
}
