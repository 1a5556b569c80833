//! Trust: whether an image may be mounted here, decided from signatures and a policy, offline.
//!
//! [`signature`] verifies one signature against one [`signature::Expectation`]; the policy (what must be
//! expected of which image) compiles to such expectations. A [`PolicyEngine`] ties both together for whoever mounts.
//! Only [`collect`] fetches anything: [`Claims`], which is worth nothing until verified, and may be
//! stored and verified again as often as a mount is made.

use std::fmt;

use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Reference;

pub mod collect;
mod engine;
mod memo;
pub mod metrics;
pub mod policy;
mod settings;
pub mod signature;
pub mod verifier;

pub use engine::{Examination, SignaturePolicyEngine};
pub use settings::{TrustSettings, VERIFIER_TIMEOUT, WithoutPolicy};
use signature::Claim;

/// An image as it is judged.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The Kubernetes namespace of the pod that asks; `None` for an operator's command.
    pub namespace: Option<String>,
    /// The reference as the user wrote it: policies have scopes, and signatures name repositories.
    pub reference: Reference,
    /// The digests that a signature may be over: the platform's manifest first, then the indexes that
    /// are known (by their own verified bytes) to lead to it. Never empty.
    pub digests: Vec<Digest>,
    /// What the reference resolved to, index or manifest, one of `digests`: what verifier programs are
    /// shown, as containerd shows it to them. Its annotations are not passed on.
    pub target: Descriptor,
    /// Whether the manifest carries a composefs digest that the image here was compared with.
    pub sealed: bool,
}

/// What was found about an image: bytes from a registry, unverified.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claims {
    /// Everything that claims to be a signature of one of the subject's digests.
    pub claims: Vec<Claim>,
}

/// Says who may be mounted. Blocking, but without network.
pub trait PolicyEngine: Send + Sync + fmt::Debug {
    /// Whether the policy in force asks for signatures of this image, so that they must be looked for.
    fn wants_signatures(&self, subject: &Subject) -> bool;

    /// Judges by the policy in force now.
    ///
    /// # Errors
    /// The image is not admitted; the message names the image, the policy's file and scope, what was
    /// found, and what to do.
    fn admit(&self, subject: &Subject, claims: &Claims) -> Result<Admission, Refusal>;
}

/// Leave to mount an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Digest of the policy that gave it.
    pub policy: Digest,
    /// By what the image was admitted, for the log: `sigstoreSigned by /etc/keys/a.pub`.
    pub by: String,
    /// The least integrity level that the policy demands of the mount.
    pub integrity: Option<Integrity>,
}

/// Why an image is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);
