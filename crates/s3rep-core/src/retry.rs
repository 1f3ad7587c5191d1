//! How often and how soon a failed write is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Exponential backoff with full jitter.
///
/// ```
/// use std::time::Duration;
/// use s3rep_core::RetryPolicy;
/// let policy = RetryPolicy::default();
/// assert_eq!(policy.delay(0, u64::MAX), Duration::ZERO);
/// assert!(policy.delay(1, u64::MAX) <= Duration::from_secs(1));
/// assert!(policy.delay(30, u64::MAX) <= policy.max_delay);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Tries after the first before a record is parked. Outages never use them up. Default 3, as documented
    /// for s3db.js.
    pub max_retries: u32,
    /// The upper bound of the second delay; the first try again is immediate, later bounds double.
    /// Default 1 s.
    pub base_delay: Duration,
    /// No delay is longer. Default 30 s: a destination that comes back is found soon.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 3, base_delay: Duration::from_secs(1), max_delay: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// The delay before try again number `attempt` (from 0): uniformly random between zero and 0, 1, 2, 4 …
    /// times [`RetryPolicy::base_delay`], so that many clients do not come back at once.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
        let bound = self
            .base_delay
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.max_delay);
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        bound.mul_f64(share)
    }
}
