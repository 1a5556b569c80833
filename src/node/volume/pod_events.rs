//! PodEvent of a pull for whoever looks at the pod: that it has begun, what it brought, why there is no volume.
//!
//! kubelet repeats every error of a call, all of them as `FailedMount`. What is told here is what no call says, that
//! a pull goes on and what it brought; and failures under a [`Reason`] that can be searched for, so that a policy's
//! no is told apart from a network that is down. A request that cannot be read has no pod yet: that is kubelet's alone,
//! and so is staging, of which kubelet does not say for whom.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::VolumeError;
use crate::image::pull::{Progress, Ready, Watch};
use crate::oci::SourceError;
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

mod follow;
mod reason;

pub use follow::Follower;
pub use reason::Reason;

/// A piece of event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// What sort.
    pub reason: Reason,
    /// Of which of the pod's volumes.
    pub volume: VolumeId,
    /// One or two sentences. Without secrets.
    pub text: String,
}

/// Somebody who passes event on. Never blocks.
pub trait Reporter: Send + Sync + fmt::Debug {
    /// Passes on event of a pod.
    fn report(&self, pod: &PodInfo, event: PodEvent);
}

/// Follows the pulls that volumes wait for, through as many calls as that takes.
#[derive(Debug, Default)]
pub struct PodEvents {
    reporter: Option<Arc<dyn Reporter>>,
    waiting: Mutex<HashMap<VolumeId, Waiting>>,
}

#[derive(Debug, Clone)]
struct Waiting {
    since: Instant,
    pull: Arc<Progress>,
}

impl PodEvents {
    /// PodEvents to `reporter`.
    pub fn new(reporter: Arc<dyn Reporter>) -> Self {
        Self { reporter: Some(reporter), waiting: Mutex::default() }
    }

    /// Whether anybody listens.
    pub(super) fn wanted(&self) -> bool {
        self.reporter.is_some()
    }

    /// Follows what the call of a pod waits for.
    pub(super) fn follow<'a>(
        &'a self,
        volume: &'a VolumeId,
        pod: &'a PodInfo,
        image: &'a str,
        watch: &'a Watch,
    ) -> Follower<'a> {
        Follower { pod_events: self, volume, pod, image, watch, told: None }
    }

    /// A volume waits for a pull.
    fn pulling(&self, volume: &VolumeId, pod: &PodInfo, image: &str, pull: &Arc<Progress>) {
        let waiting = Waiting { since: Instant::now(), pull: Arc::clone(pull) };
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(volume).is_some_and(|before| before.pull.manifest == pull.manifest) {
            return;
        }
        all.insert(volume.clone(), waiting);
        drop(all);
        let megabytes = megabytes(pull.total());
        let text = format!("pulling image {image} ({megabytes} in {} layers)", pull.layers.len());
        self.report(pod, volume, Reason::Pulling, text);
    }

    /// A volume has its image; `pull` is the one that it waited for in this call, if it did.
    pub(super) fn ready(
        &self,
        volume: &VolumeId,
        pod: &PodInfo,
        image: &str,
        ready: &Ready,
        pull: Option<(&Arc<Progress>, Duration)>,
    ) {
        let before = self.forget(volume).map(|waiting| (waiting.since.elapsed(), waiting.pull));
        let Some((waited, pull)) = before.or_else(|| pull.map(|(pull, waited)| (waited, Arc::clone(pull))))
        else {
            return;
        };
        let text = format!(
            "pulled image {image} in {:.1} s: {} fetched, {} saved by sharing with other images; {} of files",
            waited.as_secs_f64(),
            megabytes(pull.fetched()),
            megabytes(pull.saved()),
            megabytes(ready.record.bytes),
        );
        self.report(pod, volume, Reason::Pulled, text);
    }

    /// A volume does not get its image, or not yet.
    pub(super) fn failed(&self, volume: &VolumeId, pod: &PodInfo, image: &str, error: &VolumeError) {
        let Some(reason) = Reason::of(error) else { return };
        self.forget(volume);
        let text = match error {
            VolumeError::Pull(pull) => match reason::rate_limit(pull) {
                Some(limit) => format!("{pull}{}", next_try(limit)),
                None => pull.to_string(),
            },
            error => format!("image {image}: {error}"),
        };
        self.report(pod, volume, reason, text);
    }

    /// A volume is gone.
    pub(super) fn forget_volume(&self, volume: &VolumeId) {
        self.forget(volume);
    }

    fn forget(&self, volume: &VolumeId) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(volume)
    }

    fn report(&self, pod: &PodInfo, volume: &VolumeId, reason: Reason, text: String) {
        if let Some(reporter) = &self.reporter {
            reporter.report(pod, PodEvent { reason, volume: volume.clone(), text });
        }
    }
}

/// When the registry is asked again, where it has not said so itself: kubelet's pauses grow to two minutes.
fn next_try(limit: &SourceError) -> &'static str {
    match limit.retry_after() {
        Some(_) => "",
        None => "; the next try comes within two minutes",
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
