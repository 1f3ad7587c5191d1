//! A SQL server of a test: started in a directory of its own, killed and started again at will.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Missing, STARTS, encoded, installed,
    launch::{self, Kind, Launch, Programs},
    place::{self, Place},
    process::{Process, last_of, run_line},
};

/// How long the making of a data directory may take; less than a second on an idle machine.
const SETUP: Duration = Duration::from_secs(120);

/// What a crash may take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// What was acknowledged last, for speed.
    Possible,
    /// Nothing that was acknowledged.
    Never,
}

/// A running SQL server.
///
/// It is private, unless a variable has the URL of a server of the user's own: `S3REP_TEST_POSTGRES_URL`,
/// `S3REP_TEST_MYSQL_URL` (for MariaDB), `S3REP_TEST_SQLD_URL`. That one is never stopped, and tests on it share it
/// with others: each makes databases of its own, and those that kill the server look at [`SqlServer::is_private`].
#[derive(Debug)]
pub struct SqlServer {
    /// Its name, as in `S3REP_REQUIRE`.
    pub name: &'static str,
    kind: Kind,
    url: String,
    address: String,
    private: Option<Arc<Private>>,
}

impl SqlServer {
    /// The URL of a database. sqld has one database only, whatever the name.
    pub fn url(&self, database: &str) -> String {
        match self.kind {
            Kind::Sqld => self.url.clone(),
            Kind::Postgres | Kind::Mariadb => with_database(&self.url, database),
        }
    }

    /// Host and port, for a proxy in front of it. They stay the same when it is started again.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this process started it, and so may kill it.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// What it printed last, for the message of a failure; nothing of a user's own server.
    pub fn output(&self) -> String {
        self.private.as_ref().map(|private| last_of(&private.log)).unwrap_or_default()
    }

    /// Kills it with `SIGKILL`, as a crash would. When this returns, none of its processes is left, and connections
    /// to it are refused. Killing it again does nothing; [`SqlServer::restart`] brings it back.
    ///
    /// # Errors
    /// On a user's own server, or when a process of it cannot be ended.
    pub fn kill(&self) -> Result<(), String> {
        self.private()?.kill()
    }

    /// Starts it on the data and the port it had, after killing it if it still runs, and waits until it takes
    /// connections again. A [`SqlServer::kill`] meanwhile waits for this.
    ///
    /// # Errors
    /// On a user's own server, or when it does not come up.
    pub async fn restart(&self) -> Result<(), String> {
        let private = self.private()?.clone();
        on_a_thread(move || private.restart()).await
    }

    fn private(&self) -> Result<&Arc<Private>, String> {
        self.private.as_ref().ok_or_else(|| {
            format!("{} at {} is a user's own server and is not stopped", self.name, self.address)
        })
    }
}

/// Starts a server, or takes the user's own.
pub(super) async fn start(kind: Kind, loss: Loss) -> Result<SqlServer, Missing> {
    let started = match env::var(kind.variable()) {
        Ok(url) if !url.is_empty() => own(kind, url),
        _ => on_a_thread(move || private(kind, loss, Place::new(kind)?)).await,
    };
    started.map_err(|reason| Missing::program(kind.name(), &reason))
}

/// Starts a private server with its data in this directory.
pub(super) async fn start_in(kind: Kind, directory: &Path) -> Result<SqlServer, Missing> {
    let directory = directory.to_owned();
    let started = on_a_thread(move || private(kind, Loss::Never, Place::within(kind, &directory)?)).await;
    started.map_err(|reason| Missing::program(kind.name(), &reason))
}

/// Servers are started and waited for by blocking, where that holds up nobody.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(format!("its start did not end: {error}")),
    }
}

/// The user's own server.
fn own(kind: Kind, url: String) -> Result<SqlServer, String> {
    let address = address(kind, &url).ok_or_else(|| format!("{} is no URL with a host", kind.variable()))?;
    Ok(SqlServer { name: kind.name(), kind, url, address, private: None })
}

fn private(kind: Kind, loss: Loss, place: Place) -> Result<SqlServer, String> {
    let private = Private::start(kind, loss, place)?;
    Ok(SqlServer {
        name: kind.name(),
        kind,
        url: kind.url(private.port),
        address: format!("127.0.0.1:{}", private.port),
        private: Some(Arc::new(private)),
    })
}

/// Where the authority of a URL begins and ends.
fn authority(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |length| start + length);
    Some((start, end))
}

