//! The conformance suite of `s3rep-testkit` over files.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use s3rep_core::{Capability, DriverConfig, Record, Sink, Table};
use s3rep_files::{CsvConfig, JsonlConfig};
use s3rep_testkit::{
    oracle::StoredChange,
    sink::suite::{Offers, SinkFactory, suite},
};
use serde_json::json;
use tempfile::TempDir;

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Jsonl,
    Csv,
}

struct Files {
    driver: Driver,
    /// Small ones make files rotate in the middle of everything.
    max_records: Option<u64>,
}

impl Files {
    fn sink(&self, path: &Path) -> Arc<dyn Sink> {
        let options = json!({"path": path.to_str().unwrap(), "maxRecords": self.max_records});
        match self.driver {
            Driver::Jsonl => serde_json::from_value::<JsonlConfig>(options).unwrap().build().unwrap(),
            Driver::Csv => serde_json::from_value::<CsvConfig>(options).unwrap().build().unwrap(),
        }
    }
}

/// A process that died holds no lock; a call that was given up may hold it a moment longer.
async fn wait_for_lock(path: &Path) {
    let Ok(lock) = fs::File::open(path.join("_s3rep.lock")) else { return };
    for _ in 0..100 {
        if lock.try_lock().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl SinkFactory for Files {
    type Place = TempDir;

    fn capability(&self) -> Capability {
        match self.driver {
            Driver::Jsonl => JsonlConfig::capability(),
            Driver::Csv => CsvConfig::capability(),
        }
    }

    fn offers(&self) -> Offers {
        Offers { changes: true, bad_place: true, broken_connection: true, ..Offers::NOTHING }
    }

    async fn fresh(&self) -> TempDir {
        tempfile::tempdir().unwrap()
    }

    async fn open(&self, place: &TempDir) -> Arc<dyn Sink> {
        let path = place.path().join("lines");
        wait_for_lock(&path).await;
        self.sink(&path)
    }

    async fn changes(&self, place: &TempDir, table: &Table) -> Vec<StoredChange> {
        let directory = place.path().join("lines").join(&*table.name);
        let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        // The order of names is the order of writing.
        files.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().replace(".part", ""));
        let mut changes = Vec::new();
        for file in files.iter().filter(|file| !file.to_str().unwrap().contains(".orphan")) {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.ends_with('\n'), "{file:?} ends in the middle of a line");
            match self.driver {
                Driver::Jsonl => changes.extend(text.lines().map(jsonl)),
                Driver::Csv => changes.extend(csv(&text)),
            }
        }
        changes
    }

    async fn open_bad(&self) -> Option<Arc<dyn Sink>> {
        Some(self.sink(Path::new("/dev/null/lines")))
    }

    async fn break_connection(&self, place: &TempDir) {
        fs::rename(place.path().join("lines"), place.path().join("away")).unwrap();
        fs::write(place.path().join("lines"), "in the way").unwrap();
    }

    async fn mend_connection(&self, place: &TempDir) {
        fs::remove_file(place.path().join("lines")).unwrap();
        fs::rename(place.path().join("away"), place.path().join("lines")).unwrap();
    }
}

fn jsonl(line: &str) -> StoredChange {
    let mut record: Record = serde_json::from_str(line).unwrap();
    let mut take = |name: &str| record.shift_remove(name).unwrap().as_str().unwrap().to_owned();
    let (operation, change_id) = (take("_operation").parse().unwrap(), take("_change_id").parse().unwrap());
    assert!(take("_changed_at").ends_with('Z'));
    StoredChange { key: take("id"), operation, change_id, record: None }
}

/// A reader of its own, so that the driver's cannot agree with its own mistakes.
fn csv(text: &str) -> Vec<StoredChange> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let field = rows.last_mut().unwrap().last_mut().unwrap();
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.push(characters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => rows.last_mut().unwrap().push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            other => field.push(other),
        }
    }
    assert_eq!(rows.pop().unwrap(), [""]);
    assert_eq!(rows[0][..4], ["_operation", "_change_id", "_changed_at", "id"]);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of different lengths");
    let change = |row: &Vec<String>| StoredChange {
        key: row[3].clone(),
        operation: row[0].parse().unwrap(),
        change_id: row[1].parse().unwrap(),
        record: None,
    };
    rows.iter().skip(1).map(change).collect()
}

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let mut trials = suite("jsonl", Files { driver: Driver::Jsonl, max_records: None });
    trials.extend(suite("jsonl of 3 lines", Files { driver: Driver::Jsonl, max_records: Some(3) }));
    trials.extend(suite("csv", Files { driver: Driver::Csv, max_records: None }));
    trials.extend(suite("csv of 3 lines", Files { driver: Driver::Csv, max_records: Some(3) }));
    libtest_mimic::run(&arguments, trials).exit();
}
