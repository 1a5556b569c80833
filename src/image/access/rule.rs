//! The decision itself, from what is on record: pure.

use std::time::Duration;

use super::{ImagePattern, Origin};

/// Which images are given without asking the registry, by the names of KEP-2535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Everything that is here is everybody's.
    NeverVerify,
    /// What the operator's command pulled is everybody's.
    #[default]
    NeverVerifyPreloadedImages,
    /// What [`Rule::allow`] names is everybody's.
    NeverVerifyAllowlistedImages,
    /// Nothing is, but for what a registry gave to somebody without credentials.
    AlwaysVerify,
}

/// What decides whether stored bytes are given to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What is exempt.
    pub verification: Verification,
    /// The images that [`Verification::NeverVerifyAllowlistedImages`] exempts.
    pub allow: Vec<ImagePattern>,
    /// For how long a registry's yes to a credential counts.
    pub ttl: Duration,
}

/// For how long a registry's yes to a credential counts unless the operator says otherwise.
///
/// The kubelet keeps it as long as the image. One hour is of the order of the tokens that registries give out: a
/// credential that is withdrawn reads from the registry for about as long in any case. It also is how long
/// private images can be published anew while their registry is away.
pub const TTL: Duration = Duration::from_secs(3600);

impl Default for Rule {
    fn default() -> Self {
        Self { verification: Verification::default(), allow: Vec::new(), ttl: TTL }
    }
}

/// What is on record about an image, at one origin and for one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// All of its bytes came from this origin, or were proven to be the same as there.
    pub from_here: bool,
    /// The operator pulled it from this origin.
    pub preloaded: bool,
    /// This origin gave it to somebody without credentials.
    pub anonymous: bool,
    /// How long ago this origin gave it to the one who asks.
    pub checked: Option<Duration>,
}

/// What is on record about a layer's blob, for one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerFacts {
    /// The operator pulled an image with it.
    pub preloaded: bool,
    /// Some registry gave it to somebody without credentials.
    pub anonymous: bool,
    /// The one who asks fetched it from this very registry.
    pub own: bool,
}

/// Why an image is given without asking the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The policy exempts it.
    Exempt,
    /// Anybody may read it.
    Public,
    /// The registry has said yes recently.
    Checked,
}

impl Rule {
    /// Why the image is given to the one who asks, if it is. `None`: the registry must be asked, with the asker's
    /// own credentials.
    pub fn image(&self, origin: &Origin, facts: &ImageFacts) -> Option<Given> {
        if self.exempts(origin, facts) {
            Some(Given::Exempt)
        } else if facts.anonymous {
            Some(Given::Public)
        } else {
            facts.checked.filter(|age| *age < self.ttl).map(|_| Given::Checked)
        }
    }

    /// Whether a stored layer stands in for fetching it. The answer must not depend on what a manifest says: to
    /// name a layer proves nothing.
    pub fn layer(&self, facts: &LayerFacts) -> bool {
        let exempt = match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            Verification::NeverVerifyAllowlistedImages | Verification::AlwaysVerify => false,
        };
        exempt || facts.anonymous || facts.own
    }

    /// Whether nobody is ever asked to prove anything, so that there is nothing to hide either.
    pub fn is_open(&self) -> bool {
        self.verification == Verification::NeverVerify
    }

    fn exempts(&self, origin: &Origin, facts: &ImageFacts) -> bool {
        match self.verification {
            Verification::NeverVerify => true,
            Verification::NeverVerifyPreloadedImages => facts.preloaded,
            // A registry on the list is open to all pods; that does not make it believed about what it never had.
            Verification::NeverVerifyAllowlistedImages => {
                facts.from_here && self.allow.iter().any(|pattern| pattern.matches(origin.name()))
            }
            Verification::AlwaysVerify => false,
        }
    }
}

#[cfg(test)]
mod tests;
