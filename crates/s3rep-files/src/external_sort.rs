//! Sorting more than memory holds, keeping the last of each key.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Bytes that are sorted in memory at once.
const MEMORY: usize = 16 << 20;
/// Runs that are merged at once: each has a file open.
const MOST_RUNS: usize = 64;
/// What an item takes beside its key and payload.
const ITEM: usize = 64;

/// Something with a key. Of two with the same key the one with the larger ordinal counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) ordinal: u64,
    /// `None` says that the key is gone.
    pub(crate) payload: Option<Vec<u8>>,
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.key, self.ordinal).cmp(&(&other.key, other.ordinal))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Takes items in any order.
pub(crate) struct Sorter {
    directory: PathBuf,
    memory: usize,
    items: Vec<Item>,
    bytes: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// A sorter whose temporary files have no name and vanish with the process.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            memory: MEMORY,
            items: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, item: Item) -> io::Result<()> {
        self.bytes += item.key.len() + item.payload.as_ref().map_or(0, Vec::len) + ITEM;
        self.items.push(item);
        if self.bytes >= self.memory { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut items = std::mem::take(&mut self.items);
        self.bytes = 0;
        items.sort_unstable();
        let run = write_run(&self.directory, last_of_keys(items.into_iter().map(Ok)))?;
        self.runs.push(run);
        if self.runs.len() >= MOST_RUNS {
            let merged =
                write_run(&self.directory, last_of_keys(Merge::new(std::mem::take(&mut self.runs))?))?;
            self.runs.push(merged);
        }
        Ok(())
    }

    /// The last item of each key that is not gone, in the order of keys.
    pub(crate) fn finish(mut self) -> io::Result<Sorted> {
        self.spill()?;
        let last = last_of_keys(Merge::new(self.runs)?);
        let kept = last.filter(|item| item.as_ref().map_or(true, |item| item.payload.is_some()));
        Ok(Sorted { reader: BufReader::new(write_run(&self.directory, kept)?) })
    }
}

/// Items in order.
pub(crate) struct Sorted {
    reader: BufReader<File>,
}

impl Sorted {
    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        read_item(&mut self.reader)
    }

    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.reader.rewind()
    }
}

/// Of neighbours with the same key the last.
fn last_of_keys(items: impl Iterator<Item = io::Result<Item>>) -> impl Iterator<Item = io::Result<Item>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        loop {
            let item = match items.next()? {
                Ok(item) => item,
                Err(error) => return Some(Err(error)),
            };
            match items.peek() {
                Some(Ok(next)) if next.key == item.key => {}
                _ => return Some(Ok(item)),
            }
        }
    })
}

/// Sorted runs as one sorted stream.
struct Merge {
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Reverse<(Item, usize)>>,
}

impl Merge {
    fn new(runs: Vec<File>) -> io::Result<Self> {
        let mut merge =
            Self { runs: runs.into_iter().map(BufReader::new).collect(), heads: BinaryHeap::new() };
        for run in 0..merge.runs.len() {
            merge.refill(run)?;
        }
        Ok(merge)
    }

    fn refill(&mut self, run: usize) -> io::Result<()> {
        if let Some(item) = read_item(&mut self.runs[run])? {
            self.heads.push(Reverse((item, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((item, run)) = self.heads.pop()?;
        match self.refill(run) {
            Ok(()) => Some(Ok(item)),
            Err(error) => {
                self.heads.clear();
                Some(Err(error))
            }
        }
    }
}

fn write_run(directory: &Path, items: impl Iterator<Item = io::Result<Item>>) -> io::Result<File> {
    let mut writer = BufWriter::new(tempfile::tempfile_in(directory)?);
    for item in items {
        let Item { key, ordinal, payload } = item?;
        writer.write_all(&(key.len() as u64).to_le_bytes())?;
        writer.write_all(key.as_bytes())?;
        writer.write_all(&ordinal.to_le_bytes())?;
        let length = payload.as_ref().map_or(u64::MAX, |payload| payload.len() as u64);
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(payload.as_deref().unwrap_or_default())?;
    }
    let mut file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn read_item(reader: &mut BufReader<File>) -> io::Result<Option<Item>> {
    use std::io::BufRead;
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let length = read_number(reader)?;
    let key = String::from_utf8(read_bytes(reader, length)?).map_err(io::Error::other)?;
    let ordinal = read_number(reader)?;
    let payload = match read_number(reader)? {
        u64::MAX => None,
        length => Some(read_bytes(reader, length)?),
    };
    Ok(Some(Item { key, ordinal, payload }))
}

fn read_number(reader: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_bytes(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_last_of_each_key_stays_whatever_the_memory() {
        let directory = tempfile::tempdir().unwrap();
        for memory in [1, 300, 5_000, MEMORY] {
            let mut sorter = Sorter { memory, ..Sorter::new(directory.path()) };
            let mut expected = BTreeMap::new();
            for ordinal in 0..2_000_u64 {
                let key = format!("k{}", ordinal.wrapping_mul(0x9e37_79b9) % 701);
                let payload = (ordinal % 7 > 0).then(|| ordinal.to_string().into_bytes());
                expected.insert(key.clone(), payload.clone());
                sorter.push(Item { key, ordinal, payload }).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            for _ in 0..2 {
                let mut found = Vec::new();
                while let Some(Item { key, payload, .. }) = sorted.next().unwrap() {
                    found.push((key, payload));
                }
                let expected: Vec<_> = expected
                    .iter()
                    .filter(|(_, p)| p.is_some())
                    .map(|(k, p)| (k.clone(), p.clone()))
                    .collect();
                assert_eq!(found, expected, "{memory}");
                sorted.rewind().unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "temporary files have no names");
    }
}
