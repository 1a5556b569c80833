//! When a node tries again.

use std::time::Duration;

/// The pause after the first attempt; doubled after each further one.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// The pause after so many attempts have failed; `None` if it is given up, which is after `limit` further attempts. `spread`
/// (below 10,000) tells nodes apart, so that they do not all come back at once: it adds up to a quarter.
pub fn pause(failed: u32, limit: u32, spread: u16) -> Option<Duration> {
    if failed > limit {
        return None;
    }
    let doubled = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(LONGEST);
    Some(doubled + doubled.mul_f64(f64::from(spread.min(9_999)) / 40_000.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let seconds = |failed| pause(failed, 20, 0).map(|pause| pause.as_secs());
        assert_eq!([1, 2, 3, 6, 20].map(seconds), [10, 20, 40, 300, 300].map(Some));
        assert_eq!(pause(1, 0, 0), None, "no further attempt");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_ends_and_is_never_in_a_hurry(failed in 1_u32.., limit in 0_u32..=20, spread in any::<u16>()) {
            match pause(failed, limit, spread) {
                None => prop_assert!(failed > limit),
                Some(pause) => {
                    prop_assert!(failed <= limit && pause >= FIRST && pause < LONGEST.mul_f64(1.26));
                }
            }
        }
    }
}
