//! s3rep-log.
