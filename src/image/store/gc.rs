//! Which images go: the decision, without any I/O.
//!
//! An image stays if a volume record, a mount, a pin, a prefetch or a hold needs it, or if it was used less than the
//! minimum age ago. As long as it is unknown what is needed, everything stays. By watermarks no more goes than is needed,
//! and what was used of late only if that ends the want.

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
    /// What its removal frees if all unneeded images used less recently go before it.
    pub(super) frees: Amount,
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
    /// Of those, the least recently used, once the filesystem is more than `high` percent full, until it is
    /// at most `low` percent full.
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
    // By manifest as well, so that the same inventory gives the same plan.
    idle.sort_by_key(|image| (image.last_used, image.manifest));
    if let Policy::Watermarks { high, low, recent, .. } = *policy {
        if !inventory.space.exceeds(high) {
            return CollectionPlan::Done;
        }
        let wanted = inventory.space.excess(low);
        let mut freed = Amount::default();
        let enough = idle.iter().position(|image| {
            freed += image.frees;
            freed.covers(&wanted)
        });
        match enough {
            Some(last) => idle.truncate(last + 1),
            // All of them bring the filesystem below the mark at which removal begins.
            None if freed.covers(&inventory.space.excess(high)) => {}
            None => idle.retain(|image| may_go(image, inventory.now, recent)),
        }
    }
    if idle.is_empty() {
        CollectionPlan::Done
    } else {
        CollectionPlan::Run(idle.iter().map(|image| image.manifest).collect())
    }
}

/// An image whose last use lies in the future (the clock was set back) counts as just used.
pub(super) fn may_go(image: &Candidate, now: SystemTime, min_age: Duration) -> bool {
    let age = now.duration_since(image.last_used).unwrap_or_default();
    image.needed.is_none() && age >= min_age
}

#[cfg(test)]
mod tests;
