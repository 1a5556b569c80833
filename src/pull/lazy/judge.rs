//! Whether the digest of an artifact's image counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Covered, LazyOffer, Wanted};
use crate::image::lazy::{Artifact, LazyError};
use crate::image::seal::Seal;
use crate::oci::manifest::{Descriptor, OCI_MANIFEST};
use crate::oci::reference::Reference;
use crate::pull::{PullError, Puller, blocking};
use crate::trust::{Admission, PolicyRefusal, Subject};

impl Puller {
    /// Why the digest counts; the inner error says why it does not.
    pub(super) async fn covered(&self, wanted: &Wanted<'_>) -> Result<Result<Covered, LazyError>, PullError> {
        match by_seal(wanted.seal, &wanted.offer.artifact) {
            Some(covered) => Ok(covered),
            // The node builds an unsealed image itself, and no digest of it was admitted with the manifest.
            None => self.covered_by_signature(wanted).await,
        }
    }

    /// Judges the artifact as an image of the same reference. It must have been signed: a policy that asks for nothing admits
    /// what anybody has pushed, and here that is not what the layers make.
    async fn covered_by_signature(
        &self,
        wanted: &Wanted<'_>,
    ) -> Result<Result<Covered, LazyError>, PullError> {
        let Wanted { request, source, image, offer, .. } = *wanted;
        let subject = artifact_subject(offer, &request.reference, request.caller.namespace());
        let claims = self.pulls().control().find_claims(image, &**source, subject.clone()).await?;
        let engine = Arc::clone(&self.pulls().control().engine);
        let judged = blocking(image, move || engine.admit(&subject, &claims)).await?;
        Ok(by_signature(judged))
    }
}

/// What the seal of a manifest means for the digest of an artifact's image; `None` if there is no seal.
pub fn by_seal(seal: Option<Seal>, artifact: &Artifact) -> Option<Result<Covered, LazyError>> {
    let (found, expected) = (artifact.seal.digest, seal?.digest);
    Some(match found == expected {
        true => Ok(Covered::Seal),
        false => Err(LazyError::OtherImage { part: "image", found, expected }),
    })
}

/// An artifact as it is judged: as an image of the same reference.
pub fn artifact_subject(offer: &LazyOffer, reference: &Reference, namespace: Option<&str>) -> Subject {
    let (digest, size) = (offer.digest, offer.size);
    let media_type = OCI_MANIFEST.to_owned();
    let target = Descriptor { media_type, digest, size, annotations: BTreeMap::new() };
    let namespace = namespace.map(str::to_owned);
    Subject { namespace, reference: reference.clone(), digests: vec![digest], target, sealed: true }
}

/// What the policy's judgement of an artifact means for the digest of its image.
///
/// # Errors
/// No signature was verified.
pub fn by_signature(judged: Result<Admission, PolicyRefusal>) -> Result<Covered, LazyError> {
    let why = match judged {
        Ok(admission) if admission.signed => return Ok(Covered::Signature),
        Ok(_) => "the policy verifies no signature of the artifact".to_owned(),
        Err(PolicyRefusal(why)) => format!("of the artifact the policy says: {why}"),
    };
    Err(LazyError::NotCovered { why })
}
