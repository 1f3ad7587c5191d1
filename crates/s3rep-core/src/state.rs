//! What a source has to remember, in the same transaction as the changes it captured.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Context, Result};

/// One write into the state of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The part of the state, such as `tail:cars`.
    pub space: String,
    /// The key in that part. Spaces are scanned in the order of the keys' bytes.
    pub key: String,
    /// The value, `None` to forget the key.
    pub value: Option<Vec<u8>>,
}

/// The durable key-value state of a source, kept by the log. Written through
/// [`ChangeLog::append`](crate::ChangeLog::append) only.
#[async_trait]
pub trait SourceState: Send + Sync + Debug {
    /// Up to `max` entries of a space with keys after `after`, in the order of the keys' bytes. Fewer than
    /// `max` mean that the space ends there.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn scan(
        &self,
        cx: &Context,
        space: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>>;

    /// One value.
    ///
    /// # Errors
    /// When the state cannot be read.
    async fn get(&self, cx: &Context, space: &str, key: &str) -> Result<Option<Vec<u8>>>;
}
