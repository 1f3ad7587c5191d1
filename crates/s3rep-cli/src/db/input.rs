//! JSON from standard input and from files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
};

use s3rep::{Error, ErrorKind, Record, Result};
use serde_json::Value;
use tokio::sync::mpsc;

/// No record is longer: the stores take less.
const MAX_BYTES: u64 = 64 << 20;

/// Reads one JSON value; `what` names it in messages.
pub(super) fn read_json(what: &'static str) -> Result<Value> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        // Whoever forgot to pipe something would wait for ever.
        let _ = writeln!(io::stderr(), "reading {what} as JSON from standard input (end with Ctrl-D)");
    }
    let mut bytes = Vec::new();
    stdin.lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_long());
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Error::new(ErrorKind::ConfigInvalid, "standard input is empty")
            .with_advice(format!("write {what} as JSON to it")));
    }
    parse(&bytes)
}

/// Reads one JSON object.
pub(super) fn read_record(what: &'static str) -> Result<Record> {
    object(read_json(what)?)
}

fn parse(bytes: &[u8]) -> Result<Value> {
    // serde_json names the place and what it expected there, never the text.
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(ErrorKind::InvalidValue, format!("this is not JSON: {error}")))
}

fn object(value: Value) -> Result<Record> {
    match value {
        Value::Object(record) => Ok(record),
        _ => Err(Error::new(ErrorKind::InvalidValue, "what is expected is a JSON object: { … }")),
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the input cannot be read").with_source(error)
}

fn too_long() -> Error {
    Error::new(ErrorKind::TooLarge, "a record of more than 64 MiB is not read")
}

/// The records of a JSON Lines file with their line numbers, read ahead by a thread of its own.
pub(super) struct Lines(mpsc::Receiver<Line>);

type Line = (u64, Result<Record>);

impl Lines {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let cannot = |error| {
                Error::new(ErrorKind::NotFound, "the file cannot be read")
                    .with_context("file", path.display())
                    .with_source(error)
            };
            let file = File::open(path).map_err(cannot)?;
            if file.metadata().map_err(cannot)?.is_dir() {
                return Err(cannot(io::ErrorKind::IsADirectory.into()));
            }
            Box::new(file)
        };
        let (sender, receiver) = mpsc::channel(64);
        std::thread::spawn(move || read_lines(BufReader::with_capacity(1 << 16, input), &sender));
        Ok(Self(receiver))
    }

    pub(super) async fn next(&mut self) -> Option<Line> {
        self.0.recv().await
    }
}

/// Sends every line that is not blank, until the input ends or nobody listens.
fn read_lines(mut input: impl BufRead, sender: &mpsc::Sender<Line>) {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut input).take(MAX_BYTES + 1).read_until(b'\n', &mut line);
        let record = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 > MAX_BYTES => {
                if let Err(error) = skip_line(&mut input, &line) {
                    let _ = sender.blocking_send((number, Err(unreadable(error))));
                    return;
                }
                Err(too_long())
            }
            Ok(_) => {
                let text =
                    if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
                if text.trim_ascii().is_empty() {
                    continue;
                }
                parse(text).and_then(object)
            }
            Err(error) => {
                let _ = sender.blocking_send((number, Err(unreadable(error))));
                return;
            }
        };
        if sender.blocking_send((number, record)).is_err() {
            return;
        }
    }
}

/// Reads on to the end of a line whose beginning has been read.
fn skip_line(input: &mut impl BufRead, beginning: &[u8]) -> io::Result<()> {
    if beginning.ends_with(b"\n") {
        return Ok(());
    }
    loop {
        let buffer = input.fill_buf()?;
        let (used, end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if end {
            return Ok(());
        }
    }
}
