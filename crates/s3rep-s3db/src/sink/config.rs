//! The driver's configuration.

use std::sync::Arc;

use s3rep_core::{
    Capability, DriverConfig, Error, ErrorKind, Limits, Result, SchemaSyncOptions, Scope, Secret, Sink,
};
use serde::Deserialize;

use super::sink::S3dbSink;
#[cfg(feature = "s3")]
use crate::store::S3Options;
use crate::{
    store::{FileOptions, ObjectStore},
    url::{StoreOptions, open_store_with},
};

/// `config` of the driver `s3db`.
///
/// ```
/// # use s3rep_core::DriverConfig;
/// let config: s3rep_s3db::S3dbConfig =
///     serde_json::from_str(r#"{"connectionString": "memory://backup/shop"}"#).unwrap();
/// assert!(config.build().unwrap().capability().upsert);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3dbConfig {
    /// The destination: `file:///data/copy`, `s3://KEY:SECRET@bucket/prefix` and the other forms of
    /// [`open_store`](crate::open_store). No default. A secret, because it may hold keys. The database is made
    /// with the first change when there is none.
    pub connection_string: Secret,
    /// The region of a bucket on S3. Default: what the connection string says, else `us-east-1`. s3db.js takes
    /// the option and ignores it.
    #[serde(default)]
    pub region: Option<String>,
    /// Put before every key, behind the prefix of the connection string: several databases in one bucket.
    /// Default: nothing.
    #[serde(default)]
    pub key_prefix: Option<String>,
    /// The passphrase that attributes of type `secret` are encrypted under at the destination. Default
    /// `secret`, as in s3db.js. It may be another one than the source's.
    #[serde(default = "default_passphrase")]
    pub passphrase: Secret,
    /// Whether a write to a `file:` database is on the device before it counts as done. Default true: a change
    /// that counts as done does not come again, so that a crash of the machine would lose it. Databases on S3
    /// do this always.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Whether and how resources are created and extended before the first change. Default: not looked after.
    /// A resource that is missing is then made when the first record for it comes, after the source's
    /// definition, and extended by attributes that the source gets; one that somebody else made stays as it is.
    #[serde(default)]
    pub schema_sync: SchemaSyncOptions,
}

fn default_passphrase() -> Secret {
    Secret::from("secret")
}

fn yes() -> bool {
    true
}

/// 1,000 records a batch: what one deletion of S3 takes, and many times its parallelism in writes. Two calls at
/// once, so that requests are under way while the last ones of a batch are waited for.
const LIMITS: Limits = Limits { records: 1_000, in_flight: 2, ..Limits::DEFAULT };

impl DriverConfig for S3dbConfig {
    const NAME: &'static str = "s3db";
    const DESTINATION: &'static str = "another s3db.js database, on S3 or in files";

    fn build(self) -> Result<Arc<dyn Sink>> {
        let url = self.url()?;
        let files = FileOptions { durable: self.durable, ..FileOptions::default() };
        // The engine tries again.
        #[cfg(feature = "s3")]
        let s3 = S3Options { attempts: 1, ..S3Options::default() };
        let options = StoreOptions {
            files,
            #[cfg(feature = "s3")]
            s3,
        };
        let store = open_store_with(&url, &options)
            .map_err(|error| error.with_scope(Scope::Sink).with_context("option", "connectionString"))?;
        self.over(store)
    }

    fn capability() -> Capability {
        Capability {
            upsert: true,
            deletes: true,
            partial_failure: true,
            readback: true,
            limits: LIMITS,
            ..Capability::NONE
        }
    }
}

impl S3dbConfig {
    /// The sink over a store that was opened elsewhere, where s3db.js takes a `client`. Of the options, those
    /// that say where the database is are not used.
    ///
    /// # Errors
    /// When the passphrase is empty.
    pub fn over(self, store: Arc<dyn ObjectStore>) -> Result<Arc<dyn Sink>> {
        if self.passphrase.expose().is_empty() {
            return Err(invalid("passphrase", "the passphrase is empty")
                .with_advice("leave it out for s3db.js's default, or give the destination's"));
        }
        Ok(Arc::new(S3dbSink::new(store, self.passphrase, self.schema_sync)))
    }

    /// The connection string with prefix and region in it.
    fn url(&self) -> Result<String> {
        let text = self.connection_string.expose().trim();
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let scheme = place.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let mut url = place.to_owned();
        if let Some(prefix) = self.key_prefix.as_deref().map(|prefix| prefix.trim_matches('/')) {
            if prefix.split('/').any(|part| part == "..") || prefix.contains(['?', '#', '\0']) {
                return Err(invalid("keyPrefix", "the prefix leads elsewhere or is no part of a key")
                    .with_advice("write it like backups/shop"));
            }
            // s3db.js, and so the store, decodes only these.
            let decoded = matches!(scheme.as_str(), "file" | "memory");
            let prefix = if decoded { prefix.replace('%', "%25") } else { prefix.to_owned() };
            if !prefix.is_empty() {
                let place = if place.ends_with("://") { place } else { place.trim_end_matches('/') };
                url = format!("{place}/{prefix}");
            }
        }
        let mut query: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
        let region = self.region.as_deref().map(|region| format!("region={region}"));
        if let Some(region) = &region {
            if region.contains(['&', '#', '?', '%']) || region.ends_with('=') {
                return Err(invalid("region", "the region is none").with_advice("write it like eu-west-1"));
            }
            query.retain(|part| !part.starts_with("region="));
            query.push(region);
        }
        Ok(if query.is_empty() { url } else { format!("{url}?{}", query.join("&")) })
    }
}

fn invalid(option: &str, message: &'static str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, message).with_scope(Scope::Sink).with_context("option", option)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(options: serde_json::Value) -> S3dbConfig {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn prefix_and_region_go_into_the_connection_string() {
        for (options, url) in [
            (json!({"connectionString": "memory://b"}), "memory://b"),
            (json!({"connectionString": "file:///data", "keyPrefix": "/a%/b/"}), "file:///data/a%25/b"),
            (
                json!({"connectionString": "s3://k:s@b/p/?region=x&a=1", "keyPrefix": "q%", "region": "eu-west-1"}),
                "s3://k:s@b/p/q%?a=1&region=eu-west-1",
            ),
        ] {
            assert_eq!(config(options).url().unwrap(), url);
        }
    }

    #[test]
    fn wrong_options_are_named_and_secrets_are_not_shown() {
        for (options, name) in [
            (json!({"connectionString": "hunter2://x"}), "connectionString"),
            (json!({"connectionString": "memory://b", "keyPrefix": "a/../b"}), "keyPrefix"),
            (json!({"connectionString": "memory://b", "region": "a&b=hunter2"}), "region"),
            (json!({"connectionString": "memory://b", "passphrase": ""}), "passphrase"),
        ] {
            let error = config(options).build().unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Sink));
            assert!(error.to_string().contains(name) && error.advice().is_some(), "{error}");
            assert!(!error.report().contains("hunter2"), "{error}");
        }
        for unreadable in [json!({}), json!({"connectionString": "memory://b", "resource": "x"})] {
            assert!(serde_json::from_value::<S3dbConfig>(unreadable).is_err());
        }
        let shown =
            format!("{:?}", config(json!({"connectionString": "s3://k:hunter2@b", "passphrase": "hunter2"})));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
