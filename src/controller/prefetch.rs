//! Prefetching in the controller: it lets nodes begin in waves, and sums up what they report.
//!
//! It tells no node anything: each status is one write, at most once in ten seconds, made from what watches have shown. Any
//! number of controllers may do this at the same time: they come to the same status, a write is refused where another one was
//! faster, and the next look takes that into account. So there is no leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::prefetch::Change;
use crate::prefetch::report::NodeReport;
use crate::prefetch::status::PrefetchStatus;
use crate::prefetch::wish::Prefetch;

mod fleet;

use fleet::{Due, Fleet};

/// How often what depends on the time alone is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// A node's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// What watches show.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Of prefetches.
    Prefetches(Change),
    /// All nodes.
    Nodes(Vec<(String, Labels)>),
    /// One node is new or has changed, or has gone.
    Node(String, Option<Labels>),
    /// All reports, by their nodes' names.
    Reports(Vec<(String, NodeReport)>),
    /// One report is new or has changed, or has gone.
    Report(String, Option<NodeReport>),
}

impl From<Change> for Seen {
    fn from(change: Change) -> Self {
        Self::Prefetches(change)
    }
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// The object has this version now.
    As(String),
    /// The object has changed since it was seen, or has gone; nothing was written.
    Outdated,
}

/// Writes statuses.
#[async_trait]
pub(crate) trait PrefetchStatuses: Send + Sync {
    /// Writes the status of a prefetch, if that is still as it was seen.
    async fn write(&self, prefetch: &Prefetch, status: &PrefetchStatus) -> Result<Written, String>;

    /// Deletes a prefetch, if it is still as it was seen.
    async fn delete(&self, prefetch: &Prefetch) -> Result<(), String>;
}

/// Keeps the statuses of all prefetches until the shutdown.
pub(crate) async fn run(
    statuses: Arc<dyn PrefetchStatuses>,
    mut seen: mpsc::Receiver<Seen>,
    shutdown: CancellationToken,
) {
    let mut fleet = Fleet::default();
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        if now.duration_since(looked) >= LOOK {
            fleet.look_at_all();
            looked = now;
        }
        let stamp = jiff::Timestamp::now();
        while let Some(due) = fleet.due(Instant::now(), stamp) {
            let failed = match &due {
                Due::Write(prefetch, status) => match statuses.write(prefetch, status).await {
                    Ok(written) => {
                        fleet.wrote(&prefetch.uid, status, written, Instant::now());
                        None
                    }
                    Err(why) => Some((prefetch, why)),
                },
                Due::Delete(prefetch) => match statuses.delete(prefetch).await {
                    Ok(()) => {
                        tracing::info!(
                            prefetch = format!("{}/{}", prefetch.namespace, prefetch.name),
                            "a complete prefetch was deleted, as its ttlSecondsAfterFinished says"
                        );
                        fleet.waits(&prefetch.uid, Instant::now(), true);
                        None
                    }
                    Err(why) => Some((prefetch, why)),
                },
            };
            if let Some((prefetch, why)) = failed {
                tracing::warn!("{why}");
                fleet.waits(&prefetch.uid, Instant::now(), false);
            }
        }
        let wake = fleet.next_due().unwrap_or(looked + LOOK).min(looked + LOOK);
        tokio::select! {
            () = shutdown.cancelled() => return,
            next = seen.recv() => match next {
                Some(next) => {
                    fleet.apply(next, Instant::now());
                    while let Ok(next) = seen.try_recv() {
                        fleet.apply(next, Instant::now());
                    }
                }
                // Nobody watches any more; an early return would look like a failed task.
                None => return shutdown.cancelled().await,
            },
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
}
