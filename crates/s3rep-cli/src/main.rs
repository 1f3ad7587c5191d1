//! The `s3rep` command.
fn main() {}
