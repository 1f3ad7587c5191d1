//! Reading, writing and stamping the two files of an object. Blocking: called from blocking tasks only.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use s3rep_core::{Error, ErrorKind, Result, Scope, Timestamp};

use super::{
    FileOptions, ObjectMeta, PutCondition, already_exists, normalize,
    sidecar::{self, Sidecar, Unfit},
};
use crate::format::StoredObject;

/// The end of a sidecar's name.
pub(super) const SIDECAR: &str = ".meta.json";
/// Where files are written before they are renamed into place.
pub(super) const TEMPORARY: &str = ".s3rep-tmp";
/// The file in there that processes lock to be alone.
const LOCK: &str = "lock";

/// How often an object is read again while a writer is between its two files, with growing pauses: 60 ms in
/// all, some hundred times what a writer needs.
const READ_ATTEMPTS: u32 = 6;
/// A body that has had no sidecar for so long was left by a writer that died.
const ORPHANED: Duration = Duration::from_secs(2);
/// Temporary files older than this were left by a process that died.
const STALE: Duration = Duration::from_secs(3600);

/// The directory of a file store.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) base: PathBuf,
    pub(super) options: FileOptions,
    /// One writer a key in this process: the two renames of an object stay together.
    stripes: Vec<Mutex<()>>,
    /// Makes names of temporary files unique in this process.
    sequence: AtomicU64,
    /// Makes them unique between processes.
    nonce: u64,
}

impl Files {
    pub(super) fn new(base: PathBuf, options: FileOptions) -> Self {
        Self {
            base,
            options,
            stripes: (0..64).map(|_| Mutex::default()).collect(),
            sequence: AtomicU64::new(0),
            nonce: rand::random(),
        }
    }

    /// Body and sidecar of a key.
    pub(super) fn paths(&self, key: &str) -> Result<(PathBuf, PathBuf)> {
        let key = normalize(key)?;
        if key.ends_with(SIDECAR) || key.split('/').next() == Some(TEMPORARY) {
            return Err(Error::new(ErrorKind::InvalidValue, "a file database cannot hold this key")
                .with_scope(Scope::Record)
                .with_context("key", key)
                .with_advice("names ending in '.meta.json' belong to sidecar files; use another id"));
        }
        let body = self.base.join(&key);
        let sidecar = self.base.join(key + SIDECAR);
        Ok((body, sidecar))
    }