/// Host and port, with the usual port where the URL has none.
fn address(kind: Kind, url: &str) -> Option<String> {
    let (start, end) = authority(url)?;
    let host = url[start..end].rsplit('@').next().filter(|host| !host.is_empty())?;
    // An address of version 6 has colons, in brackets.
    if host.rsplit(']').next().is_some_and(|rest| rest.contains(':')) {
        return Some(host.to_owned());
    }
    let port = match kind {
        Kind::Postgres => 5432,
        Kind::Mariadb => 3306,
        Kind::Sqld if url.starts_with("http:") || url.starts_with("ws:") => 80,
        Kind::Sqld => 443,
    };
    Some(format!("{host}:{port}"))
}

/// The URL with this database in place of the one it has; its options stay.
fn with_database(url: &str, database: &str) -> String {
    let Some((_, end)) = authority(url) else { return url.to_owned() };
    let options = url[end..].find('?').map_or("", |start| &url[end + start..]);
    format!("{}/{}{options}", &url[..end], encoded(database))
}

/// A server that is this process's own.
#[derive(Debug)]
struct Private {
    launch: Launch,
    port: u16,
    log: PathBuf,
    running: Mutex<Option<Process>>,
    _place: Place,
}

impl Private {
    fn start(kind: Kind, loss: Loss, place: Place) -> Result<Self, String> {
        let programs = Programs::locate(kind, &installed())?;
        let launch = Launch::new(programs, place.path(), loss == Loss::Never)?;
        let log = place.path().join("output");
        if let Some(setup) = launch.setup() {
            run_line(&setup, &log, SETUP)?;
        }
        let mut problem = String::new();
        for _ in 0..STARTS {
            let port = launch::quiet_port()?;
            match running(&launch, port, &log) {
                Ok(process) => {
                    let running = Mutex::new(Some(process));
                    return Ok(Self { launch, port, log, running, _place: place });
                }
                Err(error) => problem = error,
            }
            place::end_all_in(&launch.data)?;
        }
        Err(problem)
    }

    fn kill(&self) -> Result<(), String> {
        self.kill_locked(&mut self.running())
    }

    fn kill_locked(&self, running: &mut Option<Process>) -> Result<(), String> {
        if let Some(process) = running.take() {
            process.kill();
        }
        // Its children are not told: one of PostgreSQL's that computes goes on until it has an answer to give.
        place::end_all_in(&self.launch.data)
    }

    fn restart(&self) -> Result<(), String> {
        let mut running_now = self.running();
        self.kill_locked(&mut running_now)?;
        *running_now = Some(running(&self.launch, self.port, &self.log)?);
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.running().take());
        let _ = place::clear(&self.launch.data);
    }
}

/// Starts the server, and waits until it takes connections.
fn running(launch: &Launch, port: u16, log: &Path) -> Result<Process, String> {
    let process = Process::spawn(&launch.server(port), log.to_owned())?;
    let ended = || process.ended().map(|status| status.to_string());
    launch.wait(port, process.id, ended).map_err(|problem| format!("{problem}: {}", process.output()))?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_takes_the_place_of_another() {
        for (url, expected) in [
            ("postgresql://me:p%2Fw@db:5432/mine", "postgresql://me:p%2Fw@db:5432/new%20one"),
            ("postgresql://db/mine?sslmode=disable#x", "postgresql://db/new%20one?sslmode=disable#x"),
            ("mysql://root@127.0.0.1:1", "mysql://root@127.0.0.1:1/new%20one"),
            ("mysql://root@[::1]:1?a=b", "mysql://root@[::1]:1/new%20one?a=b"),
        ] {
            assert_eq!(with_database(url, "new one"), expected);
        }
    }

    #[test]
    fn an_address_has_the_usual_port() {
        for (kind, url, expected) in [
            (Kind::Postgres, "postgresql://me@db/mine", Some("db:5432")),
            (Kind::Mariadb, "mysql://me:a@b@[::1]/mine", Some("[::1]:3306")),
            (Kind::Mariadb, "mysql://[::1]:7", Some("[::1]:7")),
            (Kind::Sqld, "http://localhost?x", Some("localhost:80")),
            (Kind::Sqld, "libsql://db.example", Some("db.example:443")),
            (Kind::Sqld, "http://localhost:8080/", Some("localhost:8080")),
            (Kind::Postgres, "db:5432", None),
            (Kind::Postgres, "postgresql:///mine", None),
        ] {
            assert_eq!(address(kind, url).as_deref(), expected, "{url}");
        }
    }
    #[tokio::test]
    async fn a_users_own_server_is_not_stopped() {
        let server = own(Kind::Postgres, "postgresql://me@db/mine".to_owned()).unwrap();
        assert!(!server.is_private());
        assert_eq!((server.url("x").as_str(), server.address()), ("postgresql://me@db/x", "db:5432"));
        for outcome in [server.kill(), server.restart().await] {
            let refusal = outcome.unwrap_err();
            assert!(refusal.contains("not stopped"), "{refusal}");
        }
        assert!(own(Kind::Sqld, "localhost".to_owned()).is_err());
    }
}
