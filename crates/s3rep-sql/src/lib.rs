//! s3rep-sql.
