//! What is judged: an image, and the unverified claims that were found about it.

use super::signature::Claim;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Reference;

/// The image that is judged.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The Kubernetes namespace of the pod; `None` for an operator's command.
    pub namespace: Option<String>,
    /// The reference as the user wrote it: policies have scopes, and signatures name repositories.
    pub reference: Reference,
    /// The digests that a signature may be over: the platform's manifest first, then every index whose verified bytes
    /// lead to it. Never empty.
    pub digests: Vec<Digest>,
    /// What the reference resolved to, index or manifest; one of `digests`. Verifier programs get it, as they do from
    /// containerd, but without its annotations.
    pub target: Descriptor,
    /// Whether the manifest carries a composefs digest and the image on this node was compared with it.
    pub sealed: bool,
}

/// Claims that are kept although the policy does not need them, in bytes: another policy may.
pub(super) const SPARE_MAX: usize = 256 << 10;

/// What was found about an image: bytes from a registry, unverified.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claims {
    /// What claims to be a signature of one of the subject's digests, as far as it is kept.
    pub claims: Vec<Claim>,
    /// How many were looked at. Those that are not kept satisfied nothing.
    #[serde(default)]
    pub found: usize,
    /// Whether the search ended at its limit, before it had seen all.
    #[serde(default)]
    pub is_cut: bool,
}

impl Claims {
    /// All claims that there are.
    pub fn all(claims: Vec<Claim>) -> Self {
        Self { found: claims.len(), claims, is_cut: false }
    }

    /// How many were looked at.
    pub fn found(&self) -> usize {
        self.found.max(self.claims.len())
    }

    /// The same, and of an older search what there is room for.
    #[must_use]
    pub fn with_older(mut self, older: &Self) -> Self {
        let mut room = SPARE_MAX.saturating_sub(self.claims.iter().map(Claim::size).sum());
        for claim in &older.claims {
            if claim.size() <= room && !self.claims.contains(claim) {
                room -= claim.size();
                self.claims.push(claim.clone());
            }
        }
        self
    }
}
