//! The memory sink, the fault-injecting wrapper and the conformance suite for sinks.

mod broken;
mod faulty;
mod memory;
mod memory_place;
mod memory_schema;
pub mod suite;
mod watch;

pub use broken::Bug;
pub use faulty::{Call, FaultySink, Gate};
pub use memory::{FULL, MemorySink};
pub use memory_place::MemoryPlace;
