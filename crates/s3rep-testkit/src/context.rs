//! Contexts for tests: a seeded source of randomness, printed so that a failure can be run again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use s3rep_core::{Context, Random};

/// The seed of this test process: `S3REP_SEED` when it is set, else random.
pub fn seed() -> u64 {
    std::env::var("S3REP_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random)
}

/// A context with real clocks and randomness from `seed`.
pub fn seeded(seed: u64) -> Context {
    let system = s3rep_engine::context::system();
    Context::new(Arc::new(SystemTime(system)), Arc::new(SplitMix(AtomicU64::new(seed))))
}

/// A context for tests that do not care about the seed.
pub fn test() -> Context {
    seeded(1)
}

struct SystemTime(Context);

impl s3rep_core::Clock for SystemTime {
    fn now(&self) -> s3rep_core::Timestamp {
        self.0.now()
    }
    fn monotonic(&self) -> std::time::Duration {
        self.0.monotonic()
    }
    fn sleep(&self, duration: std::time::Duration) -> s3rep_core::BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

/// SplitMix64: small, seedable and good enough for tests.
pub struct SplitMix(AtomicU64);

impl SplitMix {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl Random for SplitMix {
    fn next_u64(&self) -> u64 {
        let state =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
