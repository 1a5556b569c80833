//! Events on pods: that a pull has begun, how far it is, that it is done, why a volume is missing.
//!
//! kubelet reports the errors of calls itself, all with the reason `FailedMount`. The events here add what no call
//! returns: that a pull goes on, and that it is done. They also give failures an [`EventReason`] to search for, so
//! that a policy's refusal can be told apart from a network failure. A request that cannot be parsed has no pod yet,
//! and kubelet does not say for which pod it stages; those two cases get no events here.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::VolumeError;
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::pull::{Progress, Ready, Watch};
use crate::units;
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

mod pace;
mod pull_watcher;
mod reason;

pub(crate) use pull_watcher::PullWatcher;
pub(crate) use reason::EventReason;

use self::pace::{Budget, Pace};

/// Pulls of one volume that are remembered: more than a volume has images.
const PULLS_MAX: usize = 64;

/// An event on a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodEvent {
    /// The reason.
    pub reason: EventReason,
    /// The pod's volume that the event is about.
    pub volume: VolumeId,
    /// One or two sentences. Without secrets.
    pub text: String,
    /// Whether it only brings what was said before up to date. The pace of that is chosen here.
    pub is_update: bool,
}

/// Records events on pods. Never blocks.
pub(crate) trait PodEventRecorder: Send + Sync + fmt::Debug {
    /// Records an event on a pod.
    fn record(&self, pod: &PodInfo, event: PodEvent);
}

/// The events of this node's volumes. Tracks the pulls that volumes wait for across retried calls.
#[derive(Debug, Default)]
pub struct PodEvents {
    recorder: Option<Arc<dyn PodEventRecorder>>,
    /// By volume, and by the manifest of each of its images.
    waiting: Mutex<HashMap<VolumeId, HashMap<Digest, Waiting>>>,
    /// Calls that wait for a pull now.
    watchers: AtomicUsize,
    /// Of updates, for all of them.
    budget: Mutex<Budget>,
}

#[derive(Debug, Clone)]
struct Waiting {
    since: Instant,
    pull: Arc<Progress>,
    pace: Pace,
}

impl PodEvents {
    /// Events that go to `recorder`.
    pub(crate) fn new(recorder: Arc<dyn PodEventRecorder>) -> Self {
        Self { recorder: Some(recorder), ..Self::default() }
    }

    /// Whether events go anywhere.
    pub(super) fn is_enabled(&self) -> bool {
        self.recorder.is_some()
    }

