//! Amounts of which only coarse values are shown, and seldom.
//!
//! Anybody who reaches the metrics port reads it, and a tenant's pod may. If it read how many objects the store has, or
//! how many bytes sharing has saved, it could pull an image of its own with a guessed file and see whether another
//! tenant's private image has that file. So what depends on single contents is shown in steps that are far above a
//! file, at most once in [`INTERVAL`].

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two values that are shown.
pub const INTERVAL: Duration = Duration::from_secs(3600);
/// The step of numbers of objects.
pub const OBJECTS: u64 = 1000;
/// The step of amounts of bytes: 64 MiB.
pub const BYTES: u64 = 64 << 20;

/// The part `used` of `total` bytes, rounded up to a thousandth, or to 1 MiB where that is more.
pub fn part(used: u64, total: u64) -> u64 {
    used.next_multiple_of((total / 1000).max(1 << 20)).min(total)
}

/// An amount rounded down to a multiple of `step`.
pub fn down(amount: u64, step: u64) -> u64 {
    amount - amount % step.max(1)
}

/// Holds back what is added to a counter.
#[derive(Debug)]
pub struct HeldBack {
    step: u64,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    amount: u64,
    since: Instant,
}

impl HeldBack {
    /// Nothing held back yet; gives out multiples of `step`.
    pub fn new(step: u64) -> Self {
        Self { step, held: Mutex::new(Held { amount: 0, since: Instant::now() }) }
    }

    /// Adds `amount`, and returns what may be shown now: often nothing.
    pub fn add(&self, amount: u64) -> u64 {
        self.add_at(amount, Instant::now())
    }

    fn add_at(&self, amount: u64, now: Instant) -> u64 {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.amount = held.amount.saturating_add(amount);
        if now.saturating_duration_since(held.since) < INTERVAL {
            return 0;
        }
        let shown = held.amount - held.amount % self.step;
        held.amount -= shown;
        held.since = now;
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stays_a_part() {
        const MIB: u64 = 1 << 20;
        for (used, total, shown) in [
            (0, 64 * MIB, 0),
            (1, 64 * MIB, MIB),
            (64 * MIB - 1, 64 * MIB, 64 * MIB),
            (5_000_001, 10_000_000_000, 10_000_000),
            (10_000_000_000, 10_000_000_000, 10_000_000_000),
            (1, 0, 0),
        ] {
            assert_eq!(part(used, total), shown, "{used} of {total}");
        }
    }

    #[test]
    fn whole_steps_once_in_an_interval_and_nothing_is_lost() {
        let held = HeldBack::new(100);
        let begun = held.held.lock().unwrap().since;
        let at = |minutes: u32| begun + Duration::from_secs(60) * minutes;
        assert_eq!(held.add_at(250, at(1)), 0);
        assert_eq!(held.add_at(0, at(59)), 0);
        assert_eq!(held.add_at(0, at(60)), 200);
        assert_eq!(held.add_at(60, at(61)), 0, "one more step is there, and not shown");
        assert_eq!(held.add_at(1, at(119)), 0);
        assert_eq!(held.add_at(0, at(120)), 100);
        assert_eq!(held.add_at(88, at(180)), 0, "one below a step");
        assert_eq!(held.add_at(1, at(240)), 100);
    }
}
