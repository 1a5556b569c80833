//! In which order places are asked. Pure.

use std::collections::BTreeSet;

/// The places `0..count` for one request, the last of them the registry itself: those that could not be reached a short
/// time ago after the others, and none that served wrong bytes of the same blob before. If all did, the last is asked again.
pub(super) fn order(
    count: usize,
    is_wanted: impl Fn(usize) -> bool,
    is_down: impl Fn(usize) -> bool,
    wrong: &BTreeSet<usize>,
) -> Vec<usize> {
    let wanted: Vec<_> = (0..count).filter(|place| is_wanted(*place)).collect();
    let mut places: Vec<_> = wanted.iter().copied().filter(|place| !wrong.contains(place)).collect();
    if places.is_empty() {
        places.extend(wanted.last());
    }
    // Stable, so that the order stays among equals.
    places.sort_by_key(|place| is_down(*place));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(down: &[usize], wrong: &[usize]) -> Vec<usize> {
        order(4, |place| place != 1, |place| down.contains(&place), &wrong.iter().copied().collect())
    }

    #[test]
    fn the_order_of_the_file_stays_among_those_that_work() {
        assert_eq!(of(&[], &[]), [0, 2, 3]);
        assert_eq!(of(&[0], &[]), [2, 3, 0], "it may be back");
        assert_eq!(of(&[0, 2, 3], &[]), [0, 2, 3]);
        assert_eq!(of(&[], &[0]), [2, 3]);
        assert_eq!(of(&[3], &[0, 2]), [3]);
        assert_eq!(of(&[], &[0, 2, 3]), [3]);
    }
}
