//! PostgreSQL, of the newest version that is installed, with the one user `postgres` and no password.

use std::path::Path;

use super::{
    Missing, SqlServer,
    launch::Kind,
    sql::{self, Loss},
};

/// Starts one that never waits for its disk: a crash of the server takes back what was committed last.
///
/// With `S3REP_TEST_POSTGRES_URL` nothing is started, and the server is the user's own.
///
/// # Errors
/// [`Missing`] with the reason when it is not installed or does not come up.
pub async fn start() -> Result<SqlServer, Missing> {
    sql::start(Kind::Postgres, Loss::Possible).await
}

/// Starts one as [`start`] does that keeps what it acknowledged, for tests that kill it and for measurements.
///
/// # Errors
/// As [`start`].
pub async fn start_durable() -> Result<SqlServer, Missing> {
    sql::start(Kind::Postgres, Loss::Never).await
}

/// Starts one with its data in this directory, which keeps what it acknowledged.
///
/// # Errors
/// As [`start`].
pub async fn start_in(directory: &Path) -> Result<SqlServer, Missing> {
    sql::start_in(Kind::Postgres, directory).await
}
