//! What is known of one request so far: plain data, one field for each answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::step::{Lookup, NewRecord, Step};
use crate::image::store::ImageRecord;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::pull::evidence::Evidence;
use crate::pull::manifest_path::ManifestPath;
use crate::trust::{Admission, PolicyRefusal};

/// Everything that the steps so far have found out. `None` means not known yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::pull) struct Facts {
    pub(super) outright: Option<Option<PolicyRefusal>>,
    pub(super) candidates: BTreeMap<Lookup, Candidate>,
    pub(super) top: Option<Digest>,
    pub(super) path: Option<Arc<ManifestPath>>,
    pub(super) documents: Option<(Arc<Evidence>, bool)>,
    pub(super) signatures: Option<Arc<Evidence>>,
    pub(super) stored_verdict: Option<StoredVerdict>,
    pub(super) newer_evidence: Option<Result<Arc<Evidence>, String>>,
    pub(super) verdict: Option<Result<Admission, PolicyRefusal>>,
    pub(super) fetched: Option<(Arc<ImageRecord>, u64)>,
    pub(super) renewed: Option<Arc<ImageRecord>>,
    pub(super) variant: Option<(Arc<ImageRecord>, VerityDigest)>,
    recorded: Vec<NewRecord>,
}

/// What is known of the image that one lookup found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Candidate {
    pub record: Option<Option<Arc<ImageRecord>>>,
    pub granted: Option<bool>,
    pub from_here: Option<bool>,
    pub confirmed: Option<bool>,
}

/// What the policy said about a stored image.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum StoredVerdict {
    /// It is admitted by the evidence that is stored with it.
    Admitted(Admission),
    /// It is refused.
    Refused {
        /// Why.
        refusal: PolicyRefusal,
        /// The evidence stored with it.
        evidence: Arc<Evidence>,
        /// Whether newer evidence could change the verdict.
        open: bool,
    },
}

/// What carrying out a step has found out.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::pull) enum Answer {
    /// Why the policy refuses the reference, if it does.
    Outright(Option<PolicyRefusal>),
    /// What the store has.
    Image(Lookup, Option<Arc<ImageRecord>>),
    /// Whether the access rule grants it.
    Granted(Lookup, bool),
    /// Whether all of its bytes came from the request's origin.
    FromHere(Lookup, bool),
    /// Whether the registry gives it to the caller.
    Confirmed(Lookup, bool),
    /// What the reference resolves to.
    Top(Digest),
    /// The documents down to the platform's manifest.
    Path(Arc<ManifestPath>),
    /// The evidence without signatures, and whether the policy wants any.
    Documents { evidence: Arc<Evidence>, wants_signatures: bool },
    /// Evidence with the signatures that the registry has.
    Signatures(Arc<Evidence>),
    /// The policy on stored evidence.
    StoredVerdict(StoredVerdict),
    /// Newer evidence, or why there is none.
    NewerEvidence(Result<Arc<Evidence>, String>),
    /// The policy on other evidence.
    Verdict(Result<Admission, PolicyRefusal>),
    /// The image of a pull, and how many compressed bytes the pull fetched.
    Fetched(Arc<ImageRecord>, u64),
    /// The record that holds after building again. A volume may require that the old image stays.
    Renewed(Arc<ImageRecord>),
    /// The record with an image by other rules, and that image.
    Varied(Arc<ImageRecord>, VerityDigest),
    /// The record is written.
    Recorded(NewRecord),
}

impl Facts {
    /// Adds what a step has found out.
    pub(in crate::pull) fn note(&mut self, answer: Answer) {
        match answer {
            Answer::Outright(refusal) => self.outright = Some(refusal),
            Answer::Image(lookup, record) => self.candidate(lookup).record = Some(record),
            Answer::Granted(lookup, granted) => self.candidate(lookup).granted = Some(granted),
            Answer::FromHere(lookup, from_here) => self.candidate(lookup).from_here = Some(from_here),
            Answer::Confirmed(lookup, confirmed) => self.candidate(lookup).confirmed = Some(confirmed),
            Answer::Top(digest) => self.top = Some(digest),
            Answer::Path(path) => self.path = Some(path),
            Answer::Documents { evidence, wants_signatures } => {
                self.documents = Some((evidence, wants_signatures));
            }
            Answer::Signatures(evidence) => self.signatures = Some(evidence),
            Answer::StoredVerdict(verdict) => self.stored_verdict = Some(verdict),
            Answer::NewerEvidence(evidence) => self.newer_evidence = Some(evidence),
            Answer::Verdict(verdict) => self.verdict = Some(verdict),
            Answer::Fetched(record, bytes) => self.fetched = Some((record, bytes)),
            Answer::Renewed(record) => self.renewed = Some(record),
            Answer::Varied(record, image) => self.variant = Some((record, image)),
            Answer::Recorded(new) => self.recorded.push(new),
        }
    }

    /// Why the policy admits the image, if it was asked about other evidence than what is stored with the image.
    pub(in crate::pull) fn admission(&self) -> Option<&Admission> {
        self.verdict.as_ref()?.as_ref().ok()
    }

    /// Goes on once `new` is written; the error is the step that writes it.
    pub(super) fn require(&self, new: NewRecord) -> Result<(), Step> {
        if self.recorded.contains(&new) { Ok(()) } else { Err(Step::Record(new)) }
    }

    fn candidate(&mut self, lookup: Lookup) -> &mut Candidate {
        self.candidates.entry(lookup).or_default()
    }
}
