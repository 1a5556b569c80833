//! Which ranges are asked for: pure.

use std::ops::Range;

/// A range of the blob that is fetched.
pub type Run = Range<u64>;

/// Joins ranges, which are in their order and do not overlap, where at most `gap` bytes lie between them; and then, where
/// the gaps are smallest, until there are at most `most` of them.
pub fn join(ranges: impl IntoIterator<Item = Run>, gap: u64, most: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= gap => last.end = last.end.max(range.end),
            _ => runs.push(range),
        }
    }
    let surplus = runs.len().saturating_sub(most.max(1));
    if surplus == 0 {
        return runs;
    }
    let mut gaps: Vec<(u64, usize)> =
        runs.windows(2).enumerate().map(|(at, pair)| (pair[1].start - pair[0].end, at)).collect();
    gaps.sort_unstable();
    let mut joined = vec![false; runs.len()];
    for (_, at) in gaps.into_iter().take(surplus) {
        // The run behind the gap belongs to the one before it.
        joined[at + 1] = true;
    }
    let mut fewer: Vec<Run> = Vec::new();
    for (run, joined) in runs.into_iter().zip(joined) {
        match fewer.last_mut() {
            Some(last) if joined => last.end = run.end,
            _ => fewer.push(run),
        }
    }
    fewer
}

/// Bytes of all runs.
pub fn bytes(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.end - run.start).sum()
}

/// Cuts runs into requests of at most `most` bytes, so that none is held in memory whole.
pub fn cut(runs: Vec<Run>, most: u64) -> Vec<Run> {
    let pieces = |run: Run| {
        let starts = (run.start..run.end).step_by(usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        starts.map(move |start| start..run.end.min(start.saturating_add(most)))
    };
    runs.into_iter().flat_map(pieces).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_gaps_are_fetched_along() {
        let ranges = || [0..10, 12..20, 25..30, 100..101];
        assert_eq!(join(ranges(), 0, 9), ranges());
        assert_eq!(join(ranges(), 2, 9), [0..20, 25..30, 100..101]);
        assert_eq!(join(ranges(), 5, 9), [0..30, 100..101]);
        assert_eq!(join([0..5, 5..7], 0, 9), vec![0..7]);
        assert!(join([], 5, 9).is_empty());
    }

    #[test]
    fn the_smallest_gaps_go_first_where_there_are_too_many() {
        let ranges = || [0..10, 13..20, 22..30, 100..101];
        assert_eq!(join(ranges(), 0, 3), [0..10, 13..30, 100..101]);
        assert_eq!(join(ranges(), 0, 2), [0..30, 100..101]);
        assert_eq!(join(ranges(), 0, 0), vec![0..101]);
    }

    #[test]
    fn long_runs_are_cut() {
        assert_eq!(cut(vec![0..10, 20..21], 4), [0..4, 4..8, 8..10, 20..21]);
        assert!(cut(vec![], 4).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_more_is_fetched_than_gaps(
            lengths in proptest::collection::vec((0_u64..50, 1_u64..50), 0..40), gap in 0_u64..20, most in 1_usize..10, part in 1_u64..60
        ) {
            let mut at = 0;
            let ranges: Vec<Run> = lengths.iter().map(|(skip, length)| {
                let start = at + skip;
                at = start + length;
                start..at
            }).collect();
            let runs = join(ranges.clone(), gap, most);
            prop_assert!(runs.len() <= most.max(1));
            prop_assert!(runs.windows(2).all(|pair| pair[0].end + gap < pair[1].start));
            for range in &ranges {
                prop_assert!(runs.iter().any(|run| run.start <= range.start && range.end <= run.end));
            }
            let parts = cut(runs.clone(), part);
            prop_assert_eq!(bytes(&parts), bytes(&runs));
            prop_assert!(parts.iter().all(|cut| cut.end - cut.start <= part && cut.start < cut.end));
        }
    }
}
