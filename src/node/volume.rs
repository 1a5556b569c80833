//! Volumes on this node: published, staged, measured, put in order again after a crash.
//!
//! Decisions are [`plan`]'s, pure; [`execute`] looks and carries out; [`record`] keeps one file per volume.
//! [`Volumes`] ties them to the images and to the calls (`publish`, `stage`, `bring`), with these rules:
//! * one call per volume at a time ([`guard`]); a second is told to try again;
//! * what touches the disk or the mount table is one blocking closure that owns the volume's guard and the
//!   image's lease, so that a call whose future is dropped never leaves a mount half made;
//! * a pull is waited for, never owned: it goes on without the call.
//!
//! Nothing here knows of gRPC.

mod ensure_image;
pub mod error;
pub mod execute;
pub mod guard;
pub mod levels;
pub mod metrics;
pub mod plan;
pub mod pod_events;
mod publish;
pub mod record;
pub mod recover;
mod request;
mod stage;
pub mod statistics;
pub mod target;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tracing::Span;

pub use error::VolumeError;
pub use request::VolumeRequest;

use self::execute::Io;
use self::guard::{Guards, VolumeGuard};
use self::levels::Levels;
use self::metrics::VolumeMetrics;
use self::plan::{Plan, Seen};
use self::pod_events::PodEvents;
use self::record::Records;
use self::target::TargetPath;
use crate::image::pull::Images;
use crate::integrity::Integrity;
use crate::node::corruption::Damages;
use crate::node::credential_providers::CredentialProviders;
use crate::node::mount::Mounter;
use crate::oci::platform::Platform;
use crate::volume::id::VolumeId;
use crate::volume::layouts::Layouts;

/// The volumes of this node. Clones share them.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Parts>);

/// What the volumes stand on.
#[derive(Debug)]
pub struct Parts {
    /// Who makes images available.
    pub images: Arc<dyn Images>,
    /// Who mounts them.
    pub mounter: Arc<dyn Mounter>,
    /// Where volumes are recorded.
    pub records: Records,
    /// The boot that is running (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// How far the bytes that pods read are checked on this node.
    pub levels: Levels,
    /// The node's own platform.
    pub platform: Platform,
    /// Which directories volumes may name as images.
    pub layouts: Layouts,
    /// Who works on what. Empty at first.
    pub guards: Guards,
    /// Whose credentials a pull shows.
    pub credential_providers: CredentialProviders,
    /// Who is told of pulls.
    pub pod_events: PodEvents,
    /// Told when room may be short: something was pulled, or something did not fit.
    pub housekeeping: Arc<Notify>,
    /// Images that the kernel refuses to readers in part.
    pub damages: Damages,
    /// What is counted.
    pub metrics: VolumeMetrics,
}

impl Volumes {
    /// The volumes that stand on these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// How far the bytes that pods read here are checked.
    pub fn integrity(&self) -> Integrity {
        self.0.levels.here
    }

    /// What is counted of these volumes.
    pub fn metrics(&self) -> &VolumeMetrics {
        &self.0.metrics
    }

    fn guard(&self, volume: &VolumeId) -> Result<VolumeGuard, VolumeError> {
        self.0.guards.take(volume).ok_or_else(|| VolumeError::Busy(volume.clone()))
    }

    /// Runs `work` to its end on a thread of its own, whether or not anybody waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Io<'_>) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let (parts, span) = (Arc::clone(&self.0), Span::current());
        let task = tokio::task::spawn_blocking(move || {
            let io = Io { records: &parts.records, mounter: &*parts.mounter, boot: &parts.boot };
            span.in_scope(|| work(io))
        });
        task.await.map_err(|error| VolumeError::Lost(error.to_string()))?
    }
}

/// Whether anything had to be done.
fn carry_out(
    io: Io<'_>,
    guard: &VolumeGuard,
    target: &TargetPath,
    seen: &Seen,
    plan: Plan,
) -> Result<bool, VolumeError> {
    match plan {
        Plan::Done => Ok(false),
        Plan::Refuse(refusal) => Err(refusal.into()),
        Plan::Run(steps) => {
            io.run(guard, target, seen.record.as_ref(), &steps)?;
            Ok(true)
        }
    }
}

fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
