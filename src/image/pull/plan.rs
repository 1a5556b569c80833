//! What to do next for one request: a pure decision from the request's terms and the facts known so far.
//!
//! [`next`] does no I/O. The executor ([`super::execute`]) carries out one [`Step`], notes its [`Answer`] in
//! [`Facts`] and asks again. Invariants, which `plan/tests.rs` holds against every history of answers:
//! * An image that is here is given only if the access rule grants it, or if the registry that all of its bytes came
//!   from has just confirmed it to the caller. What another registry says proves nothing.
//! * Nobody learns what others have: unless the image is granted by what is on record, the registry is asked first,
//!   by the same request that an image causes that is not here.
//! * A caller that is judged gets no image, and causes no fetch, before the policy has admitted the image.
//! * A grant and a name are recorded only after the registry has answered this caller.
//! * The plan asks for no fact that it has, and ends within a bounded number of steps.

mod facts;
mod locate;
mod provide;

use std::sync::Arc;

pub(super) use facts::{Answer, Facts, StoredVerdict};
use locate::{Located, locate};
use provide::{provide_fetched, provide_stored};

use super::evidence::Evidence;
use super::manifest_path::ManifestPath;
use super::{ImageRequest, PullPolicy};
use crate::image::seal::SealError;
use crate::image::store::ImageRecord;
use crate::oci::digest::Digest;
use crate::oci::reference::Version;
use crate::trust::{Admission, Refusal};

/// What of a request, and of the node's settings, decides how it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Whether the reference names a digest, which cannot move.
    pub by_digest: bool,
    /// The manifest that the volume shows already.
    pub pinned: Option<Digest>,
    /// Whether there is nothing to hide from the caller.
    pub sees_all: bool,
    /// Whether the policy decides about the caller.
    pub is_judged: bool,
    /// Whether the operator wants the image here for all pods.
    pub is_preload: bool,
    /// Whether the node takes only images that carry their composefs digest.
    pub require_digest: bool,
}

impl Terms {
    /// The terms of a request.
    pub(super) fn of(request: &ImageRequest, sees_all: bool, require_digest: bool) -> Self {
        Self {
            policy: request.policy,
            by_digest: matches!(request.reference.version(), Version::Digest(_)),
            pinned: request.pinned,
            sees_all,
            is_judged: request.caller.is_judged(),
            is_preload: request.caller == super::Caller::Preload,
            require_digest,
        }
    }
}

/// By what an image is looked up in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lookup {
    /// The pinned manifest, or else the reference as the user wrote it.
    Request,
    /// The reference with the digest that the registry resolved it to.
    Resolved(Digest),
    /// The platform's manifest.
    Manifest(Digest),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Read from the store.
    Read(Reading),
    /// Ask the registry, with the caller's credentials.
    Ask(Question),
    /// Consult the policy.
    Judge(Case),
    /// Write to the store.
    Record(Entry),
    /// Fetch the image, or join a pull that does.
    Fetch(Arc<ManifestPath>, Arc<Evidence>),
    /// Build the image again: another release built it.
    Renew(Arc<ImageRecord>),
    /// The end: the caller gets the image.
    Give(Given),
    /// The end: the caller gets nothing.
    Refuse(Obstacle),
}

/// What is read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The image's record.
    Image(Lookup),
    /// Whether the access rule grants the image by what is on record.
    Granted(Lookup, Digest),
    /// Whether all of the image's bytes came from the request's origin.
    FromHere(Lookup, Digest),
}

/// What the registry is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
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
pub(super) enum Case {
    /// Whether it wants signatures of this image, which is to be fetched.
    WantsSignatures { path: Arc<ManifestPath>, sealed: bool },
    /// Whether it admits a stored image, by the evidence stored with it.
    Stored(Arc<ImageRecord>),
    /// Whether it admits an image by this evidence.
    Evidence { evidence: Arc<Evidence>, sealed: bool },
}

/// What is written to the store.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// The origin has just given this manifest to the caller's credential.
    Grant(Digest),
    /// The reference resolves to `top`, and both lead to `manifest`.
    Names { top: Digest, manifest: Digest },
    /// Newer evidence of a stored image, by which it was admitted.
    Evidence(Arc<Evidence>),
    /// The operator has pulled the image for everybody; `fetched` are the documents of a pull just made.
    Preloaded { manifest: Digest, fetched: Option<Arc<ManifestPath>> },
    /// The image is in use.
    Used(Digest),
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub record: Arc<ImageRecord>,
    /// Compressed bytes that the pull fetched.
    pub fetched: u64,
    /// `None` for callers that are not judged.
    pub admission: Option<Admission>,
}

/// Why the caller gets nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Obstacle {
    /// The image is not here, and `Never` forbids to pull it.
    Absent,
    /// The policy does not admit it.
    Refused(Refusal),
    /// The manifest's seal is malformed.
    Seal(SealError),
    /// It carries no composefs digest, for this reason, and the node demands one.
    Unsealed(String),
}

/// The next step for a request with these terms.
pub(super) fn next(terms: &Terms, facts: &Facts) -> Step {
    decide(terms, facts).unwrap_or_else(|missing| missing)
}

/// The last step, or as an error the step that must come before it.
fn decide(terms: &Terms, facts: &Facts) -> Result<Step, Step> {
    match locate(terms, facts)? {
        Located::Stored(record) => provide_stored(terms, facts, record),
        Located::Remote(path) => provide_fetched(terms, facts, path),
    }
}

/// Has `entry` written, once.
fn record(facts: &Facts, entry: Entry) -> Result<(), Step> {
    if facts.recorded.contains(&entry) { Ok(()) } else { Err(Step::Record(entry)) }
}

#[cfg(test)]
mod tests;
