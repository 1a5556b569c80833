//! The decision: an image is admitted, or refused with a reason.

use super::subject::{Claims, Subject};
use crate::integrity::Integrity;
use crate::oci::digest::Digest;

/// Decides which images may be mounted. It may block, but never uses the network.
pub trait PolicyEngine: Send + Sync + std::fmt::Debug {
    /// Whether the policy in force needs signatures of this image. If so, the caller has to collect claims.
    fn wants_signatures(&self, subject: &Subject) -> bool;

    /// Judges by the policy in force now.
    ///
    /// # Errors
    /// The image is not admitted; the message names the image, the policy's file and scope, what was
    /// found, and what to do.
    fn admit(&self, subject: &Subject, claims: &Claims) -> Result<Admission, PolicyRefusal>;
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
