//! Whether and when to try again; pure, the clock and the dice are the caller's.

use std::time::Duration;

use crate::kind::Kind;
use crate::oci::SourceError;

/// Bounds on trying again after failures that are likely to pass: HTTP 408, 429 and 5xx,
/// connections that fail or break, and time limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// The longest pause after the first failure; doubled after each further one.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub longest_pause: Duration,
    /// The longest `Retry-After` that is waited for; beyond it the failure is reported at once.
    pub longest_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The pause after attempt number `failed` (from 1) failed with `error`; `None` to give up.
    /// `dice` is any number, from which the jitter is made.
    pub(super) fn pause(&self, failed: u32, error: &SourceError, dice: u64) -> Option<Duration> {
        if failed >= self.attempts || error.kind() != Kind::Transient {
            return None;
        }
        let share = f64::from((dice & 0xffff) as u16) / f64::from(u16::MAX);
        if let Some(asked) = error.retry_after() {
            // Never earlier than asked, and not all nodes in the same instant.
            let late = self.first_pause.mul_f64(share);
            return (asked <= self.longest_retry_after).then_some(asked + late);
        }
        let doubled = self.first_pause.saturating_mul(1_u32 << failed.saturating_sub(1).min(20));
        let longest = doubled.min(self.longest_pause);
        Some(longest.mul_f64(0.5 + share / 2.0))
    }
}

/// A number that differs from call to call; good enough to spread retries, and for nothing else.
pub(super) fn dice() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(retry_after: Option<u64>) -> SourceError {
        SourceError::RateLimited {
            subject: "s".into(),
            host: "h".into(),
            retry_after: retry_after.map(Duration::from_secs),
            detail: String::new(),
        }
    }

    #[test]
    fn pauses_double_within_bounds() {
        let policy = RetryPolicy { attempts: 9, ..RetryPolicy::default() };
        for (failed, longest) in [(1, 500), (2, 1000), (3, 2000), (5, 8000), (6, 10_000), (8, 10_000)] {
            let low = policy.pause(failed, &limited(None), 0).unwrap();
            let high = policy.pause(failed, &limited(None), 0xffff).unwrap();
            assert_eq!(low, Duration::from_millis(longest / 2), "{failed}");
            assert_eq!(high, Duration::from_millis(longest), "{failed}");
        }
        assert_eq!(policy.pause(9, &limited(None), 0), None);
    }

    #[test]
    fn retry_after_is_a_lower_bound_up_to_a_limit() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(1, &limited(Some(7)), 0), Some(Duration::from_secs(7)));
        let late = policy.pause(1, &limited(Some(7)), 0xffff).unwrap();
        assert!(late > Duration::from_secs(7) && late < Duration::from_secs(8));
        assert_eq!(policy.pause(1, &limited(Some(61)), 0), None);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let policy = RetryPolicy::default();
        let error = SourceError::NotFound { subject: "s".into() };
        assert_eq!(policy.pause(1, &error, 0), None);
    }
}
