//! News of a pull for whoever looks at the pod: that it has begun, what it brought, why the image is refused.
//!
//! kubelet repeats every error of a call in an Event of its own. What is told here is what no call says: that a
//! pull goes on, and how it ended; and refusals, under a reason that can be searched for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::VolumeError;
use crate::image::pull::{Progress, Ready};
use crate::kind::Kind;
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

/// What sort of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A pull has begun, and takes a moment.
    Pulling,
    /// It is done.
    Pulled,
    /// The registry does not give the image. A policy's refusal is told by the call alone.
    Refused,
    /// It failed.
    Failed,
}

impl Reason {
    /// As it is shown: kubelet's words for the images of containers. Who reports tells them apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pulling => "Pulling",
            Self::Pulled => "Pulled",
            Self::Refused => "Refused",
            Self::Failed => "Failed",
        }
    }

    /// Whether somebody should do something.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Refused | Self::Failed)
    }
}

/// A piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// What sort.
    pub reason: Reason,
    /// One or two sentences. Without secrets.
    pub text: String,
}

/// Somebody who passes news on. Never blocks.
pub trait Reporter: Send + Sync + fmt::Debug {
    /// Passes on news of a pod.
    fn report(&self, pod: &PodInfo, news: News);
}

/// Follows the pulls that volumes wait for, through as many calls as that takes.
#[derive(Debug, Default)]
pub struct Reports {
    reporter: Option<Arc<dyn Reporter>>,
    waiting: Mutex<HashMap<VolumeId, Waiting>>,
}

#[derive(Debug, Clone)]
struct Waiting {
    since: Instant,
    pull: Arc<Progress>,
}

impl Reports {
    /// Reports to `reporter`.
    pub fn new(reporter: Arc<dyn Reporter>) -> Self {
        Self { reporter: Some(reporter), waiting: Mutex::default() }
    }

    /// Whether anybody listens.
    pub(super) fn wanted(&self) -> bool {
        self.reporter.is_some()
    }

    /// A volume waits for a pull.
    pub(super) fn pulling(&self, volume: &VolumeId, pod: &PodInfo, image: &str, pull: &Arc<Progress>) {
        let waiting = Waiting { since: Instant::now(), pull: Arc::clone(pull) };
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(volume).is_some_and(|before| before.pull.manifest == pull.manifest) {
            return;
        }
        all.insert(volume.clone(), waiting);
        drop(all);
        let megabytes = megabytes(pull.total());
        self.report(
            pod,
            Reason::Pulling,
            format!("pulling image {image} ({megabytes} in {} layers)", pull.layers.len()),
        );
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
        self.report(pod, Reason::Pulled, text);
    }

    /// A volume does not get its image, or not yet.
    pub(super) fn failed(&self, volume: &VolumeId, pod: &PodInfo, error: &VolumeError) {
        let reason = match error.kind() {
            Kind::Pending | Kind::Busy => return,
            Kind::Denied => Reason::Refused,
            _ => Reason::Failed,
        };
        let waited = self.forget(volume).is_some();
        // kubelet tells of a call that failed; of a pull that failed after its call nobody would.
        if waited || reason == Reason::Refused {
            self.report(pod, reason, error.to_string());
        }
    }

    /// A volume is gone.
    pub(super) fn forget_volume(&self, volume: &VolumeId) {
        self.forget(volume);
    }

    fn forget(&self, volume: &VolumeId) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(volume)
    }

    fn report(&self, pod: &PodInfo, reason: Reason, text: String) {
        if let Some(reporter) = &self.reporter {
            reporter.report(pod, News { reason, text });
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
