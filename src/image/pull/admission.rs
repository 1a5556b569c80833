//! Leave by policy: every caller's own, before bytes are fetched and again at every mount.
//!
//! The judge is a [`Gate`]; what it judges by is the image's [`Dossier`]. Signatures are looked for at the caller's
//! own source and with his credentials: when the image is pulled, and once more when an image that is here is
//! refused, for it may have been signed since.

use std::sync::Arc;

use super::chain::Chain;
use super::dossier::Dossier;
use super::error::About as _;
use super::locate::{Plan, Search};
use super::{ImageRequest, PullError, PullPolicy};
use crate::image::seal::Seal;
use crate::image::store::{ImageRecord, Store};
use crate::image::trust::collect::collect;
use crate::image::trust::{Admission, Gate, Refusal};

/// What a judge needs.
#[derive(Debug, Clone)]
pub(super) struct Court {
    pub store: Arc<Store>,
    pub gate: Arc<dyn Gate>,
}

/// What became of an image that is here.
enum Verdict {
    Admitted(Admission),
    Refused {
        refusal: Refusal,
        dossier: Dossier,
        /// Whether a look at the registry could change it.
        open: bool,
    },
}

impl Court {
    /// Judges an image that is to be fetched, and puts what it was judged by into the plan. `None` for those who do
    /// not mount.
    pub(super) async fn before_pull(
        &self,
        plan: &mut Plan,
        request: &ImageRequest,
    ) -> Result<Option<Admission>, PullError> {
        // What the manifest promises is held against the image when it is built.
        let sealed = Seal::of(&plan.manifest).about(&plan.image)?.is_some();
        let subject = plan.dossier.subject(request, sealed);
        let gate = Arc::clone(&self.gate);
        let about = subject.clone();
        if blocking(&plan.image, move || gate.wants_signatures(&about)).await? {
            plan.dossier.evidence = collect(&*plan.source, &subject.digests).await.about(&plan.image)?;
        }
        if !request.caller.is_judged() {
            return Ok(None);
        }
        let (gate, evidence) = (Arc::clone(&self.gate), plan.dossier.evidence.clone());
        let judged = blocking(&plan.image, move || gate.admit(&subject, &evidence)).await?;
        judged.map(Some).map_err(PullError::Refused)
    }

    /// Judges an image that is here, by what is stored with it; should it be refused, by what its registry has now.
    pub(super) async fn again(
        &self,
        search: &Search<'_>,
        record: &ImageRecord,
    ) -> Result<Option<Admission>, PullError> {
        if !search.request.caller.is_judged() {
            return Ok(None);
        }
        let (refusal, dossier) = match self.by_stored(search, record).await? {
            Verdict::Admitted(admission) => return Ok(Some(admission)),
            Verdict::Refused { refusal, dossier, open } => {
                if !open || search.request.policy == PullPolicy::Never {
                    return Err(PullError::Refused(refusal));
                }
                (refusal, dossier)
            }
        };
        let dossier = match self.look_again(search, record, dossier).await {
            Ok(dossier) => dossier,
            Err(error) => {
                let why = format!("{refusal}; and no newer signatures could be looked for: {error}");
                return Err(PullError::Refused(Refusal(why)));
            }
        };
        let subject = dossier.subject(search.request, record.sealed);
        let (gate, evidence) = (Arc::clone(&self.gate), dossier.evidence.clone());
        let admission = blocking(search.image, move || gate.admit(&subject, &evidence)).await?;
        let admission = admission.map_err(PullError::Refused)?;
        let place = search.rights.place().name();
        dossier.keep(&self.store, search.lease, place, search.image)?;
        Ok(Some(admission))
    }

    async fn by_stored(&self, search: &Search<'_>, record: &ImageRecord) -> Result<Verdict, PullError> {
        let (court, request, record) = (self.clone(), search.request.clone(), record.clone());
        let (place, image) = (search.rights.place().name().to_owned(), search.image.to_owned());
        blocking(search.image, move || {
            let stored = court.store.dossier(&record.manifest, &place).about(&image)?;
            let parsed = stored.and_then(|bytes| Dossier::parse(&bytes, record.manifest));
            let dossier = parsed.unwrap_or_else(|| Dossier::empty(record.manifest));
            let subject = dossier.subject(&request, record.sealed);
            Ok(match court.gate.admit(&subject, &dossier.evidence) {
                Ok(admission) => Verdict::Admitted(admission),
                Err(refusal) => {
                    let open = !dossier.is_complete() || court.gate.wants_signatures(&subject);
                    Verdict::Refused { refusal, dossier, open }
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
        mut dossier: Dossier,
    ) -> Result<Dossier, PullError> {
        let request = search.request;
        let source = search.sources.open(&request.reference, &request.credentials).about(search.image)?;
        request.watch.asks(&source);
        let top = source.resolve(&request.reference.version()).await.about(search.image)?;
        let mut chain = Chain::follow(&*source, top, search.limits, &request.platform, search.image).await?;
        if chain.digest != record.manifest {
            // The tag has moved on; the volume shows what it was.
            let own = record.manifest;
            chain = Chain::follow(&*source, own, search.limits, &request.platform, search.image).await?;
        }
        dossier.add(&chain);
        dossier.evidence = collect(&*source, &dossier.digests()).await.about(search.image)?;
        Ok(dossier)
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
