//! s3rep-libsql.
