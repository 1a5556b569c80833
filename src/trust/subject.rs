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

/// What was found about an image: bytes from a registry, unverified.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claims {
    /// Everything that claims to be a signature of one of the subject's digests.
    pub claims: Vec<Claim>,
}
