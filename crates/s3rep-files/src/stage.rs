//! Writing lines that are not committed yet.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use s3rep_core::{Error, ErrorKind, Result, Scope, Seq, Timestamp};

use crate::{
    config::FilesOptions,
    error::{At, corrupt, from_io},
    format::Format,
    ledger::{Files, Part, sync_directory},
    names,
};

/// Lines of one table that have to be written.
pub(crate) struct Lines<'a> {
    pub(crate) table: &'a str,
    pub(crate) log: &'a str,
    pub(crate) header: &'a str,
    pub(crate) bytes: &'a [u8],
    /// Where each line ends in `bytes`, and its change's place in the log.
    pub(crate) ends: &'a [(usize, Seq)],
}

/// What goes into one file.
struct Write {
    file: String,
    at: u64,
    header: String,
    lines: Range<usize>,
}

impl Files {
    /// Closes the file that is being written when it may not take the next line.
    pub(crate) fn rotate(
        &mut self,
        lines: &Lines<'_>,
        options: &FilesOptions,
        format: Format,
        now: Timestamp,
    ) {
        let is_over = self.part.as_ref().is_some_and(|part| {
            part.log != lines.log
                || part.header != lines.header
                || names::parse(&part.file, lines.table, format.extension()).is_none()
                || part.is_old(options, now)
        });
        if is_over {
            self.close_part();
        }
    }

    /// Deals lines out to files. Changes nothing but the books.
    fn deal(
        &mut self,
        lines: &Lines<'_>,
        options: &FilesOptions,
        format: Format,
        now: Timestamp,
    ) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        let mut start = 0;
        for (end, seq) in lines.ends {
            let length = (end - start) as u64;
            if self.part.as_ref().is_some_and(|part| part.is_full(length, options)) {
                self.close_part();
            }
            if self.part.is_none() {
                let number = self.next_number(lines.log, *seq);
                self.part = Some(Part {
                    file: names::file(lines.table, lines.log, number, format.extension()),
                    log: lines.log.to_owned(),
                    bytes: 0,
                    records: 0,
                    opened_at: now.0,
                    header: lines.header.to_owned(),
                });
            }
            let Some(part) = self.part.as_mut() else { continue };
            match writes.last_mut() {
                Some(write) if write.file == part.file => write.lines.end = *end,
                _ => {
                    let header = if part.bytes == 0 { part.header.clone() } else { String::new() };
                    writes.push(Write {
                        file: part.file.clone(),
                        at: part.bytes,
                        header,
                        lines: start..*end,
                    });
                }
            }
            if part.bytes == 0 {
                part.bytes = part.header.len() as u64;
            }
            part.bytes += length;
            part.records += 1;
            start = *end;
        }
        writes
    }
}

impl Part {
    pub(crate) fn is_old(&self, options: &FilesOptions, now: Timestamp) -> bool {
        now.since(Timestamp(self.opened_at)).as_secs() >= options.max_age_seconds
    }

    fn is_full(&self, next_line: u64, options: &FilesOptions) -> bool {
        self.records > 0
            && (self.bytes + next_line > options.max_bytes
                || options.max_records.is_some_and(|max| self.records >= max))
    }
}

/// Open files that are being written, by table.
#[derive(Default)]
pub(crate) struct Handles(HashMap<String, (String, File)>);

impl Handles {
    /// Writes the lines after what is committed and syncs them. After an error nothing of them is left, as
    /// far as the disk lets us.
    pub(crate) fn write(
        &mut self,
        directory: &Path,
        files: &mut Files,
        lines: &Lines<'_>,
        options: &FilesOptions,
        format: Format,
        now: Timestamp,
    ) -> Result<Uncommitted> {
        let directory = directory.join(lines.table);
        make_directory(&directory)?;
        let writes = files.deal(lines, options, format, now);
        let mut touched = Uncommitted::default();
        let written =
            writes.iter().try_for_each(|write| self.write_one(&directory, lines, write, &mut touched));
        if let Err(error) = written {
            self.0.remove(lines.table);
            touched.undo();
            return Err(error.with_context("table", lines.table));
        }
        if writes.iter().any(|write| write.at == 0) {
            sync_directory(&directory)?;
        }
        Ok(touched)
    }

