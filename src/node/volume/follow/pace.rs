//! When a tag is asked for again. Pure.

use std::time::Duration;

/// The shortest interval. A registry that many nodes ask should not notice it.
pub const LEAST: Duration = Duration::from_secs(30);
/// Failures after which the interval does not grow any more: eight times as long.
const DOUBLED: u32 = 3;
/// The longest interval after failures, unless the interval itself is longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// The time from one question to the next, after so many failures in a row. `spread` (below 10,000) tells volumes apart,
/// so that those that began together do not ask together: it takes away or adds up to a tenth.
pub(super) fn pause(every: Duration, failed: u32, spread: u16) -> Duration {
    let doubled = every.saturating_mul(1 << failed.min(DOUBLED)).min(LONGEST.max(every));
    doubled.mul_f64(0.9 + f64::from(spread.min(9_999)) / 50_000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn failures_double_it_up_to_an_hour() {
        let seconds = |every, failed| pause(Duration::from_secs(every), failed, 5_000).as_secs_f64().round();
        assert_eq!([0, 1, 2, 3, 9].map(|failed| seconds(60, failed)), [60.0, 120.0, 240.0, 480.0, 480.0]);
        assert_eq!([0, 1, 3].map(|failed| seconds(1800, failed)), [1800.0, 3600.0, 3600.0]);
        assert_eq!([0, 1].map(|failed| seconds(7200, failed)), [7200.0, 7200.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_tenth_more_or_less(every in 30_u64..100_000, failed in any::<u32>(), spread in any::<u16>()) {
            let every = Duration::from_secs(every);
            let (least, most) = (every.mul_f64(0.89), every.max(LONGEST).mul_f64(1.11));
            let pause = pause(every, failed, spread);
            prop_assert!(least <= pause && pause <= most.min(every.mul_f64(8.9)), "{pause:?}");
        }
    }
}
