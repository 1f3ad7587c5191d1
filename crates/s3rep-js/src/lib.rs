//! JavaScript transforms and filters, as configurations of s3db.js have them.
//!
//! A [`JsFunction`] is one function in a realm of its own, on QuickJS. It is compiled once and called with records;
//! nothing of it is seen by another function, and nothing reaches files, networks, timers or other code. A call that
//! takes too long or too much memory ends with an error, and the next one finds the function as new.
//!
//! ```
//! use s3rep_js::{JsFunction, Options, Script};
//! use serde_json::json;
//!
//! let script = Script::new("(d, operation) => d.age < 18 ? null : ({ ...d, full: d.first + ' ' + d.last, operation })");
//! let mut function = JsFunction::compile(script, Options::default()).unwrap();
//! let out = function.transform(&[&json!({"first": "Ada", "last": "L", "age": 36}), &json!("insert")]).unwrap();
//! assert_eq!(out.unwrap()["full"], "Ada L");
//! assert_eq!(function.transform(&[&json!({"age": 7})]).unwrap(), None);
//! ```
//!
//! # Numbers
//!
//! JavaScript's numbers are doubles. An integer that a double does not hold exactly is refused before the call, so
//! that no digit is lost on the way through a function that only passes it on.

mod error;
mod function;
mod host;
mod json;
mod script;

pub use error::JsError;
pub use function::{JsFunction, Limits, Options};
pub use host::Host;
pub use script::Script;
