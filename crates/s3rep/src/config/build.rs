//! From the `config` member of a replicator to a sink.

use s3rep_core::DriverConfig;

use super::{
    node::Node,
    problem::Problems,
    read::{self, Notes},
};
use crate::drivers::Built;

/// What a driver is built from.
pub(crate) struct Input<'a> {
    pub(super) config: &'a mut Node,
    pub(super) notes: Notes<'a>,
    pub(super) problems: &'a mut Problems,
}

/// Reads the configuration and builds the sink. `None` when the configuration is wrong.
pub(crate) fn sink<C: DriverConfig>(input: &mut Input<'_>) -> Option<Built> {
    let config: C = read::read(input.config, input.notes, input.problems)?;
    // With a hole in it, it is not what was written; something has been told.
    if input.config.has_hole() {
        return None;
    }
    Some(config.build())
}
