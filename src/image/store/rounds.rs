//! Whether a round of collection by watermarks has something to do: the decision, without any I/O.
//!
//! Where others fill the disk, it stays above the mark whatever is removed here, and there is a round every few minutes.
//! A look at image records and holds tells whether a round can find anything that the last one did not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::space::Amount;
use crate::oci::digest::Digest;

/// How long it is believed that nothing lies around that nobody has left a trace of.
const THOROUGH_EVERY: Duration = Duration::from_secs(3600);

/// Within this time kubelet has tried a failed publish again.
const TRIED_AGAIN: Duration = Duration::from_secs(300);

/// What a look at the store shows, for which no layer record is read and no object listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    /// The images that may go, and whether each has been used of late.
    pub(super) idle: BTreeMap<Digest, bool>,
    /// Whether a pull that is gone has left something.
    pub(super) leftovers: bool,
    /// What must go to bring the filesystem below the mark.
    pub(super) excess: Amount,
}

/// What a round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Nothing: it would find what the last one found, and free as little.
    Skip,
    /// Chooses images, and sweeps if it finds any.
    Images,
    /// Sweeps first: that may be enough.
    Sweep,
}

/// What the rounds of this process have found so far.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    swept: Option<Instant>,
    /// What the last round saw, if it freed nothing.
    in_vain: Option<Look>,
    /// When a round last freed what pulls had left, and no more.
    only_leftovers: Option<Instant>,
    /// What all images that nothing needs took, when it was last reckoned.
    idle: Option<Idle>,
}

/// What images take together.
#[derive(Debug)]
struct Idle {
    images: BTreeSet<Digest>,
    needed: BTreeSet<Digest>,
    bytes: u64,
}

impl Rounds {
    /// What a round does that sees this.
    pub(super) fn next(&self, look: &Look, now: Instant) -> Round {
        let thorough = self.swept.is_none_or(|at| now.duration_since(at) >= THOROUGH_EVERY);
        if look.leftovers || thorough {
            return Round::Sweep;
        }
        // With less to go, images may do that did not before.
        let as_before = |before: &Look| before.idle == look.idle && look.excess.covers(&before.excess);
        if look.idle.is_empty() || self.in_vain.as_ref().is_some_and(as_before) {
            Round::Skip
        } else {
            Round::Images
        }
    }

    /// Whether what a sweep frees now will be wanted again: a moment ago, one freed what a pull had left that there was
    /// no room for, and the pull was tried again.
    pub(super) fn leftovers_come_back(&self, now: Instant) -> bool {
        self.only_leftovers.is_some_and(|at| now.duration_since(at) < TRIED_AGAIN)
    }

    /// Bytes of what nothing needs, if these are the images, and these the needed ones, of the last time: an image of one name
    /// has the same layers.
    pub(super) fn idle_bytes(&self, images: &BTreeSet<Digest>, needed: &BTreeSet<Digest>) -> Option<u64> {
        let idle = self.idle.as_ref()?;
        (idle.images == *images && idle.needed == *needed).then_some(idle.bytes)
    }

    /// Notes what was reckoned.
    pub(super) fn measured(&mut self, images: BTreeSet<Digest>, needed: BTreeSet<Digest>, bytes: u64) {
        self.idle = Some(Idle { images, needed, bytes });
    }

    /// Notes how a round ended that saw this: whether it swept, and how many images and objects it removed.
    pub(super) fn ended(&mut self, look: Look, swept: bool, (images, objects): (usize, u64), now: Instant) {
        if swept {
            self.swept = Some(now);
        }
        self.in_vain = (images == 0 && objects == 0).then_some(look);
        self.only_leftovers = (images == 0 && objects > 0).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(idle: &[(&str, bool)], bytes: u64) -> Look {
        let idle = idle.iter().map(|(name, recent)| (Digest::of(name.as_bytes()), *recent)).collect();
        Look { idle, leftovers: false, excess: Amount { bytes, inodes: 0 } }
    }

    #[test]
    fn what_is_idle_is_reckoned_once() {
        let set =
            |names: &[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect::<BTreeSet<_>>();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.idle_bytes(&set(&[]), &set(&[])), None);
        rounds.measured(set(&["a", "b"]), set(&["a"]), 7);
        assert_eq!(rounds.idle_bytes(&set(&["a", "b"]), &set(&["a"])), Some(7));
        assert_eq!(rounds.idle_bytes(&set(&["a", "b"]), &set(&["b"])), None);
        assert_eq!(rounds.idle_bytes(&set(&["a", "b", "c"]), &set(&["a"])), None);
    }

    #[test]
    fn a_round_in_vain_is_not_repeated_until_something_has_changed() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        let seen = look(&[("a", true)], 100);
        assert_eq!(rounds.next(&seen, start), Round::Sweep, "nothing is known at the start");
        rounds.ended(seen.clone(), true, (0, 0), start);
        assert!(!rounds.leftovers_come_back(start));
        assert_eq!(rounds.next(&seen, start), Round::Skip);
        assert_eq!(rounds.next(&look(&[("a", true)], 101), start), Round::Skip);
        for changed in [look(&[("a", true)], 99), look(&[("a", false)], 100), look(&[("b", true)], 100)] {
            assert_eq!(rounds.next(&changed, start), Round::Images, "{changed:?}");
        }
        assert_eq!(rounds.next(&Look { leftovers: true, ..seen.clone() }, start), Round::Sweep);
        assert_eq!(rounds.next(&seen, start + THOROUGH_EVERY), Round::Sweep);
        assert_eq!(rounds.next(&look(&[], 100), start), Round::Skip, "there is nothing to choose from");
        rounds.ended(seen.clone(), false, (0, 7), start);
        assert_eq!(rounds.next(&seen, start), Round::Images, "the last one was not in vain");
        assert!(rounds.leftovers_come_back(start) && !rounds.leftovers_come_back(start + TRIED_AGAIN));
        rounds.ended(seen, false, (1, 7), start);
        assert!(!rounds.leftovers_come_back(start));
    }
}
