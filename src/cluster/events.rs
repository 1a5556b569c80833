//! Events on pods about pulls, as `kubectl describe pod` shows them, and on the node about its store.
//!
//! No call waits for an Event or fails because of one: events go into a bounded queue, what does not fit is dropped, and
//! a refusal by the API server is logged once.
//!
//! kubelet retries a failed call for as long as the pod exists, and each retry makes an event. There is therefore one
//! Event per object, volume and reason, also over restarts of the plugin: its name follows from these. Repeated events
//! within [`QUIET`] only increase its count; later ones update the existing Event with their text. Updates of the
//! progress of a pull do so at the pace that their sender chooses.

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
use crate::node::volume::pod_events::{PodEvent, PodEventRecorder};
use crate::oci::digest::Digest;
use crate::volume::attributes::PodInfo;

/// Length of the queue.
const QUEUE: usize = 128;
/// The shortest time between two updates of an Event.
const QUIET: Duration = Duration::from_secs(60);
/// The number of written Events that are remembered.
const KNOWN_MAX: usize = 1000;
/// Longest message, in bytes (the API server's limit is 1024).
const MESSAGE_MAX: usize = 1000;
/// The number of bytes kept from the end of a longer message.
const TAIL: usize = 300;
const GAP: &str = " ... ";

/// The queue's end for recording events.
#[derive(Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Said>,
    node: String,
}

/// Something to be said about an object.
#[derive(Debug)]
struct Said {
    object: ObjectReference,
    /// Which volume of a pod it is about; empty for a node.
    volume: String,
    reason: &'static str,
    is_warning: bool,
    text: String,
    /// Brings the Event up to date, however soon.
    is_update: bool,
}

/// Writes Events until the shutdown.
#[derive(Debug)]
pub(crate) struct EventWriter {
    cluster: Cluster,
    driver: String,
    node: String,
    queue: mpsc::Receiver<Said>,
    known: HashMap<EventKey, WrittenEvent>,
    failing: AtomicBool,
}

/// What one Event is about: an object by its uid, one of a pod's volumes, and the reason.
type EventKey = (String, String, &'static str);

/// An Event that was written.
#[derive(Debug, Clone)]
struct WrittenEvent {
    name: String,
    /// `None` of one that an earlier process wrote: how often is not known here.
    count: Option<i32>,
    written: Instant,
}

impl PodEventRecorder for Events {
    fn record(&self, pod: &PodInfo, event: PodEvent) {
        // Without podInfoOnMount there is no pod to put an Event on.
        if pod.name.is_empty() || pod.uid.is_empty() {
            return;
        }
        self.say(Said {
            object: reference("Pod", &pod.name, &pod.namespace, &pod.uid),
            volume: event.volume.to_string(),
            reason: event.reason.name(),
            is_warning: event.reason.is_warning(),
            text: event.text,
            is_update: event.is_update,
        });
    }
}

impl Events {
    /// The two ends of a queue: a recorder, and a writer for the API server.
    pub fn new(cluster: Cluster, driver: String, node: String) -> (Self, EventWriter) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let failing = AtomicBool::new(false);
        let events = Self { queue: sender, node: node.clone() };
        (events, EventWriter { cluster, driver, node, queue, known: HashMap::new(), failing })
    }

    /// Records an event on this node. Never blocks.
    pub fn record_on_node(&self, reason: &'static str, is_warning: bool, text: String) {
        // A node is in no namespace, and its Events are in this one. Its uid in them is its name, as kubelet writes it:
        // `kubectl describe node` looks for that.
        let object = reference("Node", &self.node, "default", &self.node);
        self.say(Said { object, volume: String::new(), reason, is_warning, text, is_update: false });
    }

    fn say(&self, said: Said) {
        // A full queue means that the API server is slow. The log has the same information.
        let _ = self.queue.try_send(said);
    }
}

impl EventWriter {
    /// Writes until the shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let said = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.queue.recv() => match next {
                    Some(next) => next,
                    // No recorder is left; an early return would look like a failed task.
                    None => return shutdown.cancelled().await,
                },
            };
            match self.write(&said).await {
                Ok(()) => self.failing.store(false, Ordering::Relaxed),
                Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                    tracing::warn!("Events cannot be written: {error}");
                }
                // Logged already; once per outage is enough.
                Err(_) => {}
            }
        }
    }

    async fn write(&mut self, said: &Said) -> Result<(), ClusterError> {
        let key = (said.object.uid.clone().unwrap_or_default(), said.volume.clone(), said.reason);
        let now = Instant::now();
        if let Some(known) = self.known.get_mut(&key) {
            known.count = known.count.map(|count| count.saturating_add(1));
            if !said.is_update && now.duration_since(known.written) < QUIET {
                return Ok(());
            }
            let known = known.clone();
            if self.update(said, &known).await? {
                self.known.insert(key, WrittenEvent { written: now, ..known });
                return Ok(());
            }
        }
        let name = self.name(said);
        let count = self.create(said, &name).await?.then_some(1);
        let written = WrittenEvent { name, count, written: now };
        // An earlier process wrote it.
        if count.is_none() {
            self.update(said, &written).await?;
        }
        if self.known.len() >= KNOWN_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.written).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.known.remove(&key));
        }
        self.known.insert(key, written);
        Ok(())
    }

    fn api(&self, said: &Said) -> Api<Event> {
        Api::namespaced(self.cluster.0.clone(), said.object.namespace.as_deref().unwrap_or_default())
    }

    /// The Event's name, as client-go forms them: the object's name and a number. Here it says what the Event is about.
    fn name(&self, said: &Said) -> String {
        let uid = said.object.uid.as_deref().unwrap_or_default();
        let about = [self.driver.as_str(), &self.node, uid, &said.volume, said.reason].join("\n");
        let digest = Digest::of(about.as_bytes()).hex();
        let (number, _) = digest.split_at(16);
        format!("{}.{number}", said.object.name.as_deref().unwrap_or_default())
    }

    /// Creates an Event. Returns false if it is there.
    async fn create(&self, said: &Said, name: &str) -> Result<bool, ClusterError> {
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: said.object.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: said.object.clone(),
            reason: Some(said.reason.to_owned()),
            message: Some(cut(&said.text)),
            type_: Some(if said.is_warning { "Warning" } else { "Normal" }.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            reporting_component: Some(self.driver.clone()),
            reporting_instance: Some(self.node.clone()),
            source: Some(EventSource { component: Some(self.driver.clone()), host: Some(self.node.clone()) }),
            ..Event::default()
        };
        match self.api(said).create(&PostParams::default(), &event).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(ClusterError::of("create events".to_owned(), &error)),
        }
    }

    /// Updates an Event. Returns false if it no longer exists.
    async fn update(&self, said: &Said, known: &WrittenEvent) -> Result<bool, ClusterError> {
        let mut patch = json!({
            "lastTimestamp": Time(Timestamp::now()),
            "message": cut(&said.text),
        });
        if let Some(count) = known.count {
            patch["count"] = count.into();
        }
        let patched = self.api(said).patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        match patched.map_err(|error| ClusterError::of("patch events".to_owned(), &error)) {
            Ok(_) => Ok(true),
            // The API server deletes Events after an hour.
            Err(ClusterError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn reference(kind: &str, name: &str, namespace: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// Shortens a message in the middle: it begins with its subject and ends with the remedy.
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
