//! The decision: an image is admitted, or refused with a reason.

use super::signature::Claim;
use super::subject::{Claims, Subject};
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// Decides which images may be mounted. It may block, but never uses the network.
pub trait PolicyEngine: Send + Sync + std::fmt::Debug {
    /// Whether the policy in force needs signatures of this image. If so, the caller has to collect claims.
    fn wants_signatures(&self, subject: &Subject) -> bool;

    /// Why every image of this reference is refused to these pods, whatever it is; `None` if some image may be
    /// admitted. Asked before the registry is.
    fn refuses_outright(&self, reference: &Reference, pods: Pods<'_>) -> Option<PolicyRefusal>;

    /// Begins to judge claims one after another, by the policy in force now; `None` where it needs no signatures.
    fn hearing(&self, subject: &Subject) -> Option<Box<dyn Hearing>>;

    /// Judges by the policy in force now.
    ///
    /// # Errors
    /// The image is not admitted; the message names the image, the policy's file and scope, what was
    /// found, and what to do.
    fn admit(&self, subject: &Subject, claims: &Claims) -> Result<Admission, PolicyRefusal>;
}

/// For which pods an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods<'a> {
    /// Those of this namespace; `None` for an operator's command.
    Of(Option<&'a str>),
    /// Those of any namespace: it is not known yet.
    Any,
}

/// Judges claims one after another, so that they need not all be in memory. It says which are worth keeping; the
/// decision is [`PolicyEngine::admit`]'s.
pub trait Hearing: Send {
    /// Whether the claim satisfies something that no claim before it has.
    fn hear(&mut self, claim: &Claim) -> bool;

    /// Whether the claims so far satisfy all that signatures can.
    fn is_decided(&self) -> bool;
}

/// The permission to mount an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Digest of the policy that admitted the image.
    pub policy: Digest,
    /// What admitted the image, for the log: `sigstoreSigned by /etc/keys/a.pub`.
    pub by: String,
    /// The lowest integrity level that the policy accepts for the mount.
    pub integrity: Option<Integrity>,
    /// Whether the policy has verified a signature over the image's manifest, or over an index that leads to it.
    pub signed: bool,
    /// Whether the policy lets the image keep its set-user-ID and set-group-ID bits and file capabilities.
    pub keep_privileges: bool,
}

/// Why an image is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyRefusal(pub String);