    fn write_one(
        &mut self,
        directory: &Path,
        lines: &Lines<'_>,
        write: &Write,
        touched: &mut Uncommitted,
    ) -> Result<()> {
        let path = directory.join(format!("{}{}", write.file, names::PART));
        let is_open = self.0.get(lines.table).is_some_and(|(file, _)| *file == write.file);
        if !is_open {
            let file = if write.at == 0 {
                set_aside(&path)?;
                File::create_new(&path).at(&path)?
            } else {
                File::options().write(true).open(&path).map_err(|error| gone(&error, &path))?
            };
            self.0.insert(lines.table.to_owned(), (write.file.clone(), file));
        }
        let Some((_, file)) = self.0.get(lines.table) else { return Ok(()) };
        check_file(file, &path, write.at)?;
        touched.0.push((path.clone(), write.at));
        let header = write.header.as_bytes();
        file.write_all_at(header, write.at)
            .and_then(|()| {
                file.write_all_at(&lines.bytes[write.lines.clone()], write.at + header.len() as u64)
            })
            .and_then(|()| file.sync_data())
            .at(&path)
    }

    /// Forgets the file of a table, which is complete.
    pub(crate) fn release(&mut self, table: &str) {
        self.0.remove(table);
    }
}

/// Proves that the open file is still the one at its path and holds what is committed, and cuts off what is
/// not.
fn check_file(file: &File, path: &Path, committed: u64) -> Result<()> {
    let open = file.metadata().at(path)?;
    let found = fs::metadata(path).map_err(|error| gone(&error, path))?;
    if (open.dev(), open.ino()) != (found.dev(), found.ino()) {
        return Err(missing("the file was replaced by another one while s3rep was writing it", path));
    }
    if open.len() < committed {
        return Err(corrupt("the file is shorter than what was committed to it", path));
    }
    if open.len() > committed {
        file.set_len(committed).at(path)?;
    }
    Ok(())
}

fn gone(error: &std::io::Error, path: &Path) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            missing("the file was deleted or moved while s3rep was writing it", path)
        }
        _ => from_io(error, path),
    }
}

fn missing(message: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, message).with_scope(Scope::Table).with_context("file", path.display()).with_advice(
        "put it back; take away only files without .part; or move the directory away and synchronise anew",
    )
}

/// Files with lines that do not count yet, and how long they were before.
#[derive(Default)]
pub(crate) struct Uncommitted(Vec<(PathBuf, u64)>);

impl Uncommitted {
    /// Takes the lines back, so that tries on a full disk do not pile up. What stays behind all the same is
    /// cut off, or set aside, before the next write.
    pub(crate) fn undo(self) {
        for (path, committed) in self.0 {
            let undone = match committed {
                0 => fs::remove_file(&path),
                _ => File::options().write(true).open(&path).and_then(|file| file.set_len(committed)),
            };
            if let Err(error) = undone {
                tracing::debug!(file = %path.display(), %error, "uncommitted lines stay for now");
            }
        }
    }
}

/// Renames a file that nothing knows, so that nobody takes it for lines that count. Never deletes.
pub(crate) fn set_aside(path: &Path) -> Result<()> {
    if !path.try_exists().at(path)? {
        return Ok(());
    }
    let name_of = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(".orphan");
        if number > 1 {
            name.push(number.to_string());
        }
        PathBuf::from(name)
    };
    let mut number = 1;
    while name_of(number).try_exists().at(path)? {
        number += 1;
    }
    let orphan = name_of(number);
    tracing::warn!(file = %orphan.display(), "set aside what an interrupted run left uncommitted");
    fs::rename(path, &orphan).at(path)
}

/// Makes a directory and its name durable.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).at(directory)?;
    directory.parent().map_or(Ok(()), sync_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_committed_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old.part"), directory.path().join("new.part"));
        fs::write(&old, "one\ntw").unwrap();
        fs::write(&new, "thr").unwrap();
        Uncommitted(vec![(old.clone(), 4), (new.clone(), 0), (directory.path().join("never made"), 0)])
            .undo();
        assert_eq!(fs::read_to_string(old).unwrap(), "one\n");
        assert!(!new.exists());
    }
}
