//! The memory log and the conformance suite for logs.

mod memory;
mod suite;

pub use memory::MemoryLog;
pub use suite::{LogFactory, LogPlace, MemoryLogs, suite};
