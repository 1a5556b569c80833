//! One attempt to bring an image here: the namespace's Secrets, what the reference means, the pull, and the record that
//! keeps the image.

use std::collections::HashSet;

use async_trait::async_trait;

use super::{Depot, Job, KeptKey, Outcome, Parts, Refusal};
use crate::image::store::{PrefetchPin, Store, StoreError};
use crate::kind::Kind;
use crate::node::credential_providers::PodIdentity;
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::pull::{Caller, ImageRequest, Images as _, PullError, PullPolicy, Waiter, Watch};

/// Why an attempt failed.
struct Failed {
    refusal: Refusal,
    for_good: bool,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, for_good: false }
    }
}

impl From<PullError> for Failed {
    fn from(error: PullError) -> Self {
        // The same digest holds nothing else the next time.
        let for_good = matches!(error, PullError::Choice { .. });
        Self { refusal: Refusal { reason: reason(&error), message: error.to_string() }, for_good }
    }
}

fn failed(reason: &'static str, error: impl std::fmt::Display) -> Failed {
    Refusal { reason, message: error.to_string() }.into()
}

fn reason(error: &PullError) -> &'static str {
    match (error, error.kind()) {
        (PullError::Refused(_) | PullError::Unsealed { .. }, _) => "RefusedByPolicy",
        (PullError::Limit { .. }, _) => "TooLarge",
        (PullError::Choice { .. }, _) => "InvalidChoice",
        (_, Kind::Exhausted) => "NoSpace",
        (_, Kind::Denied) => "Denied",
        (_, Kind::NotFound) => "NotFound",
        (_, Kind::Corrupt | Kind::Invalid | Kind::Unsupported) => "Unusable",
        _ => "Unavailable",
    }
}

#[async_trait]
impl Depot for Parts {
    async fn bring(&self, job: Job, watch: Watch) -> Outcome {
        let mut target = job.target;
        match attempt(self, &job, &watch, &mut target).await {
            Ok(target) => Outcome::Ready { target },
            Err(Failed { refusal: Refusal { reason, message }, for_good }) => {
                tracing::warn!(
                    prefetch = format!("{}/{}", job.namespace, job.name),
                    image.reference = job.key.1,
                    reason,
                    "an image was not prefetched: {message}"
                );
                Outcome::Failed { reason, message, for_good, target }
            }
        }
    }

    /// Removes the records of what is not wished any more.
    async fn let_go(&self, kept: HashSet<KeptKey>) -> bool {
        let unneeded = move |pin: &PrefetchPin| !kept.contains(&(pin.owner.clone(), pin.wish));
        let gone = on_disk(self, move |store| {
            let pins: Vec<_> = store.prefetched().list()?.into_iter().filter(unneeded).collect();
            pins.iter().try_for_each(|pin| store.prefetched().remove(pin))?;
            Ok(pins.len())
        });
        match gone.await {
            Ok(0) => true,
            Ok(images) => {
                tracing::info!(images, "prefetched images are not kept any more");
                true
            }
            Err(refusal) => {
                tracing::warn!(
                    "prefetched images are kept for now that nobody wishes any more: {}",
                    refusal.message
                );
                false
            }
        }
    }

    async fn free_bytes(&self) -> u64 {
        on_disk(self, |store| store.space()).await.map_or(0, |space| space.free())
    }
}

async fn attempt(
    parts: &Parts,
    job: &Job,
    watch: &Watch,
    target: &mut Option<Digest>,
) -> Result<Digest, Failed> {
    let for_good = |refusal: Failed| Failed { for_good: true, ..refusal };
    let reference: Reference =
        job.key.1.parse().map_err(|error| for_good(failed("InvalidReference", error_text(&error))))?;
    let choice = job.wish.choice().map_err(|error| for_good(failed("InvalidChoice", error)))?;
    let wish = choice.key(&Digest::of(job.key.1.as_bytes()));
    parts.layouts.check(&reference).map_err(|error| for_good(failed("Denied", error)))?;
    if let Some(known) = *target
        && is_kept(parts, job, (wish, known)).await?
    {
        return Ok(known);
    }
    let credentials = credentials(parts, job, &reference).await?;
    let meant = match *target {
        Some(known) => known,
        None => parts.images.resolve(&reference, &credentials).await?,
    };
    *target = Some(meant);
    let request = ImageRequest {
        reference: reference.pinned(meant),
        choice,
        policy: PullPolicy::IfNotPresent,
        platform: parts.platform.clone(),
        caller: Caller::Prefetch { namespace: job.namespace.clone(), up_to: parts.up_to },
        pinned: None,
        noexec: false,
        credentials,
        watch: watch.clone(),
    };
    let ready = parts.images.ensure(&request).await;
    // Housekeeping looks whether there is still room.
    parts.housekeeping.notify_one();
    let ready = ready?;
    if job.keeps {
        let (owner, image) = (job.key.0.clone(), ready.record.key());
        // The hold goes along until the record keeps the image.
        let hold = ready.hold;
        on_disk(parts, move |store| {
            let _hold = hold;
            store.keep_prefetched((&owner, wish, meant), &image)
        })
        .await?;
    }
    tracing::info!(
        prefetch = format!("{}/{}", job.namespace, job.name),
        image.reference = job.key.1,
        image.digest = %ready.record.manifest,
        fetched_bytes = ready.fetched,
        "an image was prefetched"
    );
    Ok(meant)
}

fn error_text(error: &crate::oci::reference::ReferenceError) -> String {
    error.to_string()
}

/// Whether an earlier process has brought the image here and kept it, by the same meaning of its reference.
async fn is_kept(parts: &Parts, job: &Job, (wish, target): (Digest, Digest)) -> Result<bool, Refusal> {
    let owner = job.key.0.clone();
    on_disk(parts, move |store| {
        for pin in store.prefetched().list()? {
            if pin.owner == owner && pin.wish == wish {
                let same = store.prefetched().target(&pin)? == Some(target);
                return Ok(same && store.images().get(&pin.image)?.is_some());
            }
        }
        Ok(false)
    })
    .await
}

/// Those of the prefetch's Secrets, or else what the node's own providers have for the image.
async fn credentials(parts: &Parts, job: &Job, reference: &Reference) -> Result<Credentials, Failed> {
    let mut own = Credentials::none();
    for name in &job.pull_secrets {
        own = own.and(parts.api.secret(&job.namespace, name).await?);
    }
    // There is no pod, so nothing of a pod's is asked for.
    let found = parts.credential_providers.complete(reference, &own, &PodIdentity::default()).await;
    Ok(found.map_err(|error| failed("NoCredentials", error))?.credentials)
}

async fn on_disk<T: Send + 'static>(
    parts: &Parts,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let store = std::sync::Arc::clone(&parts.store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    let failed = |error: &dyn std::fmt::Display, full| Refusal {
        reason: if full { "NoSpace" } else { "StoreFailed" },
        message: error.to_string(),
    };
    match done {
        Ok(done) => done.map_err(|error| failed(&error, error.kind() == Kind::Exhausted)),
        Err(lost) => Err(failed(&lost, false)),
    }
}

/// The one that waits, as the operator sees it among the pulls.
pub(super) fn waiter(job: &Job) -> Waiter {
    Waiter { pod: String::new(), volume: format!("prefetch {}/{}", job.namespace, job.name) }
}
