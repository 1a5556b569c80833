//! The decision, from what is on record: a pure function.

use std::time::Duration;

use super::origin::Origin;
use super::pattern::ImagePattern;

/// Which images a tenant gets without a question to the registry, by the names of KEP-2535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Every stored image is free for all tenants.
    NeverVerify,
    /// The images that the operator's command pulled are free for all tenants.
    #[default]
    NeverVerifyPreloadedImages,
    /// The images that [`AccessRule::allow`] names are free for all tenants.
    NeverVerifyAllowlistedImages,
    /// None is, except images that a registry gave to a caller without credentials.
    AlwaysVerify,
}

/// Decides whether a request gets stored bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Which images are exempt.
    pub verification: Verification,
    /// The images that [`Verification::NeverVerifyAllowlistedImages`] exempts.
    pub allow: Vec<ImagePattern>,
    /// For how long a registry's grant to a credential counts.
    pub ttl: Duration,
}

/// The default of [`AccessRule::ttl`].
///
/// The kubelet keeps a grant as long as the image. One hour is about the lifetime of registries' tokens: a revoked
/// credential reads from the registry for about as long in any case. It also is the time for which private images
/// can be mounted again while their registry is unreachable.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

impl Default for AccessRule {
    fn default() -> Self {
        Self { verification: Verification::default(), allow: Vec::new(), ttl: DEFAULT_TTL }
    }
}

/// What is on record about an image, for one origin and one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::image) struct ImageFacts {
    /// All of its bytes came from this origin, or were shown to be the same as there.
    pub from_here: bool,
    /// The operator pulled it from this origin.
    pub preloaded: bool,
    /// This origin gave it to a caller without credentials.
    pub anonymous: bool,
    /// How long ago this origin gave it to this caller.
    pub checked: Option<Duration>,
}

/// What is on record about a layer's blob, for one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::image) struct LayerFacts {
    /// The operator pulled an image with this layer.
    pub preloaded: bool,
    /// A registry gave it to a caller without credentials.
    pub anonymous: bool,
    /// This caller fetched it from this registry.
    pub own: bool,
}

/// Why a caller gets an image without a question to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Given {
    /// The policy exempts it.
    Exempt,
    /// Everybody may read it.
    Public,
    /// The registry has given it to this caller recently.
    Checked,
}

impl AccessRule {
    /// Why the caller gets the image. `None`: the registry must be asked, with the caller's own credentials.
    pub(in crate::image) fn image(&self, origin: &Origin, facts: &ImageFacts) -> Option<Given> {
        // Each reason is enough. The first one is reported.
        if self.exempts(origin, facts) {
            Some(Given::Exempt)
        } else if facts.anonymous {
            Some(Given::Public)
        } else {
            facts.checked.filter(|age| *age < self.ttl).map(|_| Given::Checked)
        }
    }

    /// Whether a stored layer may be used instead of fetching it. The answer must not depend on a manifest, since
    /// naming a layer proves nothing.
    pub(in crate::image) fn layer(&self, facts: &LayerFacts) -> bool {
        let exempt = match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            // The list is of images, and a layer may belong to others as well.
            Verification::NeverVerifyAllowlistedImages | Verification::AlwaysVerify => false,
        };
        exempt || facts.anonymous || facts.own
    }

    /// Whether no caller ever has to prove anything, so that the store has nothing to hide.
    pub(in crate::image) fn is_open(&self) -> bool {
        self.verification == Verification::NeverVerify
    }

    fn exempts(&self, origin: &Origin, facts: &ImageFacts) -> bool {
        match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            // The list opens a registry's own images to all pods. For bytes that came from elsewhere the registry's
            // word still does not count.
            Verification::NeverVerifyAllowlistedImages => {
                facts.from_here && self.allow.iter().any(|pattern| pattern.matches(origin.name()))
            }
            Verification::AlwaysVerify => false,
        }
    }
}

#[cfg(test)]
mod tests;
