//! Volumes on this node: published, staged, measured, and recovered after a crash.
//!
//! [`plan`] decides and is pure; [`execute`] observes and carries out plans; [`record`] keeps one file per volume.
//! [`Volumes`] connects them to the images and to the calls (`publish`, `stage`, `teardown`, `ensure_image`), with these
//! rules:
//! * one call per volume at a time ([`guard`]); a second call gets an error that says to try again, but a teardown ends
//!   the waiting of the first;
//! * one blocking closure does all work on the disk and the mount table; it owns the volume's guard and the
//!   image's hold, so that a call whose future is dropped never leaves a mount half made;
//! * a call waits for a pull but does not own it: the pull goes on without the call.
//!
//! This module does not know gRPC.

mod ensure_image;
mod ensure_many;
mod error;
mod execute;
pub mod follow;
pub mod guard;
pub mod levels;
mod map_users;
pub mod metrics;
mod plan;
pub mod pod_events;
pub(crate) mod pod_users;
mod publish;
pub mod record;
mod recover;
pub mod repair;
mod request;
mod stage;
pub(crate) mod statistics;
pub(crate) mod target;
mod teardown;
mod volume_pulls;
pub mod writable;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use error::VolumeError;
pub use map_users::PodDirectories;
pub(crate) use map_users::PodVolumes;
pub(crate) use request::VolumeRequest;
pub(crate) use teardown::unmount_without_records;
pub use volume_pulls::VolumePulls;

use self::execute::Io;
use self::follow::Followed;
use self::guard::{Guards, VolumeGuard};
use self::levels::Levels;
use self::metrics::VolumeMetrics;
use self::plan::{Observed, VolumePlan};
use self::pod_events::PodEvents;
use self::record::Records;
use self::repair::Repairs;
use self::target::TargetPath;
use self::writable::WritableLimit;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::corruption::CorruptImages;
use crate::node::credential_providers::CredentialProviders;
use crate::node::mount::Mounter;
use crate::node::state_directory::StateDirectory;
use crate::oci::platform::Platform;
use crate::pull::Images;
use crate::volume::id::VolumeId;
use crate::volume::layouts::Layouts;

/// The volumes of this node. Clones share one set.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Parts>);

/// What [`Volumes`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Makes images available.
    pub images: Arc<dyn Images>,
    /// Mounts them.
    pub mounter: Arc<dyn Mounter>,
    /// One record per volume.
    pub records: Records,
    /// The kubelet's directory.
    pub kubelet: PathBuf,
    /// The boot that is running (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The integrity levels that this node reaches and demands.
    pub levels: Levels,
    /// What pods may write to volumes.
    pub writable: WritableLimit,
    /// The node's own platform.
    pub platform: Platform,
    /// The directories that volumes may name as images.
    pub layouts: Layouts,
    /// The volumes that calls are working on. Empty at first.
    pub guards: Guards,
    /// Sources of the credentials for a pull.
    pub credential_providers: CredentialProviders,
    /// Events about pulls, for pods.
    pub pod_events: PodEvents,
    /// Where to say which pods have volumes.
    pub pod_directories: PodDirectories,
    /// Pulls of volumes, for their condition. Empty at first.
    pub pulls: VolumePulls,
    /// The volumes that follow a tag. Empty at first.
    pub followed: Followed,
    /// What damaged images are fetched again with. Empty at first.
    pub repairs: Repairs,
    /// Where the records and the store are, and whether they still are.
    pub state: Arc<StateDirectory>,
    /// Cancelled when the plugin is to end: nobody waits for a pull any longer.
    pub shutdown: CancellationToken,
    /// Notified when space may be short: something was pulled, or something did not fit.
    pub housekeeping: Arc<Notify>,
    /// Images with objects that the kernel refuses to read.
    pub corrupt_images: CorruptImages,
    /// The metrics.
    pub metrics: VolumeMetrics,
}

impl Volumes {
    /// Volumes made of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The integrity level that every mount on this node reaches.
    pub(crate) fn integrity(&self) -> Integrity {
        self.0.levels.here
    }

    /// The integrity levels that this node reaches and demands.
    pub(crate) fn levels(&self) -> &Levels {
        &self.0.levels
    }

    /// The number of targets on which a volume is mounted.
    pub(crate) fn published(&self) -> usize {
        self.0.metrics.targets()
    }

    /// The metrics of these volumes.
    pub(crate) fn metrics(&self) -> &VolumeMetrics {
        &self.0.metrics
    }

    /// The metrics of those that follow a tag.
    pub(crate) fn followed(&self) -> &Followed {
        &self.0.followed
    }

    fn guard(&self, volume: &VolumeId) -> Result<VolumeGuard, VolumeError> {
        self.0.guards.take(volume).ok_or_else(|| VolumeError::Busy(volume.clone()))
    }

    /// The outcome of a call, or what is wrong with the state directory if that is why the call failed. Where that has
    /// gone, images and objects seem to be missing that are not.
    async fn blame_state_directory(&self, outcome: Result<(), VolumeError>) -> Result<(), VolumeError> {
        match outcome {
            Err(error) if !matches!(error.kind(), Kind::Busy | Kind::Pending | Kind::Invalid) => {
                self.blocking(|io| Ok(io.state.check()?)).await?;
                Err(error)
            }
            outcome => outcome,
        }
    }

    /// Runs `work` to its end on a blocking thread, even if the caller's future is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Io<'_>) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let (parts, span) = (Arc::clone(&self.0), Span::current());
        let task = tokio::task::spawn_blocking(move || {
            let io = Io {
                records: &parts.records,
                mounter: &*parts.mounter,
                state: &parts.state,
                kubelet: &parts.kubelet,
                boot: &parts.boot,
            };
            span.in_scope(|| work(io))
        });
        task.await.map_err(|error| VolumeError::Lost(error.to_string()))?
    }
}

/// Executes `plan`. Returns whether anything had to be done.
fn execute_plan(
    io: Io<'_>,
    guard: &VolumeGuard,
    target: &TargetPath,
    seen: &Observed,
    plan: VolumePlan,
) -> Result<bool, VolumeError> {
    match plan {
        VolumePlan::Done => Ok(false),
        VolumePlan::Refuse(refusal) => Err(refusal.into()),
        VolumePlan::Run(steps) => {
            io.run(guard, target, seen.record.as_ref(), &steps)?;
            Ok(true)
        }
    }
}

fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
