//! The memory log and the conformance suite for logs.
