//! First half of the plan: is the image here, may the caller have it, and if not, what is to be fetched?

use std::sync::Arc;

use super::facts::Facts;
use super::step::{Lookup, NewRecord, Obstacle, Question, Reading, Step, Terms};
use crate::image::store::ImageRecord;
use crate::oci::digest::Digest;
use crate::pull::PullPolicy;
use crate::pull::manifest_path::ManifestPath;

/// Where the image is.
pub(super) enum Located {
    /// In the store, and the caller may have it.
    Stored(Arc<ImageRecord>),
    /// At the registry, which has given its manifest to the caller.
    Remote(Arc<ManifestPath>),
}

/// Finds the image, or says which step must come first.
pub(super) fn locate(terms: &Terms, facts: &Facts) -> Result<Located, Step> {
    let known = known(terms, facts)?;
    if let Some(record) = &known
        && is_granted(facts, Lookup::Request, record)?
    {
        return Ok(Located::Stored(Arc::clone(record)));
    }
    // The registry is asked even under `Never` if the answer would tell the caller what others have.
    if known.is_none() && terms.policy == PullPolicy::Never && terms.sees_all {
        return Err(Step::Refuse(Obstacle::Absent));
    }
    let top = facts.top.ok_or(Step::Ask(Question::Top))?;
    // From here on the caller has read the repository with their own credentials.
    if let Some(stored) = known
        && is_confirmed(facts, Lookup::Request, &stored, top)?
    {
        return Ok(Located::Stored(stored));
    }
    if terms.pinned.is_none()
        && let Some(stored) = resolved(facts, top)?
    {
        facts.require(NewRecord::Names { top, image: stored.key() })?;
        return Ok(Located::Stored(stored));
    }
    by_manifest(terms, facts, top)
}

/// What the request means as far as this node knows.
fn known(terms: &Terms, facts: &Facts) -> Result<Option<Arc<ImageRecord>>, Step> {
    // A digest cannot move: what it names is asked for once, whatever the policy says.
    let is_fixed = terms.by_digest || terms.pinned.is_some();
    if terms.policy == PullPolicy::Always && !is_fixed {
        return Ok(None);
    }
    stored(facts, Lookup::Request)
}

/// The image that was pulled by the digest to which the reference resolves, if the caller may have it.
fn resolved(facts: &Facts, top: Digest) -> Result<Option<Arc<ImageRecord>>, Step> {
    let lookup = Lookup::Resolved(top);
    let Some(record) = stored(facts, lookup)? else { return Ok(None) };
    let permitted = is_granted(facts, lookup, &record)? || is_confirmed(facts, lookup, &record, top)?;
    Ok(permitted.then_some(record))
}

/// Reads the manifest from the registry, and looks once more whether its image is here.
fn by_manifest(terms: &Terms, facts: &Facts, top: Digest) -> Result<Located, Step> {
    // A volume shows one image as long as it is in use, whatever the reference means now.
    let wanted = terms.pinned.unwrap_or(top);
    let path = facts.path.clone().ok_or(Step::Ask(Question::Path(wanted)))?;
    let lookup = Lookup::Manifest(path.digest);
    if let Some(stored) = stored(facts, lookup)?
        && is_from_here(facts, lookup, &stored)?
    {
        facts.require(NewRecord::Grant(stored.key()))?;
        if terms.pinned.is_none() {
            facts.require(NewRecord::Names { top, image: stored.key() })?;
        }
        return Ok(Located::Stored(stored));
    }
    if terms.policy == PullPolicy::Never {
        return Err(Step::Refuse(Obstacle::Absent));
    }
    Ok(Located::Remote(path))
}

/// What the store has under `lookup`.
fn stored(facts: &Facts, lookup: Lookup) -> Result<Option<Arc<ImageRecord>>, Step> {
    let found = facts.candidates.get(&lookup).and_then(|candidate| candidate.record.clone());
    found.ok_or(Step::Read(Reading::Image(lookup)))
}

/// Whether the access rule gives the image without asking the registry.
fn is_granted(facts: &Facts, lookup: Lookup, record: &ImageRecord) -> Result<bool, Step> {
    let found = facts.candidates.get(&lookup).and_then(|candidate| candidate.granted);
    found.ok_or(Step::Read(Reading::Granted(lookup, record.key())))
}

/// Whether the request's origin is believed about the image.
fn is_from_here(facts: &Facts, lookup: Lookup, record: &ImageRecord) -> Result<bool, Step> {
    let found = facts.candidates.get(&lookup).and_then(|candidate| candidate.from_here);
    found.ok_or(Step::Read(Reading::FromHere(lookup, record.key())))
}

/// Whether the registry from which a stored image came gives it to the caller: a HEAD by digest, unless that was the
/// request already. Other registries are not believed.
fn is_confirmed(facts: &Facts, lookup: Lookup, stored: &ImageRecord, top: Digest) -> Result<bool, Step> {
    let manifest = stored.manifest;
    if !is_from_here(facts, lookup, stored)? {
        return Ok(false);
    }
    let answered = || facts.candidates.get(&lookup).and_then(|candidate| candidate.confirmed);
    if top != manifest && !answered().ok_or(Step::Ask(Question::Confirm(lookup, manifest)))? {
        return Ok(false);
    }
    facts.require(NewRecord::Grant(stored.key()))?;
    Ok(true)
}
