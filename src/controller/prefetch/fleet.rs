//! What the controller knows of nodes and prefetches, and what is to be written. Pure, but for the time that it is given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Labels, Seen, Written};
use crate::prefetch::pace::Pace;
use crate::prefetch::report::NodeReport;
use crate::prefetch::status::PrefetchStatus;
use crate::prefetch::summary::{SeenNode, summary};
use crate::prefetch::wish::Prefetch;
use crate::prefetch::{Change, PREFETCHES_MAX};

/// A node that says nothing for so long keeps no slot. Longer than the longest pause between two attempts.
const STALE: Duration = Duration::from_secs(480);
/// How long a node that was admitted may take to say so.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes, their reports, and prefetches.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    nodes: HashMap<String, Labels>,
    reports: HashMap<String, Heard>,
    prefetches: HashMap<String, Known>,
    /// Whether all of each sort were told. Before that, nothing can be counted.
    complete: [bool; 3],
}

#[derive(Debug)]
struct Heard {
    report: NodeReport,
    at: Instant,
}

#[derive(Debug)]
struct Known {
    prefetch: Prefetch,
    pace: Pace,
    dirty: bool,
    /// When the last wave was let in.
    raised: Option<Instant>,
}

/// Something to be done.
#[derive(Debug)]
pub(super) enum Due {
    Write(Box<Prefetch>, PrefetchStatus),
    Delete(Box<Prefetch>),
}

impl Fleet {
    pub(super) fn apply(&mut self, seen: Seen, now: Instant) {
        match seen {
            Seen::Prefetches(change) => self.change(change),
            Seen::Nodes(all) => {
                self.nodes = all.into_iter().collect();
                self.complete[0] = true;
                self.look_at_all();
            }
            Seen::Node(name, Some(labels)) => {
                // A kubelet writes its node every few minutes, mostly without news for us.
                if self.nodes.insert(name, labels.clone()).is_none_or(|before| before != labels) {
                    self.look_at_all();
                }
            }
            Seen::Node(name, None) => {
                self.nodes.remove(&name);
                self.look_at_all();
            }
            Seen::Reports(all) => {
                let heard = all.into_iter().map(|(name, report)| (name, Heard { report, at: now }));
                self.reports = heard.collect();
                self.complete[1] = true;
                self.look_at_all();
            }
            Seen::Report(name, Some(report)) => {
                self.look_at(&report);
                match self.reports.insert(name, Heard { report, at: now }) {
                    Some(before) => self.look_at(&before.report),
                    // Another node that can prefetch.
                    None => self.look_at_all(),
                }
            }
            Seen::Report(name, None) => {
                self.reports.remove(&name);
                self.look_at_all();
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::All(all) => {
                let mut before = std::mem::take(&mut self.prefetches);
                for prefetch in all.into_iter().take(PREFETCHES_MAX) {
                    let known = before.remove(&prefetch.uid);
                    self.set(prefetch, known);
                }
                self.complete[2] = true;
            }
            Change::Set(prefetch) => {
                let known = self.prefetches.remove(&prefetch.uid);
                if known.is_some() || self.prefetches.len() < PREFETCHES_MAX {
                    self.set(*prefetch, known);
                }
            }
            Change::Gone(uid) => drop(self.prefetches.remove(&uid)),
        }
    }

    fn set(&mut self, prefetch: Prefetch, known: Option<Known>) {
        let (pace, raised) = known.map_or_else(|| (Pace::new(0), None), |known| (known.pace, known.raised));
        let uid = prefetch.uid.clone();
        self.prefetches.insert(uid, Known { prefetch, pace, dirty: true, raised });
    }

    /// Each status may have changed.
    pub(super) fn look_at_all(&mut self) {
        self.prefetches.values_mut().for_each(|known| known.dirty = true);
    }

    fn look_at(&mut self, report: &NodeReport) {
        for entry in &report.entries {
            if let Some(known) = self.prefetches.get_mut(&entry.uid) {
                known.dirty = true;
            }
        }
    }

    /// What is to be done next, if anything is by now.
    pub(super) fn due(&mut self, now: Instant, stamp: Timestamp) -> Option<Due> {
        if self.complete != [true; 3] {
            return None;
        }
        let Self { nodes, reports, prefetches, .. } = self;
        for known in prefetches.values_mut() {
            let is_due = known.pace.due(now, true, false).is_none_or(|due| due <= now);
            if !known.dirty || !is_due {
                continue;
            }
            known.dirty = false;
            let prefetch = &known.prefetch;
            if is_over(prefetch, stamp) {
                return Some(Due::Delete(Box::new(prefetch.clone())));
            }
            let selected = nodes.iter().filter(|(_, labels)| prefetch.selects(labels));
            let seen: Vec<_> = selected
                .map(|(name, _)| {
                    let heard = reports.get(name);
                    let is_fresh = heard.is_some_and(|heard| now.duration_since(heard.at) < STALE);
                    SeenNode { name, report: heard.map(|heard| &heard.report), is_fresh }
                })
                .collect();
            // What an earlier process has let in has been let in just now.
            let raised = *known.raised.get_or_insert(now);
            let is_new = now.duration_since(raised) < PATIENCE;
            let text = Timestamp::from_second(stamp.as_second()).unwrap_or(stamp).to_string();
            let status = summary(prefetch, &seen, is_new, &text);
            if status != prefetch.status {
                return Some(Due::Write(Box::new(prefetch.clone()), status));
            }
        }
        None
    }

    /// A status was written, or could not be because another one was faster.
    pub(super) fn wrote(&mut self, uid: &str, status: &PrefetchStatus, written: Written, now: Instant) {
        let Some(known) = self.prefetches.get_mut(uid) else { return };
        known.pace.wrote(now, true);
        // With the nodes that are let in, there may be more to do at once.
        known.dirty = true;
        if let Written::As(version) = written {
            if status.admitted > known.prefetch.status.admitted {
                known.raised = Some(now);
            }
            known.prefetch.version = version;
            known.prefetch.status = status.clone();
        }
    }

    /// Something failed, or was done that the watch will tell.
    pub(super) fn waits(&mut self, uid: &str, now: Instant, well: bool) {
        if let Some(known) = self.prefetches.get_mut(uid) {
            known.pace.wrote(now, well);
            known.dirty = !well;
        }
    }

    /// When something may be due by the time alone.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.complete != [true; 3] {
            return None;
        }
        let dirty = self.prefetches.values().filter(|known| known.dirty);
        dirty.filter_map(|known| known.pace.due(Instant::now(), true, false)).min()
    }
}

/// Whether a prefetch has been complete for as long as it wants to be.
fn is_over(prefetch: &Prefetch, now: Timestamp) -> bool {
    let Some(ttl) = prefetch.spec.ttl_seconds_after_finished else { return false };
    let since = prefetch.status.condition("Complete").filter(|condition| {
        condition.status == "True" && condition.observed_generation == prefetch.generation
    });
    let since = since.and_then(|condition| condition.last_transition_time.parse::<Timestamp>().ok());
    since.is_some_and(|since| {
        u64::try_from(now.as_second() - since.as_second()).is_ok_and(|passed| passed >= ttl)
    })
}

#[cfg(test)]
mod tests;
