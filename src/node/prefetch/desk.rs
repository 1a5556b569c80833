//! What a node does for the prefetches, without doing it: which images it wants, which is next, what is said of each, and
//! what must be kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::oci::digest::Digest;
use crate::prefetch::report::{ENTRIES_MAX, Entry, State, cut};
use crate::prefetch::wish::{Keep, Prefetch, Wish};
use crate::prefetch::{Change, PREFETCHES_MAX, backoff, waves};

/// A prefetch by its uid, and an image of it as it was wished.
pub type ItemKey = (String, String);
/// A prefetch by its uid, and one of its wishes by its key.
pub type KeptKey = (String, Digest);
/// A node's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// An image to be brought here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The prefetch, and the reference that it wishes.
    pub key: ItemKey,
    /// The wish.
    pub wish: Wish,
    /// The prefetch's namespace.
    pub namespace: String,
    /// The prefetch's name, for messages.
    pub name: String,
    /// Names of Secrets of the namespace.
    pub pull_secrets: Vec<String>,
    /// What the reference means, if that is known.
    pub target: Option<Digest>,
    /// Whether the image is kept from then on.
    pub keeps: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The image is here.
    Ready {
        /// What the reference means.
        target: Digest,
    },
    /// It is not.
    Failed {
        /// A word.
        reason: &'static str,
        /// A sentence.
        message: String,
        /// Whether another attempt would end the same way.
        for_good: bool,
        /// What the reference means, if that was found out.
        target: Option<Digest>,
    },
}

/// One image of one prefetch.
#[derive(Debug)]
struct Item {
    generation: i64,
    target: Option<Digest>,
    state: State,
    why: Option<(String, String)>,
    bytes: (u64, u64),
    failed: u32,
    /// When it was wanted first, of this generation.
    begun: Instant,
    not_before: Instant,
    finished: Option<String>,
}

impl Item {
    fn new(generation: i64, target: Option<Digest>, now: Instant) -> Self {
        Self {
            generation,
            target,
            state: State::Waiting,
            why: None,
            bytes: (0, 0),
            failed: 0,
            begun: now,
            not_before: now,
            finished: None,
        }
    }
}

/// The prefetches of a cluster as one node sees them.
#[derive(Debug)]
pub(super) struct Desk {
    node: String,
    prefetches: HashMap<String, Prefetch>,
    /// Whether all prefetches that there are were told.
    is_complete: bool,
    labels: Option<Labels>,
    items: BTreeMap<ItemKey, Item>,
}

impl Desk {
    pub(super) fn new(node: String) -> Self {
        let (prefetches, items) = Default::default();
        Self { node, prefetches, is_complete: false, labels: None, items }
    }

