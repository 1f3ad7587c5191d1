//! A child process that ends with the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::launch::{self, Line};

/// Bytes of output that a failure shows.
const SHOWN: usize = 2000;
/// How long a program may take to end by itself when it is told to; PostgreSQL takes some milliseconds.
const END: Duration = Duration::from_secs(10);

/// A running program. A thread of its own starts it and holds it: with `setpriv --pdeathsig` the kernel ends a
/// child when the *thread* that made it ends, so also when this process is killed.
#[derive(Debug)]
pub(super) struct Process {
    /// A message kills it; the sender's end ends it by its own signal.
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    ended: Mutex<Receiver<ExitStatus>>,
    /// Its process id.
    pub(super) id: u32,
    log: PathBuf,
}

impl Process {
    /// Starts the program; what it prints goes to `log`.
    pub(super) fn start(program: &Path, args: &[&str], log: PathBuf) -> Result<Self, String> {
        Self::spawn(&line(program, args), log)
    }

    /// Starts what the line says; what it prints goes to `log`.
    pub(super) fn spawn(line: &Line, log: PathBuf) -> Result<Self, String> {
        let mut command = line.command(true);
        command.stdout(output(&log)?).stderr(output(&log)?);
        let (stop, stopped) = channel::<()>();
        let (started, start) = channel();
        let (end, ended) = channel();
        let end_signal = line.end_signal;
        let keeper = thread::spawn(move || match command.spawn() {
            Ok(child) => {
                let _ = started.send(Ok(child.id()));
                keep(child, end_signal, &stopped, &end);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        match start.recv() {
            Ok(Ok(id)) => {
                Ok(Self { stop: Some(stop), keeper: Some(keeper), ended: Mutex::new(ended), id, log })
            }
            Ok(Err(error)) => Err(format!("cannot start {}: {error}", line.program.display())),
            Err(_) => Err(format!("cannot start {}", line.program.display())),
        }
    }

    /// How it ended, if it did, since the last time somebody asked.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }

    /// What it printed last.
    pub(super) fn output(&self) -> String {
        last_of(&self.log)
    }

    /// Kills it with `SIGKILL`, and returns when it is gone.
    pub(super) fn kill(mut self) {
        if let Some(stop) = &self.stop {
            // It may have ended before.
            let _ = stop.send(());
        }
        self.join();
    }

    fn join(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.join();
    }
}

/// A program that runs as this process does and is killed in the end.
fn line(program: &Path, args: &[&str]) -> Line {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Line { program: program.to_owned(), args, place: None, end_signal: "KILL" }
}

/// Waits until the child ends or nobody wants it any more.
fn keep(mut child: Child, end_signal: &str, stopped: &Receiver<()>, end: &Sender<ExitStatus>) {
    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
    let is_to_be_killed = loop {
        match stopped.recv_timeout(Duration::from_millis(50)) {
            Ok(()) => break true,
            Err(Disconnected) => break end_signal == "KILL",
            Err(Timeout) => {}
        }
        if let Ok(Some(status)) = child.try_wait() {
            let _ = end.send(status);
            return;
        }
    };
    if !is_to_be_killed && launch::signal(child.id(), end_signal).is_ok() {
        ends_by_itself(&mut child);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn ends_by_itself(child: &mut Child) {
    let since = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && since.elapsed() < END {
        thread::sleep(Duration::from_millis(2));
    }
}

/// The last of what was printed to the file.
pub(super) fn last_of(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let skip = text.chars().count().saturating_sub(SHOWN);
    text.chars().skip(skip).collect()
}

fn output(log: &Path) -> Result<File, String> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| format!("cannot write {}: {error}", log.display()))
}

/// Runs a program to its end.
pub(super) fn run(program: &str, args: &[&str], log: &Path, within: Duration) -> Result<(), String> {
    run_line(&line(Path::new(program), args), log, within)
}

/// Runs what the line says to its end.
pub(super) fn run_line(line: &Line, log: &Path, within: Duration) -> Result<(), String> {
    let process = Process::spawn(line, log.to_owned())?;
    let program = line.program.display();
    let since = Instant::now();
    loop {
        match process.ended() {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{program} failed ({status}): {}", process.output())),
            None if since.elapsed() > within => {
                return Err(format!("{program} takes too long: {}", process.output()));
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}
