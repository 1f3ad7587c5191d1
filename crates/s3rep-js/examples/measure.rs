//! Records a second through a function, conversions included.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::time::Instant;

use s3rep_js::{JsFunction, Options, Script};
use serde_json::json;

fn main() {
    let record = json!({
        "id": "u-000001", "a": "Ada", "b": "Lovelace", "email": "ada.lovelace@example.com", "age": 36, "active": true,
        "tags": ["math", "engine"], "address": {"street": "12 St James's Square", "city": "London", "zip": "SW1Y 4JH"},
        "score": 98.5, "createdAt": "2024-01-15T10:30:00.000Z", "note": "the first to see what the engine could do",
    });
    println!("a record of {} bytes", record.to_string().len());
    let operation = json!("insert");
    for (what, source) in
        [("transform", "(d) => ({...d, full: d.a + ' ' + d.b})"), ("filter", "(d) => d.active && d.age > 18")]
    {
        let mut function = JsFunction::compile(Script::new(source), Options::default()).unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            let count = 200_000;
            for _ in 0..count {
                if what == "filter" {
                    assert!(function.filter(&[&record, &operation]).unwrap());
                } else {
                    assert!(function.transform(&[&record, &operation]).unwrap().is_some());
                }
            }
            println!("{what}: {:.0} a second", f64::from(count) / began.elapsed().as_secs_f64());
        }
    }
}
