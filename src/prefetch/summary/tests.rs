use super::*;
use crate::prefetch::wish::{Keep, Parallelism, PrefetchSpec};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn prefetch(references: &[&str]) -> Prefetch {
    Prefetch {
        uid: "uid".to_owned(),
        namespace: "shop".to_owned(),
        name: "models".to_owned(),
        generation: 1,
        version: "7".to_owned(),
        created: 0,
        spec: PrefetchSpec {
            images: references.iter().map(|text| Wish::whole(text)).collect(),
            node_selector: Default::default(),
            pull_secrets: Vec::new(),
            parallelism: Parallelism::Count(2),
            paused: false,
            backoff_limit: 6,
            keep: Keep::WhileExists,
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
        },
        status: PrefetchStatus::default(),
    }
}

fn entry(state: State) -> Entry {
    Entry {
        uid: "uid".to_owned(),
        image: "r.io/a:1".to_owned(),
        generation: 1,
        digest: Some(DIGEST.to_owned()),
        state,
        reason: (state == State::Failed).then(|| "NoSpace".to_owned()),
        message: None,
        bytes_done: 1,
        bytes_total: 5,
        finished: None,
    }
}

/// A cluster in which nodes do what they are admitted to, until nothing changes.
struct Simulation {
    prefetch: Prefetch,
    reports: Vec<(String, NodeReport)>,
    most: usize,
}

impl Simulation {
    fn new(nodes: usize) -> Self {
        let reports = (0..nodes).map(|n| (format!("node-{n}"), NodeReport::default())).collect();
        Self { prefetch: prefetch(&["r.io/a:1"]), reports, most: 0 }
    }

    fn round(&mut self, is_new: bool, end: impl Fn(&str) -> State) {
        let seen: Vec<_> = self
            .reports
            .iter()
            .map(|(name, report)| SeenNode { name, report: Some(report), is_fresh: true })
            .collect();
        let status = summary(&self.prefetch, &seen, is_new, "now");
        let mut working = 0;
        for (name, report) in &mut self.reports {
            let inside = waves::place("uid", name) < status.admitted;
            match report.entries.first_mut() {
                None if inside => report.entries.push(entry(State::Pulling)),
                Some(before) if before.state == State::Pulling => *before = entry(end(name)),
                _ => continue,
            }
            working += 1;
        }
        self.most = self.most.max(working);
        self.prefetch.status = status;
    }
}

#[test]
fn all_nodes_come_to_it_two_at_a_time() {
    let mut cluster = Simulation::new(20);
    cluster.round(true, |_| State::Ready);
    assert_eq!(cluster.prefetch.status.nodes.waiting, 20);
    assert_eq!(cluster.prefetch.status.condition("Resolved").unwrap().status, "False");
    for _ in 0..60 {
        cluster.round(true, |_| State::Ready);
    }
    let status = &cluster.prefetch.status;
    assert_eq!((status.nodes.ready, status.admitted, cluster.most), (20, waves::PLACES, 2));
    assert_eq!(status.images[0].digest, DIGEST);
    assert_eq!(status.images[0].bytes, 5);
    assert_eq!(status.condition("Complete").unwrap().status, "True");
    let settled = status.clone();
    cluster.round(false, |_| State::Ready);
    assert_eq!(cluster.prefetch.status, settled, "nothing is left to be written");
    // One that comes later begins at once, as there is no wave to wait for.
    cluster.reports.push(("late".to_owned(), NodeReport::default()));
    cluster.round(false, |_| State::Ready);
    assert_eq!(cluster.reports[20].1.entries.len(), 1);
}

#[test]
fn failed_and_dead_nodes_hold_nobody_up() {
    let mut cluster = Simulation::new(60);
    for _ in 0..200 {
        cluster.round(true, |name| if name.ends_with('7') { State::Ready } else { State::Failed });
    }
    let status = &cluster.prefetch.status;
    assert_eq!((status.nodes.ready, status.nodes.failed), (6, 54));
    assert_eq!(status.failures.len(), FAILURES_MAX);
    assert_eq!(status.failures[0].reason, "NoSpace");
    assert_eq!(status.condition("Complete").unwrap().reason, "SomeNodesNotReady");
    assert_eq!(status.condition("Degraded").unwrap().status, "True");
    // Nodes without a plugin, and one whose plugin has died at its work.
    let one = prefetch(&["r.io/a:1"]);
    let working = NodeReport { entries: vec![entry(State::Pulling)], ..NodeReport::default() };
    let seen = |is_fresh| {
        [("a", None), ("b", Some(&working))].map(|(name, report)| SeenNode { name, report, is_fresh })
    };
    let status = summary(&one, &seen(true), false, "now");
    assert_eq!((status.nodes.silent, status.nodes.pulling), (1, 1));
    let stalled = summary(&one, &seen(false), false, "now");
    assert_eq!(stalled.admitted, waves::PLACES);
}

#[test]
fn a_change_begins_anew_and_keeps_what_tags_mean() {
    let mut cluster = Simulation::new(5);
    for _ in 0..20 {
        cluster.round(true, |_| State::Ready);
    }
    cluster.prefetch.generation = 2;
    cluster.prefetch.spec.images.push(Wish::whole("r.io/b:1"));
    let seen: Vec<_> = cluster
        .reports
        .iter()
        .map(|(name, report)| SeenNode { name, report: Some(report), is_fresh: true })
        .collect();
    let status = summary(&cluster.prefetch, &seen, true, "later");
    assert!(status.admitted > 0 && status.admitted < waves::PLACES, "one node first");
    assert_eq!((status.images.len(), status.observed_generation, status.nodes.ready), (1, 2, 0));
    cluster.prefetch.spec.paused = true;
    assert_eq!(summary(&cluster.prefetch, &seen, true, "later").admitted, 0);
}

#[test]
fn what_is_pinned_or_malformed_is_not_waited_for() {
    let pinned = format!("r.io/a@{DIGEST}");
    let one = prefetch(&[&pinned, "nonsense"]);
    let status = summary(&one, &[], false, "now");
    assert_eq!(status.condition("Resolved").unwrap().status, "True");
    assert_eq!(status.images.len(), 1);
    assert_eq!(status.condition("Complete").unwrap().reason, "NoNodes");
}
