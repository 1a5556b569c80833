//! Admission by policy: each caller's own, before bytes are fetched and again at every mount.
//!
//! The [`PolicyEngine`] judges an image by its [`Evidence`]. It reads files and verifies signatures, so each
//! consultation runs on a thread for blocking work.

use std::sync::Arc;

use super::evidence::Evidence;
use super::plan::StoredVerdict;
use super::{ImageRequest, PullError, blocking, stored_evidence};
use crate::image::store::{ImageRecord, Store};
use crate::trust::{Admission, PolicyEngine, PolicyRefusal, Subject};

/// Consults the policy engine.
#[derive(Debug, Clone)]
pub(super) struct AdmissionControl {
    pub store: Arc<Store>,
    pub engine: Arc<dyn PolicyEngine>,
}

impl AdmissionControl {
    /// Whether signatures of the image must be looked for.
    pub(super) async fn wants_signatures(&self, image: &str, subject: Subject) -> Result<bool, PullError> {
        let engine = Arc::clone(&self.engine);
        blocking(image, move || engine.wants_signatures(&subject)).await
    }

    /// Judges an image by this evidence. A refusal is an answer, not a failure.
    pub(super) async fn judge(
        &self,
        image: &str,
        subject: Subject,
        evidence: Arc<Evidence>,
    ) -> Result<Result<Admission, PolicyRefusal>, PullError> {
        let engine = Arc::clone(&self.engine);
        blocking(image, move || engine.admit(&subject, &evidence.signatures)).await
    }

    /// Judges an image that is in the store, by the evidence that is stored with it for `origin`.
    pub(super) async fn judge_stored(
        &self,
        image: &str,
        request: &ImageRequest,
        origin: &str,
        record: &ImageRecord,
    ) -> Result<StoredVerdict, PullError> {
        let (control, request, manifest, sealed) =
            (self.clone(), request.clone(), record.manifest, record.sealed);
        let (origin, name) = (origin.to_owned(), image.to_owned());
        blocking(image, move || {
            let evidence = stored_evidence::read(&control.store, manifest, &origin, &name)?;
            let subject = evidence.subject(&request, sealed);
            Ok(match control.engine.admit(&subject, &evidence.signatures) {
                Ok(admission) => StoredVerdict::Admitted(admission),
                Err(refusal) => {
                    let open = !evidence.is_complete() || control.engine.wants_signatures(&subject);
                    StoredVerdict::Refused { refusal, evidence: Arc::new(evidence), open }
                }
            })
        })
        .await?
    }
}
