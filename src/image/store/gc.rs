//! Which images go: the decision, without any I/O.
//!
//! An image stays if a volume record, a mount, a pin, a prefetch or a hold needs it, or if it was used less than the
//! minimum age ago. As long as it is unknown what is needed, everything stays. By watermarks no more goes than is needed,
//! in the order of [`rank`], and what was used of late only if that ends the want.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

pub use super::space::{Amount, Space};
use crate::oci::digest::Digest;

/// What the decision is made from.
#[derive(Debug, Clone)]
pub(super) struct Inventory {
    /// The images in the store.
    pub(super) images: Vec<Candidate>,
    /// Why it is not known what is needed; empty if it is.
    pub(super) unknown: Vec<String>,
    /// Room on the store's filesystem.
    pub(super) space: Space,
    /// Now.
    pub(super) now: SystemTime,
}

/// One image, as far as the decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its manifest.
    pub(super) manifest: Digest,
    /// When it was pulled or last published.
    pub(super) last_used: SystemTime,
    /// What needs it, if anything.
    pub(super) needed: Option<Need>,
    /// What is gained and lost by its removal.
    pub(super) worth: Worth,
    /// What its removal frees if all unneeded images that rank before it go first.
    pub(super) frees: Amount,
}

/// What is gained by the removal of an image that nothing needs, and what is lost. What several such images share counts
/// for each in part, and what a needed one has, too, for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Worth {
    /// Bytes of disk space.
    pub(super) gain: u64,
    /// Bytes of the files in the layers that would have to be fetched again.
    pub(super) refetch: u64,
}

/// What needs an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A published volume.
    Volume,
    /// A mount.
    Mount,
    /// The operator.
    Pin,
    /// A prefetch.
    Prefetch,
    /// A pull or publish under way.
    Hold,
}

/// What to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Every image that is not needed and that was last used at least `min_age` ago.
    Unneeded {
        /// Images used more recently stay.
        min_age: Duration,
    },
    /// Of those, the ones that rank first, once the filesystem is more than `high` percent full, until it is
    /// at most `low` percent full; and as long as all unneeded images take more than `idle_bytes` together.
    Watermarks {
        /// Percent of bytes or inodes in use at which removal begins.
        high: u8,
        /// Percent at which it ends.
        low: u8,
        /// Images used more recently stay.
        min_age: Duration,
        /// Of images used more recently than this, none goes unless that brings the filesystem below the high mark:
        /// where others fill the disk, it would only be pulled again.
        recent: Duration,
        /// The most bytes that images which are not needed may take together, the younger ones counted; no limit
        /// without.
        idle_bytes: Option<u64>,
    },
}

impl Policy {
    /// Images used more recently than this stay.
    pub(super) fn min_age(&self) -> Duration {
        match self {
            Self::Unneeded { min_age } | Self::Watermarks { min_age, .. } => *min_age,
        }
    }

    /// Images used more recently than this go only if that ends the want.
    pub(super) fn recent(&self) -> Duration {
        match self {
            Self::Unneeded { min_age } => *min_age,
            Self::Watermarks { recent, .. } => *recent,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::Watermarks {
            high: 85,
            low: 80,
            min_age: Duration::from_secs(60),
            recent: Duration::from_secs(3600),
            idle_bytes: None,
        }
    }
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CollectionPlan {
    /// Nothing has to go, or nothing may.
    Done,
    /// These images go, in this order.
    Run(Vec<Digest>),
    /// Nothing may go, for this reason.
    Refuse(String),
}

/// Decides. Once the plan was carried out, the next one is [`CollectionPlan::Done`].
pub(super) fn plan(inventory: &Inventory, policy: &Policy) -> CollectionPlan {
    if !inventory.unknown.is_empty() {
        // What cannot be read might need any image.
        return CollectionPlan::Refuse(inventory.unknown.join("; "));
    }
    let mut idle: Vec<&Candidate> =
        inventory.images.iter().filter(|image| may_go(image, inventory.now, policy.min_age())).collect();
    idle.sort_by_cached_key(|image| image.rank(inventory.now));
    if let Policy::Watermarks { high, low, recent, idle_bytes, .. } = *policy {
        let surplus = Amount { bytes: inventory.surplus(idle_bytes), inodes: 0 };
        let full = inventory.space.exceeds(high);
        // How many of the first ones free so much; all of them may free less.
        let first_of = |wanted: &Amount| {
            let mut freed = Amount::default();
            let enough = idle.iter().position(|image| {
                freed += image.frees;
                freed.covers(wanted)
            });
            if *wanted == Amount::default() {
                (0, true)
            } else {
                enough.map_or((idle.len(), false), |last| (last + 1, true))
            }
        };
        let (by_size, _) = first_of(&surplus);
        let by_marks = if full { first_of(&inventory.space.excess(low)) } else { (0, true) };
        // All of them may still bring the filesystem below the mark at which removal begins.
        let in_vain = !by_marks.1 && !first_of(&inventory.space.excess(high)).1;
        let (mut number, first) = (0, by_marks.0.max(by_size));
        idle.retain(|image| {
            number += 1;
            number <= first && (!in_vain || number <= by_size || may_go(image, inventory.now, recent))
        });
    }
    if idle.is_empty() {
        CollectionPlan::Done
    } else {
        CollectionPlan::Run(idle.iter().map(|image| image.manifest).collect())
    }
}

/// Images that have been idle for about as long: the last hour, up to two, up to four, and so on. Within each, what is lost
/// decides.
fn window(idle: Duration) -> u32 {
    u64::BITS - (idle.as_secs() / 3600).leading_zeros()
}

/// The most tenths of [`Rank`]'s second part.
const TENTHS_MAX: u64 = 20;

/// Sorts images by which goes first: those that have been idle much longer; of others, those whose removal frees more for
/// each byte that would have to be fetched again, in tenths; then the least recently used. By manifest as well, so that the
/// same inventory gives the same plan.
pub(super) type Rank = (Reverse<u32>, Reverse<u64>, SystemTime, Digest);

/// Which images go first.
pub(super) fn rank(last_used: SystemTime, worth: Worth, manifest: &Digest, now: SystemTime) -> Rank {
    let idle = now.duration_since(last_used).unwrap_or_default();
    let tenths = (u128::from(worth.gain) * 10).checked_div(u128::from(worth.refetch));
    // With nothing to fetch again, it costs nothing.
    let free = if worth.gain > 0 { TENTHS_MAX } else { 0 };
    let tenths = tenths.map_or(free, |tenths| u64::try_from(tenths).unwrap_or(u64::MAX).min(TENTHS_MAX));
    (Reverse(window(idle)), Reverse(tenths), last_used, *manifest)
}

impl Candidate {
    fn rank(&self, now: SystemTime) -> Rank {
        rank(self.last_used, self.worth, &self.manifest, now)
    }
}

impl Inventory {
    /// Bytes that images which are not needed take beyond `most`.
    pub(super) fn surplus(&self, most: Option<u64>) -> u64 {
        let idle = self.images.iter().filter(|image| image.needed.is_none());
        let taken = idle.map(|image| image.frees.bytes).fold(0, u64::saturating_add);
        most.map_or(0, |most| taken.saturating_sub(most))
    }
}

/// An image whose last use lies in the future (the clock was set back) counts as just used.
pub(super) fn may_go(image: &Candidate, now: SystemTime, min_age: Duration) -> bool {
    let age = now.duration_since(image.last_used).unwrap_or_default();
    image.needed.is_none() && age >= min_age
}

#[cfg(test)]
mod tests;
