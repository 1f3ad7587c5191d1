//! How a driver joins the table of drivers.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{Result, Sink};

/// The `config` member of a replicator, for one driver.
///
/// The type mirrors the configuration: `#[serde(rename_all = "camelCase", deny_unknown_fields)]`, every field
/// documented with unit, default and reason.
pub trait DriverConfig: DeserializeOwned + Send + 'static {
    /// The canonical name in `driver:`.
    const NAME: &'static str;
    /// Other names that mean the same.
    const ALIASES: &'static [&'static str] = &[];
    /// What the destination is, in a few words, for the table in the README.
    const DESTINATION: &'static str;

    /// Makes the sink. Connects to nothing: that is [`Sink::check`]'s work.
    ///
    /// # Errors
    /// When options contradict each other.
    fn build(self) -> Result<Arc<dyn Sink>>;

    /// What a sink of this driver can do, whatever its options.
    fn capability() -> crate::Capability;
}
