//! The volumes whose tags are asked for: when each is due, and what came of it. In memory only: it has credentials.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pace::{LEAST, pause};
use crate::metrics::{Counters, Description, Family, Gauges, Instruments, Label};
use crate::node::volume::request::VolumeRequest;
use crate::oci::digest::Digest;
use crate::units;
use crate::volume::id::VolumeId;

const ASKED: Description = Description::new(
    "tag_checks_total",
    "Questions for the tag of a volume that follows it, by what came of them: it names the same image, the volume shows \
     another, or it goes on showing the old one; the pod's Events and the log say why",
);
const VOLUMES: Description = Description::new(
    "following_volumes",
    "Volumes that follow a tag, by whether the last question was answered and the volume shows what the tag names (current) \
     or not (behind)",
);

/// The volumes that follow a tag.
#[derive(Debug)]
pub struct Followed {
    /// How often each tag is asked for; `None` if no volume may follow one.
    every: Option<Duration>,
    known: Mutex<HashMap<VolumeId, Entry>>,
    changed: Notify,
    asked: Counters<AskedLabel>,
    volumes: Gauges<StateLabel>,
}

#[derive(Debug)]
struct Entry {
    request: Arc<VolumeRequest>,
    due: Instant,
    is_asking: bool,
    /// Asked for while a question was under way: that one may have had an old answer.
    again: bool,
    /// Questions that have been answered, one way or the other.
    rounds: u64,
    failed: u32,
    problem: Option<String>,
    shown: Option<Digest>,
    answered: Option<Instant>,
    gone: CancellationToken,
}

/// A question to be asked.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub request: Arc<VolumeRequest>,
    /// Cancelled when the volume is unpublished.
    pub gone: CancellationToken,
}

/// The answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// The volume is not there any more.
    Gone,
    /// The tag names what the volume shows.
    Same(Digest),
    /// The volume shows another image now.
    Switched(Digest),
    /// The image is still being pulled.
    Pending,
    /// The volume goes on showing what it shows.
    Failed(String),
}

/// How a volume that follows a tag stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedVolume {
    /// The volume's id.
    pub volume: String,
    /// The pod, as NAMESPACE/NAME; empty if it is not known.
    pub pod: String,
    /// The reference.
    pub image: String,
    /// Digest of the manifest that the volume shows, as of the last answer.
    pub digest: Option<String>,
    /// Seconds since the last answer.
    pub seconds: Option<u64>,
    /// Why it does not show what the tag names, if it does not.
    pub problem: Option<String>,
    /// Whether a question is under way.
    pub asking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskedLabel {
    Same,
    Switched,
    Failed,
}

impl Label for AskedLabel {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[Self::Same, Self::Switched, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Switched => "switched",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateLabel {
    Current,
    Behind,
}

impl Label for StateLabel {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = &[Self::Current, Self::Behind];

    fn value(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
        }
    }
}

impl Instruments for Followed {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.asked, &self.volumes]
    }
}

