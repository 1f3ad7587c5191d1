//! The real clock and randomness, for databases that are opened without a context of the engine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use s3rep_core::{BoxFuture, Clock, Context, Random, Timestamp};

use crate::format::Entropy;

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(chrono::Utc::now().timestamp_millis())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
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

/// The clock and the randomness of this machine.
pub(crate) fn system() -> Context {
    Context::new(Arc::new(SystemClock(Instant::now())), Arc::new(SystemRandom))
}

/// Randomness fit for keys, from the operating system through `rand`'s generator: salts and initialisation
/// vectors.
pub(crate) struct SecureEntropy;

impl Entropy for SecureEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}

/// Randomness of the context, so that a simulation makes the same ids again.
pub(crate) struct ContextEntropy<'a>(pub(crate) &'a Context);

impl Entropy for ContextEntropy<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.random().to_le_bytes()[..chunk.len()]);
        }
    }
}
