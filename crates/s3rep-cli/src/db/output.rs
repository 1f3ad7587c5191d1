//! Data on standard output, the rest on standard error.

use std::io::{self, BufWriter, Stdout, Write};

use s3rep::{Error, ErrorKind, Record, Result};
use serde::Serialize;
use serde_json::Value;

/// Standard output. Once its reader is gone (`| head`) nothing is written any more, and that is no error.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    closed: bool,
    /// Advice that stands on standard error last: the next one like it is left out.
    advice: Option<String>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, io::stdout()), closed: false, advice: None }
    }

    /// Whether anybody still reads.
    pub(super) fn is_open(&self) -> bool {
        !self.closed
    }

    /// One JSON value in a line.
    pub(super) fn line(&mut self, value: &Value) -> Result<()> {
        self.json(value)
    }

    /// A record in a line, without its internal members.
    pub(super) fn record(&mut self, record: &Record) -> Result<()> {
        self.json(record)
    }

    /// Text and a line break.
    pub(super) fn text(&mut self, text: &str) -> Result<()> {
        let written = writeln!(self.out, "{text}");
        self.settle(written)
    }

    /// What is wrong with one of many things: `record 'x': …`.
    pub(super) fn report(&mut self, what: &str, error: &Error) {
        // In step with the data, for whoever reads both on a terminal.
        let _ = self.flush();
        let mut text = format!("{what}: {}", error.report());
        if let Some(advice) = error.advice().filter(|advice| self.advice.as_deref() != Some(advice)) {
            text.push_str("\n  help: ");
            text.push_str(advice);
            self.advice = Some(advice.to_owned());
        }
        self.note(&text);
    }

    /// A line on standard error.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.settle(flushed)
    }

    /// Writes and flushes.
    pub(super) fn finish(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        write(self)?;
        self.flush()
    }

    fn json(&mut self, value: &impl Serialize) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = serde_json::to_writer(&mut self.out, value)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        self.settle(written)
    }

    fn settle(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => {
                Err(Error::new(ErrorKind::StorageFull, "standard output cannot be written")
                    .with_source(error))
            }
        }
    }
}
