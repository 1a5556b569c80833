//! Whether the digest of an artifact's image counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Covered, Wanted};
use crate::image::lazy::LazyError;
use crate::oci::manifest::{Descriptor, OCI_MANIFEST};
use crate::pull::{PullError, Puller, blocking};
use crate::trust::{PolicyRefusal, Subject};

impl Puller {
    /// Why the digest counts; the inner error says why it does not.
    pub(super) async fn covered(&self, wanted: &Wanted<'_>) -> Result<Result<Covered, LazyError>, PullError> {
        let found = wanted.artifact.seal.digest;
        match wanted.seal {
            Some(seal) if seal.digest == found => Ok(Ok(Covered::Seal)),
            Some(seal) => {
                let expected = seal.digest;
                Ok(Err(LazyError::OtherImage { part: "image", found, expected }))
            }
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
        let Wanted { request, source, image, digest, artifact, .. } = *wanted;
        let target = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest,
            size: artifact.manifest().len() as u64,
            annotations: BTreeMap::new(),
        };
        let subject = Subject {
            namespace: request.caller.namespace().map(str::to_owned),
            reference: request.reference.clone(),
            digests: vec![digest],
            target,
            sealed: true,
        };
        let claims = self.pulls().control().find_claims(image, &**source, subject.clone()).await?;
        let engine = Arc::clone(&self.pulls().control().engine);
        let judged = blocking(image, move || engine.admit(&subject, &claims)).await?;
        let why = match judged {
            Ok(admission) if admission.signed => return Ok(Ok(Covered::Signature)),
            Ok(_) => "the policy verifies no signature of the artifact".to_owned(),
            Err(PolicyRefusal(why)) => format!("of the artifact the policy says: {why}"),
        };
        Ok(Err(LazyError::NotCovered { why }))
    }
}
