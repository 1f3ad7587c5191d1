//! What a record on S3 costs this machine: CPU time of the client for each put and get, next to its limit.
//!
//! `cargo run --release -p s3rep-s3db --example measure_s3`
//!
//! Once with all processors, as the `s3rep` program runs, and once with one thread: the difference is what threads
//! that wake each other cost. The allocator is that of the program. Other work on the machine raises the figures.
//!
//! The server is a child process that answers at once, so that its time does not count; signing, HTTP, parsing and
//! the store are the client's.
#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::{
    env, fs, io,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use s3rep_core::{Context, Error, ErrorKind, Result};
use s3rep_s3db::{DatabaseOptions, ObjectStore, PutCondition, StoreOptions, StoredObject, open_store_with};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Microseconds of CPU time that one record may cost.
const LIMIT_US: f64 = 150.0;
const RECORDS: usize = 20_000;
/// Linux counts the time of a process in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);
const RESPONDER: &str = "S3REP_RESPONDER";

fn main() -> Result<()> {
    let (all, one) = (Builder::new_multi_thread(), Builder::new_current_thread());
    if env::var_os(RESPONDER).is_some() {
        return runtime(one)?.block_on(respond()).map_err(|error| failed("answer", &error));
    }
    let (child, address) = responder().map_err(|error| failed("start the responder", &error))?;
    println!("{RECORDS} records of {} bytes of metadata, 64 requests at once", size(&record()));
    let outcome =
        [("all processors", all), ("one thread", one)].into_iter().try_for_each(|(name, builder)| {
            println!("{name}:");
            runtime(builder)?.block_on(measure(&address))
        });
    stop(child);
    outcome
}

fn runtime(mut builder: Builder) -> Result<Runtime> {
    builder.enable_all().build().map_err(|error| failed("make a runtime", &error))
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("cannot {what}: {error}"))
}

async fn measure(address: &str) -> Result<()> {
    let cx = DatabaseOptions::default().context;
    let url = format!("http://KEY:SECRET@{address}/bucket/databases/shop");
    let store = open_store_with(&url, &StoreOptions::default())?;
    // Connections are made, and the server is asked for its preconditions, before it counts.
    put(&store, &cx, 200, PutCondition::IfAbsent).await?;
    let start = Usage::now();
    put(&store, &cx, RECORDS, PutCondition::Always).await?;
    start.print("put");
    let start = Usage::now();
    put(&store, &cx, RECORDS, PutCondition::IfAbsent).await?;
    start.print("put if absent");
    let keys: Vec<String> = (0..RECORDS).map(key).collect();
    let start = Usage::now();
    for outcome in store.get_many(&cx, &keys).await {
        outcome?;
    }
    start.print("get");
    let start = Usage::now();
    for key in &keys[..RECORDS / 10] {
        store.get(&cx, key).await?;
    }
    start.print_of("get, one at a time", RECORDS / 10);
    Ok(())
}

async fn put(
    store: &Arc<dyn ObjectStore>,
    cx: &Context,
    records: usize,
    condition: PutCondition,
) -> Result<()> {
    let record = record();
    let puts = (0..records).map(|n| {
        let record = &record;
        async move { store.put(cx, &key(n), record, condition).await }
    });
    let mut outcomes = stream::iter(puts).buffer_unordered(store.parallelism());
    while let Some(outcome) = outcomes.next().await {
        outcome?;
    }
    Ok(())
}

fn key(n: usize) -> String {
    format!("resource=cars/data/id=car-{n:07}")
}

/// A record of ten attributes, as its object is.
fn record() -> StoredObject {
    let mut metadata: Vec<_> = (0..10).map(|n| (n.to_string(), format!("value number {n} of it"))).collect();
    metadata.push(("_v".to_owned(), "v1".to_owned()));
    StoredObject { metadata, ..StoredObject::default() }
}

fn size(object: &StoredObject) -> usize {
    object.metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Time on the clock and on the processors.
struct Usage {
    clock: Instant,
    cpu: Duration,
}

impl Usage {
    fn now() -> Self {
        Self { clock: Instant::now(), cpu: cpu() }
    }

    fn print(&self, what: &str) {
        self.print_of(what, RECORDS);
    }

    fn print_of(&self, what: &str, records: usize) {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
        let (used, passed) = (each(cpu().saturating_sub(self.cpu)), each(self.clock.elapsed()));
        let verdict = if used <= LIMIT_US { "holds" } else { "is missed" };
        println!(
            "  {what}: {used:.0} µs of CPU a record (limit {LIMIT_US:.0} µs {verdict}), {:.0} records/s",
            1e6 / passed
        );
    }
}

/// User and system time of this process, all threads.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    TICK * ticks.sum::<u32>()
}

/// Starts this program as the server; it says where it listens in its first line.
fn responder() -> io::Result<(Child, String)> {
    let mut child = Command::new(env::current_exe()?).env(RESPONDER, "1").stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    if let Some(output) = child.stdout.take() {
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut address)?;
    }
    Ok((child, address.trim().to_owned()))
}

fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

async fn respond() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let headers: String =
        record().metadata.iter().map(|(key, value)| format!("x-amz-meta-{key}: {value}\r\n")).collect();
    let found = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"e\"\r\n\
         Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\
         x-amz-request-id: 0123456789ABCDEF\r\n{headers}\r\n"
    );
    let found: Arc<[u8]> = found.into_bytes().into();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, found.clone()));
    }
}

/// Answers every request; the second write of a probe is refused, so that preconditions are believed in.
async fn serve(stream: TcpStream, found: Arc<[u8]>) -> io::Result<()> {
    const WRITTEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"e\"\r\n\r\n";
    const REFUSED: &[u8] = b"HTTP/1.1 412 X\r\nContent-Length: 0\r\n\r\n";
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (mut line, mut probes) = (String::new(), 0);
    loop {
        line.clear();
        if read.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let is_get = line.starts_with("GET");
        let is_probe = line.starts_with("PUT") && line.contains("probe");
        probes += u32::from(is_probe);
        let mut length = 0;
        while line.trim_end() != "" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
            read.read_line(&mut line).await?;
        }
        let mut body = vec![0; length];
        read.read_exact(&mut body).await?;
        let answer = if is_probe && probes > 1 {
            REFUSED
        } else if is_get {
            &found
        } else {
            WRITTEN
        };
        write.write_all(answer).await?;
    }
}
