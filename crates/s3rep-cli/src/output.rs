//! Standard output and standard error: the only place that writes them.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use comfy_table::{Table, presets};
use s3rep::Error;
use serde_json::Value;

/// Standard output could not be written, for another reason than a reader that has gone away.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Prints a line of data. A reader that has gone away (`| head`) misses the rest, and the work goes on: its
/// result is the exit code.
pub(crate) fn line(text: &str) {
    if let Err(error) = writeln!(io::stdout().lock(), "{text}")
        && error.kind() != io::ErrorKind::BrokenPipe
        && !BROKEN.swap(true, Ordering::Relaxed)
    {
        note(&format!("error: standard output cannot be written: {error}"));
    }
}

/// Whether data was lost that should have been printed.
pub(crate) fn is_broken() -> bool {
    BROKEN.load(Ordering::Relaxed)
}

/// Tells something that is no data.
pub(crate) fn note(text: &str) {
    // Nobody reading standard error is no reason to stop replicating.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints rows as a table for people, or one JSON object a line for programs.
pub(crate) fn table(as_json: bool, header: &[&str], rows: &[Vec<Value>]) {
    if as_json {
        for row in rows {
            let object: serde_json::Map<_, _> =
                header.iter().map(|name| json_name(name)).zip(row.iter().cloned()).collect();
            line(&Value::Object(object).to_string());
        }
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(cell));
    }
    line(&table.to_string());
}

/// Whether a person looks at standard error.
pub(crate) fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Tells an error with its causes, and what to do about it.
pub(crate) fn error(error: &Error) {
    let mut text = format!("error: {}", error.report());
    if let Some(advice) = error.advice() {
        text.push_str("\n  help: ");
        text.push_str(advice);
    }
    note(&text);
}

fn json_name(header: &str) -> String {
    header.replace(' ', "_")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