    /// Takes a change in. [`Desk::tidy`] draws the conclusions.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::All(all) => {
                self.is_complete = all.len() <= PREFETCHES_MAX;
                let all = all.into_iter().take(PREFETCHES_MAX);
                self.prefetches = all.map(|prefetch| (prefetch.uid.clone(), prefetch)).collect();
            }
            Change::Set(prefetch) => {
                if self.prefetches.len() < PREFETCHES_MAX || self.prefetches.contains_key(&prefetch.uid) {
                    self.prefetches.insert(prefetch.uid.clone(), *prefetch);
                }
            }
            Change::Gone(uid) => drop(self.prefetches.remove(&uid)),
        }
    }

    /// Whether some prefetch is for certain nodes, and this one's turn has come if it is one of them.
    pub(super) fn wants_labels(&self) -> bool {
        let selects = |prefetch: &Prefetch| !prefetch.spec.node_selector.is_empty();
        self.prefetches.values().any(|prefetch| selects(prefetch) && self.is_admitted(prefetch))
    }

    pub(super) fn set_labels(&mut self, labels: Labels) {
        self.labels = Some(labels);
    }

    /// Whether the prefetch is for this node; `None` while its labels are not known.
    fn selects(&self, prefetch: &Prefetch) -> Option<bool> {
        if prefetch.spec.node_selector.is_empty() {
            return Some(true);
        }
        self.labels.as_ref().map(|labels| prefetch.selects(labels))
    }

    /// Whether the node may begin something of the prefetch.
    fn is_admitted(&self, prefetch: &Prefetch) -> bool {
        prefetch.status.observed_generation == prefetch.generation
            && waves::place(&prefetch.uid, &self.node) < prefetch.status.admitted
            && !prefetch.spec.paused
    }

    /// Takes up what has become the node's, and drops what is not any more. `stamp` is now, by RFC 3339.
    pub(super) fn tidy(&mut self, now: Instant, stamp: &str) {
        let mut items = std::mem::take(&mut self.items);
        items.retain(|(uid, reference), _| {
            let prefetch = self.prefetches.get(uid);
            prefetch.is_some_and(|prefetch| {
                prefetch.wishes().any(|wish| wish.reference == *reference)
                    && self.selects(prefetch) != Some(false)
            })
        });
        for prefetch in self.prefetches.values() {
            if self.selects(prefetch) != Some(true) {
                continue;
            }
            let is_admitted = self.is_admitted(prefetch);
            for wish in prefetch.wishes() {
                let (target, generation) = (prefetch.target(wish), prefetch.generation);
                let key = (prefetch.uid.clone(), wish.reference.clone());
                match items.get_mut(&key) {
                    None if is_admitted => drop(items.insert(key, Item::new(generation, target, now))),
                    None => {}
                    Some(item) => {
                        // Another node was first to say what the tag means, or somebody has changed the prefetch.
                        let is_other = target.is_some() && item.target.is_some() && item.target != target;
                        if is_admitted && (is_other || item.generation != generation) {
                            *item = Item::new(generation, target, now);
                        }
                        item.target = item.target.or(target);
                        if let Some(seconds) = prefetch.spec.active_deadline_seconds
                            && matches!(item.state, State::Waiting | State::Pulling)
                            && now >= item.begun + Duration::from_secs(seconds)
                        {
                            item.state = State::Failed;
                            item.finished = Some(stamp.to_owned());
                            let last =
                                item.why.take().map_or_else(String::new, |(_, last)| format!("; {last}"));
                            let message = format!("not here after {seconds} s{last}");
                            item.why = Some(("DeadlineExceeded".to_owned(), cut(&message)));
                        }
                    }
                }
            }
        }
        self.items = items;
    }

    /// What to do next, if anything: of what is due, that of the oldest prefetch.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        let due = |(key, item): (&ItemKey, &Item)| {
            let prefetch = self.prefetches.get(&key.0)?;
            let is_due = item.state == State::Waiting && item.not_before <= now && !prefetch.spec.paused;
            is_due.then(|| (prefetch.created, key.clone()))
        };
        let (_, key) = self.items.iter().filter_map(due).min()?;
        let prefetch = self.prefetches.get(&key.0)?;
        let wish = prefetch.wishes().find(|wish| wish.reference == key.1)?;
        let item = self.items.get_mut(&key)?;
        item.state = State::Pulling;
        Some(Job {
            wish: wish.clone(),
            namespace: prefetch.namespace.clone(),
            name: prefetch.name.clone(),
            pull_secrets: prefetch.spec.pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
            target: item.target,
            keeps: prefetch.spec.keep == Keep::WhileExists,
            key,
        })
    }

    /// Whether a job that was begun is to go on.
    pub(super) fn still_wants(&self, job: &Job) -> bool {
        self.items.get(&job.key).is_some_and(|item| {
            item.state == State::Pulling && (job.target.is_none() || item.target == job.target)
        })
    }

    /// Notes how a job ended that is still wanted.
    pub(super) fn finish(&mut self, job: &Job, outcome: Outcome, now: Instant, stamp: &str) {
        let Some(item) = self.items.get_mut(&job.key) else { return };
        let limit = self.prefetches.get(&job.key.0).map_or(0, |prefetch| prefetch.spec.backoff_limit);
        match outcome {
            Outcome::Ready { target } => {
                // Meanwhile another node may have found out another meaning, which counts.
                if item.target.is_some_and(|known| known != target) {
                    item.state = State::Waiting;
                    return;
                }
                (item.state, item.target, item.why) = (State::Ready, Some(target), None);
                item.bytes.0 = item.bytes.1;
                item.finished = Some(stamp.to_owned());
            }
            Outcome::Failed { reason, message, for_good, target } => {
                item.target = item.target.or(target);
                item.failed += 1;
                item.why = Some((reason.to_owned(), cut(&message)));
                let spread = waves::place(&job.key.0, &self.node);
                match backoff::pause(item.failed, limit, spread).filter(|_| !for_good) {
                    Some(pause) => (item.state, item.not_before) = (State::Waiting, now + pause),
                    None => (item.state, item.finished) = (State::Failed, Some(stamp.to_owned())),
                }
            }
        }
    }

    /// Notes how far a job is.
    pub(super) fn progress(&mut self, job: &Job, bytes: (u64, u64)) {
        if let Some(item) = self.items.get_mut(&job.key) {
            item.bytes = bytes;
        }
    }

    /// When [`Desk::tidy`] or [`Desk::next`] find something new by themselves.
    pub(super) fn due(&self) -> Option<Instant> {
        // While one is worked on, the others wait for its end.
        let is_busy = self.count(State::Pulling) > 0;
        let times = self.items.iter().flat_map(|((uid, _), item)| {
            let Some(prefetch) = self.prefetches.get(uid) else { return [None, None] };
            let waits = item.state == State::Waiting && !prefetch.spec.paused && !is_busy;
            let deadline = prefetch.spec.active_deadline_seconds.map(Duration::from_secs);
            let ends = matches!(item.state, State::Waiting | State::Pulling);
            [
                waits.then_some(item.not_before),
                deadline.filter(|_| ends).and_then(|deadline| item.begun.checked_add(deadline)),
            ]
        });
        times.flatten().min()
    }

    /// What must be kept; `None` while that is not known.
    pub(super) fn kept(&self) -> Option<HashSet<KeptKey>> {
        if !self.is_complete {
            return None;
        }
        let mut kept = HashSet::new();
        for prefetch in self.prefetches.values() {
            // Who is not known to be meant is not known not to be.
            if prefetch.spec.keep == Keep::WhileExists && self.selects(prefetch) != Some(false) {
                let keys = prefetch.wishes().filter_map(Wish::key);
                kept.extend(keys.map(|wish| (prefetch.uid.clone(), wish)));
            }
        }
        Some(kept)
    }

    /// What is said of all items, the oldest prefetch first.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let created = |uid: &str| self.prefetches.get(uid).map_or(i64::MAX, |prefetch| prefetch.created);
        let mut all: Vec<_> = self.items.iter().collect();
        all.sort_by_key(|((uid, reference), _)| (created(uid), uid, reference));
        all.truncate(ENTRIES_MAX);
        let entry = |((uid, image), item): (&ItemKey, &Item)| Entry {
            uid: uid.clone(),
            image: image.clone(),
            generation: item.generation,
            digest: item.target.map(|digest| digest.to_string()),
            state: item.state,
            reason: item.why.as_ref().map(|(reason, _)| reason.clone()),
            message: item.why.as_ref().map(|(_, message)| message.clone()),
            bytes_done: item.bytes.0,
            bytes_total: item.bytes.1,
            finished: item.finished.clone(),
        };
        all.into_iter().map(entry).collect()
    }

    /// How many items are in a state.
    pub(super) fn count(&self, state: State) -> u64 {
        self.items.values().filter(|item| item.state == state).count() as u64
    }
}

#[cfg(test)]
mod tests;
