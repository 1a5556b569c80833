//! Prefetching on a node: one image at a time, for pods that may come.
//!
//! The [`Desk`] decides, a [`Depot`] brings one image, and the loop here does what they say: it takes changes in,
//! lets go what is not wished any more, and reports. The node's own depot is [`Parts`]: records in the store keep the images,
//! so that they outlive the process; those of prefetches that went while it was down are removed as soon as all prefetches
//! are known.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::image::store::{Store, StoreError};
use crate::node::credential_providers::CredentialProviders;
use crate::oci::Credentials;
use crate::oci::platform::Platform;
use crate::prefetch::pace::Pace;
use crate::prefetch::report::{Entry, NodeReport};
use crate::prefetch::{Change, waves};
use crate::pull::{Puller, Watch};
use crate::volume::layouts::Layouts;

mod desk;
mod job;
pub mod metrics;

use desk::Desk;
pub use desk::{Job, KeptKey, Outcome};
use metrics::PrefetchMetrics;

/// How old a node's labels may be where they matter.
const LABELS_AGE: Duration = Duration::from_secs(300);
/// The pause after they could not be had.
const LABELS_PAUSE: Duration = Duration::from_secs(10);

/// What the API server says and is told.
#[async_trait]
pub(crate) trait PrefetchApi: Send + Sync + std::fmt::Debug {
    /// The credentials of a Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Credentials, Refusal>;

    /// The labels of this node.
    async fn labels(&self) -> Result<BTreeMap<String, String>, String>;

    /// Writes what this node does.
    async fn report(&self, report: &NodeReport) -> Result<(), String>;
}

/// Why something cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A word.
    pub reason: &'static str,
    /// A sentence, without secrets.
    pub message: String,
}

/// Where images are brought to, and kept.
#[async_trait]
pub trait Depot: Send + Sync + std::fmt::Debug {
    /// Works on a job to its end. Dropped, it leaves nothing half done.
    async fn bring(&self, job: Job, watch: Watch) -> Outcome;

    /// Lets go what is not among `kept`. Returns whether that is done; otherwise it is asked again.
    async fn let_go(&self, kept: HashSet<KeptKey>) -> bool;

    /// Bytes that are left; 0 if that is not known.
    async fn free_bytes(&self) -> u64;
}

/// A node that prefetches.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    /// Its name.
    pub name: String,
    /// Where its images are.
    pub depot: Arc<dyn Depot>,
    /// The API server.
    pub api: Arc<dyn PrefetchApi>,
    /// What is counted.
    pub metrics: PrefetchMetrics,
}

/// What the node's own depot works with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Makes images available.
    pub images: Arc<Puller>,
    /// Where they are kept.
    pub store: Arc<Store>,
    /// The node's own credentials.
    pub credential_providers: CredentialProviders,
    /// Which directories may be named.
    pub layouts: Layouts,
    /// Which manifest of an index is taken.
    pub platform: Platform,
    /// The percentage of the filesystem that may be in use afterwards.
    pub up_to: u8,
    /// Asks for a round of housekeeping.
    pub housekeeping: Arc<Notify>,
    /// The API server, for Secrets.
    pub api: Arc<dyn PrefetchApi>,
}

