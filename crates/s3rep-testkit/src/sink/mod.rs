//! The memory sink, the fault-injecting wrapper and the conformance suite for sinks.

mod broken;
mod memory;
mod memory_schema;

pub use broken::Bug;
pub use memory::{FULL, MemoryPlace, MemorySink};
