//! Moves changes from a source through a durable log into destinations.

pub mod context;
