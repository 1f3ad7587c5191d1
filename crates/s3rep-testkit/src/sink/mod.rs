//! The memory sink, the fault-injecting wrapper and the conformance suite for sinks.
