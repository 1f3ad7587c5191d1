//! Folding files to the last change of each key, for `verify`.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use s3rep_core::{Context, Error, ErrorKind, Readback, Record, Result, Table};

use crate::{
    error::{At, corrupt},
    external_sort::{Item, Sorted, Sorter},
    format::Format,
    ledger::Ledger,
    names,
    sink::FilesSink,
};

/// The rows of one table at a time, sorted on disk.
#[derive(Default)]
pub(crate) struct Fold(Mutex<Option<Folded>>);

struct Folded {
    table: Arc<str>,
    rows: Sorted,
    /// The key of the row that was handed out last.
    at: Option<String>,
    /// A row that was read and not handed out.
    next: Option<Item>,
}

impl Fold {
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn rows(
        &self,
        directory: &Path,
        format: Format,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_here = after.is_some() && state.as_ref().is_some_and(|folded| folded.table == table.name);
        if !is_here {
            let Some(rows) = fold(directory, format, &table.name)? else { return Ok(Vec::new()) };
            *state = Some(Folded { table: table.name.clone(), rows, at: None, next: None });
        }
        let Some(folded) = state.as_mut() else { return Ok(Vec::new()) };
        let page = folded.page(after, max).at(directory)?;
        page.into_iter()
            .map(|(key, payload)| {
                let mut row: Record = serde_json::from_slice(&payload).map_err(|error| {
                    Error::new(ErrorKind::Unexpected, "a sorted row cannot be read").with_source(error)
                })?;
                format.project(table, &mut row);
                Ok((key, row))
            })
            .collect()
    }
}

impl Folded {
    fn page(&mut self, after: Option<&str>, max: usize) -> std::io::Result<Vec<(String, Vec<u8>)>> {
        if self.at.as_deref() > after {
            self.rows.rewind()?;
            self.next = None;
        }
        let mut page = Vec::new();
        while page.len() < max {
            let next = match self.next.take() {
                Some(item) => Some(item),
                None => self.rows.next()?,
            };
            let Some(Item { key, payload: Some(payload), .. }) = next else { break };
            if after.is_none_or(|after| *key > *after) {
                page.push((key, payload));
            }
        }
        self.at = page.last().map(|(key, _)| key.clone()).or_else(|| after.map(str::to_owned));
        Ok(page)
    }
}

/// One file to read, up to a length if it is being written.
struct Source {
    path: PathBuf,
    committed: Option<u64>,
}

/// Sorts all lines of a table. `None` when it has no files.
fn fold(directory: &Path, format: Format, table: &str) -> Result<Option<Sorted>> {
    names::check_table(table)?;
    let sources = sources(directory, format, table)?;
    if sources.is_empty() {
        return Ok(None);
    }
    let mut sorter = Sorter::new(directory);
    let mut ordinal = 0;
    for source in sources {
        read(&source, format, |line| {
            ordinal += 1;
            let payload = if line.is_delete { None } else { Some(serde_json::to_vec(&line.record)?) };
            sorter.push(Item { key: line.key, ordinal, payload })
        })?;
    }
    sorter.finish().at(directory).map(Some)
}

/// The files of a table in the order in which they were written.
fn sources(directory: &Path, format: Format, table: &str) -> Result<Vec<Source>> {
    let place = directory.join(table);
    // No lock: a running replicator may be verified too. What it has committed by now is what counts.
    let files =
        Ledger::load(directory)?.and_then(|mut ledger| ledger.tables.remove(table)).unwrap_or_default();
    let rank_of = |log: &str| files.logs.iter().position(|(known, _)| known == log);
    let mut found = Vec::new();
    let entries = match fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at(&place)?,
    };
    let unfinished: Vec<_> = files.closing.iter().chain(&files.part).collect();
    for entry in entries {
        let name = entry.at(&place)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some((log, number)) = names::parse(name, table, format.extension()) else { continue };
        if !unfinished.iter().any(|part| part.file == name) {
            let source = Source { path: place.join(name), committed: None };
            found.push(((rank_of(log), log.to_owned(), number), source));
        }
    }
    for part in unfinished {
        let Some((log, number)) = names::parse(&part.file, table, format.extension()) else { continue };
        let path = place.join(format!("{}{}", part.file, names::PART));
        // Between the commit and the rename a file may have either name; a complete one may be gone.
        let path = if path.try_exists().at(&path)? { path } else { place.join(&part.file) };
        if path.try_exists().at(&path)? {
            let source = Source { path, committed: Some(part.bytes) };
            found.push(((rank_of(log), log.to_owned(), number), source));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found.into_iter().map(|(_, source)| source).collect())
}

fn read(
    source: &Source,
    format: Format,
    mut each: impl FnMut(crate::format::Line) -> std::io::Result<()>,
) -> Result<()> {
    let Source { path, committed } = source;
    let file = File::open(path).at(path)?.take(committed.unwrap_or(u64::MAX));
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let broken =
        |number: u64| corrupt("a line of the file cannot be read", path).with_context("line", number);
    let mut text = Vec::new();
    let mut number = 0;
    let mut columns = Vec::new();
    while format.read_line(&mut reader, &mut text).at(path)? {
        number += 1;
        if number == 1 && format.has_header() {
            columns = format.columns_of(&text).ok_or_else(|| broken(number))?;
            continue;
        }
        each(format.parse(&text, &columns).ok_or_else(|| broken(number))?).at(path)?;
    }
    Ok(())
}

#[async_trait]
impl Readback for FilesSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        self.format()
            .expected(table, record)
            .map_err(|error| error.with_context("table", &table.name).with_context("key", key))
    }

    async fn rows(
        &self,
        _: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let (table, after) = (table.clone(), after.map(str::to_owned));
        self.blocking(move |sink| sink.fold().rows(sink.path(), sink.format(), &table, after.as_deref(), max))
            .await
    }
}
