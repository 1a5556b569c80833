//! The decision itself: pure, from what is on record.

use std::time::Duration;

use super::origin::Origin;
use super::pattern::ImagePattern;

/// Which images are given without asking the registry, by the names of KEP-2535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Every image that is here.
    NeverVerify,
    /// The images that the operator's command pulled.
    #[default]
    NeverVerifyPreloadedImages,
    /// The images that [`AccessRule::allow`] names.
    NeverVerifyAllowlistedImages,
    /// None, except those that a registry gave without credentials.
    AlwaysVerify,
}

/// What decides whether stored bytes are given to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Which images are exempt.
    pub verification: Verification,
    /// The images that [`Verification::NeverVerifyAllowlistedImages`] exempts.
    pub allow: Vec<ImagePattern>,
    /// For how long a registry's confirmation to a credential counts.
    pub ttl: Duration,
}

/// For how long a registry's confirmation to a credential counts, unless the operator sets another time.
///
/// The kubelet keeps it as long as the image. One hour is about the lifetime of the tokens that registries issue, so a
/// withdrawn credential can read from the registry for about as long in any case. Private images can be published
/// again for the same time while their registry is unreachable.
const TTL: Duration = Duration::from_secs(3600);

impl Default for AccessRule {
    fn default() -> Self {
        Self { verification: Verification::default(), allow: Vec::new(), ttl: TTL }
    }
}

/// What is on record about an image, at one origin and for one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ImageFacts {
    /// All of its bytes came from this origin, or were proven to be the same there.
    pub from_here: bool,
    /// The operator pulled it from this origin.
    pub preloaded: bool,
    /// This origin gave it without credentials.
    pub anonymous: bool,
    /// How long ago this origin gave it to the caller.
    pub checked: Option<Duration>,
}

/// What is on record about a layer's blob, for one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LayerFacts {
    /// The operator pulled an image with it.
    pub preloaded: bool,
    /// Some registry gave it without credentials.
    pub anonymous: bool,
    /// The caller fetched it from this same registry.
    pub own: bool,
}

/// Why an image is given without asking the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantReason {
    /// The policy exempts it.
    Exempt,
    /// The registry gives it without credentials.
    Public,
    /// The registry has confirmed it to the caller recently.
    Checked,
}

impl AccessRule {
    /// Why the image is given to the caller. `None`: the registry must be asked, with the caller's own credentials.
    pub(crate) fn image(&self, origin: &Origin, facts: &ImageFacts) -> Option<GrantReason> {
        if self.exempts(origin, facts) {
            Some(GrantReason::Exempt)
        } else if facts.anonymous {
            Some(GrantReason::Public)
        } else {
            facts.checked.filter(|age| *age < self.ttl).map(|_| GrantReason::Checked)
        }
    }

    /// Whether a stored layer is used instead of fetching it. The answer must not depend on what a manifest says:
    /// naming a layer proves nothing.
    pub(crate) fn layer(&self, facts: &LayerFacts) -> bool {
        let exempt = match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            Verification::NeverVerifyAllowlistedImages | Verification::AlwaysVerify => false,
        };
        exempt || facts.anonymous || facts.own
    }

    /// Whether no caller has to prove anything, so that there is nothing to hide either.
    pub(crate) fn is_open(&self) -> bool {
        self.verification == Verification::NeverVerify
    }

    fn exempts(&self, origin: &Origin, facts: &ImageFacts) -> bool {
        match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            // The list opens a registry to all pods. It proves nothing about images that the registry never had.
            Verification::NeverVerifyAllowlistedImages => {
                facts.from_here && self.allow.iter().any(|pattern| pattern.matches(origin.image()))
            }
            Verification::AlwaysVerify => false,
        }
    }
}

#[cfg(test)]
mod tests;