    /// What a listing says about an object.
    pub(super) fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let (body, sidecar) = self.paths(key)?;
        stat(&body, &sidecar, self.options.resolution, key.to_owned())
    }

    /// Reads objects. Those that a writer is at are read again, all together after one pause, so that many of
    /// them cost no more time than one.
    pub(super) fn read(&self, keys: &[String]) -> Vec<Result<Option<StoredObject>>> {
        let mut found: Vec<_> = keys.iter().map(|key| self.try_read(key)).collect();
        for attempt in 1..READ_ATTEMPTS {
            let again = |read: &Result<Attempt>| matches!(read, Ok(Attempt::Torn(_)));
            if !found.iter().any(again) {
                break;
            }
            thread::sleep(Duration::from_millis(1 << attempt));
            for (key, read) in keys.iter().zip(&mut found).filter(|(_, read)| again(read)) {
                *read = self.try_read(key);
            }
        }
        found
            .into_iter()
            .map(|read| match read? {
                Attempt::Object(object) => Ok(Some(object)),
                Attempt::Absent => Ok(None),
                Attempt::Torn(error) => Err(error),
            })
            .collect()
    }

    /// The body file as it is, whatever its sidecar says.
    pub(super) fn read_body(&self, key: &str) -> Result<Option<Bytes>> {
        let (body, _) = self.paths(key)?;
        match read_file(&body) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(io_error(&error, "read", &body)),
        }
    }

    fn try_read(&self, key: &str) -> Result<Attempt> {
        let (body_path, sidecar_path) = self.paths(key)?;
        let text = match read_file(&sidecar_path) {
            Ok(text) => text,
            Err(error) if absent(&error) => {
                return Ok(if orphan_age(&body_path)?.is_some_and(|age| age < ORPHANED) {
                    Attempt::Torn(being_written(&sidecar_path, "its sidecar is not there yet"))
                } else {
                    Attempt::Absent
                });
            }
            Err(error) => return Err(io_error(&error, "read", &sidecar_path)),
        };
        let Ok(sidecar) = Sidecar::parse(&text) else {
            return Ok(Attempt::Torn(being_written(&sidecar_path, "its sidecar is cut off or no JSON")));
        };
        let body = if sidecar.says_empty() {
            fs::symlink_metadata(&body_path)
                .and_then(|body| if body.len() == 0 { Ok(Vec::new()) } else { read_file(&body_path) })
        } else {
            read_file(&body_path)
        };
        let body = match body {
            Ok(body) => body,
            // Deleting removes the body first: a sidecar alone is no object.
            Err(error) if absent(&error) => return Ok(Attempt::Absent),
            Err(error) => return Err(io_error(&error, "read", &body_path)),
        };
        match sidecar.with_body(body) {
            Ok(object) => Ok(Attempt::Object(object)),
            Err(Unfit::Mismatch) => {
                Ok(Attempt::Torn(being_written(&body_path, "body and sidecar are of different moments")))
            }
            Err(Unfit::Unpack) => {
                Err(Error::new(ErrorKind::Corrupt, "the compressed body cannot be unpacked")
                    .with_scope(Scope::Record)
                    .with_context("file", body_path.display())
                    .with_advice("restore the file from a backup or delete the record"))
            }
        }
    }

    /// Writes an object: the body is renamed into place, then the sidecar, as s3db.js does.
    pub(super) fn write(
        &self,
        key: &str,
        object: &StoredObject,
        condition: PutCondition,
        now: Timestamp,
    ) -> Result<()> {
        let (body_path, sidecar_path) = self.paths(key)?;
        let text = sidecar::write(object, now).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "cannot print the sidecar")
                .with_context("key", key)
                .with_source(error)
        })?;
        let _one_writer = self.stripe(key);
        let sidecar_file = self.temporary(&text, &sidecar_path)?;
        match condition {
            PutCondition::IfAbsent => {
                self.claim(&object.body, &body_path, &sidecar_path, key)?;
                if let Err(error) = sidecar_file.rename(&sidecar_path) {
                    let _ = fs::remove_file(&body_path);
                    return Err(error);
                }
            }
            PutCondition::Always => {
                self.replace_body(&object.body, &body_path)?;
                sidecar_file.rename(&sidecar_path)?;
            }
        }
        if object.body.is_empty() && condition == PutCondition::Always && !body_path.exists() {
            // Somebody deleted the body that was left in place.
            self.temporary(&[], &body_path)?.rename(&body_path)?;
        }
        if self.options.durable {
            sync_directory(&sidecar_path)?;
        }
        Ok(())
    }

    /// Removes body, then sidecar, as s3db.js does.
    pub(super) fn remove(&self, key: &str) -> Result<()> {
        let (body, sidecar) = self.paths(key)?;
        let _one_writer = self.stripe(key);
        for path in [&body, &sidecar] {
            match fs::remove_file(path) {
                Err(error) if !absent(&error) => return Err(io_error(&error, "delete", path)),
                _ => {}
            }
        }
        if self.options.durable && sidecar.parent().is_some_and(Path::exists) {
            sync_directory(&sidecar)?;
        }
        Ok(())
    }

    /// Waits until no other process that asks for it has the lock, and holds it until it is dropped.
    pub(super) fn lock(&self) -> Result<File> {
        let directory = self.base.join(TEMPORARY);
        let path = directory.join(LOCK);
        let locked = fs::create_dir_all(&directory).and_then(|()| {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        });
        locked.map_err(|error| io_error(&error, "lock", &path))
    }

    fn stripe(&self, key: &str) -> std::sync::MutexGuard<'_, ()> {
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        self.stripes[hash % self.stripes.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the body in its place, which fails when there is one. It is no object before its sidecar is
    /// there, so nobody minds that it grows before their eyes.
    fn claim(&self, body: &[u8], path: &Path, sidecar: &Path, key: &str) -> Result<()> {
        for attempt in 0..3 {
            match File::options().write(true).create_new(true).open(path) {
                Ok(mut file) => {
                    let written = file.write_all(body).and_then(|()| self.sync(&file));
                    return written.map_err(|error| {
                        let _ = fs::remove_file(path);
                        io_error(&error, "write", path)
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if absent(&error) && attempt == 0 => {
                    make_directory(path)?;
                    continue;
                }
                Err(error) => return Err(io_error(&error, "write", path)),
            }
            if sidecar.exists() {
                return Err(already_exists(key));
            }
            match orphan_age(path)? {
                None => {}
                // The body of a writer that died before its sidecar: no object.
                Some(age) if age >= ORPHANED => remove_leftover(path)?,
                Some(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(being_written(path, "another writer is creating it"))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.options.durable { file.sync_data() } else { Ok(()) }
    }

    /// Puts the body in place; an empty one that is there already stays, so that one rename does it all.
    fn replace_body(&self, body: &[u8], path: &Path) -> Result<()> {
        if body.is_empty() {
            match fs::symlink_metadata(path) {
                Ok(there) if there.is_file() && there.len() == 0 => return Ok(()),
                _ => {}
            }
        }
        self.temporary(body, path)?.rename(path)
    }

    /// A complete file that is not in place yet. `target` is named in errors.
    fn temporary(&self, bytes: &[u8], target: &Path) -> Result<Temporary> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let directory = self.base.join(TEMPORARY);
        if number == 0 {
            clear_stale(&directory);
        }
        let path = directory.join(format!("{:016x}-{number}", self.nonce));
        let create = || File::options().write(true).create_new(true).open(&path);
        let created = create().or_else(|error| {
            if !absent(&error) {
                return Err(error);
            }
            fs::create_dir_all(&directory)?;
            create()
        });
        let mut file = created.map_err(|error| io_error(&error, "write", target))?;
        let temporary = Temporary(path);
        file.write_all(bytes)
            .and_then(|()| self.sync(&file))
            .map_err(|error| io_error(&error, "write", target))?;
        Ok(temporary)
    }
}

/// What one look at an object found.
enum Attempt {
    Object(StoredObject),
    Absent,
    /// A writer is between its two files; the error says so when it stays like that.
    Torn(Error),
}

/// A file that is removed again unless it is renamed into place.
struct Temporary(PathBuf);

impl Temporary {
    fn rename(self, to: &Path) -> Result<()> {
        let renamed = fs::rename(&self.0, to).or_else(|error| {
            if !absent(&error) {
                return Err(error);
            }
            make_directory(to).map_err(io::Error::other)?;
            fs::rename(&self.0, to)
        });
        renamed.map_err(|error| match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => io_error(&error, "write", to),
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn make_directory(file: &Path) -> Result<()> {
    let Some(directory) = file.parent() else { return Ok(()) };
    fs::create_dir_all(directory).map_err(|error| io_error(&error, "create the directory of", file))
}

fn sync_directory(file: &Path) -> Result<()> {
    let Some(directory) = file.parent() else { return Ok(()) };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| io_error(&error, "sync the directory of", file))
}

fn remove_leftover(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !absent(&error) => Err(io_error(&error, "delete", path)),
        _ => Ok(()),
    }
}

/// Removes what processes that died left behind. Whoever cannot do it leaves it.
fn clear_stale(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Whoever holds it would go on with a file that nobody else sees.
        if entry.file_name() == LOCK {
            continue;
        }
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How long a body without a sidecar has stood there, `None` when there is none.
fn orphan_age(body: &Path) -> Result<Option<Duration>> {
    match fs::symlink_metadata(body) {
        Ok(meta) => {
            let age = now_nanos().saturating_sub(changed_nanos(&meta)).max(0);
            Ok(Some(Duration::from_nanos(u64::try_from(age).unwrap_or(u64::MAX))))
        }
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(io_error(&error, "read", body)),
    }
}

/// Stamps an object: `None` unless both files are there.
pub(super) fn stat(
    body: &Path,
    sidecar: &Path,
    resolution: Duration,
    key: String,
) -> Result<Option<ObjectMeta>> {
    let metadata = |path: &Path| match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta)),
        Ok(_) => Ok(None),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(io_error(&error, "read", path)),
    };
    let Some(sidecar) = metadata(sidecar)? else { return Ok(None) };
    let Some(body) = metadata(body)? else { return Ok(None) };
    let mut version = Vec::with_capacity(64);
    stamp(&body, &mut version);
    stamp(&sidecar, &mut version);
    let changed = changed_nanos(&body).max(changed_nanos(&sidecar));
    let modified = modified_nanos(&body).max(modified_nanos(&sidecar));
    let resolution = i128::try_from(resolution.as_nanos()).unwrap_or(i128::MAX);
    Ok(Some(ObjectMeta {
        key,
        version,
        settled: changed < now_nanos() - resolution,
        modified: Timestamp(i64::try_from(modified.div_euclid(1_000_000)).unwrap_or_default()),
        size: body.len(),
    }))
}

fn now_nanos() -> i128 {
    nanos(SystemTime::now())
}

fn nanos(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |nanos| -nanos),
    }
}

fn modified_nanos(meta: &Metadata) -> i128 {
    meta.modified().map_or(0, nanos)
}

/// The later of contents written and inode changed (a rename, on Unix).
#[cfg(unix)]
fn changed_nanos(meta: &Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt;
    let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
    changed.max(modified_nanos(meta))
}

#[cfg(not(unix))]
fn changed_nanos(meta: &Metadata) -> i128 {
    meta.created().map_or(0, nanos).max(modified_nanos(meta))
}

/// What changes whenever the file could have: times to the nanosecond, inode, length.
#[cfg(unix)]
fn stamp(meta: &Metadata, to: &mut Vec<u8>) {
    use std::os::unix::fs::MetadataExt;
    let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos);
    to.extend(nanos(meta.mtime(), meta.mtime_nsec()).to_le_bytes());
    to.extend(nanos(meta.ctime(), meta.ctime_nsec()).to_le_bytes());
    to.extend(meta.ino().to_le_bytes());
    to.extend(meta.len().to_le_bytes());
}

#[cfg(not(unix))]
fn stamp(meta: &Metadata, to: &mut Vec<u8>) {
    to.extend(modified_nanos(meta).to_le_bytes());
    to.extend(changed_nanos(meta).to_le_bytes());
    to.extend(meta.len().to_le_bytes());
}

/// Nothing of that name, or a directory on the way is none.
pub(super) fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound)
}

