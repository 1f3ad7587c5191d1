//! The directory of a server, which no server outlives, and which does not outlive the test for long.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::launch::{self, Kind};

/// How long processes may take to go after they were killed.
const GONE: Duration = Duration::from_secs(10);
/// Begins the name of every such directory.
const PREFIX: &str = "s3rep-sql-";
/// A file that the owner of the directory has locked.
const LOCK: &str = "lock";

/// A temporary directory that the server's account reaches. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Place {
    directory: TempDir,
    /// Says that the directory has an owner, until the process ends in whatever way.
    _lock: File,
}

impl Place {
    /// A new directory: where temporary ones usually are, unless that is closed to the server's account. What ended
    /// processes left there is removed first: a test that exits with a server in a static drops nothing.
    pub(super) fn new(kind: Kind) -> Result<Self, String> {
        Self::in_first(kind, &[env::temp_dir(), "/tmp".into(), "/var/tmp".into()])
    }

    /// A new directory in this one.
    pub(super) fn within(kind: Kind, place: &Path) -> Result<Self, String> {
        Self::in_first(kind, &[place.to_owned()])
    }

    fn in_first(kind: Kind, places: &[PathBuf]) -> Result<Self, String> {
        let place = places.iter().find(|place| launch::is_reachable(place, kind.account()));
        let Some(place) = place else {
            return Err(format!("no temporary directory is open to the account {:?}", kind.account()));
        };
        sweep(place);
        Self::make(place).map_err(|error| format!("no temporary directory: {error}"))
    }

    fn make(place: &Path) -> std::io::Result<Self> {
        // The data in it are the account's alone.
        let open = fs::Permissions::from_mode(0o711);
        let directory = tempfile::Builder::new().prefix(PREFIX).permissions(open).tempdir_in(place)?;
        // Nobody finds the lock before it is taken.
        let unnamed = directory.path().join("locked");
        let lock = File::create_new(&unnamed)?;
        lock.lock()?;
        fs::rename(unnamed, directory.path().join(LOCK))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of this user whose owners have ended.
fn sweep(place: &Path) {
    let Ok(own) = fs::metadata("/proc/self") else { return };
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own.uid());
        if is_ours && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove_abandoned(&entry.path());
        }
    }
}

fn remove_abandoned(directory: &Path) {
    let Ok(lock) = File::open(directory.join(LOCK)) else { return };
    if lock.try_lock().is_err() {
        return;
    }
    let data = directory.join("data");
    // A server may be about to end, after its owner. When it cannot be ended, somebody else tries again.
    if clear(&data).is_ok() && (fs::remove_dir_all(&data).is_ok() || !data.exists()) {
        let _ = fs::remove_dir_all(directory);
    }
}

/// Ends what works in the data directory, and gives back the memory that it held.
pub(super) fn clear(data: &Path) -> Result<(), String> {
    end_all_in(data)?;
    release_memory(data);
    Ok(())
}

/// Ends every process that works in the directory, and returns when they are gone.
pub(super) fn end_all_in(directory: &Path) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let left = working_in(directory);
        if left.is_empty() {
            return Ok(());
        }
        if since.elapsed() > GONE {
            return Err(format!("processes {left:?} cannot be ended"));
        }
        for process in left {
            // It may be gone by now.
            let _ = launch::signal(process, "KILL");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A process that ended and was not waited for works nowhere.
fn working_in(directory: &Path) -> Vec<u32> {
    // As the kernel has it: without links.
    let directory: PathBuf = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let works_there = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|place| place.starts_with(&directory))
    };
    processes.filter(works_there).filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// PostgreSQL has a segment of shared memory per data directory, which says that it is in use. After a kill, only a
/// restart would give it back, and a system has some thousands.
fn release_memory(data: &Path) {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some(segment) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else { return };
    let mut remove = Command::new("ipcrm");
    let _ = remove.args(["-m", segment]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_process_left_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let owned = Place::make(place.path()).unwrap();
        let Place { directory, _lock: lock } = Place::make(place.path()).unwrap();
        let left = directory.keep();
        fs::create_dir(left.join("data")).unwrap();
        // Between the making of a directory and its lock.
        let new = place.path().join(format!("{PREFIX}new"));
        fs::create_dir(&new).unwrap();

        sweep(place.path());
        assert!(left.exists(), "its owner lives");
        drop(lock);
        sweep(place.path());
        assert!(!left.exists());
        assert!(owned.path().exists() && new.exists());
    }
}
