//! Databases that s3db.js wrote, read and written again.
//!
//! Each file of `tests/fixtures` holds one database: its objects, and what s3db.js returned for its records. For
//! each there is a trial that reads, one that writes, and one that makes its `s3db.json`. What is not the same is
//! listed below with the reason; a listed case that becomes the same fails as well, so that the lists stay true.

mod fixture;

use std::sync::{Arc, Mutex};

use fixture::{Case, Counts, Direction};
use libtest_mimic::{Arguments, Failed, Trial};

/// Files that other tests are made of.
const NOT_THIS_FILES: [&str; 2] = ["vectors-ddl", "vectors-replicators"];

#[expect(clippy::print_stdout, reason = "the summary")]
fn main() {
    let arguments = Arguments::from_args();
    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut trials = Vec::new();
    for (name, path) in fixture::files() {
        if NOT_THIS_FILES.contains(&name.as_str()) {
            continue;
        }
        if name == "vectors-connection-strings" {
            trials.push(Trial::test("vectors/vectors-connection-strings", move || {
                fixture::vectors::connection_strings(&path).map_err(Failed::from)
            }));
            continue;
        }
        if name == "vectors-codecs" {
            trials.push(Trial::test("vectors/vectors-codecs", move || {
                fixture::vectors::run(&path).map_err(Failed::from)
            }));
            continue;
        }
        for direction in [Direction::Read, Direction::Write, Direction::Document] {
            let (path, counts) = (path.clone(), Arc::clone(&counts));
            trials.push(Trial::test(format!("{direction}/{name}"), move || {
                let case = Case::load(&path)?;
                let found = case.run(direction)?;
                if let Ok(mut counts) = counts.lock() {
                    counts.add(&found);
                }
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Ok(counts) = counts.lock() {
        println!("{counts}");
    }
    conclusion.exit();
}
