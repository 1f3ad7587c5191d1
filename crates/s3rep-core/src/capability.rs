//! What a destination can do. It drives the engine, the table in the README and the choice of tests.

use serde::{Deserialize, Serialize};

/// How a route writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteMode {
    /// The latest row of each key. The engine keeps only the last change of a key in a batch.
    Upsert,
    /// Every change as a row or message of its own, never coalesced.
    Append,
}

/// Limits of one call of [`Sink::apply`](crate::Sink::apply). The engine cuts batches so that none is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Changes a batch.
    pub records: usize,
    /// Bytes a batch, as JSON text of its records.
    pub bytes: usize,
    /// Bytes a record, as JSON text; a larger one is refused as
    /// [`TooLarge`](crate::ErrorKind::TooLarge) before it reaches the sink.
    pub record_bytes: usize,
    /// Calls at the same time, each with keys of its own.
    pub in_flight: usize,
}

impl Limits {
    /// 1,000 records, 8 MiB, no limit for a record but the batch's, one call at a time: what suits an
    /// embedded database.
    pub const DEFAULT: Self = Self { records: 1_000, bytes: 8 << 20, record_bytes: 8 << 20, in_flight: 1 };
}

/// What a sink can do; constant for the life of the value. A capability claimed and not honoured fails the
/// conformance suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// It can hold the latest row of each key.
    pub upsert: bool,
    /// It can hold every change.
    pub append: bool,
    /// Deletes reach the destination.
    pub deletes: bool,
    /// An outcome lists single rejected records; without it a batch succeeds or fails as a whole.
    pub partial_failure: bool,
    /// Rows and cursor commit together: effects are exactly once, in append tables too.
    pub transactional_cursor: bool,
    /// It can be read back, so that `s3rep verify` works.
    pub readback: bool,
    /// Limits of one call.
    pub limits: Limits,
}

impl Capability {
    /// A sink that can do nothing yet; a driver turns on what it honours.
    pub const NONE: Self = Self {
        upsert: false,
        append: false,
        deletes: false,
        partial_failure: false,
        transactional_cursor: false,
        readback: false,
        limits: Limits::DEFAULT,
    };

    /// Whether a route of this mode can end here.
    pub const fn supports(&self, mode: RouteMode) -> bool {
        match mode {
            RouteMode::Upsert => self.upsert,
            RouteMode::Append => self.append,
        }
    }

    /// The mode of a route that names none: upsert where the sink can.
    pub const fn default_mode(&self) -> RouteMode {
        if self.upsert { RouteMode::Upsert } else { RouteMode::Append }
    }

    /// What a user of this destination may rely on, in the words of the README.
    pub const fn delivery(&self) -> &'static str {
        match (self.transactional_cursor, self.upsert) {
            (true, _) => "exactly once in effect",
            (false, true) => "at least once; upserts converge to exactly once",
            (false, false) => "at least once, with a stable change id",
        }
    }
}
