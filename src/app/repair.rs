//! Repairing in the background: what scrubbing, the kernel or a command has found damaged, and volumes show, is fetched again
//! at once, and after failures later and later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cluster::events::Events;
use crate::image::store::{DamageMark, Store};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::node::volume::Volumes;
use crate::node::volume::repair::Attempt;
use crate::oci::digest::Digest;
use crate::text;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What repairs work on.
pub struct Repairer {
    /// The store with the marks.
    pub store: Arc<Store>,
    /// What shows damaged images, with the rights to fetch them.
    pub volumes: Volumes,
    /// Where the node hears of damage that stays.
    pub node_events: Option<Arc<Events>>,
    /// Examines again what was repaired.
    pub suspects: mpsc::Sender<VerityDigest>,
}

/// One image's attempts.
#[derive(Debug, Clone, Copy)]
struct Tried {
    failures: u32,
    due: Instant,
}

impl Tried {
    fn failed(before: Option<Self>, now: Instant) -> Self {
        let failures = before.map_or(0, |before| before.failures);
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
        Self { failures: failures.saturating_add(1), due: now + pause }
    }
}

/// Repairs whenever `wanted` says that something may be damaged, until the shutdown.
///
/// # Errors
/// The work panicked.
pub async fn keep(
    repairer: Repairer,
    wanted: Arc<Notify>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut tried: BTreeMap<Digest, Tried> = BTreeMap::new();
    loop {
        let marks = repairer.marks().await?;
        let images: BTreeSet<Digest> = marks.iter().flat_map(|mark| mark.images.iter().copied()).collect();
        tried.retain(|image, _| images.contains(image));
        for image in images {
            if tried.get(&image).is_some_and(|tried| tried.due > Instant::now()) {
                continue;
            }
            // Another image may have brought what it lacked.
            let marks = repairer.marks().await?;
            if !marks.iter().any(|mark| mark.images.contains(&image)) {
                continue;
            }
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                attempt = repairer.volumes.repair(&image) => attempt,
            };
            if repairer.has_failed(&image, &marks, attempt).await {
                let now = Tried::failed(tried.get(&image).copied(), Instant::now());
                tried.insert(image, now);
            } else {
                tried.remove(&image);
            }
        }
        let due = tried.values().map(|tried| tried.due).min();
        let time_comes = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = wanted.notified() => {}
            () = time_comes => {}
        }
    }
}

impl Repairer {
    async fn marks(&self) -> anyhow::Result<Vec<DamageMark>> {
        let store = Arc::clone(&self.store);
        let marks = tokio::task::spawn_blocking(move || store.damaged()).await?;
        Ok(marks.unwrap_or_else(|error| {
            // The next finding, or the next look of who examines, comes back here.
            tracing::warn!(%error, "damaged objects cannot be listed");
            Vec::new()
        }))
    }

    /// Says what has become of an attempt, and whether it is to be made again.
    async fn has_failed(&self, image: &Digest, marks: &[DamageMark], attempt: Attempt) -> bool {
        let objects = || marks.iter().filter(|mark| mark.images.contains(image)).map(|mark| mark.object);
        match attempt {
            Attempt::NotShown => false,
            Attempt::Repaired => {
                tracing::info!(image.digest = %image, "a damaged image was fetched again");
                for object in objects() {
                    // Only the end of the process closes it.
                    let _ = self.suspects.send(object).await;
                }
                false
            }
            Attempt::Failed(error) if matches!(error.kind(), Kind::Pending | Kind::Busy) => true,
            Attempt::Failed(error) => {
                let error = text::one_line(&error.to_string());
                tracing::error!(
                    image.digest = %image,
                    "a damaged image is not whole yet: {error}"
                );
                if let (Some(events), Some(object)) = (&self.node_events, objects().next()) {
                    let text = format!(
                        "object {object} of the store is damaged, and its image could not be fetched again; \
                         `composefs-csi store repair` in the plugin's container says why"
                    );
                    events.record_on_node("ImageDamaged", true, text);
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        let now = Instant::now();
        let mut tried = None;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let next = Tried::failed(tried, now);
            pauses.push((next.due - now).as_secs());
            tried = Some(next);
        }
        assert_eq!(pauses[..3], [15, 30, 60]);
        assert_eq!(pauses[39], 3600);
    }
}
