//! Provisions volumes: turns a claim's parameters into a volume pinned to a digest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::states::{State, StateError, States};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::oci::{Credentials, SourceError, Sources};
use crate::volume::attributes::AttributeError;
use crate::volume::content::Content;
use crate::volume::id::VolumeId;
use crate::volume::layouts::Layouts;
use crate::volume::upper::UpperError;

pub(crate) mod claim;
mod error;

use claim::ClaimAnnotations;
pub(crate) use error::ProvisionError;

/// Resolves references to digests.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// The digest of the manifest or index. An index is not resolved further: each node chooses its platform.
    async fn resolve(&self, image: &Reference, credentials: &Credentials) -> Result<Digest, SourceError>;
}

#[async_trait]
impl Resolver for Sources {
    async fn resolve(&self, image: &Reference, credentials: &Credentials) -> Result<Digest, SourceError> {
        self.ask_helpers(image, credentials).await;
        self.open(image, credentials)?.resolve(&image.version()).await
    }
}

/// A provisioned volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provisioned {
    /// Its id.
    pub id: VolumeId,
    /// Its `volume_context` for the node.
    pub context: HashMap<String, String>,
}

/// Provisions volumes.
#[derive(Debug)]
pub struct Provisioner {
    resolver: Arc<dyn Resolver>,
    states: States,
    layouts: Layouts,
    claims: Option<(String, Arc<dyn ClaimAnnotations>)>,
    in_progress: InProgress,
    shutdown: CancellationToken,
}

type InProgress = Arc<Mutex<HashSet<VolumeId>>>;

impl Provisioner {
    /// A provisioner that records volumes in `states`.
    pub fn new(resolver: Arc<dyn Resolver>, states: States, layouts: Layouts) -> Self {
        let (in_progress, shutdown) = Default::default();
        Self { resolver, states, layouts, claims: None, in_progress, shutdown }
    }

    /// The same; calls that wait when `shutdown` is cancelled are answered at once.
    #[must_use]
    pub fn until(self, shutdown: CancellationToken) -> Self {
        Self { shutdown, ..self }
    }

    /// Also takes attributes from the annotations `<driver>/<attribute>` of claims.
    #[must_use]
    pub(crate) fn with_claims(self, driver: String, claims: Arc<dyn ClaimAnnotations>) -> Self {
        Self { claims: Some((driver, claims)), ..self }
    }

    /// What the class's parameters, completed by the claim's annotations, want to be shown.
    async fn content(
        &self,
        parameters: &HashMap<String, String>,
        waiting: &Waiting,
    ) -> Result<Content, ProvisionError> {
        let mut all = parameters.clone();
        if let (Some((driver, claims)), Some((namespace, name))) = (&self.claims, claim::of(parameters)) {
            let what = || format!("the annotations of claim {namespace}/{name} from the API server");
            let annotations = self.wait(waiting, what, claims.annotations(namespace, name)).await??;
            all = claim::merged(driver, parameters, &annotations)?;
        }
        match Content::parse(&all) {
            // A claim outlives the pods that write to it.
            Ok((content, _)) if content.upper().is_some() => {
                Err(ProvisionError::Parameters(UpperError::NotInline.into()))
            }
            Ok((content, _)) => Ok(content),
            Err(AttributeError::NoImage) => Err(ProvisionError::NoImage),
            Err(error) => Err(ProvisionError::Parameters(error)),
        }
    }

    /// What a lookup of a call finds, unless the call's time is up or the controller ends before.
    async fn wait<T>(
        &self,
        waiting: &Waiting,
        what: impl FnOnce() -> String,
        lookup: impl Future<Output = T>,
    ) -> Result<T, ProvisionError> {
        tokio::select! {
            found = tokio::time::timeout_at(waiting.deadline, lookup) => {
                found.map_err(|_| ProvisionError::Late { what: what(), after: waiting.patience })
            }
            () = self.shutdown.cancelled() => Err(ProvisionError::Stopping),
        }
    }

