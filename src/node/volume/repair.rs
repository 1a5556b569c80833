//! Fetching damaged images again in the background, by the rights of volumes that show them.
//!
//! What it takes to ask a registry, the pod and its credentials, is what kubelet gave with the last publish of a volume. It
//! is in memory only. After a restart of the plugin an image is asked for with what the node itself may have, until a volume
//! is published that shows it. Nothing is shown to anybody here: the image is fetched, checked by its digests, and its objects
//! are replaced under the mounts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::VolumeRecord;
use super::request::VolumeRequest;
use super::{VolumeError, Volumes};
use crate::kind::Kind;
use crate::metrics::{Counters, Description, Family, Instruments, Outcome};
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::pull::{Caller, ImageRequest, PullPolicy, Watch};
use crate::volume::attributes::Attributes;
use crate::volume::id::VolumeId;

const REPAIRS: Description = Description::new(
    "repairs_total",
    "Attempts of the plugin to fetch an image again that volumes show and that is damaged, by how they ended",
);
/// How long one attempt is waited for. Its pull goes on, and the next attempt joins it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What repairs are made with. Empty at first.
#[derive(Debug)]
pub struct Repairs {
    requests: Mutex<HashMap<VolumeId, Arc<VolumeRequest>>>,
    outcomes: Counters<Outcome>,
}

/// What has become of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// No volume shows the image: whoever wants it next fetches it.
    NotShown,
    /// The image is whole again.
    Repaired,
    /// It is not yet.
    Failed(VolumeError),
}

impl Default for Repairs {
    fn default() -> Self {
        Self { requests: Mutex::default(), outcomes: Counters::new(REPAIRS) }
    }
}

impl Instruments for Repairs {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.outcomes]
    }
}

impl Repairs {
    /// A volume was published with this.
    pub(super) fn remember(&self, request: &VolumeRequest) {
        let request = Arc::new(VolumeRequest { wait: PATIENCE, ..request.clone() });
        self.requests().insert(request.volume.clone(), request);
    }

    /// A volume is gone.
    pub(super) fn forget(&self, volume: &VolumeId) {
        self.requests().remove(volume);
    }

    fn of(&self, volume: &str) -> Option<Arc<VolumeRequest>> {
        let requests = self.requests();
        requests.iter().find(|(id, _)| id.as_str() == volume).map(|(_, request)| Arc::clone(request))
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<VolumeId, Arc<VolumeRequest>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volumes {
    /// The metrics of repairs.
    pub(crate) fn repairs(&self) -> &Repairs {
        &self.0.repairs
    }

    /// Fetches the image with this key again, on behalf of one after the other of the volumes that show it.
    pub(crate) async fn repair(&self, image: &Digest) -> Attempt {
        let attempt = self.repair_now(image).await;
        match &attempt {
            Attempt::NotShown => {}
            Attempt::Repaired => self.0.repairs.outcomes.add(Outcome::Ok, 1),
            Attempt::Failed(error) => self.0.repairs.outcomes.add(Outcome::Failed(error.kind()), 1),
        }
        attempt
    }

    async fn repair_now(&self, image: &Digest) -> Attempt {
        let shows = *image;
        let listed = self.blocking(move |io| {
            let records = io.records.all()?.into_iter().filter_map(|(_, record)| record.ok());
            Ok(records.filter(|record| is_shown(record, &shows)).collect::<Vec<_>>())
        });
        let records = match listed.await {
            Ok(records) => records,
            Err(error) => return Attempt::Failed(error),
        };
        let mut failed: Option<VolumeError> = None;
        let mut asked_as_node = false;
        for record in records {
            let error = match self.0.repairs.of(&record.volume_id) {
                Some(request) => match self.fetch_again(&request, &record).await {
                    Ok(()) => return Attempt::Repaired,
                    Err(error) => {
                        if error.kind() != Kind::Pending {
                            self.0.pod_events.damaged(&request.volume, &request.identity.pod, &error);
                        }
                        error
                    }
                },
                // All of these would ask the same.
                None if asked_as_node => continue,
                None => {
                    asked_as_node = true;
                    match self.fetch_again_as_node(&record, image).await {
                        Ok(true) => return Attempt::Repaired,
                        Ok(false) => continue,
                        Err(error) => error,
                    }
                }
            };
            failed.get_or_insert(error);
        }
        failed.map_or(Attempt::NotShown, Attempt::Failed)
    }

    async fn fetch_again(&self, request: &VolumeRequest, record: &VolumeRecord) -> Result<(), VolumeError> {
        let caller = Caller::Pod { namespace: request.identity.pod.namespace() };
        let pinned = record.pinned();
        let digests: Vec<Digest> = match pinned.members.is_empty() {
            true => vec![pinned.manifest],
            false => pinned.members.iter().map(|member| member.manifest).collect(),
        };
        // The tag may have gone or moved on. What a layout has is found by its tag.
        let is_remote = |image: &&Attributes| !matches!(image.image, Reference::Layout(_));
        let content = match request.content.images().iter().all(is_remote) {
            true => request.content.pinned(&digests),
            false => request.content.clone(),
        };
        let request = VolumeRequest { content, ..request.clone() };
        self.ensure_content(&request, caller, Some(pinned)).await.map(drop)
    }

    /// The same of a volume of which nothing is known but its record. Returns whether the record was enough.
    async fn fetch_again_as_node(&self, record: &VolumeRecord, image: &Digest) -> Result<bool, VolumeError> {
        let (true, Ok(reference)) = (record.image == *image, record.request.image.parse::<Reference>())
        else {
            // One of several images, which only kubelet's request tells apart.
            return Ok(false);
        };
        let platform = record.request.platform.as_deref().and_then(|platform| platform.parse().ok());
        let manifest = record.pinned().manifest;
        let request = ImageRequest {
            reference: match reference {
                remote @ Reference::Registry(_) => remote.pinned(manifest),
                layout @ Reference::Layout(_) => layout,
            },
            choice: record.request.choice.clone(),
            policy: PullPolicy::IfNotPresent,
            platform: platform.unwrap_or_else(|| self.0.platform.clone()),
            // Nobody is shown anything, so there is no pod to judge.
            caller: Caller::Staging,
            pinned: Some(manifest),
            noexec: false,
            credentials: Credentials::none(),
            watch: Watch::default(),
        };
        let fetched = tokio::time::timeout(PATIENCE, self.0.images.ensure(&request)).await;
        match fetched {
            Ok(ensured) => Ok(ensured.map(|_| true)?),
            Err(_) => Err(VolumeError::Pulling {
                image: request.reference.to_string(),
                progress: "it is damaged, and fetched again".to_owned(),
            }),
        }
    }
}

fn is_shown(record: &VolumeRecord, image: &Digest) -> bool {
    record.image == *image || record.members.iter().any(|member| member.image == *image)
}