impl Followed {
    /// None yet. Each tag will be asked for once in `every`; with `None`, no volume may follow one.
    pub fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            known: Mutex::default(),
            changed: Notify::new(),
            asked: Counters::new(ASKED),
            volumes: Gauges::new(VOLUMES),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.every.is_some()
    }

    /// From now on this volume's tag is asked for with this request. It shows the image `shown`.
    pub(super) fn remember(&self, request: VolumeRequest, shown: Option<Digest>, now: Instant) {
        let Some(every) = self.every else { return };
        let mut known = self.known();
        let (volume, request) = (request.volume.clone(), Arc::new(request));
        match known.get_mut(&volume) {
            // Kubelet publishes again and again, and brings new credentials.
            Some(entry) => entry.request = request,
            None => {
                let due = now + pause(every, 0, spread(&volume, 0));
                known.insert(volume, Entry::new(request, shown, due));
                self.count(&known);
            }
        }
        drop(known);
        self.changed.notify_one();
    }

    /// The volume is unpublished.
    pub(in crate::node::volume) fn forget(&self, volume: &VolumeId) {
        let mut known = self.known();
        if let Some(entry) = known.remove(volume) {
            entry.gone.cancel();
            self.count(&known);
        }
    }

    /// What the condition of a volume says that shows the manifest `shown`.
    pub(in crate::node::volume) fn message(
        &self,
        volume: &VolumeId,
        reference: &str,
        shown: &Digest,
    ) -> String {
        let now = Instant::now();
        let shows = format!("follows {reference} and shows {shown}");
        let Some(found) = self.known().get(volume).map(|entry| entry.describe(volume, now)) else {
            return format!(
                "{shows} (not asked since the node plugin was started, until kubelet publishes the volume again)"
            );
        };
        let asked = match found.seconds {
            Some(seconds) => format!("asked {} ago", units::time(Duration::from_secs(seconds))),
            None => "not asked yet".to_owned(),
        };
        let problem = found.problem.map_or_else(String::new, |problem| format!("; not switched: {problem}"));
        format!("{shows} ({asked}){problem}")
    }

    /// One that is due, if any; it is not due again until it is answered.
    pub(super) fn take_due(&self, now: Instant) -> Option<Job> {
        let mut known = self.known();
        let due = known.values_mut().filter(|entry| !entry.is_asking && entry.due <= now);
        let entry = due.min_by_key(|entry| entry.due)?;
        (entry.is_asking, entry.again) = (true, false);
        Some(Job { request: Arc::clone(&entry.request), gone: entry.gone.clone() })
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.known().values().filter(|entry| !entry.is_asking).map(|entry| entry.due).min()
    }

    /// Completes when something may be due that was not before.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether this problem is another than that of the volume's last answer.
    pub(super) fn is_news(&self, job: &Job, problem: &str) -> bool {
        let known = self.known();
        known.get(&job.request.volume).is_some_and(|entry| entry.problem.as_deref() != Some(problem))
    }

    /// Takes the answer to a question.
    pub(super) fn answered(&self, job: &Job, asked: Asked, now: Instant) {
        let mut known = self.known();
        let volume = &job.request.volume;
        // Another volume of that name is not meant.
        let (Some(entry), Some(every), false) = (known.get_mut(volume), self.every, job.gone.is_cancelled())
        else {
            return;
        };
        if matches!(asked, Asked::Gone) {
            // Kubelet publishes it again, if it is wanted.
            known.remove(volume);
            return self.count(&known);
        }
        entry.is_asking = false;
        entry.rounds += 1;
        let is_pending = matches!(asked, Asked::Pending);
        let label = match asked {
            Asked::Gone | Asked::Pending => None,
            Asked::Same(digest) => {
                entry.succeeded(digest, now);
                Some(AskedLabel::Same)
            }
            Asked::Switched(digest) => {
                entry.succeeded(digest, now);
                Some(AskedLabel::Switched)
            }
            Asked::Failed(problem) => {
                (entry.failed, entry.problem) = (entry.failed.saturating_add(1), Some(problem));
                Some(AskedLabel::Failed)
            }
        };
        entry.due = match entry.again {
            true => now,
            // Soon, because a pull that nobody waits for ends in the end.
            false if is_pending => now + LEAST,
            false => now + pause(every, entry.failed, spread(volume, entry.rounds)),
        };
        if let Some(label) = label {
            self.asked.add(label, 1);
        }
        self.count(&known);
    }

    /// Makes due what `what` names. Returns how many answers each of these has had, and must have had once more.
    pub(super) fn hurry(&self, what: &str, now: Instant) -> HashMap<VolumeId, u64> {
        let mut rounds = HashMap::new();
        for (volume, entry) in self.known().iter_mut().filter(|(volume, entry)| entry.is(volume, what)) {
            (entry.due, entry.again) = (now, entry.is_asking);
            rounds.insert(volume.clone(), entry.rounds + u64::from(entry.is_asking));
        }
        self.changed.notify_one();
        rounds
    }

    pub(super) fn have_answers(&self, rounds: &HashMap<VolumeId, u64>) -> bool {
        let known = self.known();
        rounds.iter().all(|(volume, before)| known.get(volume).is_none_or(|entry| entry.rounds > *before))
    }

    /// How the volumes stand that `what` names.
    pub(super) fn list(&self, what: &str, now: Instant) -> Vec<FollowedVolume> {
        let known = self.known();
        let named = known.iter().filter(|(volume, entry)| entry.is(volume, what));
        let mut list: Vec<_> = named.map(|(volume, entry)| entry.describe(volume, now)).collect();
        list.sort_by(|a, b| (&a.image, &a.pod, &a.volume).cmp(&(&b.image, &b.pod, &b.volume)));
        list
    }

    fn count(&self, known: &HashMap<VolumeId, Entry>) {
        let behind = known.values().filter(|entry| entry.problem.is_some()).count();
        self.volumes.set(StateLabel::Behind, behind as u64);
        self.volumes.set(StateLabel::Current, (known.len() - behind) as u64);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<VolumeId, Entry>> {
        // No change to the map can panic half-way, so a poisoned one is consistent.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(request: Arc<VolumeRequest>, shown: Option<Digest>, due: Instant) -> Self {
        Self {
            request,
            due,
            is_asking: false,
            again: false,
            rounds: 0,
            failed: 0,
            problem: None,
            shown,
            answered: None,
            gone: CancellationToken::new(),
        }
    }

    fn succeeded(&mut self, digest: Digest, now: Instant) {
        (self.failed, self.problem, self.shown, self.answered) = (0, None, Some(digest), Some(now));
    }

    /// Whether a volume, an image or nothing in particular is this.
    fn is(&self, volume: &VolumeId, what: &str) -> bool {
        what.is_empty() || volume.as_str() == what || self.request.content.to_string() == what
    }

    fn describe(&self, volume: &VolumeId, now: Instant) -> FollowedVolume {
        FollowedVolume {
            volume: volume.to_string(),
            pod: self.request.identity.pod.to_string(),
            image: self.request.content.to_string(),
            digest: self.shown.map(|digest| digest.to_string()),
            seconds: self.answered.map(|at| now.saturating_duration_since(at).as_secs()),
            problem: self.problem.clone(),
            asking: self.is_asking,
        }
    }
}

/// A number below 10,000 that differs from volume to volume and from time to time.
fn spread(volume: &VolumeId, round: u64) -> u16 {
    let mut hasher = DefaultHasher::new();
    (volume.as_str(), round, std::process::id()).hash(&mut hasher);
    u16::try_from(hasher.finish() % 10_000).unwrap_or_default()
}

#[cfg(test)]
mod tests;
