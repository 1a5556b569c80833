//! How often something is written to the API server: what has changed soon, how far it is now and then, and never twice
//! within [`LEAST`].

use std::time::{Duration, Instant};

/// The shortest time between two writes of an object.
pub const LEAST: Duration = Duration::from_secs(10);
/// The time between two writes that say only how far something is.
pub const PROGRESS: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(160);

/// When one object is written next.
#[derive(Debug, Clone)]
pub struct Pace {
    written: Option<Instant>,
    failed: u32,
    /// Added to each time for progress, so that nodes do not write at the same moment.
    spread: Duration,
}

impl Pace {
    /// Nothing was written yet. `spread` is below 10,000, another one for each object.
    pub fn new(spread: u16) -> Self {
        Self { written: None, failed: 0, spread: Duration::from_millis(spread.into()) }
    }

    /// When the next write is due, if something `changed`, or goes on (`moves`); `None` if neither. `idle` is when the first
    /// one may come.
    pub fn due(&self, idle: Instant, changed: bool, moves: bool) -> Option<Instant> {
        let Some(written) = self.written else { return changed.then_some(idle + self.spread) };
        let least = LEAST.saturating_mul(1 << self.failed.min(4)).min(LONGEST);
        if changed {
            Some(written + least)
        } else {
            moves.then(|| written + least.max(PROGRESS) + self.spread)
        }
    }

    /// It was written, or that has failed.
    pub fn wrote(&mut self, at: Instant, well: bool) {
        self.written = Some(at);
        self.failed = if well { 0 } else { self.failed.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_come_soon_and_progress_now_and_then() {
        let start = Instant::now();
        let mut pace = Pace::new(500);
        assert_eq!(pace.due(start, true, true), Some(start + Duration::from_millis(500)));
        assert_eq!(pace.due(start, false, true), None, "there is nothing to be said yet");
        pace.wrote(start, true);
        assert_eq!(pace.due(start, true, false), Some(start + LEAST));
        assert_eq!(pace.due(start, false, true), Some(start + PROGRESS + Duration::from_millis(500)));
        assert_eq!(pace.due(start, false, false), None);
        pace.wrote(start, false);
        assert_eq!(
            pace.due(start, true, false),
            Some(start + 2 * LEAST),
            "a server that refuses is left alone"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_twice_within_ten_seconds(
            history in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..40),
            spread in 0_u16..10_000,
        ) {
            let start = Instant::now();
            let (mut pace, mut last) = (Pace::new(spread), None::<Instant>);
            for (changed, moves, well) in history {
                let Some(due) = pace.due(last.unwrap_or(start), changed, moves) else { continue };
                if let Some(last) = last {
                    prop_assert!(due >= last + LEAST && due <= last + LONGEST + Duration::from_secs(10));
                }
                pace.wrote(due, well);
                last = Some(due);
            }
        }
    }
}
