//! What an execution asks the registry. Every request of an execution that is not a blob is here.

use std::sync::Arc;

use super::Execution;
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::reference::Version;
use crate::pull::error::About as _;
use crate::pull::evidence::Evidence;
use crate::pull::manifest_path::ManifestPath;
use crate::pull::plan::{Answer, Question};
use crate::pull::{PullError, blocking};
use crate::trust::Claims;

impl Execution<'_> {
    pub(super) async fn ask(&mut self, question: Question) -> Result<Answer, PullError> {
        Ok(match question {
            Question::Top => {
                let version = self.request.reference.version();
                let source = self.source()?;
                // The content of a known reference is most likely here: a HEAD tells, and registries count no download.
                let here = self.here();
                let resolved = if blocking(&self.image, move || here.is_known()).await?? {
                    source.resolve(&version).await
                } else {
                    source.resolve_to_read(&version).await
                };
                Answer::Top(resolved.about(&self.image)?)
            }
            Question::Confirm(lookup, manifest) => {
                // Every failure means that nothing is confirmed: the manifest is asked for next.
                let confirmed = self.source()?.resolve(&Version::Digest(manifest)).await.is_ok();
                Answer::Confirmed(lookup, confirmed)
            }
            Question::Path(top) => {
                let source = self.source()?;
                Answer::Path(Arc::new(self.path(&*source, top).await?))
            }
            Question::Signatures(documents) => {
                let (source, mut evidence) = (self.source()?, Evidence::clone(&documents));
                evidence.signatures = self.claims(&*source, &evidence).await?;
                Answer::Signatures(Arc::new(evidence))
            }
            Question::NewerEvidence(manifest, evidence) => {
                // A failure leaves the stored image refused; the plan says so in the refusal.
                let newer = self.newer_evidence(manifest, &evidence).await;
                Answer::NewerEvidence(newer.map(Arc::new).map_err(|error| error.to_string()))
            }
        })
    }

    /// The registry or layout, opened with the caller's credentials when it is first asked.
    pub(super) fn source(&mut self) -> Result<Arc<dyn Source>, PullError> {
        if let Some(source) = &self.source {
            return Ok(Arc::clone(source));
        }
        let sources = self.pulls.sources();
        let source = sources.open(&self.request.reference, &self.request.credentials).about(&self.image)?;
        self.request.watch.set_source(&source);
        Ok(Arc::clone(self.source.insert(source)))
    }

    async fn path(&self, source: &dyn Source, top: Digest) -> Result<ManifestPath, PullError> {
        let (limits, platform) = (self.pulls.image_limits(), &self.request.platform);
        ManifestPath::resolve_platform(source, top, limits, platform, &self.image).await
    }

    /// The evidence with the documents and the signatures that the registry has now.
    async fn newer_evidence(&mut self, manifest: Digest, evidence: &Evidence) -> Result<Evidence, PullError> {
        let source = self.source()?;
        let top = source.resolve_to_read(&self.request.reference.version()).await.about(&self.image)?;
        let mut path = self.path(&*source, top).await?;
        if path.digest != manifest {
            // The tag has moved on; the volume shows what it was.
            path = self.path(&*source, manifest).await?;
        }
        let mut newer = evidence.clone();
        newer.add(&path);
        // The older ones may be what another namespace's policy asks for.
        newer.signatures = self.claims(&*source, &newer).await?.with_older(&evidence.signatures);
        Ok(newer)
    }

    async fn claims(&self, source: &dyn Source, evidence: &Evidence) -> Result<Claims, PullError> {
        // Signatures do not depend on the seal.
        let subject = evidence.subject(self.request, false);
        self.pulls.control().find_claims(&self.image, source, subject).await
    }
}
