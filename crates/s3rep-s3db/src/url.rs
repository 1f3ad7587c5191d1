//! Connection strings (SPEC §1): what they say, and the store that they name.

use std::{collections::HashMap, path::PathBuf, str::FromStr, sync::Arc};

use s3rep_core::{Error, ErrorKind, Result, Secret};
use url::Url;

use crate::store::{FileOptions, FileStore, MemoryStore, ObjectStore};
#[cfg(feature = "s3")]
use crate::store::{S3Options, S3Store};

/// The bucket of a connection string that names none, as in s3db.js.
const DEFAULT_BUCKET: &str = "s3db";
/// The region of a connection string that names none, as in s3db.js. R2, MinIO and Ceph take it too.
const DEFAULT_REGION: &str = "us-east-1";

/// What a connection string says.
///
/// ```
/// use s3rep_s3db::Connection;
/// let Connection::S3(s3) = "s3://KEY:SECRET@bucket/app%20one?region=eu-west-1".parse()? else { panic!() };
/// assert_eq!((&*s3.bucket, &*s3.prefix, &*s3.region), ("bucket", "app%20one", "eu-west-1"));
/// assert!(!format!("{s3:?}").contains("SECRET"));
/// # Ok::<(), s3rep_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// `s3://…`, `http://…`, `https://…`: a bucket on S3 or on a server that speaks its protocol.
    S3(S3Connection),
    /// `file://…`: the files of a directory.
    File(PathBuf),
    /// `memory://…`: this process's memory.
    Memory {
        /// The bucket, shared in this process by name; `None` when the text names none.
        bucket: Option<String>,
        /// What is put before every key, without `/` at its ends.
        prefix: String,
    },
}

/// A bucket, how to reach it and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Connection {
    /// Scheme, host and port of a server other than AWS, for example `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// What is put before every key, as it stands in the text: percent escapes are not decoded, because
    /// s3db.js does not.
    pub prefix: String,
    /// The region that requests are signed for and, on AWS, sent to: `?region=`, else `us-east-1`.
    pub region: String,
    /// Whether the bucket is the first part of the path rather than of the host's name.
    pub path_style: bool,
    /// As whom.
    pub credentials: S3Credentials,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Credentials {
    /// Whoever AWS's default chain finds: environment variables, the profile in `~/.aws`, a web identity, the
    /// roles of a container or a machine.
    Chain,
    /// Nobody: requests are not signed (`?anonymous=true`), for public buckets.
    Anonymous,
    /// The keys of the connection string.
    Keys {
        /// Access key id.
        access_key_id: Secret,
        /// Secret access key.
        secret_access_key: Secret,
        /// Token of temporary credentials.
        session_token: Option<Secret>,
    },
}

/// How stores work that a connection string opens.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Those of a file store.
    pub files: FileOptions,
    /// Those of a store on S3.
    #[cfg(feature = "s3")]
    pub s3: S3Options,
}

impl StoreOptions {
    /// The same options with `parallelism` file threads or requests at once.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: usize) -> Self {
        self.files.threads = parallelism;
        #[cfg(feature = "s3")]
        {
            self.s3.parallelism = parallelism;
        }
        self
    }
}

/// Opens the store that a connection string names.
///
/// | form | store |
/// |---|---|
/// | `s3://KEY:SECRET@bucket/prefix` | [`S3Store`](crate::S3Store) on AWS |
/// | `http://KEY:SECRET@host:port/bucket/prefix`, `https://…` | [`S3Store`](crate::S3Store) on another server |
/// | `file:///abs/dir`, `file://./rel`, `file://../rel` | [`FileStore`] in that directory |
/// | `memory://bucket/prefix` | [`MemoryStore`] that this process shares by bucket |
/// | `memory://` | a [`MemoryStore`] of its own |
///
/// Keys with special characters are percent-encoded. Without keys the default credentials chain of AWS is asked.
/// Query parameters of the S3 forms: `region` (`us-east-1` when absent), `sessionToken`, `anonymous=true` (no
/// signature), `forcePathStyle=true` (for `s3://`). Others, and those of s3db.js's file and memory clients, do
/// nothing here. Paths of `file` and `memory` are percent-decoded, the prefix of the S3 forms is not, as in
/// s3db.js. Nothing is connected yet.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] when the text is no such form; [`ErrorKind::Unsupported`] for other stores of
/// s3db.js, and for the S3 forms in a build without the feature `s3`. Credentials in the text are in no message.
///
/// ```
/// let store = s3rep_s3db::open_store("file://./data/my%20shop")?;
/// assert_eq!(store.location(), "./data/my shop");
/// # #[cfg(feature = "s3")]
/// assert_eq!(s3rep_s3db::open_store("s3://key:secret@bucket/shop")?.location(), "s3://bucket/shop");
/// # Ok::<(), s3rep_core::Error>(())
/// ```
pub fn open_store(url: &str) -> Result<Arc<dyn ObjectStore>> {
    open_store_with(url, &StoreOptions::default())
}

