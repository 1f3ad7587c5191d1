//! Conformance suites for sinks and logs, an oracle, a history generator and fault injection.
//!
//! A driver's `tests/conformance.rs` is a `harness = false` test that hands its trials to `libtest-mimic`; the
//! suite picks the cases by capability, and a case that does not apply is listed as ignored with the reason.

pub mod context;
pub mod disk;
pub mod history;
pub mod log;
pub mod oracle;
pub mod proxy;
pub mod server;
pub mod sink;
pub mod source;
