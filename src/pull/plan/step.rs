//! The words of the plan: the terms of a request, and the steps that serve it.

use std::sync::Arc;

use crate::image::seal::SealError;
use crate::image::store::ImageRecord;
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::reference::Version;
use crate::pull::evidence::Evidence;
use crate::pull::excess::Excess;
use crate::pull::limits::Kept;
use crate::pull::manifest_path::ManifestPath;
use crate::pull::{Caller, ImageRequest, PullPolicy};
use crate::trust::{Admission, PolicyRefusal};

/// What of a request, and of the node's settings, decides how it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pull) struct Terms {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Whether the reference names a digest, which cannot move.
    pub by_digest: bool,
    /// The manifest that the volume shows already.
    pub pinned: Option<Digest>,
    /// Whether there is nothing to hide from the caller.
    pub sees_all: bool,
    /// Whether nothing is fetched for the caller that no policy could admit.
    pub heeds_policy: bool,
    /// Whether the policy decides about the caller; then it heeds it as well.
    pub is_judged: bool,
    /// Whether the operator wants the image here for all pods.
    pub is_preload: bool,
    /// Whether the node takes only images that carry their composefs digest.
    pub require_digest: bool,
    /// Whether the caller is about to mount the image, or to have it mounted.
    pub is_mounted: bool,
    /// Whether only a part of the image is wanted. The digest that a manifest is sealed with is that of the whole.
    pub is_partial: bool,
    /// Whether nothing in the image may be executed.
    pub noexec: bool,
    /// What images keep on this node.
    pub kept: Kept,
}

impl Terms {
    /// The terms of a request.
    pub(in crate::pull) fn of(
        request: &ImageRequest,
        sees_all: bool,
        require_digest: bool,
        kept: Kept,
    ) -> Self {
        Self {
            policy: request.policy,
            by_digest: matches!(request.reference.version(), Version::Digest(_)),
            pinned: request.pinned,
            sees_all,
            heeds_policy: request.caller.heeds_policy(),
            is_judged: request.caller.is_judged(),
            is_preload: request.caller == Caller::Preload,
            require_digest,
            is_mounted: request.caller.mounts(),
            is_partial: !request.choice.is_all(),
            noexec: request.noexec,
            kept,
        }
    }
}

/// By what an image is looked up in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::pull) enum Lookup {
    /// The pinned manifest, or else the reference as the user wrote it.
    Request,
    /// The reference with the digest that the registry resolved it to.
    Resolved(Digest),
    /// The platform's manifest, with the choice of the request.
    Manifest(Digest),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum Step {
    /// Read from the store.
    Read(Reading),
    /// Ask the registry, with the caller's credentials.
    Ask(Question),
    /// Consult the policy.
    Judge(Case),
    /// Write to the store.
    Record(NewRecord),
    /// Fetch the image, or join a pull that does.
    Fetch(Arc<ManifestPath>, Arc<Evidence>),
    /// Build the image again: another release built it.
    Renew(Arc<ImageRecord>),
    /// Build another image of the same layers, by these rules.
    Vary(Arc<ImageRecord>, Rules),
    /// The end: the caller gets the image.
    Give(Provided),
    /// The end: the caller gets nothing.
    Refuse(Obstacle),
}

/// What is read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pull) enum Reading {
    /// The image's record.
    Image(Lookup),
    /// Whether the access rule grants the image, by its key, by what is on record.
    Granted(Lookup, Digest),
    /// Whether all of the bytes of the image with this key came from the request's origin.
    FromHere(Lookup, Digest),
}

/// What the registry is asked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum Question {
    /// To which digest the reference resolves.
    Top,
    /// Whether it gives this manifest to the caller.
    Confirm(Lookup, Digest),
    /// The documents from this digest to the platform's manifest.
    Path(Digest),
    /// Signatures of an image that is to be fetched; the evidence has its documents.
    Signatures(Arc<Evidence>),
    /// Documents and signatures of a stored image that was refused by this evidence.
    NewerEvidence(Digest, Arc<Evidence>),
}

/// What the policy is consulted about.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum Case {
    /// Whether it refuses the reference, whatever the image is.
    Outright,
    /// Whether it wants signatures of this image, which is to be fetched.
    WantsSignatures { path: Arc<ManifestPath>, sealed: bool },
    /// Whether it admits a stored image, by the evidence stored with it.
    Stored(Arc<ImageRecord>),
    /// Whether it admits an image by this evidence.
    Evidence { evidence: Arc<Evidence>, sealed: bool },
}

/// What is written to the store. Images are named by their keys ([`ImageRecord::key`]).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum NewRecord {
    /// The origin has just given the image's manifest to the caller's credential.
    Grant(Digest),
    /// The reference resolves to `top`, and both lead to `image`.
    Names { top: Digest, image: Digest },
    /// Newer evidence of a stored image, by which it was admitted.
    Evidence(Arc<Evidence>),
    /// The operator has pulled the image for everybody; `fetched` are the documents of a pull just made.
    Preloaded { image: Digest, fetched: Option<Arc<ManifestPath>> },
    /// The image is in use.
    Used(Digest),
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) struct Provided {
    pub record: Arc<ImageRecord>,
    /// The composefs image to mount: the record's own, or a variant.
    pub image: VerityDigest,
    /// Compressed bytes that the pull fetched.
    pub fetched: u64,
    /// `None` for callers that are not judged.
    pub admission: Option<Admission>,
}

/// Why the caller gets nothing.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum Obstacle {
    /// The image is not here, and `Never` forbids to pull it.
    Absent,
    /// The policy does not admit it.
    Refused(PolicyRefusal),
    /// The manifest's seal is malformed.
    Seal(SealError),
    /// It carries no composefs digest, for this reason, and the node demands one.
    Unsealed(String),
    /// It is sealed with something that is not allowed.
    Excess(Excess),
}