    /// Watches the pull that a call waits for.
    pub(super) fn watch_pull<'a>(
        &'a self,
        volume: &'a VolumeId,
        pod: &'a PodInfo,
        image: &'a str,
        watch: &'a Watch,
    ) -> PullWatcher<'a> {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        PullWatcher { pod_events: self, volume, pod, image, watch, reported_until: None }
    }

    /// Records that a volume waits for a pull, once per pull, and now and then how far the pull is.
    fn pull_goes_on(
        &self,
        volume: &VolumeId,
        pod: &PodInfo,
        image: &str,
        pull: &Arc<Progress>,
        now: Instant,
    ) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // A retried call joins the same pull; its event is recorded already.
        let (text, is_update) = match all.get_mut(volume).and_then(|pulls| pulls.get_mut(&pull.manifest)) {
            Some(waiting) => {
                let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
                if !waiting.pace.tells(now, self.watchers.load(Ordering::Relaxed), &mut budget) {
                    return;
                }
                // The same pull may have been joined anew, with other counters.
                waiting.pull = Arc::clone(pull);
                (pulling(image, pull, Some(now.saturating_duration_since(waiting.since))), true)
            }
            None => {
                let waiting = Waiting { since: now, pull: Arc::clone(pull), pace: Pace::new(now) };
                let pulls = all.entry(volume.clone()).or_default();
                // A tag may move at every retry.
                if pulls.len() >= PULLS_MAX {
                    pulls.clear();
                }
                pulls.insert(pull.manifest, waiting);
                (pulling(image, pull, None), false)
            }
        };
        drop(all);
        self.send(pod, PodEvent { reason: EventReason::Pulling, volume: volume.clone(), text, is_update });
    }

    /// Records that a volume has its image. `pull` is the pull that this call waited for, if any.
    pub(super) fn image_ready(
        &self,
        volume: &VolumeId,
        pod: &PodInfo,
        image: &str,
        ready: &Ready,
        pull: Option<(&Arc<Progress>, Duration)>,
    ) {
        // The wait began with the first call that saw the pull, if there were several.
        let before = self.forget_pull(volume, &ready.record.manifest);
        let before = before.map(|waiting| (waiting.since.elapsed(), waiting.pull));
        let Some((waited, pull)) = before.or_else(|| pull.map(|(pull, waited)| (waited, Arc::clone(pull))))
        else {
            // The image was here already: no event.
            return;
        };
        // What the manifest says, and no more: what was here already is another tenant's, or may be.
        let text = format!(
            "pulled image {image} in {:.1} s ({} in {} layers, {} of files)",
            waited.as_secs_f64(),
            megabytes(pull.total()),
            pull.layers.len(),
            megabytes(ready.record.bytes),
        );
        self.record(pod, volume, EventReason::Pulled, text);
    }

    /// Records why a publish failed, unless its pull goes on.
    pub(super) fn publish_failed(&self, volume: &VolumeId, pod: &PodInfo, image: &str, error: &VolumeError) {
        let Some(reason) = EventReason::of(error) else { return };
        self.forget(volume);
        let text = match (error, error.cause()) {
            (_, VolumeError::Pull(pull)) => match reason::rate_limit(pull) {
                Some(limit) => format!("{error}{}", next_try(limit)),
                None => error.to_string(),
            },
            (VolumeError::Member { .. }, _) => error.to_string(),
            _ => format!("image {image}: {error}"),
        };
        self.record(pod, volume, reason, text);
    }

    /// Records that a volume which follows a tag shows another image.
    pub(super) fn switched(
        &self,
        volume: &VolumeId,
        pod: &PodInfo,
        image: &str,
        (new, old): (&Digest, &Digest),
    ) {
        let text = format!("the volume shows {new} now, which {image} names, instead of {old}");
        // The last one is the one that holds.
        self.send(
            pod,
            PodEvent { reason: EventReason::Switched, volume: volume.clone(), text, is_update: true },
        );
    }

    /// Records why a volume which follows a tag goes on showing the old image, unless the pull goes on.
    pub(super) fn not_switched(&self, volume: &VolumeId, pod: &PodInfo, image: &str, error: &VolumeError) {
        let Some(reason) = EventReason::of(error) else { return };
        self.forget(volume);
        let text = format!("the volume goes on showing what it shows, and does not follow {image}: {error}");
        self.record(pod, volume, reason, text);
    }

    /// Records that what a volume shows is damaged and could not be fetched again.
    pub(super) fn damaged(&self, volume: &VolumeId, pod: &PodInfo, error: &VolumeError) {
        let text = format!("the volume goes on showing what is whole of its image: {error}");
        self.record(pod, volume, EventReason::Damaged, text);
    }

    /// Forgets the pull of a volume that was unpublished.
    pub(super) fn forget_volume(&self, volume: &VolumeId) {
        self.forget(volume);
    }

    fn forget(&self, volume: &VolumeId) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(volume);
    }

    fn forget_pull(&self, volume: &VolumeId, manifest: &Digest) -> Option<Waiting> {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pulls = all.get_mut(volume)?;
        let waiting = pulls.remove(manifest);
        if pulls.is_empty() {
            all.remove(volume);
        }
        waiting
    }

    fn record(&self, pod: &PodInfo, volume: &VolumeId, reason: EventReason, text: String) {
        self.send(pod, PodEvent { reason, volume: volume.clone(), text, is_update: false });
    }

    fn send(&self, pod: &PodInfo, event: PodEvent) {
        if let Some(recorder) = &self.recorder {
            recorder.record(pod, event);
        }
    }
}

/// What is said of a pull for which a pod has waited so long. Where none of its bytes are to be seen, nothing is said of
/// bytes: it may be another tenant's, or have just begun, and both look alike.
fn pulling(image: &str, pull: &Progress, waited: Option<Duration>) -> String {
    let what = format!("pulling image {image} ({} in {} layers)", megabytes(pull.total()), pull.layers.len());
    let Some(waited) = waited else { return what };
    let waited = format!("waiting for {}", units::time(waited));
    match pull.phase().after_fetching() {
        Some(doing) => format!("{what}: all layers are here, {doing}; {waited}"),
        None if pull.done() == 0 => format!("{what}; {waited}"),
        None => format!("{what}: {} here{}; {waited}", megabytes(pull.done()), pull.pace()),
    }
}

/// When the next attempt comes, if the registry has not said so itself: kubelet's backoff grows to two minutes.
fn next_try(limit: &SourceError) -> &'static str {
    match limit.retry_after() {
        Some(_) => "",
        None => "; the next try comes within two minutes",
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
