//! Volumes of pods with a user namespace: shown with the owners that the pod should see.
//!
//! A volume is published before kubelet chooses the pod's users ([`pod_users`]). From then on somebody watches the pod's
//! directory ([`PodDirectories`]), and the volume is mapped as soon as the users are there: between kubelet's writing them and
//! the first container lie the sandbox and its network. A container that is faster cannot start yet, sees nothing with
//! wrong owners, and kubelet tries again. Whatever was missed is found at the start, and by each recovery.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::execute::{Io, StepError};
use super::guard::VolumeGuard;
use super::metrics::VolumeMetrics;
use super::pod_users;
use super::record::{PublishedTarget, VolumeRecord};
use super::target::TargetPath;
use super::writable::WritableRefusal;
use super::{VolumeError, Volumes};
use crate::node::mount::{IdRange, MountSpec};
use crate::volume::id::VolumeId;

/// Directories of pods that wait to be watched.
const QUEUE: usize = 1024;
/// How often to try again while another call works on the volume, and for how long. Then it counts as wrong.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_TRIES: usize = 1200;

/// Where to say which pods have volumes, so that their directories are watched.
#[derive(Debug, Clone, Default)]
pub struct PodDirectories(Option<mpsc::Sender<PathBuf>>);

impl PodDirectories {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<PathBuf>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self(Some(sender)), queue)
    }

    /// Asks for a directory to be watched. Never blocks; a full queue leaves it to the next recovery.
    pub(super) fn watch(&self, kubelet: &Path, target: &Path) {
        let pod = TargetPath::recorded(target).pod_directory(kubelet);
        if let (Some(sender), Some(pod)) = (&self.0, pod) {
            let _ = sender.try_send(pod);
        }
    }
}

/// What was found of a pod's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodVolumes {
    /// It has none, or none any more.
    None,
    /// They are as they should be.
    Right,
    /// One could not be mapped, or another call has it.
    Wrong,
}

impl Volumes {
    /// Maps the volumes of the pod with this directory, if it has users of its own.
    pub(crate) async fn map_users(&self, pod: &Path) -> PodVolumes {
        let volumes = self.0.records.claimants_below(pod);
        if volumes.is_empty() {
            return PodVolumes::None;
        }
        // Without the guards: calls for the volumes of all other pods must not meet this.
        let file = pod.to_owned();
        let has_users = self.blocking(move |_| Ok(pod_users::read(&file)));
        if matches!(has_users.await, Ok(Ok(None))) {
            return PodVolumes::Right;
        }
        let mut found = PodVolumes::Right;
        for volume in volumes {
            if !self.map_users_of(volume, pod.to_owned()).await {
                found = PodVolumes::Wrong;
            }
        }
        found
    }

    /// Returns whether the volume is as it should be.
    async fn map_users_of(&self, volume: VolumeId, pod: PathBuf) -> bool {
        let mut tries = 0;
        let guard = loop {
            match self.0.guards.take(&volume) {
                Some(guard) => break guard,
                None if tries == BUSY_TRIES => return false,
                None => tries += 1,
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        };
        let metrics = self.0.metrics.clone();
        let mapped = self.blocking(move |io| {
            let Some(record) = io.records.read(guard.volume())? else { return Ok(true) };
            let mut right = true;
            for target in record.targets.iter().filter(|target| target.path.starts_with(&pod)) {
                let mapped = io.users_of(&target.path).and_then(|users| match users {
                    Some(users) => io.map_target(&record, target, users),
                    None => Ok(false),
                });
                right &= mapped.is_ok();
                let is_new = metrics.mapped(&target.path, mapped.as_ref().ok().copied());
                // Said once, however often it is tried.
                if let (Err(error), true) = (mapped, is_new) {
                    tracing::warn!(
                        volume.id = record.volume_id, target_path = %target.path.display(),
                        "containers of this pod with a user namespace cannot have their volume: {error}"
                    );
                }
            }
            Ok(right)
        });
        mapped.await.unwrap_or_else(|error| {
            tracing::warn!("a pod's volume cannot be looked at: {error}");
            false
        })
    }

    /// The same for one target, by a publish, which has the volume's guard.
    ///
    /// # Errors
    /// It cannot be mapped: no container of the pod could have the volume.
    pub(super) async fn map_published(
        &self,
        guard: VolumeGuard,
        target: TargetPath,
    ) -> Result<(), VolumeError> {
        let metrics = self.0.metrics.clone();
        self.blocking(move |io| io.map_published(&guard, &target, &metrics)).await
    }
}

impl Io<'_> {
    /// Maps what was published on `target`, if its pod has users of its own by now.
    ///
    /// # Errors
    /// It cannot be mapped: no container of the pod could have the volume.
    pub(super) fn map_published(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        metrics: &VolumeMetrics,
    ) -> Result<(), VolumeError> {
        let mapped = match self.users_of(target.path()) {
            // All pods but those with a user namespace, and those at first.
            Ok(None) => return Ok(()),
            Ok(Some(users)) => {
                let record = self.records.read(guard.volume())?;
                let found = record.as_ref().and_then(|record| Some((record, record.target(target.path())?)));
                found.map_or(Ok(false), |(record, published)| self.map_target(record, published, users))
            }
            Err(error) => Err(error),
        };
        metrics.mapped(target.path(), mapped.as_ref().ok().copied());
        Ok(mapped.map(drop)?)
    }

    /// The users of the pod that has this target, if they are not the node's.
    fn users_of(&self, target: &Path) -> Result<Option<IdRange>, StepError> {
        let pod = TargetPath::recorded(target).pod_directory(self.kubelet);
        Ok(pod.map_or(Ok(None), |pod| pod_users::read(&pod))?)
    }

    /// Returns whether there is a volume, and it is for these users.
    fn map_target(
        &self,
        record: &VolumeRecord,
        target: &PublishedTarget,
        users: IdRange,
    ) -> Result<bool, StepError> {
        // Of an earlier boot, nothing is mounted; the publish will come.
        if record.boot != self.boot || self.mounter.mounted(&target.path)?.is_none() {
            return Ok(false);
        }
        if record.request.upper.is_some() {
            // What idmaps, a top with mounts of the image in it, cannot be written to at its root.
            return Err(WritableRefusal::Users.into());
        }
        let (image, path) = (record.composefs, record.request.path.clone());
        let spec = MountSpec { image, path, noexec: target.noexec, upper: None };
        if self.mounter.map(&spec, target.least, users, &target.path)? {
            tracing::info!(
                volume.id = record.volume_id, target_path = %target.path.display(),
                first = users.first, ids = users.length,
                "the volume is for the users of its pod's user namespace"
            );
        }
        Ok(true)
    }
}
