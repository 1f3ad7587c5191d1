//! The memory log and the conformance suite for logs.

mod memory;

pub use memory::MemoryLog;
