//! From what is known of the nodes to the status of a prefetch.

use super::report::{self, Entry, NodeReport, State};
use super::status::{Condition, FAILURES_MAX, Failure, NodeCounts, PrefetchStatus, ResolvedImage};
use super::waves::{self, Member};
use super::wish::{Prefetch, Wish};
use crate::oci::reference::Reference;

/// A node that the prefetch selects, as the controller knows it.
#[derive(Debug, Clone, Copy)]
pub struct SeenNode<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it said last; `None` if it prefetches nothing at all.
    pub report: Option<&'a NodeReport>,
    /// Whether that was lately. A node that was not heard of keeps no slot.
    pub is_fresh: bool,
}

/// What one node does for one prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Waiting,
    Pulling,
    Ready,
    Failed,
    /// It has begun with nothing.
    Nothing,
}

/// The status of a prefetch; its own one is what was written before. `now` is by RFC 3339. A node that was admitted and
/// says nothing of the prefetch is waited for if `is_new`: the last wave came just now.
pub fn summary(prefetch: &Prefetch, nodes: &[SeenNode<'_>], is_new: bool, now: &str) -> PrefetchStatus {
    let before = &prefetch.status;
    let same = before.observed_generation == prefetch.generation;
    let admitted = if same { before.admitted.min(waves::PLACES) } else { 0 };
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable_by_key(|node| node.name);
    let (mut counts, mut members, mut failures) = (NodeCounts::default(), Vec::new(), Vec::new());
    counts.wanted = count(nodes.len());
    for node in &nodes {
        let Some(report) = node.report else {
            counts.silent += 1;
            continue;
        };
        let place = waves::place(&prefetch.uid, node.name);
        let (doing, inside) = (doing(prefetch, report), place < admitted);
        match doing {
            Doing::Waiting => counts.waiting += 1,
            Doing::Pulling => counts.pulling += 1,
            Doing::Ready => counts.ready += 1,
            Doing::Failed => counts.failed += 1,
            Doing::Nothing if inside && !is_new => counts.silent += 1,
            Doing::Nothing => counts.waiting += 1,
        }
        let works = match doing {
            Doing::Ready | Doing::Failed => false,
            Doing::Waiting | Doing::Pulling => node.is_fresh,
            Doing::Nothing => !inside || is_new,
        };
        members.push(Member { place, works });
        if doing == Doing::Failed && failures.len() < FAILURES_MAX {
            failures.extend(failure(prefetch, node.name, report));
        }
    }
    let images = resolved(prefetch, &nodes);
    let all_resolved = prefetch.wishes().all(|wish| is_resolved(wish, &images));
    let slots = prefetch.spec.parallelism.of(members.len());
    let admitted = if prefetch.spec.paused {
        admitted
    } else {
        waves::admitted(&members, admitted, slots, all_resolved)
    };
    let conditions = conditions(prefetch, counts, all_resolved, now);
    let observed_generation = prefetch.generation;
    PrefetchStatus { observed_generation, images, admitted, nodes: counts, failures, conditions }
}

fn entries<'a>(prefetch: &'a Prefetch, report: &'a NodeReport) -> impl Iterator<Item = &'a Entry> {
    let own = |entry: &&Entry| entry.uid == prefetch.uid && entry.generation == prefetch.generation;
    report.entries.iter().filter(own)
}

fn doing(prefetch: &Prefetch, report: &NodeReport) -> Doing {
    let states = prefetch.wishes().map(|wish| {
        let entry = entries(prefetch, report).find(|entry| entry.image == wish.reference);
        entry.map(|entry| entry.state)
    });
    let all: Vec<Option<State>> = states.collect();
    let any = |state| all.contains(&Some(state));
    if any(State::Failed) {
        Doing::Failed
    } else if any(State::Pulling) {
        Doing::Pulling
    } else if all.iter().all(|state| *state == Some(State::Ready)) {
        Doing::Ready
    } else if all.iter().any(Option::is_some) {
        Doing::Waiting
    } else {
        Doing::Nothing
    }
}

fn failure(prefetch: &Prefetch, node: &str, report: &NodeReport) -> Option<Failure> {
    let entry = entries(prefetch, report).find(|entry| entry.state == State::Failed)?;
    Some(Failure {
        node: node.to_owned(),
        reference: entry.image.clone(),
        reason: entry.reason.clone().unwrap_or_default(),
        message: report::cut(entry.message.as_deref().unwrap_or_default()),
    })
}

/// What was known stays; the rest is what the first node that knows it says, in the order of places.
fn resolved(prefetch: &Prefetch, nodes: &[SeenNode<'_>]) -> Vec<ResolvedImage> {
    let mut by_place: Vec<_> = nodes.iter().filter_map(|node| Some((node.name, node.report?))).collect();
    by_place.sort_by_key(|(name, _)| waves::place(&prefetch.uid, name));
    let of = |wish: &Wish| {
        let before = prefetch.status.images.iter().find(|image| image.reference == wish.reference);
        let digest = before.map(|image| image.digest.clone());
        let digest = digest.or_else(|| prefetch.target(wish).map(|digest| digest.to_string()));
        let entry = by_place.iter().find_map(|(_, report)| {
            let mut entries = report.entries.iter().filter(|entry| entry.uid == prefetch.uid);
            entries.find(|entry| {
                let same = digest.is_none() || entry.digest == digest;
                entry.image == wish.reference && entry.digest.is_some() && same
            })
        });
        // Of another generation's choice it may be more or less.
        let same = prefetch.status.observed_generation == prefetch.generation;
        let bytes = before.filter(|_| same).map_or(0, |image| image.bytes);
        let told = entry.filter(|entry| entry.generation == prefetch.generation);
        let bytes = if bytes > 0 { bytes } else { told.map_or(0, |entry| entry.bytes_total) };
        let digest = digest.or_else(|| entry?.digest.clone())?;
        Some(ResolvedImage { reference: wish.reference.clone(), digest, bytes })
    };
    prefetch.wishes().filter_map(of).collect()
}

/// What cannot be resolved at all is no reason to let the others wait.
fn is_resolved(wish: &Wish, images: &[ResolvedImage]) -> bool {
    wish.reference.parse::<Reference>().is_err()
        || images.iter().any(|image| image.reference == wish.reference)
}

fn conditions(prefetch: &Prefetch, counts: NodeCounts, all_resolved: bool, now: &str) -> Vec<Condition> {
    let condition = |kind: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let same = prefetch.status.condition(kind).filter(|before| before.status == status);
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: prefetch.generation,
            last_transition_time: same
                .map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
        }
    };
    let NodeCounts { wanted, ready, failed, silent, .. } = counts;
    let complete = wanted > 0 && ready == wanted;
    let why_not = match () {
        () if wanted == 0 => "NoNodes",
        () if complete => "AllReady",
        () if prefetch.spec.paused => "Paused",
        () if ready + failed + silent == wanted => "SomeNodesNotReady",
        () => "Working",
    };
    let degraded = match (failed, silent) {
        (0, 0) => "AsExpected",
        (0, _) => "SilentNodes",
        _ => "FailedNodes",
    };
    vec![
        condition(
            "Resolved",
            all_resolved,
            if all_resolved { "AllResolved" } else { "WaitingForFirstNode" },
            "each image has one digest, which all nodes pull".to_owned(),
        ),
        condition("Complete", complete, why_not, format!("{ready} of {wanted} nodes have all images")),
        condition(
            "Degraded",
            failed + silent > 0,
            degraded,
            format!("{failed} nodes have failed, {silent} say nothing"),
        ),
    ]
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
