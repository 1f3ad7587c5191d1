//! sqld 0.24.32, libSQL's server, with one database and without authentication.

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
