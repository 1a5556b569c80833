//! Second half of the plan: the policy decides, what is missing is fetched, and the caller gets the image.

use std::sync::Arc;

use super::facts::{Facts, StoredVerdict};
use super::form::form;
use super::step::{Case, NewRecord, Obstacle, Provided, Question, Step, Terms};
use crate::image::seal::{Seal, why_unsealed};
use crate::image::store::ImageRecord;
use crate::pull::PullPolicy;
use crate::pull::evidence::Evidence;
use crate::pull::manifest_path::ManifestPath;
use crate::trust::{Admission, PolicyRefusal};

/// Why a part of a sealed image counts as not sealed.
const PART_OF_A_WHOLE: &str = "such a digest is that of the whole image, which `include` and `exclude` take a part of: leave \
                               them out, or mount a directory of it with `path`";

/// Provides an image that is in the store.
pub(super) fn provide_stored(terms: &Terms, facts: &Facts, stored: Arc<ImageRecord>) -> Result<Step, Step> {
    let admission = if terms.is_judged { Some(readmit(terms, facts, &stored)?) } else { None };
    if terms.require_digest && !stored.sealed {
        let why = if terms.is_partial { PART_OF_A_WHOLE } else { "it was pulled without one" };
        return Err(Step::Refuse(Obstacle::Unsealed(why.to_owned())));
    }
    let current = current(facts, stored)?;
    let image = current.key();
    if terms.is_preload {
        facts.require(NewRecord::Preloaded { image, fetched: None })?;
    }
    facts.require(NewRecord::Used(image))?;
    let (record, image) = form(terms, facts, current, admission.as_ref())?;
    Ok(Step::Give(Provided { record, image, fetched: 0, admission }))
}

/// Fetches an image and provides it.
pub(super) fn provide_fetched(terms: &Terms, facts: &Facts, path: Arc<ManifestPath>) -> Result<Step, Step> {
    // The manifest tells whether it carries a digest, before anything else is fetched.
    let seal = Seal::of(&path.manifest).map_err(|error| Step::Refuse(Obstacle::Seal(error)))?;
    let sealed = seal.is_some() && !terms.is_partial;
    if terms.require_digest && !sealed {
        let why = match seal {
            Some(_) => PART_OF_A_WHOLE.to_owned(),
            None => why_unsealed(&path.manifest),
        };
        return Err(Step::Refuse(Obstacle::Unsealed(why)));
    }
    let evidence = evidence(facts, &path, sealed)?;
    let admission = if terms.is_judged { Some(admit(facts, &evidence, sealed)?) } else { None };
    let fetched = facts.fetched.clone();
    let (pulled, fetched) = fetched.ok_or_else(|| Step::Fetch(Arc::clone(&path), evidence))?;
    // An image that is here from elsewhere may be another release's.
    let current = current(facts, pulled)?;
    let image = current.key();
    facts.require(NewRecord::Grant(image))?;
    if terms.is_preload {
        facts.require(NewRecord::Preloaded { image, fetched: Some(path) })?;
    }
    // Another reference may have led to the same pull, which knows that name only.
    if let (None, Some(top)) = (terms.pinned, facts.top) {
        facts.require(NewRecord::Names { top, image })?;
    }
    let (record, image) = form(terms, facts, current, admission.as_ref())?;
    Ok(Step::Give(Provided { record, image, fetched, admission }))
}

/// Judges a stored image by what is stored with it. If it is refused, by what its registry has now: it may have been
/// signed since.
fn readmit(terms: &Terms, facts: &Facts, stored: &Arc<ImageRecord>) -> Result<Admission, Step> {
    let verdict = facts.stored_verdict.clone();
    let (refusal, evidence) = match verdict.ok_or_else(|| Step::Judge(Case::Stored(Arc::clone(stored))))? {
        StoredVerdict::Admitted(admission) => return Ok(admission),
        StoredVerdict::Refused { refusal, evidence, open } => {
            if !open || terms.policy == PullPolicy::Never {
                return Err(refused(refusal));
            }
            (refusal, evidence)
        }
    };
    let newer = facts.newer_evidence.clone();
    let newer = newer.ok_or_else(|| Step::Ask(Question::NewerEvidence(stored.manifest, evidence)))?;
    let newer = newer.map_err(|error| {
        refused(PolicyRefusal(format!("{refusal}; and no newer signatures could be looked for: {error}")))
    })?;
    let admission = admit(facts, &newer, stored.sealed)?;
    // What did not help is not kept.
    facts.require(NewRecord::Evidence(newer))?;
    Ok(admission)
}

/// What an image that is to be fetched is judged by. Signatures are looked for whenever the policy wants them, so
/// that they are stored with the image even if this caller is not judged.
fn evidence(facts: &Facts, path: &Arc<ManifestPath>, sealed: bool) -> Result<Arc<Evidence>, Step> {
    let case = || Step::Judge(Case::WantsSignatures { path: Arc::clone(path), sealed });
    let (documents, wants_signatures) = facts.documents.clone().ok_or_else(case)?;
    if !wants_signatures {
        return Ok(documents);
    }
    facts.signatures.clone().ok_or(Step::Ask(Question::Signatures(documents)))
}

fn admit(facts: &Facts, evidence: &Arc<Evidence>, sealed: bool) -> Result<Admission, Step> {
    let case = || Step::Judge(Case::Evidence { evidence: Arc::clone(evidence), sealed });
    facts.verdict.clone().ok_or_else(case)?.map_err(refused)
}

/// The image as this release builds it.
fn current(facts: &Facts, record: Arc<ImageRecord>) -> Result<Arc<ImageRecord>, Step> {
    if !record.is_outdated() {
        return Ok(record);
    }
    facts.renewed.clone().ok_or(Step::Renew(record))
}

fn refused(refusal: PolicyRefusal) -> Step {
    Step::Refuse(Obstacle::Refused(refusal))
}
