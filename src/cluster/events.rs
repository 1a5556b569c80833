//! Events on pods: what a pull is doing, where `kubectl describe pod` shows it.
//!
//! Nothing waits for an Event and nothing fails for one: events go into a bounded queue, what does not fit is
//! dropped, and what the API server refuses is logged once.
//!
//! kubelet repeats a call that fails for as long as the pod is there, and each time there is an event. So there is one
//! Event per pod, volume and reason: repeated events within [`QUIET`] only count, later ones update the Event that is
//! there, with the text as it is by then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cluster, ClusterError};
use crate::node::volume::pod_events::{PodEvent, Reason, Reporter};
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

/// Events that wait.
const QUEUE: usize = 128;
/// An Event is not updated more often.
const QUIET: Duration = Duration::from_secs(60);
/// Events that are remembered.
const KNOWN_MAX: usize = 1000;
/// Longest message, in bytes (the API server's limit is 1024).
const MESSAGE_MAX: usize = 1000;
/// Of a longer one so many bytes are kept from its end.
const TAIL: usize = 300;
const GAP: &str = " ... ";

/// Takes what becomes Events.
#[derive(Debug)]
pub struct Events(mpsc::Sender<(PodInfo, PodEvent)>);

/// Writes Events until the shutdown.
#[derive(Debug)]
pub struct Writer {
    cluster: Cluster,
    driver: String,
    node: String,
    queue: mpsc::Receiver<(PodInfo, PodEvent)>,
    known: HashMap<Topic, Known>,
    failing: AtomicBool,
}

/// What one Event is about: a pod by its uid, one of its volumes, and what happened to that.
type Topic = (String, VolumeId, Reason);

/// An Event that was written.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    count: i32,
    written: Instant,
}

impl Reporter for Events {
    fn report(&self, pod: &PodInfo, event: PodEvent) {
        // A full queue means that the API server is slow; the log has the same event.
        let _ = self.0.try_send((pod.clone(), event));
    }
}

impl Events {
    /// Somebody to tell, and somebody who writes it down.
    pub fn new(cluster: Cluster, driver: String, node: String) -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let failing = AtomicBool::new(false);
        (Self(sender), Writer { cluster, driver, node, queue, known: HashMap::new(), failing })
    }
}

impl Writer {
    /// Writes until the shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let (pod, event) = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.queue.recv() => match next {
                    Some(next) => next,
                    None => return shutdown.cancelled().await,
                },
            };
            if pod.name.is_empty() || pod.uid.is_empty() {
                continue;
            }
            match self.write(&pod, &event).await {
                Ok(()) => self.failing.store(false, Ordering::Relaxed),
                Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                    tracing::warn!("Events cannot be written: {error}");
                }
                Err(_) => {}
            }
        }
    }

    async fn write(&mut self, pod: &PodInfo, event: &PodEvent) -> Result<(), ClusterError> {
        let key = (pod.uid.clone(), event.volume.clone(), event.reason);
        let now = Instant::now();
        if let Some(known) = self.known.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            if now.duration_since(known.written) < QUIET {
                return Ok(());
            }
            let known = known.clone();
            if self.update(pod, &known, event).await? {
                self.known.insert(key, Known { written: now, ..known });
                return Ok(());
            }
        }
        let name = self.create(pod, event).await?;
        if self.known.len() >= KNOWN_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.written).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.known.remove(&key));
        }
        self.known.insert(key, Known { name, count: 1, written: now });
        Ok(())
    }

    fn api(&self, pod: &PodInfo) -> Api<Event> {
        Api::namespaced(self.cluster.0.clone(), &pod.namespace)
    }

    async fn create(&self, pod: &PodInfo, event: &PodEvent) -> Result<String, ClusterError> {
        let now = Timestamp::now();
        // As client-go names them: unique without asking.
        let name = format!("{}.{:x}", pod.name, now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            },
            reason: Some(event.reason.name().to_owned()),
            message: Some(cut(&event.text)),
            type_: Some(if event.reason.is_bad() { "Warning" } else { "Normal" }.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            reporting_component: Some(self.driver.clone()),
            reporting_instance: Some(self.node.clone()),
            source: Some(EventSource { component: Some(self.driver.clone()), host: Some(self.node.clone()) }),
            ..Event::default()
        };
        let created = self.api(pod).create(&PostParams::default(), &event).await;
        created.map_err(|error| ClusterError::of("create events".to_owned(), &error))?;
        Ok(name)
    }

    /// Whether the Event was still there to be updated.
    async fn update(&self, pod: &PodInfo, known: &Known, event: &PodEvent) -> Result<bool, ClusterError> {
        let patch = json!({
            "count": known.count,
            "lastTimestamp": Time(Timestamp::now()),
            "message": cut(&event.text),
        });
        let patched = self.api(pod).patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        match patched.map_err(|error| ClusterError::of("patch events".to_owned(), &error)) {
            Ok(_) => Ok(true),
            // Events live for an hour.
            Err(ClusterError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Shortens a message in its middle: what it is about stands first, what to do stands last.
fn cut(text: &str) -> String {
    if text.len() <= MESSAGE_MAX {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(MESSAGE_MAX - TAIL - GAP.len());
    let tail = text.ceil_char_boundary(text.len() - TAIL);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_keep_their_subject_and_their_remedy() {
        assert_eq!(cut("short"), "short");
        for filler in ["x", "ä", "日"] {
            let text = format!("image r.io/x is refused: {}; sign it", filler.repeat(2000));
            let cut = cut(&text);
            assert!(cut.len() <= MESSAGE_MAX && cut.len() > MESSAGE_MAX - 8, "{}", cut.len());
            assert!(cut.starts_with("image r.io/x is refused: ") && cut.ends_with("; sign it"), "{cut}");
        }
    }
}
