//! s3rep-testkit.
