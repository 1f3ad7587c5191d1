//! s3rep.