/// A job under way.
struct Work {
    job: Job,
    watch: Watch,
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// The loop's memory.
struct Agent {
    node: Prefetcher,
    desk: Desk,
    work: Option<Work>,
    pace: Pace,
    /// What was written last.
    said: Option<Vec<Entry>>,
    /// When the labels are asked for next; `None` if they have not been needed yet.
    labels_due: Option<Instant>,
    /// Whether records may have to go.
    dirty: bool,
    /// When they were looked at last. One may come late, from a job that was given up.
    looked: Instant,
    started: Instant,
}

/// Prefetches until the shutdown.
pub(crate) async fn run(node: Prefetcher, mut changes: mpsc::Receiver<Change>, shutdown: CancellationToken) {
    let mut agent = Agent::new(node);
    loop {
        let wake = agent.turn().await;
        let wake = wake.unwrap_or_else(|| Instant::now() + LABELS_AGE);
        tokio::select! {
            () = shutdown.cancelled() => return,
            change = changes.recv() => match change {
                Some(change) => {
                    agent.apply(change);
                    // All that has come meanwhile is one turn's.
                    while let Ok(change) = changes.try_recv() {
                        agent.apply(change);
                    }
                }
                // Nobody watches any more; an early return would look like a failed task.
                None => return shutdown.cancelled().await,
            },
            outcome = finished(&mut agent.work) => agent.finish(outcome),
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
}

/// Lets go all that prefetches have kept, for a node that does not prefetch any more. Blocking.
///
/// # Errors
/// Those of the filesystem.
pub(crate) fn let_all_go(store: &Store) -> Result<usize, StoreError> {
    let pins = store.prefetched().list()?;
    pins.iter().try_for_each(|pin| store.prefetched().remove(pin))?;
    Ok(pins.len())
}

async fn finished(work: &mut Option<Work>) -> Outcome {
    match work {
        Some(work) => work.outcome.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Agent {
    fn new(node: Prefetcher) -> Self {
        let desk = Desk::new(node.name.clone());
        let pace = Pace::new(waves::place("report", &node.name));
        let started = Instant::now();
        let (said, labels_due) = (None, None);
        Self { node, desk, work: None, pace, said, labels_due, dirty: true, looked: started, started }
    }

    fn apply(&mut self, change: Change) {
        self.desk.apply(change);
        self.dirty = true;
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(work) = self.work.take() {
            self.note_progress(&work);
            self.desk.finish(&work.job, outcome, Instant::now(), &stamp());
        }
    }

    fn note_progress(&mut self, work: &Work) {
        if let Some(pull) = work.watch.get() {
            self.desk.progress(&work.job, (pull.done(), pull.total()));
        }
    }

    /// Does all that is due, and says when the next turn is.
    async fn turn(&mut self) -> Option<Instant> {
        self.ask_labels().await;
        self.desk.tidy(Instant::now(), &stamp());
        if self.work.as_ref().is_some_and(|work| !self.desk.still_wants(&work.job)) {
            self.work = None;
        }
        if self.dirty || self.looked.elapsed() >= LABELS_AGE {
            self.looked = Instant::now();
            self.dirty = match self.desk.kept() {
                Some(kept) => !self.node.depot.let_go(kept).await,
                None => false,
            };
        }
        if self.work.is_none()
            && let Some(job) = self.desk.next(Instant::now())
        {
            let watch = Watch::of(job::waiter(&job));
            let (depot, of_job, of_watch) = (Arc::clone(&self.node.depot), job.clone(), watch.clone());
            let outcome = Box::pin(async move { depot.bring(of_job, of_watch).await });
            self.work = Some(Work { job, watch, outcome });
        }
        self.node.metrics.show(&self.desk);
        let report = self.report().await;
        let labels = self.labels_due.filter(|_| self.desk.wants_labels());
        [self.desk.due(), report, labels].into_iter().flatten().min()
    }

    async fn ask_labels(&mut self) {
        if !self.desk.wants_labels() {
            return;
        }
        // Nodes of a wave ask at different times.
        let spread = Duration::from_millis(waves::place("labels", &self.node.name).into());
        let due = *self.labels_due.get_or_insert_with(|| Instant::now() + spread);
        if Instant::now() < due {
            return;
        }
        let pause = match self.node.api.labels().await {
            Ok(labels) => {
                self.desk.set_labels(labels);
                self.dirty = true;
                LABELS_AGE + spread
            }
            Err(why) => {
                tracing::warn!(
                    "this node's labels are not known, so that prefetches with a nodeSelector wait: {why}"
                );
                LABELS_PAUSE
            }
        };
        self.labels_due = Some(Instant::now() + pause);
    }

    /// Writes what this node does if that is due, and says when it will be.
    async fn report(&mut self) -> Option<Instant> {
        if let Some(work) = self.work.take() {
            self.note_progress(&work);
            self.work = Some(work);
        }
        let entries = self.desk.entries();
        let due = |agent: &Self, entries: &[Entry]| {
            let is_same = |said: &Vec<Entry>| said.iter().map(state).eq(entries.iter().map(state));
            let changed = !agent.said.as_ref().is_some_and(is_same);
            agent.pace.due(agent.started, changed, agent.work.is_some())
        };
        if due(self, &entries).is_some_and(|due| due <= Instant::now()) {
            let free_bytes = self.node.depot.free_bytes().await;
            let report = NodeReport { entries, free_bytes, observed: stamp() };
            let written = self.node.api.report(&report).await;
            if let Err(why) = &written {
                tracing::warn!("what this node prefetches cannot be reported: {why}");
            }
            self.pace.wrote(Instant::now(), written.is_ok());
            if written.is_ok() {
                self.said = Some(report.entries);
            }
        }
        let entries = self.desk.entries();
        due(self, &entries)
    }
}

/// Now, by RFC 3339, to the second.
fn stamp() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// An entry without what changes all the time.
fn state(entry: &Entry) -> Entry {
    Entry { bytes_done: 0, bytes_total: 0, ..entry.clone() }
}
