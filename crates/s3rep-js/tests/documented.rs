//! Every function of the original's documents, with the results that Node computed for it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use libtest_mimic::{Arguments, Failed, Trial};
use s3rep_js::{Host, JsError, JsFunction, Options, Script};
use serde_json::{Map, Value};

fn main() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documented");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let trials = files.into_iter().map(|file| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || cases(&serde_json::from_str(&fs::read_to_string(&file)?)?))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn cases(function: &Value) -> Result<(), Failed> {
    for (i, case) in function["cases"].as_array().unwrap().iter().enumerate() {
        let outcome = run(function, case);
        let is_expected = match (&outcome, case.get("expect_error")) {
            (Ok(value), None) => is_same(value, &case["expect"]),
            (Err(error), Some(name)) => {
                let message = case.get("error_message").is_none_or(|message| *message == *error.message);
                *name == *error.name && message
            }
            _ => false,
        };
        if !is_expected {
            return Err(format!("case {i}: {outcome:?} of {case}").into());
        }
        // The caller's record stays as it was: it is borrowed, and what the function changes is its own.
    }
    Ok(())
}

fn run(function: &Value, case: &Value) -> Result<Value, JsError> {
    let env = case["env"].as_object().unwrap().iter();
    let host = Host {
        env: env.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
        uuid: case.get("uuid").map(|uuid| uuid.as_str().unwrap().to_owned()),
        ..Host::default()
    };
    let host = host.at(case["now"].as_str().unwrap()).unwrap();
    let (prelude, js) = (function["prelude"].as_str().unwrap_or_default(), function["js"].as_str().unwrap());
    let source = if prelude.is_empty() { js.to_owned() } else { format!("{prelude};\n({js})") };
    let mut compiled = JsFunction::compile(Script::new(source), Options { host, ..Options::default() })?;
    let args: Vec<&Value> = case["args"].as_array().unwrap().iter().collect();
    match function["kind"].as_str().unwrap() {
        "transform" => Ok(compiled.transform(&args)?.map_or(Value::Null, Value::Object)),
        "filter" => Ok(compiled.filter(&args)?.into()),
        _ => compiled.call(&args),
    }
}

/// Keys in any order, numbers as doubles.
fn is_same(a: &Value, b: &Value) -> bool {
    let all = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.len() == b.len()
            && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_same(value, other)))
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => all(a, b),
        _ => a == b,
    }
}
