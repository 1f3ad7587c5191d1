//! s3rep-engine.
