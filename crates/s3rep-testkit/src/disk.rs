//! A small file system of its own, for what a full or read-only disk does.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server::Missing;

/// A file system of a few megabytes in memory. It is gone when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one, which needs root on Linux.
    ///
    /// # Errors
    /// [`Missing`] with the name `tmpfs` when it cannot be mounted.
    pub fn new(megabytes: u32) -> Result<Self, Missing> {
        let missing = |reason: String| Missing { name: "tmpfs", reason };
        // Servers that run as another user live on it too.
        let open = fs::Permissions::from_mode(0o711);
        let directory = tempfile::Builder::new().permissions(open).tempdir();
        let directory = directory.map_err(|error| missing(format!("no temporary directory: {error}")))?;
        let size = format!("size={megabytes}m");
        if mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], directory.path()) {
            return Ok(Self { directory });
        }
        Err(missing("mounting a small file system needs root".to_owned()))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves so many bytes, in whole pages.
    ///
    /// # Panics
    /// When it cannot be written for another reason than that it is full.
    pub fn fill(&self, leaving: u64) {
        let mut file = File::create(self.ballast()).unwrap_or_else(|error| panic!("no ballast: {error}"));
        let mut written = 0;
        loop {
            match file.write(&[7; 64 << 10]) {
                Ok(more) => written += more as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("the ballast cannot be written: {error}"),
            }
        }
        if let Err(error) = file.set_len(written.saturating_sub(leaving)) {
            panic!("the ballast cannot be made smaller: {error}");
        }
    }

    /// Takes back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        // It may not be there.
        let _ = fs::remove_file(self.ballast());
    }

    /// Lets nobody write it, or everybody again. Returns whether it could: not while a file is open for writing.
    pub fn set_read_only(&self, is_read_only: bool) -> bool {
        let how = if is_read_only { "remount,ro" } else { "remount,rw" };
        mount(&["-o", how], self.path())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while something still uses it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn mount(arguments: &[&str], directory: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(directory).output();
    mounted.is_ok_and(|output| output.status.success())
}
