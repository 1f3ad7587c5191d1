//! Measures a file database: `cargo run --release -p s3rep-s3db --example measure-s3db [records]`.
//!
//! Makes a database of 100,000 records in a temporary directory and prints how fast it is written, read and
//! followed when nothing changes.
#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::{
    collections::BTreeMap,
    error::Error,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use s3rep_core::{Capture, Change, Context, Record, Result, Source, SourceState, StateWrite};
use s3rep_s3db::{Database, DatabaseOptions, FileStore, ResourceConfig, TailOptions, TailSource};
use serde_json::json;

const WRITERS: usize = 8;

/// State in memory, and a capture that writes it.
#[derive(Clone, Debug, Default)]
struct State(Arc<Mutex<Entries>>);

/// Values by space and key.
type Entries = BTreeMap<(String, String), Vec<u8>>;

#[async_trait]
impl SourceState for State {
    async fn scan(
        &self,
        _: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (space.to_owned(), after.unwrap_or_default().to_owned());
        let in_space = entries.range((Excluded(start), Unbounded)).take_while(|((of, _), _)| of == space);
        Ok(in_space.take(max).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn get(&self, _: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.get(&(space.to_owned(), key.to_owned())).cloned())
    }
}

#[async_trait]
impl Capture for State {
    async fn page(&mut self, _: Vec<Change>, writes: Vec<StateWrite>) -> Result<()> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for StateWrite { space, key, value } in writes {
            match value {
                Some(value) => entries.insert((space, key), value),
                None => entries.remove(&(space, key)),
            };
        }
        Ok(())
    }

    async fn undecodable(&mut self, _: &str, id: &str, error: s3rep_core::Error) {
        println!("undecodable {id}: {}", error.report());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let cores = std::thread::available_parallelism()?;
    println!("{count} records, {cores} cores");
    let directory = tempfile::tempdir()?;
    let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    let cx = options.context.clone();
    let database = Database::open(Arc::new(FileStore::new(directory.path())), options).await?;
    let config: ResourceConfig = serde_json::from_value(json!({
        "name": "people",
        "attributes": {"name": "string", "email": "string", "age": "number", "city": "string|optional",
                       "active": "boolean", "score": "number"},
    }))?;
    let people = database.create_resource(&config).await?;

    let start = Instant::now();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let people = people.clone();
        writers.push(tokio::spawn(async move {
            for n in (writer..count).step_by(WRITERS) {
                let mut person = Record::new();
                person.insert("id".into(), json!(format!("person-{n:06}")));
                person.insert("name".into(), json!(format!("Person Number {n}")));
                person.insert("email".into(), json!(format!("person{n}@example.com")));
                person.insert("age".into(), json!(n % 90));
                person.insert("city".into(), json!("Lisbon"));
                person.insert("active".into(), json!(n % 2 == 0));
                person.insert("score".into(), json!(n as f64 / 7.0));
                people.insert(person).await?;
            }
            Ok::<_, s3rep_core::Error>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    rate("insert", count, start.elapsed());

    for round in 1..=2 {
        let start = Instant::now();
        let (mut records, mut read) = (people.records(None)?, 0);
        loop {
            let page = records.page(4096).await?;
            if page.is_empty() {
                break;
            }
            read += page.iter().filter(|row| row.record.is_ok()).count();
        }
        if read != count {
            return Err(format!("{read} of {count} records read").into());
        }
        rate(&format!("read every record, round {round} (wanted: 25,000/s)"), count, start.elapsed());
    }

    let tail = TailSource::new(database, TailOptions::default());
    let mut state = State::default();
    let shared = state.clone();
    for what in ["first pass (snapshot)", "second pass", "unchanged pass", "unchanged pass"] {
        let start = Instant::now();
        let report = tail.pass(&cx, &shared, &mut state).await?;
        let took = start.elapsed();
        println!(
            "{what}: {:.3} s, {} seen, {} captured (wanted: 1.5 s unchanged)",
            took.as_secs_f64(),
            report.seen,
            report.captured
        );
    }
    Ok(())
}

fn rate(what: &str, count: usize, took: Duration) {
    println!("{what}: {:.0}/s ({:.2} s)", count as f64 / took.as_secs_f64(), took.as_secs_f64());
}
