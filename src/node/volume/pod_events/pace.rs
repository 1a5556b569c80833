//! How often the Event of a pull is updated ([ADR 0035](../../../../docs/adr/0035-how-often-a-pull-tells.md)). Pure: the
//! caller has the clock.
//!
//! Each pull begins with short gaps that double. On a node with many, the gaps are longer, so that all together stay
//! within a budget and each has its turn; the budget itself holds whatever comes at the same moment.

use std::time::{Duration, Instant};

/// The gap before the first update.
pub(super) const FIRST: Duration = Duration::from_secs(5);
/// The longest gap that a pull chooses for itself.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Time between two updates of a node, on average.
pub(super) const BETWEEN: Duration = Duration::from_secs(5);
/// Updates of a node at the same moment.
pub(super) const BURST: u32 = 5;

/// When one pull tells its progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    last: Instant,
    gap: Duration,
}

impl Pace {
    /// Of a pull of which has just been told that it begins.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, gap: FIRST }
    }

    /// Tells whether progress is to be told now, while so many pulls are under way. If so, it counts as told.
    pub(super) fn tells(&mut self, now: Instant, pulls: usize, budget: &mut Budget) -> bool {
        let pulls = u32::try_from(pulls).unwrap_or(u32::MAX);
        // Who has told something lets all others do so first.
        let is_first = self.gap == FIRST;
        let turn = if is_first || pulls <= BURST { 0 } else { pulls.saturating_add(1) };
        let turn = BETWEEN.saturating_mul(turn);
        let gap = self.gap.max(turn);
        if now.saturating_duration_since(self.last) < gap || !budget.take(now) {
            return false;
        }
        (self.last, self.gap) = (now, (self.gap * 2).min(LONGEST));
        true
    }
}

/// What all pulls of a node may tell.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the budget would be full again, if nothing more is taken.
    full: Option<Instant>,
}

impl Budget {
    /// Takes one update, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let full = self.full.unwrap_or(now).max(now);
        if full.duration_since(now) > BETWEEN * (BURST - 1) {
            return false;
        }
        self.full = Some(full + BETWEEN);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which each of so many pulls tells something, looked at twice a second.
    fn told(pulls: usize, seconds: u64) -> Vec<Vec<f64>> {
        let (start, mut budget) = (Instant::now(), Budget::default());
        let mut paces = vec![Pace::new(start); pulls];
        let mut told = vec![Vec::new(); pulls];
        for tick in 0..seconds * 2 {
            let at = Duration::from_millis(500 * tick);
            for (pace, told) in paces.iter_mut().zip(&mut told) {
                if pace.tells(start + at, pulls, &mut budget) {
                    told.push(at.as_secs_f64());
                }
            }
        }
        told
    }

    #[test]
    fn one_pull_tells_often_at_first_and_then_once_a_minute() {
        assert_eq!(told(1, 300), [[5.0, 15.0, 35.0, 75.0, 135.0, 195.0, 255.0]]);
    }

    #[test]
    fn a_few_pulls_do_not_hinder_each_other() {
        let all = told(4, 90);
        assert!(all.iter().all(|one| one.len() >= 4 && one[0] == 5.0), "{all:?}");
    }

    #[test]
    fn many_pulls_stay_within_the_budget_and_each_has_its_turn() {
        for pulls in [20, 110, 400] {
            let seconds = 3600;
            let all = told(pulls, seconds);
            let mut times: Vec<f64> = all.concat();
            times.sort_by(f64::total_cmp);
            let allowed = |span: f64| f64::from(BURST) + span / BETWEEN.as_secs_f64();
            for (from, first) in times.iter().enumerate() {
                for (n, last) in times[from..].iter().enumerate() {
                    assert!((n + 1) as f64 <= allowed(last - first), "{pulls}: from {first} to {last}");
                }
            }
            let fair = (seconds as f64 / BETWEEN.as_secs_f64() / pulls as f64) as usize;
            let least = all.iter().map(Vec::len).min().unwrap();
            assert!(least >= (fair / 2).max(1), "{pulls}: {least} of {fair}");
        }
    }
}