/// As [`open_store`], with options.
///
/// # Errors
/// As [`open_store`].
pub fn open_store_with(url: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    url.parse::<Connection>()?.open(options)
}

impl Connection {
    /// Opens the store.
    ///
    /// # Errors
    /// When the prefix leads out of the store; [`ErrorKind::Unsupported`] for S3 without the feature `s3`.
    pub fn open(&self, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
        match self {
            Self::S3(connection) => open_s3(connection, options),
            Self::File(path) => Ok(Arc::new(FileStore::with_options(path, options.files.clone()))),
            Self::Memory { bucket: None, prefix } if prefix.is_empty() => Ok(Arc::new(MemoryStore::new())),
            Self::Memory { bucket, prefix } => {
                let bucket = bucket.as_deref().unwrap_or("test-bucket");
                Ok(Arc::new(MemoryStore::shared(bucket, prefix)?))
            }
        }
    }
}

#[cfg(feature = "s3")]
fn open_s3(connection: &S3Connection, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(S3Store::new(connection, options.s3.clone())?))
}

#[cfg(not(feature = "s3"))]
fn open_s3(_: &S3Connection, _: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    Err(Error::new(ErrorKind::Unsupported, "this program was built without the feature 's3'")
        .with_operation("connect")
        .with_advice("build it with --features s3, or use file:///directory"))
}

impl FromStr for Connection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        // The scheme could be a pasted secret: only known ones are repeated.
        let (scheme, _) = text.split_once(':').unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "s3" => bucket_of_host(&parsed(text)?).map(Self::S3),
            "http" | "https" => bucket_of_path(&parsed(text)?).map(Self::S3),
            "file" => file_path(after_scheme(text)?).map(|path| Self::File(path.into())),
            "memory" => memory(after_scheme(text)?),
            scheme @ ("sqlite" | "sqlite+libsql" | "sqlite+d1" | "reddb") => {
                Err(Error::new(ErrorKind::Unsupported, "this store of s3db.js is not supported")
                    .with_operation("connect")
                    .with_context("scheme", scheme)
                    .with_advice("copy the database to S3 or into files with s3db.js, and name that"))
            }
            "" => Err(invalid("the connection string has no scheme")),
            _ => Err(invalid("there is no store of this scheme")),
        }
    }
}

fn parsed(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| {
        invalid("the connection string is no URL").with_context("problem", error).with_advice(
            "write s3://KEY:SECRET@bucket/prefix with KEY and SECRET percent-encoded ('/' as %2F)",
        )
    })
}

/// `s3://KEY:SECRET@bucket/prefix`
fn bucket_of_host(url: &Url) -> Result<S3Connection> {
    let bucket = decode(url.host_str().unwrap_or_default())?;
    let path = url.path();
    connection(url, None, bucket, path.strip_prefix('/').unwrap_or(path))
}

/// `http(s)://KEY:SECRET@host:port/bucket/prefix`
fn bucket_of_path(url: &Url) -> Result<S3Connection> {
    let path = url.path().strip_prefix('/').unwrap_or_default();
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    connection(url, Some(url.origin().ascii_serialization()), decode(bucket)?, prefix)
}

fn connection(url: &Url, endpoint: Option<String>, bucket: String, prefix: &str) -> Result<S3Connection> {
    let mut query: HashMap<_, _> = url.query_pairs().into_owned().collect();
    let is_set = |name: &str| query.get(name).is_some_and(|value| value == "true");
    Ok(S3Connection {
        path_style: endpoint.is_some() || is_set("forcePathStyle"),
        credentials: credentials(url, is_set("anonymous"), query.get("sessionToken"))?,
        endpoint,
        bucket: if bucket.is_empty() { DEFAULT_BUCKET.to_owned() } else { bucket },
        prefix: prefix.to_owned(),
        region: query
            .remove("region")
            .filter(|region| !region.is_empty())
            .unwrap_or_else(|| DEFAULT_REGION.to_owned()),
    })
}

