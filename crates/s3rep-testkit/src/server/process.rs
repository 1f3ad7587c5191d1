//! A child process that ends with the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Bytes of output that a failure shows.
const SHOWN: usize = 2000;

/// A running program. A thread of its own starts it and holds it: with `setpriv --pdeathsig` the kernel ends a
/// child when the *thread* that made it ends, so also when this process is killed.
#[derive(Debug)]
pub(super) struct Process {
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    ended: Mutex<Receiver<ExitStatus>>,
    log: PathBuf,
}

impl Process {
    /// Starts the program; what it prints goes to `log`.
    pub(super) fn start(program: &Path, args: &[&str], log: PathBuf) -> Result<Self, String> {
        let mut command = tied(program);
        command.args(args).stdin(Stdio::null()).stdout(output(&log)?).stderr(output(&log)?);
        let (stop, stopped) = channel::<()>();
        let (started, start) = channel();
        let (end, ended) = channel();
        let keeper = thread::spawn(move || match command.spawn() {
            Ok(child) => {
                let _ = started.send(Ok(()));
                keep(child, &stopped, &end);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        match start.recv() {
            Ok(Ok(())) => Ok(Self { stop: Some(stop), keeper: Some(keeper), ended: Mutex::new(ended), log }),
            Ok(Err(error)) => Err(format!("cannot start {}: {error}", program.display())),
            Err(_) => Err(format!("cannot start {}", program.display())),
        }
    }

    /// How it ended, if it did, since the last time somebody asked.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }

    /// What it printed last.
    pub(super) fn output(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let skip = text.chars().count().saturating_sub(SHOWN);
        text.chars().skip(skip).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Waits until the child ends or nobody wants it any more.
fn keep(mut child: Child, stopped: &Receiver<()>, end: &Sender<ExitStatus>) {
    use std::sync::mpsc::RecvTimeoutError::Timeout;
    while stopped.recv_timeout(Duration::from_millis(50)) == Err(Timeout) {
        if let Ok(Some(status)) = child.try_wait() {
            let _ = end.send(status);
            return;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The command, ended by the kernel when its parent is.
fn tied(program: &Path) -> Command {
    if Path::new("/usr/bin/setpriv").exists() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    } else {
        Command::new(program)
    }
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
    let process = Process::start(Path::new(program), args, log.to_owned())?;
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
