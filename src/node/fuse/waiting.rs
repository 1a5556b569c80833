//! Who waits for which object, and what each is answered. No I/O: the time and whether a reader is being killed are given.
//!
//! A lookup is answered once. What may be answered early is bound by what the kernel makes of it: of ESTALE, an open can
//! bear one before the object is there (it repeats the lookup, and later the whole open, once each), and one more would be
//! the application's error. So an early ESTALE is never given to a lookup that may be the repetition of one.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::image::verity::VerityDigest;

/// The longest that a lookup stays unanswered. A second reader of the object may wait for the first one in a state in which
/// nothing can kill it, and the kernel reports those after 120 seconds.
const LONGEST: Duration = Duration::from_secs(100);
/// How long after an interrupt a reader that nobody can look at is asked to come again.
const UNSEEN: Duration = Duration::from_millis(50);
/// A lookup that comes so soon after an early answer may be the same reader's again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often a reader that has had a signal is looked at: the one that kills it may come later, and is not told of.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_SELDOM: Duration = Duration::from_millis(250);

/// Whether a waiting thread is being killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// SIGKILL is pending.
    Dying,
    /// It is not.
    Living,
    /// It cannot be seen from here.
    Unseen,
}

/// The lookups that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By the request's number. As many as there are threads waiting, which the pods' own limits bound.
    lookups: BTreeMap<u64, Lookup>,
    /// When somebody who waited for the object was told to come again.
    early: HashMap<VerityDigest, Instant>,
}

#[derive(Debug)]
struct Lookup {
    object: VerityDigest,
    pid: u32,
    since: Instant,
    /// It may be the repetition of one that was answered early.
    is_again: bool,
    interrupted: Option<Instant>,
}

/// The answer to a lookup, by the request's number.
pub(super) type Answer = (u64, Errno);

impl Waiting {
    /// A lookup that cannot be answered yet.
    pub(super) fn begin(&mut self, unique: u64, object: VerityDigest, pid: u32, now: Instant) {
        let is_again = self.early.get(&object).is_some_and(|at| now.duration_since(*at) < AGAIN);
        self.lookups.insert(unique, Lookup { object, pid, since: now, is_again, interrupted: None });
    }

    /// A signal for the thread that waits.
    pub(super) fn interrupt(&mut self, unique: u64, now: Instant) {
        if let Some(lookup) = self.lookups.get_mut(&unique) {
            lookup.interrupted.get_or_insert(now);
        }
    }

    /// The objects that are waited for, each once.
    pub(super) fn objects(&self) -> Vec<VerityDigest> {
        let mut objects: Vec<_> = self.lookups.values().map(|lookup| lookup.object).collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }

    /// Whether anybody waits for this one.
    pub(super) fn waits_for(&self, object: &VerityDigest) -> bool {
        self.lookups.values().any(|lookup| lookup.object == *object)
    }

    /// The object lies in the store: all who wait for it come again, and find it before they ask here.
    pub(super) fn arrived(&mut self, object: &VerityDigest) -> Vec<Answer> {
        self.early.remove(object);
        let here = self.lookups.extract_if(.., |_, lookup| lookup.object == *object);
        here.map(|(unique, _)| (unique, Errno::STALE)).collect()
    }

    /// No object comes at present: all who wait get the reason.
    pub(super) fn fail(&mut self, errno: Errno) -> Vec<Answer> {
        std::mem::take(&mut self.lookups).into_keys().map(|unique| (unique, errno)).collect()
    }

    /// The answers that are due whether or not an object comes.
    pub(super) fn due(&mut self, now: Instant, fate_of: impl Fn(u32) -> Fate) -> Vec<Answer> {
        self.early.retain(|_, at| now.duration_since(*at) < AGAIN);
        let mut answers = Vec::new();
        for (unique, lookup) in &self.lookups {
            let errno = match lookup.due(now, &fate_of) {
                None => continue,
                Some(Due::Killed) => Errno::INTR,
                Some(Due::Early) => {
                    self.early.insert(lookup.object, now);
                    Errno::STALE
                }
                Some(Due::TooLong) => Errno::TIMEDOUT,
            };
            answers.push((*unique, errno));
        }
        for (unique, _) in &answers {
            self.lookups.remove(unique);
        }
        answers
    }

    /// How long nothing can become due; `None` if nobody waits.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let next = |lookup: &Lookup| {
            let left = (lookup.since + LONGEST).saturating_duration_since(now);
            let Some(at) = lookup.interrupted else { return left };
            // A kill follows soon or, most often, not at all.
            let look = if now.duration_since(at) < Duration::from_secs(1) { LOOK } else { LOOK_SELDOM };
            left.min(look)
        };
        self.lookups.values().map(next).min()
    }
}

/// Why a lookup is answered although its object is not here.
enum Due {
    Killed,
    Early,
    TooLong,
}

impl Lookup {
    fn due(&self, now: Instant, fate_of: impl Fn(u32) -> Fate) -> Option<Due> {
        if let Some(at) = self.interrupted {
            let fate = if self.pid == 0 { Fate::Unseen } else { fate_of(self.pid) };
            match fate {
                Fate::Dying => return Some(Due::Killed),
                // One that is being killed dies on the way; one that lives waits on.
                Fate::Unseen if !self.is_again && now.duration_since(at) >= UNSEEN => {
                    return Some(Due::Early);
                }
                Fate::Unseen | Fate::Living => {}
            }
        }
        if now.duration_since(self.since) < LONGEST {
            return None;
        }
        Some(if self.is_again { Due::TooLong } else { Due::Early })
    }
}

#[cfg(test)]
mod tests;
