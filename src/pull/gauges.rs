//! Metrics of the pulls under way, read when somebody asks for them.

use std::sync::Arc;
use std::time::Duration;

use super::Progress;
use crate::metrics::coarse;
use crate::metrics::{Description, Family, Instruments, Sampled};

const WAITING: Description = Description::new(
    "pulls_waiting",
    "Pulls under way of which nothing is being fetched or built: they wait for their turn",
);
const OLDEST: Description = Description::new(
    "pull_oldest_seconds",
    "Age of the oldest pull under way, in whole minutes; 0 if there is none or it is younger",
);

/// The metrics of the pulls under way.
#[derive(Debug, Clone)]
pub struct PullGauges {
    waiting: Sampled,
    oldest: Sampled,
}

impl PullGauges {
    /// Those of the pulls that `list` lists.
    pub(super) fn new(list: impl Fn() -> Vec<Arc<Progress>> + Clone + Send + Sync + 'static) -> Self {
        let all = list.clone();
        let waiting = move || list().iter().filter(|pull| pull.is_waiting()).count() as u64;
        let oldest = move || age(all().iter().map(|pull| pull.started.elapsed()).max());
        Self { waiting: Sampled::new(WAITING, waiting), oldest: Sampled::new(OLDEST, oldest) }
    }
}

/// Seconds, as coarse as they are shown: nobody needs to see when another tenant's pull began.
fn age(oldest: Option<Duration>) -> u64 {
    oldest.map_or(0, |oldest| coarse::down(oldest.as_secs(), 60))
}

impl Instruments for PullGauges {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.waiting, &self.oldest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_whole_minutes() {
        for (seconds, shown) in [(0, 0), (59, 0), (60, 60), (3659, 3600)] {
            assert_eq!(age(Some(Duration::from_secs(seconds))), shown);
        }
        assert_eq!(age(None), 0);
    }
}
