//! The files of a log: where they lie, the lock, and setting damaged ones aside.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use s3rep_core::{Error, ErrorKind, Result, Scope, Timestamp};

use crate::error;

/// The files in a state directory.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    /// Whether a mark may be left when damage is found.
    pub(crate) may_mark: bool,
}

impl Files {
    /// The files in `dir`. The path is made absolute, because SQLite reads `file:…` as an address.
    pub(crate) fn new(dir: &Path, may_mark: bool) -> Result<Self> {
        let relative = Self { dir: dir.to_owned(), may_mark };
        match std::path::absolute(dir) {
            Ok(dir) => Ok(Self { dir, may_mark }),
            Err(cause) => Err(error::from_io(cause, &relative, "the state directory cannot be found")),
        }
    }

    /// The log.
    pub(crate) fn db(&self) -> PathBuf {
        self.dir.join("log.db")
    }

    /// A log in the making.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.dir.join("log.db.new")
    }

    /// SQLite's write-ahead log.
    pub(crate) fn wal(&self) -> PathBuf {
        self.dir.join("log.db-wal")
    }

    fn mark(&self) -> PathBuf {
        self.dir.join("log.db.suspect")
    }

    /// Leaves a mark that the log is damaged; the next start sets it aside.
    pub(crate) fn suspect(&self, why: &str) {
        if self.may_mark {
            // When even this fails, the next start meets the damage by itself.
            let _ = fs::write(self.mark(), why);
        }
    }

    /// Why an earlier run did not trust the log.
    pub(crate) fn suspicion(&self) -> Option<String> {
        fs::read(self.mark()).ok().map(|why| String::from_utf8_lossy(&why).trim().to_owned())
    }

    /// Takes the mark away.
    pub(crate) fn clear_suspicion(&self) {
        let _ = fs::remove_file(self.mark());
    }

    /// Makes the directory and locks it for this process, as long as the file lives.
    pub(crate) fn lock(&self) -> Result<File> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.dir)
            .map_err(|cause| error::from_io(cause, self, "the state directory cannot be created"))?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(self.dir.join("lock"))
            .map_err(|cause| error::from_io(cause, self, "the state directory cannot be locked"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut file)),
            Err(TryLockError::Error(cause)) => {
                return Err(error::from_io(cause, self, "the state directory cannot be locked"));
            }
        }
        // For the message of the one who comes second. The lock holds without it, on a full disk, too.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(file)
    }

    fn in_use(&self, file: &mut File) -> Error {
        let mut holder = String::new();
        let _ = file.take(32).read_to_string(&mut holder);
        let error = Error::new(ErrorKind::Contention, "another process uses this state directory")
            .with_scope(Scope::Process)
            .with_context("directory", self.dir.display());
        match holder.trim().parse::<u32>() {
            Ok(pid) => error.with_context("process", pid).with_advice(format!(
                "stop process {pid} first, or give this one a `state:` directory of its own"
            )),
            Err(_) => {
                error.with_advice("stop that process first, or give this one a `state:` directory of its own")
            }
        }
    }

    /// Renames the log and what belongs to it, and says what the log is called now.
    pub(crate) fn set_aside(&self) -> Result<PathBuf> {
        let stamp = Timestamp(now_millis()).to_string().replace([':', '.'], "-");
        let mut aside = self.dir.join(format!("log.db.damaged-{stamp}"));
        let mut again = 1;
        while aside.exists() {
            again += 1;
            aside = self.dir.join(format!("log.db.damaged-{stamp}-{again}"));
        }
        // The log comes last: as long as it is in place, the next start knows that this is not finished. A new
        // log must never meet the write-ahead log of the old one.
        for suffix in ["-shm", "-wal", ""] {
            let with = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                PathBuf::from(name)
            };
            match fs::rename(with(&self.db()), with(&aside)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(error::from_io(cause, self, "the damaged log cannot be set aside"));
                }
                _ => {}
            }
        }
        self.sync();
        Ok(aside)
    }

    /// Makes renamed names durable, where the system can.
    pub(crate) fn sync(&self) {
        let _ = File::open(&self.dir).and_then(|dir| dir.sync_all());
    }
}

/// Milliseconds since 1970, for names and times that no test needs to control.
pub(crate) fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
