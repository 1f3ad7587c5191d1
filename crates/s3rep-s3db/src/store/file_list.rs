//! Listings of a directory tree in the order of the keys' bytes.

use std::{fs, path::PathBuf, sync::Arc, vec};

use async_trait::async_trait;
use s3rep_core::{Context, Result};

use super::{
    Listing, ObjectMeta,
    file::blocking,
    file_io::{Files, SIDECAR, TEMPORARY, absent, io_error, stat},
};

/// Fewer names than this are not worth a second thread.
const MIN_CHUNK: usize = 256;

/// A walk over a directory tree. It holds the sorted names of the directories on the way, about 40 bytes a
/// name: that is the one part of a listing that a page does not bound, because directories come unsorted.
#[derive(Debug)]
pub(super) struct FileListing {
    files: Arc<Files>,
    prefix: String,
    after: Option<String>,
    /// Directories being walked, the innermost last; `None` before the first page.
    levels: Option<Vec<Level>>,
}

#[derive(Debug)]
struct Level {
    /// The keys in this directory begin with it: empty or ending in `/`.
    key: String,
    entries: vec::IntoIter<Entry>,
}

/// A name; that of a directory ends in `/`, so that names sort as the keys that they begin.
type Entry = Box<str>;

impl FileListing {
    pub(super) fn new(files: Arc<Files>, prefix: String, after: Option<String>) -> Self {
        Self { files, prefix, after, levels: None }
    }

    /// The next keys. Directories are read when the walk comes to them.
    fn keys(&mut self, max: usize) -> Result<Vec<String>> {
        let mut levels = match self.levels.take() {
            Some(levels) => levels,
            None => {
                let directory = self.prefix.rfind('/').map_or("", |end| &self.prefix[..=end]);
                vec![self.read(directory.to_owned())?]
            }
        };
        let mut keys = Vec::with_capacity(max.min(8192));
        while keys.len() < max
            && let Some(level) = levels.last_mut()
        {
            match level.entries.next() {
                None => {
                    levels.pop();
                }
                Some(name) if name.ends_with('/') => {
                    let directory = format!("{}{name}", level.key);
                    levels.push(self.read(directory)?);
                }
                Some(name) => keys.push(format!("{}{name}", level.key)),
            }
        }
        self.levels = Some(levels);
        Ok(keys)
    }

    /// The names in a directory that can lead to keys of this listing, sorted.
    fn read(&self, key: String) -> Result<Level> {
        let path = self.files.base.join(&key);
        let mut entries = Vec::new();
        let listed = match fs::read_dir(&path) {
            Ok(listed) => listed,
            // No such directory: no such keys, unless the database itself is not there.
            Err(error) if absent(&error) && !key.is_empty() && self.files.base.is_dir() => {
                return Ok(Level { key, entries: entries.into_iter() });
            }
            Err(error) => return Err(io_error(&error, "list", &path)),
        };
        for entry in listed {
            let entry = entry.map_err(|error| io_error(&error, "list", &path))?;
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                tracing::warn!(file = %entry.path().display(), "left out: its name is not UTF-8");
                continue;
            };
            let name = if kind.is_dir() && !(key.is_empty() && name == TEMPORARY) {
                format!("{name}/")
            } else if kind.is_file() && !name.ends_with(SIDECAR) {
                name.to_owned()
            } else {
                continue;
            };
            if self.wanted(&key, &name) {
                entries.push(name.into_boxed_str());
            }
        }
        entries.sort_unstable();
        entries.dedup();
        Ok(Level { key, entries: entries.into_iter() })
    }

    fn wanted(&self, directory: &str, name: &str) -> bool {
        let begins = |text: &str| {
            // `directory` + `name` begins with `text`, without putting them together.
            text.strip_prefix(directory).map_or(directory.starts_with(text), |rest| name.starts_with(rest))
        };
        let leads_to = |text: &str| text.strip_prefix(directory).is_some_and(|rest| rest.starts_with(name));
        let is_directory = name.ends_with('/');
        let in_prefix = begins(&self.prefix) || (is_directory && leads_to(&self.prefix));
        if !in_prefix {
            return false;
        }
        match &self.after {
            None => true,
            Some(after) => match after.strip_prefix(directory) {
                Some(rest) => name > rest || (is_directory && rest.starts_with(name)),
                None => directory > after.as_str(),
            },
        }
    }
}

#[async_trait]
impl Listing for FileListing {
    async fn page(&mut self, _: &Context, max: usize) -> Result<Vec<ObjectMeta>> {
        loop {
            let mut walk = Self {
                files: self.files.clone(),
                prefix: self.prefix.clone(),
                after: self.after.clone(),
                levels: self.levels.take(),
            };
            let (levels, keys) = blocking(move || {
                let keys = walk.keys(max.max(1))?;
                Ok((walk.levels, keys))
            })
            .await?;
            self.levels = levels;
            let Some(last) = keys.last() else { return Ok(Vec::new()) };
            // Where the walk starts anew should a later page fail.
            self.after = Some(last.clone());
            let objects = self.stat(keys).await?;
            // All of them may be gone, or never have had a sidecar.
            if !objects.is_empty() {
                return Ok(objects);
            }
        }
    }
}

impl FileListing {
    async fn stat(&self, mut keys: Vec<String>) -> Result<Vec<ObjectMeta>> {
        let chunk = keys.len().div_ceil(self.files.options.threads.max(1)).max(MIN_CHUNK);
        let mut tasks = Vec::new();
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(chunk));
            let chunk = std::mem::replace(&mut keys, rest);
            let files = self.files.clone();
            tasks.push(tokio::task::spawn_blocking(move || stat_all(&files, chunk)));
        }
        let mut objects = Vec::new();
        for task in tasks {
            let part = task.await.map_err(super::file::panicked)??;
            if objects.is_empty() { objects = part } else { objects.extend(part) }
        }
        Ok(objects)
    }
}

fn stat_all(files: &Files, keys: Vec<String>) -> Result<Vec<ObjectMeta>> {
    let mut objects = Vec::with_capacity(keys.len());
    for key in keys {
        let body: PathBuf = files.base.join(&key);
        let mut sidecar = body.clone().into_os_string();
        sidecar.push(SIDECAR);
        objects.extend(stat(&body, sidecar.as_ref(), files.options.resolution, key)?);
    }
    Ok(objects)
}
