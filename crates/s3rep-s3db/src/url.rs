//! Connection strings (SPEC §1).

use std::sync::Arc;

use s3rep_core::{Error, ErrorKind, Result};

use crate::store::{FileOptions, FileStore, MemoryStore, ObjectStore};

/// Opens the store that a connection string names.
///
/// | form | store |
/// |---|---|
/// | `file:///abs/dir`, `file://./rel`, `file://../rel` | [`FileStore`] in that directory |
/// | `memory://bucket/prefix` | [`MemoryStore`] that this process shares by bucket |
/// | `memory://` | a [`MemoryStore`] of its own |
///
/// Paths are percent-decoded. Query parameters of s3db.js's file and memory clients do nothing here.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] when the text is no such form; [`ErrorKind::Unsupported`] for `s3://` and
/// `http(s)://`, which come with the S3 store. Credentials in the text are in no message.
///
/// ```
/// let store = s3rep_s3db::open_store("file://./data/my%20shop")?;
/// assert_eq!(store.location(), "./data/my shop");
/// assert!(s3rep_s3db::open_store("s3://key:secret@bucket").is_err());
/// # Ok::<(), s3rep_core::Error>(())
/// ```
pub fn open_store(url: &str) -> Result<Arc<dyn ObjectStore>> {
    open_store_with(url, FileOptions::default())
}

/// As [`open_store`], with options for a file store.
pub(crate) fn open_store_with(url: &str, files: FileOptions) -> Result<Arc<dyn ObjectStore>> {
    let Some((scheme, rest)) = url.trim().split_once("://") else {
        return Err(invalid("the connection string has no scheme"));
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = file_path(rest)?;
            Ok(Arc::new(FileStore::with_options(path, files)))
        }
        "memory" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() && prefix.is_empty() {
                return Ok(Arc::new(MemoryStore::new()));
            }
            let bucket = match decode(bucket)? {
                bucket if bucket.is_empty() => "test-bucket".to_owned(),
                bucket => bucket,
            };
            Ok(Arc::new(MemoryStore::shared(&bucket, &decode(prefix)?)?))
        }
        "s3" | "http" | "https" => {
            Err(Error::new(ErrorKind::Unsupported, "databases on S3 come with the S3 store, not yet here")
                .with_operation("connect")
                .with_context("scheme", scheme.to_ascii_lowercase())
                .with_advice("use file:///directory with a copy of the bucket until then"))
        }
        // The scheme could be a pasted secret: it is not repeated.
        _ => Err(invalid("there is no store of this scheme")),
    }
}

fn file_path(rest: &str) -> Result<String> {
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let text = match host {
        "" | "localhost" => path.to_owned(),
        "." | ".." => format!("{host}{path}"),
        _ => {
            return Err(invalid("a file URL has no host")
                .with_advice("write file:///absolute/directory or file://./relative/directory"));
        }
    };
    match decode(&text)? {
        path if path.is_empty() || path == "/" => Err(invalid("a file URL names a directory other than '/'")),
        path => Ok(path),
    }
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(invalid("the connection string has a malformed percent escape")),
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid("the connection string is not UTF-8 when decoded"))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message)
        .with_operation("connect")
        .with_advice("write file:///directory, file://./directory or memory://name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_specification() {
        for (url, location) in [
            ("file:///data/db", "/data/db"),
            ("file://./data/db", "./data/db"),
            ("file://../db", "../db"),
            ("FILE:///d%C3%BC", "/dü"),
            ("file://localhost/db", "/db"),
            ("memory://", "memory://"),
            ("memory://b/x%20y//z?a=1", "memory://b/x y/z/"),
            ("memory:///x", "memory://test-bucket/x/"),
        ] {
            assert_eq!(open_store(url).unwrap().location(), location, "{url}");
        }
    }

    #[test]
    fn bad_forms_are_refused_without_repeating_them() {
        for url in ["", "hunter2", "hunter2://x", "file:///", "file://", "file://hunter2/x", "file:///%zz"] {
            let error = open_store(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{url}");
            assert!(error.advice().is_some() && !error.report().contains("hunter2"), "{error}");
        }
        for url in ["s3://key:hunter2@b/p", "https://key:hunter2@h/b"] {
            let error = open_store(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(!error.report().contains("hunter2"));
        }
    }
}
