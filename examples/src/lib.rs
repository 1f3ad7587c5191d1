//! Examples of s3rep: see `examples/`.
