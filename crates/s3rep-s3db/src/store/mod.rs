//! Object stores that carry user metadata.
