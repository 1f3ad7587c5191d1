//! The real clock, randomness and failpoints.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use s3rep_core::{BoxFuture, Clock, Context, Error, ErrorKind, Failpoints, Random, Result, Timestamp};

/// The context of a real run: the system's clocks on tokio's timer and its random numbers.
pub fn system() -> Context {
    Context::new(Arc::new(SystemClock { start: Instant::now() }), Arc::new(SystemRandom))
}

struct SystemClock {
    start: Instant,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// Failpoints that end the process at once, as `kill -9` does: for crash tests of the real program.
///
/// Described by text, as in the variable `S3REP_FAILPOINTS`: `engine.applied=3` ends it at the third time that
/// the place `engine.applied` is reached; several are separated by commas.
pub struct KillPoints {
    remaining: Mutex<HashMap<String, u64>>,
}

impl KillPoints {
    /// Reads a description.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when it does not read `NAME=COUNT,…`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut remaining = HashMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, count) = part
                .split_once('=')
                .and_then(|(name, count)| Some((name, count.parse::<u64>().ok()?)))
                .ok_or_else(|| Error::new(ErrorKind::ConfigInvalid, "a failpoint is written NAME=COUNT"))?;
            remaining.insert(name.trim().to_owned(), count);
        }
        Ok(Self { remaining: Mutex::new(remaining) })
    }
}

impl Failpoints for KillPoints {
    fn hit(&self, name: &'static str) -> Result<()> {
        let mut remaining = self.remaining.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(count) = remaining.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                std::process::abort();
            }
        }
        Ok(())
    }
}
