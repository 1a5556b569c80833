//! Admission by policy: each caller's own, before bytes are fetched and again at every mount.
//!
//! The [`PolicyEngine`] judges an image by its [`Evidence`]. It reads files and verifies signatures, so each
//! consultation runs on a thread for blocking work.

use std::sync::Arc;

use super::error::About as _;
use super::evidence::Evidence;
use super::plan::StoredVerdict;
use super::{Caller, ImageRequest, PullError, blocking, stored_evidence};
use crate::image::store::{ImageRecord, Store};
use crate::oci::Source;
use crate::sys::release_free_memory;
use crate::trust::collect::collect;
use crate::trust::{Admission, ClaimMemory, Claims, Pods, PolicyEngine, PolicyRefusal, Subject};

/// Consults the policy engine.
#[derive(Debug, Clone)]
pub(super) struct AdmissionControl {
    pub store: Arc<Store>,
    pub engine: Arc<dyn PolicyEngine>,
    pub memory: Arc<ClaimMemory>,
}

impl AdmissionControl {
    /// Why no image of the request's reference could be admitted, if that is so.
    pub(super) async fn refuses_outright(
        &self,
        image: &str,
        request: &ImageRequest,
    ) -> Result<Option<PolicyRefusal>, PullError> {
        let (engine, reference, caller) =
            (Arc::clone(&self.engine), request.reference.clone(), request.caller.clone());
        blocking(image, move || {
            let pods = match &caller {
                // Its pod, and so its namespace, is not known.
                Caller::Staging => Pods::Any,
                caller => Pods::Of(caller.namespace()),
            };
            engine.refuses_outright(&reference, pods)
        })
        .await
    }

    /// The claims that the source has about the image: those that help, and a few others.
    pub(super) async fn find_claims(
        &self,
        image: &str,
        source: &dyn Source,
        subject: Subject,
    ) -> Result<Claims, PullError> {
        let engine = Arc::clone(&self.engine);
        let (subject, hearing) = blocking(image, move || {
            let hearing = engine.hearing(&subject);
            (subject, hearing)
        })
        .await?;
        let found = collect(source, &subject, hearing, &self.memory).await;
        // The allocator would keep what many and large claims took.
        if self.memory.should_be_returned() {
            blocking(image, release_free_memory).await?;
        }
        found.about(image)
    }

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
