//! Admission by policy: each caller's own, before bytes are fetched and again at every mount.
//!
//! The [`PolicyEngine`] judges an image by its [`Evidence`]. It reads files and verifies signatures, so every consultation
//! blocks; one that also needs the registry is async and brings its own threads.

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
    /// Why no image of the request's reference could be admitted, if that is so. Blocking.
    pub(super) fn refuses_outright(&self, request: &ImageRequest) -> Option<PolicyRefusal> {
        let pods = match &request.caller {
            // Its pod, and so its namespace, is not known.
            Caller::Staging => Pods::Any,
            caller => Pods::Of(caller.namespace()),
        };
        self.engine.refuses_outright(&request.reference, pods)
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

    /// Whether signatures of the image must be looked for. Blocking.
    pub(super) fn wants_signatures(&self, subject: &Subject) -> bool {
        self.engine.wants_signatures(subject)
    }

    /// Judges an image by this evidence. A refusal is an answer, not a failure. Blocking.
    pub(super) fn judge(&self, subject: &Subject, evidence: &Evidence) -> Result<Admission, PolicyRefusal> {
        self.engine.admit(subject, &evidence.signatures)
    }

    /// Judges an image that is in the store, by the evidence that is stored with it for `origin`. `image` is for
    /// messages. Blocking.
    ///
    /// # Errors
    /// Those of reading a file.
    pub(super) fn judge_stored(
        &self,
        image: &str,
        request: &ImageRequest,
        origin: &str,
        record: &ImageRecord,
    ) -> Result<StoredVerdict, PullError> {
        let evidence = stored_evidence::read(&self.store, (record.key(), record.manifest), origin, image)?;
        let subject = evidence.subject(request, record.sealed);
        Ok(match self.judge(&subject, &evidence) {
            Ok(admission) => StoredVerdict::Admitted(admission),
            Err(refusal) => {
                let open = !evidence.is_complete() || self.wants_signatures(&subject);
                StoredVerdict::Refused { refusal, evidence: Arc::new(evidence), open }
            }
        })
    }
}
