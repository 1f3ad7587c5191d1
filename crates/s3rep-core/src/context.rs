//! Clock, randomness and failpoints, passed in so that a whole pipeline can run in a simulation.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{Result, Timestamp};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time. May jump.
    fn now(&self) -> Timestamp;
    /// Time that never goes back, from an arbitrary start.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Randomness for jitter and ids, never for keys.
pub trait Random: Send + Sync + 'static {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// Named places where a test breaks a run.
pub trait Failpoints: Send + Sync + 'static {
    /// Called at the place `name`.
    ///
    /// # Errors
    /// Whatever the test wants to happen there.
    fn hit(&self, name: &'static str) -> Result<()>;
}

/// What a running part of s3rep takes from outside: clock, randomness, failpoints. Cheap to clone.
///
/// The engine's `context::system()` makes the real one; the testkit makes one with a simulated clock and a
/// printed seed.
#[derive(Clone)]
pub struct Context {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    failpoints: Arc<dyn Failpoints>,
}

impl Context {
    /// A context without failpoints.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        struct None;
        impl Failpoints for None {
            fn hit(&self, _: &'static str) -> Result<()> {
                Ok(())
            }
        }
        Self { clock, random, failpoints: Arc::new(None) }
    }

    /// The same context with failpoints.
    #[must_use]
    pub fn with_failpoints(mut self, failpoints: Arc<dyn Failpoints>) -> Self {
        self.failpoints = failpoints;
        self
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time that never goes back.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Waits. Cancel-safe.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    /// Random bits for jitter and ids, never for keys.
    pub fn random(&self) -> u64 {
        self.random.next_u64()
    }

    /// A place where a test may break the run.
    ///
    /// # Errors
    /// Only in tests.
    pub fn failpoint(&self, name: &'static str) -> Result<()> {
        self.failpoints.hit(name)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")
    }
}
