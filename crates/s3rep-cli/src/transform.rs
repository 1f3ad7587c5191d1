//! `s3rep transform`: a JavaScript function on records, for trying and for tests.

use std::{
    fs,
    io::{self, BufRead},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use s3rep::{
    Error, ErrorKind,
    config::LogLevel,
    js::{Host, JsError, JsFunction, Options, Script},
};
use serde_json::{Value, json};

use crate::{Failure, output};

#[derive(Args)]
pub(crate) struct TransformArgs {
    /// The file with the function: an expression, a script that ends with one, or a module
    #[arg(long, value_name = "FILE", required_unless_present = "code", conflicts_with = "code")]
    js: Option<PathBuf>,
    /// The function itself
    #[arg(long, value_name = "SRC")]
    code: Option<String>,
    /// Which export of the file is the function; default: the default export
    #[arg(long, value_name = "NAME", requires = "js")]
    export: Option<String>,
    /// What the function is for: it gives a record, whether a record is wanted, or any value
    #[arg(long, value_enum, default_value = "transform")]
    kind: Kind,
    /// The time of `Date.now()`; default: now
    #[arg(long, value_name = "RFC3339")]
    now: Option<String>,
    /// A variable of `process.env`, which has no others; may be repeated
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// What `crypto.randomUUID()` returns; default: a new one each time
    #[arg(long, value_name = "U")]
    uuid: Option<String>,
    /// The time zone of `getHours()` and the like
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Each line of the input is the array of arguments instead of a record
    #[arg(long)]
    args: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Transform,
    Filter,
    Function,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Each line of standard input through the function; a line for each on standard output.
pub(crate) fn transform(args: &TransformArgs) -> Result<(), Failure> {
    // What the function prints is what it is tried for.
    crate::start_logging(Some(LogLevel::Info));
    let mut function = compile(args)?;
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "standard input cannot be read")
                .with_context("line", i + 1)
                .with_source(error)
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match arguments(args, &line) {
            Ok(arguments) => call(&mut function, args.kind, &arguments.iter().collect::<Vec<_>>()),
            Err(message) => {
                let advice =
                    if args.args { "write an array of arguments" } else { "write one record a line" };
                return Err(Error::new(ErrorKind::ConfigInvalid, message)
                    .with_context("line", i + 1)
                    .with_advice(advice)
                    .into());
            }
        };
        output::line(&match answer {
            Ok(result) => json!({ "result": result }).to_string(),
            Err(JsError { name, message, .. }) => {
                json!({"error": {"name": name, "message": message}}).to_string()
            }
        });
    }
    Ok(())
}

fn compile(args: &TransformArgs) -> Result<JsFunction, Error> {
    let script = match (&args.js, &args.code) {
        (Some(file), _) => {
            let name = file.display().to_string();
            let source = fs::read_to_string(file).map_err(|error| {
                Error::new(ErrorKind::ConfigInvalid, "the file cannot be read")
                    .with_context("file", &name)
                    .with_source(error)
            })?;
            Script::new(source).file(name)
        }
        (None, code) => Script::new(code.clone().unwrap_or_default()).file("--code"),
    };
    let script = match &args.export {
        Some(name) => script.export(name),
        None => script,
    };
    let usage = |message: String| Error::new(ErrorKind::ConfigInvalid, message);
    let mut host =
        Host { env: args.env.iter().cloned().collect(), uuid: args.uuid.clone(), ..Host::default() };
    host = host.in_zone(&args.time_zone).map_err(usage)?;
    if let Some(now) = &args.now {
        host = host.at(now).map_err(usage)?;
    }
    JsFunction::compile(script, Options { host, ..Options::default() })
        .map_err(|error| usage(format!("the function cannot be used: {error}")))
}

fn arguments(args: &TransformArgs, line: &str) -> Result<Vec<Value>, &'static str> {
    match serde_json::from_str(line) {
        Ok(Value::Array(arguments)) if args.args => Ok(arguments),
        Ok(record) if !args.args => Ok(vec![record]),
        Ok(_) => Err("the line is no array"),
        Err(_) => Err("the line is no JSON"),
    }
}

fn call(function: &mut JsFunction, kind: Kind, arguments: &[&Value]) -> Result<Value, JsError> {
    match kind {
        Kind::Transform => Ok(function.transform(arguments)?.map_or(Value::Null, Value::Object)),
        Kind::Filter => Ok(function.filter(arguments)?.into()),
        Kind::Function => function.call(arguments),
    }
}
