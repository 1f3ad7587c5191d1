//! s3rep-files.