    /// Creates the volume `name`, or finds the existing one. Waits at most `patience` for registry and API server; nothing
    /// goes on after the call.
    ///
    /// # Errors
    /// The parameters are malformed or differ from the existing volume's, or the image cannot be resolved (in time).
    pub(crate) async fn create(
        &self,
        name: &str,
        parameters: &HashMap<String, String>,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Provisioned, ProvisionError> {
        let id = id_for(name)?;
        let waiting = Waiting { deadline: Instant::now() + patience, patience };
        // Before the guard, so that a malformed request does not make another call fail as busy.
        let content = self.content(parameters, &waiting).await?;
        let images: Vec<&Reference> = content.images().iter().map(|attributes| &attributes.image).collect();
        images.iter().try_for_each(|image| self.layouts.check(image))?;
        let guard = self.guard(&id, name)?;
        let requested: BTreeMap<_, _> = content.context().into_iter().collect();
        // A retry gets the digest of the first call, even if the tag has moved.
        let wanted = id.clone();
        if let Some(known) = self.on_disk(move |states| states.read(&wanted)).await? {
            // The names can differ where the id is a hash.
            if known.name != name || known.parameters != requested {
                return Err(ProvisionError::Exists(name.to_owned()));
            }
            return Ok(Provisioned { id, context: known.context.into_iter().collect() });
        }
        // One after the other: a claim waits for few images, and their registries for many claims.
        let mut digests = Vec::new();
        for image in images {
            digests.push(match image.digest() {
                Some(digest) => digest,
                None => {
                    let what = || format!("the digest of image {image} from its registry");
                    let found = self.wait(&waiting, what, self.resolver.resolve(image, credentials)).await?;
                    found.map_err(|error| ProvisionError::Source { image: image.to_string(), error })?
                }
            });
        }
        let context = content.pinned(&digests).context();
        let state = State::new(name, requested, context.clone().into_iter().collect());
        // Durable before the answer: the next call must get the same digest. The guard goes along, since a call whose
        // caller has gone ends before its write does.
        let written = id.clone();
        self.on_disk(move |states| {
            let _guard = guard;
            states.write(&written, &state)
        })
        .await?;
        let digests = digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(" ");
        tracing::info!(image.digest = digests, image = %content, "volume created");
        Ok(Provisioned { id, context })
    }

    /// Deletes a volume. Succeeds if it is unknown.
    ///
    /// # Errors
    /// The state cannot be removed, or another call for the volume is running.
    pub(crate) async fn delete(&self, id: &VolumeId) -> Result<(), ProvisionError> {
        let (guard, id) = (self.guard(id, id.as_str())?, id.clone());
        self.on_disk(move |states| {
            let _guard = guard;
            states.remove(&id)
        })
        .await
    }

    /// The `volume_context` of a volume; `None` if the volume is unknown.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(crate) async fn context(
        &self,
        id: &VolumeId,
    ) -> Result<Option<HashMap<String, String>>, ProvisionError> {
        let id = id.clone();
        let state = self.on_disk(move |states| states.read(&id)).await?;
        Ok(state.map(|state| state.context.into_iter().collect()))
    }

    /// Reads or writes states on a blocking thread, to the end even if the call is dropped.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&States) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, ProvisionError> {
        let states = self.states.clone();
        let done = tokio::task::spawn_blocking(move || work(&states)).await;
        done.unwrap_or_else(|ended| Err(StateError::lost(&self.states, &ended)))
            .map_err(ProvisionError::State)
    }

    fn guard(&self, id: &VolumeId, name: &str) -> Result<ProvisionGuard, ProvisionError> {
        if lock(&self.in_progress).insert(id.clone()) {
            Ok(ProvisionGuard { in_progress: Arc::clone(&self.in_progress), id: id.clone() })
        } else {
            Err(ProvisionError::Busy(name.to_owned()))
        }
    }
}

/// How long a call waits for others.
struct Waiting {
    deadline: Instant,
    patience: Duration,
}

/// The exclusive right to create or delete one volume. Released on drop.
struct ProvisionGuard {
    in_progress: InProgress,
    id: VolumeId,
}

impl Drop for ProvisionGuard {
    fn drop(&mut self) {
        lock(&self.in_progress).remove(&self.id);
    }
}

fn lock(in_progress: &InProgress) -> MutexGuard<'_, HashSet<VolumeId>> {
    in_progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of the volume `name`: the name itself if it is short and plain, such as `pvc-<uid>`, else its hash.
fn id_for(name: &str) -> Result<VolumeId, ProvisionError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text = if name.len() <= 128 && name.chars().all(plain) && !name.starts_with("sha256-") {
        name.to_owned()
    } else {
        format!("sha256-{}", Digest::of(name.as_bytes()).hex())
    };
    text.parse().map_err(ProvisionError::Name)
}

#[cfg(test)]
mod tests;