fn credentials(url: &Url, anonymous: bool, token: Option<&String>) -> Result<S3Credentials> {
    let (key, secret) = (decode(url.username())?, decode(url.password().unwrap_or_default())?);
    match (key.is_empty(), secret.is_empty()) {
        (true, true) if anonymous => Ok(S3Credentials::Anonymous),
        (true, true) if token.is_none() => Ok(S3Credentials::Chain),
        (false, false) if !anonymous => Ok(S3Credentials::Keys {
            access_key_id: key.into(),
            secret_access_key: secret.into(),
            // Tokens are base64: a space is a '+' that nobody escaped.
            session_token: token.map(|token| token.replace(' ', "+").into()),
        }),
        (false, false) => Err(invalid("the connection string has keys and 'anonymous=true'")
            .with_advice("leave one of them out")),
        _ => Err(invalid("the connection string has only a part of the credentials").with_advice(
            "write s3://KEY:SECRET@bucket, percent-encoded, or neither of them and no session token",
        )),
    }
}

/// What follows `scheme://`, without query and fragment.
fn after_scheme(text: &str) -> Result<&str> {
    let (_, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid("the connection string has no '//' after its scheme"))?;
    Ok(rest.split(['?', '#']).next().unwrap_or_default())
}

fn memory(rest: &str) -> Result<Connection> {
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let segments: Vec<_> = prefix.split('/').filter(|segment| !segment.is_empty()).collect();
    Ok(Connection::Memory {
        bucket: Some(decode(bucket)?).filter(|bucket| !bucket.is_empty()),
        prefix: decode(&segments.join("/"))?,
    })
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
    Error::new(ErrorKind::ConfigInvalid, message).with_operation("connect").with_advice(
        "write s3://KEY:SECRET@bucket/prefix, http(s)://KEY:SECRET@host:port/bucket/prefix, file:///directory, \
         file://./directory or memory://name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> S3Connection {
        match text.parse().unwrap() {
            Connection::S3(connection) => connection,
            other => panic!("{other:?}"),
        }
    }

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
            ("memory://user:word@b/x", "memory://b/x/"),
            ("memory:///x", "memory://test-bucket/x/"),
        ] {
            assert_eq!(open_store(url).unwrap().location(), location, "{url}");
        }
    }

    #[test]
    fn options_of_the_s3_forms() {
        assert_eq!(s3("s3://b/p").credentials, S3Credentials::Chain);
        assert_eq!(s3("s3://b?anonymous=true").credentials, S3Credentials::Anonymous);
        assert!(s3("s3://b?forcePathStyle=true").path_style && !s3("s3://b").path_style);
        assert_eq!(s3("s3://b?region=").region, "us-east-1");
        assert_eq!(s3("http://k:s@h:80/b").endpoint.as_deref(), Some("http://h"));
        let token = s3("s3://k:s@b?sessionToken=a+b%2Bc").credentials;
        let S3Credentials::Keys { session_token: Some(token), .. } = token else { panic!("{token:?}") };
        assert_eq!(token.expose(), "a+b+c");
    }

    #[test]
    fn bad_forms_are_refused_without_repeating_them() {
        let forms = [
            "",
            "hunter2",
            "hunter2://x",
            "file:///",
            "file://",
            "file://hunter2/x",
            "file:///%zz",
            "file:/hunter2",
            "s3://hunter2@b",
            "s3://:hunter2@b",
            "s3://b?sessionToken=hunter2",
            "s3://k:hunter2@b?anonymous=true",
            "s3://k:hunter2%zz@b",
            "https://k:hunter2@",
            "http://k:hunter2/x@h/b",
        ];
        for url in forms {
            let error = open_store(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{url}");
            assert!(error.advice().is_some() && !error.report().contains("hunter2"), "{error}");
        }
        for url in ["sqlite:./hunter2.db", "sqlite+d1://hunter2", "reddb://u:hunter2@h"] {
            let error = open_store(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.advice().is_some() && !error.report().contains("hunter2"), "{error}");
        }
    }
}
