//! The stored format, as pure functions.
