//! One server that runs until it is told to end. What it is stands in `target/services/NAME/service.json`.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::launch::{self, Kind, Launch, Line, Programs};

/// How long a server may take to end.
const END: Duration = Duration::from_secs(30);

/// A server that was started.
pub(super) struct Instance {
    kind: Kind,
    pid: u32,
    port: u16,
    /// The directory that it works in.
    data: PathBuf,
}

/// What is known of a server.
pub(super) enum State {
    /// It was not started.
    Absent,
    /// It runs.
    Runs(Instance),
    /// It was started, and ended by itself, or by a restart of the machine.
    Gone(Instance),
}

impl State {
    pub(super) fn of(kind: Kind) -> Self {
        match Instance::read(kind) {
            Some(instance) if instance.runs() => Self::Runs(instance),
            Some(instance) => Self::Gone(instance),
            None => Self::Absent,
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} at {}, data in {}", self.pid, self.url(), self.data.display())
    }
}

impl Instance {
    /// The one that runs, or a new one on data of its own.
    pub(super) fn up(kind: Kind, servers: &Path) -> Result<Self, String> {
        let programs = Programs::locate(kind, servers)?;
        match State::of(kind) {
            State::Runs(instance) => return Ok(instance),
            State::Gone(instance) => instance.remove()?,
            State::Absent => remove(&place(kind))?,
        }
        let started = Self::start(kind, programs);
        if started.is_err() {
            // Whatever came of it is removed; the problem to tell of is the first one.
            let _ = down(kind);
        }
        started
    }

    fn start(kind: Kind, programs: Programs) -> Result<Self, String> {
        let place = place(kind);
        fs::create_dir_all(&place).map_err(|error| cannot("make", &place, &error))?;
        let launch = Launch::new(programs, &data_place(kind, &place)?, false)?;
        // Before anything runs: whatever happens, its data are found.
        let mut instance = Self { kind, pid: 0, port: 0, data: launch.data.clone() };
        instance.write()?;
        let log = place.join("output");
        if let Some(setup) = launch.setup() {
            let status = spawn(&setup, &log)?.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("{} failed ({status}): {}", setup.program.display(), last_line(&log)));
            }
        }
        instance.port = launch::quiet_port()?;
        let mut child = spawn(&launch.server(instance.port), &log)?;
        instance.pid = child.id();
        instance.write()?;
        let ended = || child.try_wait().ok().flatten().map(|status| status.to_string());
        let ready = launch.wait(instance.port, instance.pid, ended);
        ready.map_err(|problem| format!("{problem}: {}", last_line(&log)))?;
        Ok(instance)
    }

    /// Where it takes connections.
    pub(super) fn url(&self) -> String {
        self.kind.url(self.port)
    }

    fn read(kind: Kind) -> Option<Self> {
        let text = fs::read(record(kind)).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        Some(Self {
            kind,
            pid: record["pid"].as_u64()?.try_into().ok()?,
            port: record["port"].as_u64()?.try_into().ok()?,
            data: record["data"].as_str()?.into(),
        })
    }

    fn write(&self) -> Result<(), String> {
        let (path, data) = (record(self.kind), self.data.display().to_string());
        let record = json!({ "pid": self.pid, "port": self.port, "url": self.url(), "data": data });
        fs::write(&path, format!("{record:#}\n")).map_err(|error| cannot("write", &path, &error))
    }

    /// Whether the process with its id is still the server: a number is given again. A server has its data
    /// directory in its arguments.
    fn runs(&self) -> bool {
        let arguments = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&self.data.display().to_string())
    }

    fn stop(&self) -> Result<(), String> {
        launch::signal(self.pid, self.kind.end_signal())?;
        let since = Instant::now();
        while self.runs() {
            if since.elapsed() > END {
                return Err(format!("process {} does not end", self.pid));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), String> {
        remove(&self.data)?;
        // Where the data were elsewhere, in a directory of their own.
        if let Some(parent) = self.data.parent() {
            let _ = fs::remove_dir(parent);
        }
        remove(&place(self.kind))
    }
}

/// Stops the server if it runs, and removes what is left of it; says what it did.
pub(super) fn down(kind: Kind) -> Result<String, String> {
    match State::of(kind) {
        State::Runs(instance) => {
            instance.stop()?;
            instance.remove()?;
            Ok(format!("stopped process {}, removed {}", instance.pid, instance.data.display()))
        }
        State::Gone(instance) => {
            instance.remove()?;
            Ok(format!("was gone, removed {}", instance.data.display()))
        }
        State::Absent => remove(&place(kind)).map(|()| "was not started".to_owned()),
    }
}

fn place(kind: Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/services").join(kind.name())
}

fn record(kind: Kind) -> PathBuf {
    place(kind).join("service.json")
}

/// Where the data go: beside the record, unless the server's account does not come there, as below `/root`.
fn data_place(kind: Kind, place: &Path) -> Result<PathBuf, String> {
    if launch::is_reachable(place, kind.account()) {
        return Ok(place.to_owned());
    }
    let elsewhere = PathBuf::from(format!("/var/tmp/s3rep-{}-{}", kind.name(), process::id()));
    DirBuilder::new().mode(0o711).create(&elsewhere).map_err(|error| cannot("make", &elsewhere, &error))?;
    Ok(elsewhere)
}

/// Starts what the line says, out of reach of this terminal's Ctrl-C; what it prints goes to `log`.
fn spawn(line: &Line, log: &Path) -> Result<Child, String> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.map_err(|error| cannot("write", log, &error))?;
    let errors = file.try_clone().map_err(|error| cannot("write", log, &error))?;
    let mut command = line.command(false);
    println!("$ {} {}", line.program.display(), line.args.join(" "));
    let child = command.process_group(0).stdout(file).stderr(errors).spawn();
    child.map_err(|error| cannot("start", &line.program, &error))
}

/// What was printed last, which is not there when its directory has gone.
fn last_line(log: &Path) -> String {
    let printed = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&printed).trim().lines().last().unwrap_or_default().to_owned()
}

fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", directory, &error)),
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
