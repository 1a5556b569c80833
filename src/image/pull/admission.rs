//! Leave by policy: every caller's own, before bytes are fetched and again at every mount.
//!
//! The judge is a [`PolicyEngine`]; what it judges by is the image's [`Evidence`]. Signatures are looked for at the caller's
//! own source and with his credentials: when the image is pulled, and once more when an image that is here is
//! refused, for it may have been signed since.

use std::sync::Arc;

use super::error::About as _;
use super::evidence::Evidence;
use super::locate::{Plan, Search};
use super::manifest_path::ManifestPath;
use super::{ImageRequest, PullError, PullPolicy};
use crate::image::seal::Seal;
use crate::image::store::{ImageRecord, Store};
use crate::trust::collect::collect;
use crate::trust::{Admission, PolicyEngine, Refusal};

/// What a judge needs.
#[derive(Debug, Clone)]
pub(super) struct AdmissionControl {
    pub store: Arc<Store>,
    pub engine: Arc<dyn PolicyEngine>,
}

/// What became of an image that is here.
enum Verdict {
    Admitted(Admission),
    Refused {
        refusal: Refusal,
        evidence: Evidence,
        /// Whether a look at the registry could change it.
        open: bool,
    },
}

impl AdmissionControl {
    /// Judges an image that is to be fetched, and puts what it was judged by into the plan. `None` for those who do
    /// not mount.
    pub(super) async fn admit_new(
        &self,
        plan: &mut Plan,
        request: &ImageRequest,
    ) -> Result<Option<Admission>, PullError> {
        // What the manifest promises is held against the image when it is built.
        let sealed = Seal::of(&plan.manifest).about(&plan.image)?.is_some();
        let subject = plan.evidence.subject(request, sealed);
        let engine = Arc::clone(&self.engine);
        let about = subject.clone();
        if blocking(&plan.image, move || engine.wants_signatures(&about)).await? {
            plan.evidence.signatures = collect(&*plan.source, &subject.digests).await.about(&plan.image)?;
        }
        if !request.caller.is_judged() {
            return Ok(None);
        }
        let (engine, signatures) = (Arc::clone(&self.engine), plan.evidence.signatures.clone());
        let judged = blocking(&plan.image, move || engine.admit(&subject, &signatures)).await?;
        judged.map(Some).map_err(PullError::Refused)
    }

    /// Judges an image that is here, by what is stored with it; should it be refused, by what its registry has now.
    pub(super) async fn readmit(
        &self,
        search: &Search<'_>,
        record: &ImageRecord,
    ) -> Result<Option<Admission>, PullError> {
        if !search.request.caller.is_judged() {
            return Ok(None);
        }
        let (refusal, evidence) = match self.by_stored(search, record).await? {
            Verdict::Admitted(admission) => return Ok(Some(admission)),
            Verdict::Refused { refusal, evidence, open } => {
                if !open || search.request.policy == PullPolicy::Never {
                    return Err(PullError::Refused(refusal));
                }
                (refusal, evidence)
            }
        };
        let evidence = match self.look_again(search, record, evidence).await {
            Ok(evidence) => evidence,
            Err(error) => {
                let why = format!("{refusal}; and no newer signatures could be looked for: {error}");
                return Err(PullError::Refused(Refusal(why)));
            }
        };
        let subject = evidence.subject(search.request, record.sealed);
        let (engine, signatures) = (Arc::clone(&self.engine), evidence.signatures.clone());
        let admission = blocking(search.image, move || engine.admit(&subject, &signatures)).await?;
        let admission = admission.map_err(PullError::Refused)?;
        let origin = search.rights.origin().name();
        evidence.keep(&self.store, search.lease, origin, search.image)?;
        Ok(Some(admission))
    }

    async fn by_stored(&self, search: &Search<'_>, record: &ImageRecord) -> Result<Verdict, PullError> {
        let (control, request, record) = (self.clone(), search.request.clone(), record.clone());
        let (origin, image) = (search.rights.origin().name().to_owned(), search.image.to_owned());
        blocking(search.image, move || {
            let stored = control.store.evidence().get(&record.manifest, &origin).about(&image)?;
            let parsed = stored.and_then(|bytes| Evidence::parse(&bytes, record.manifest));
            let evidence = parsed.unwrap_or_else(|| Evidence::empty(record.manifest));
            let subject = evidence.subject(&request, record.sealed);
            Ok(match control.engine.admit(&subject, &evidence.signatures) {
                Ok(admission) => Verdict::Admitted(admission),
                Err(refusal) => {
                    let open = !evidence.is_complete() || control.engine.wants_signatures(&subject);
                    Verdict::Refused { refusal, evidence, open }
                }
            })
        })
        .await?
    }

    /// Asks the registry for documents and signatures, with the caller's own credentials.
    async fn look_again(
        &self,
        search: &Search<'_>,
        record: &ImageRecord,
        mut evidence: Evidence,
    ) -> Result<Evidence, PullError> {
        let request = search.request;
        let source = search.sources.open(&request.reference, &request.credentials).about(search.image)?;
        request.watch.asks(&source);
        let top = source.resolve(&request.reference.version()).await.about(search.image)?;
        let mut path =
            ManifestPath::resolve_platform(&*source, top, search.limits, &request.platform, search.image)
                .await?;
        if path.digest != record.manifest {
            // The tag has moved on; the volume shows what it was.
            let own = record.manifest;
            path =
                ManifestPath::resolve_platform(&*source, own, search.limits, &request.platform, search.image)
                    .await?;
        }
        evidence.add(&path);
        evidence.signatures = collect(&*source, &evidence.digests()).await.about(search.image)?;
        Ok(evidence)
    }
}

/// Runs `work`, which may read files and verify signatures, on a thread of its own.
async fn blocking<T: Send + 'static>(
    image: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PullError> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| PullError::Lost { image: image.to_owned(), why: error.to_string() })
}