fn being_written(path: &Path, how: &'static str) -> Error {
    Error::new(ErrorKind::Contention, format!("the object is being written: {how}"))
        .temporary()
        .with_scope(Scope::Record)
        .with_context("file", path.display())
        .with_advice(
            "nothing, when it passes; if it stays, a writer died in the middle: write the record again, or \
             delete the file and its .meta.json",
        )
}

/// Says what to do about an error of the operating system.
pub(super) fn io_error(error: &io::Error, what: &'static str, path: &Path) -> Error {
    use io::ErrorKind as Io;
    let (kind, temporary, advice) = match error.kind() {
        Io::NotFound => (ErrorKind::NotFound, false, "check the path and that the volume is mounted"),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            false,
            "give the user of this process the right to read and, for writes, to write the directory",
        ),
        Io::StorageFull | Io::QuotaExceeded => {
            (ErrorKind::StorageFull, true, "free space on the device; nothing was half written")
        }
        Io::InvalidFilename | Io::FileTooLarge => {
            (ErrorKind::TooLarge, false, "file names end at 255 bytes: use a shorter id or partition value")
        }
        Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists => (
            ErrorKind::Conflict,
            false,
            "a file stands where a directory is needed, or the other way round: use another id or value",
        ),
        Io::CrossesDevices => (
            ErrorKind::Unsupported,
            false,
            "the database spans several volumes, so files cannot be renamed into place: use one volume",
        ),
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => (
            ErrorKind::Unavailable,
            true,
            "too many open files: raise the limit (ulimit -n) or lower the parallelism",
        ),
        _ => (ErrorKind::Unavailable, true, "look at the system's log for errors of the device"),
    };
    let ours = Error::new(kind, format!("cannot {what} the file"))
        .with_context("file", path.display())
        .with_advice(advice)
        .with_source(io::Error::new(error.kind(), error.to_string()));
    let ours = if kind == ErrorKind::TooLarge { ours.with_scope(Scope::Record) } else { ours };
    if temporary { ours.temporary() } else { ours }
}
