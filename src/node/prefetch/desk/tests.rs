use proptest::prelude::*;

use super::*;
use crate::prefetch::status::{PrefetchStatus, ResolvedImage};
use crate::prefetch::wish::{Parallelism, PrefetchSpec, SecretName, Wish};

const NODE: &str = "node-1";

fn digest(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

fn prefetch(uid: &str, images: &[&str]) -> Prefetch {
    Prefetch {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: uid.to_owned(),
        generation: 1,
        version: "1".to_owned(),
        created: 5,
        spec: PrefetchSpec {
            images: images.iter().map(|text| Wish::whole(text)).collect(),
            node_selector: Labels::new(),
            pull_secrets: vec![SecretName { name: "pull".to_owned() }],
            parallelism: Parallelism::default(),
            paused: false,
            backoff_limit: 1,
            keep: Keep::WhileExists,
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
        },
        status: PrefetchStatus {
            observed_generation: 1,
            admitted: waves::PLACES,
            ..PrefetchStatus::default()
        },
    }
}

fn resolved(mut prefetch: Prefetch, image: &str, to: Digest) -> Prefetch {
    let image = ResolvedImage { reference: image.to_owned(), digest: to.to_string(), bytes: 0 };
    prefetch.status.images.push(image);
    prefetch
}

fn set(desk: &mut Desk, prefetch: Prefetch, now: Instant) {
    desk.apply(Change::Set(Box::new(prefetch)));
    desk.tidy(now, "t");
}

fn failure(for_good: bool) -> Outcome {
    Outcome::Failed { reason: "Denied", message: "no".to_owned(), for_good, target: None }
}

fn states(desk: &Desk) -> Vec<State> {
    desk.entries().iter().map(|entry| entry.state).collect()
}

#[test]
fn one_image_after_the_other_and_the_oldest_prefetch_first() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    assert_eq!(desk.kept(), None, "nothing is known yet");
    let old = Prefetch { created: 1, ..prefetch("old", &["r.io/b:1", "r.io/a:1"]) };
    desk.apply(Change::All(vec![prefetch("new", &["r.io/a:1"]), old]));
    desk.tidy(now, "t");
    assert_eq!(desk.kept().unwrap().len(), 3);
    let first = desk.next(now).unwrap();
    assert_eq!(first.key, ("old".to_owned(), "r.io/a:1".to_owned()));
    assert_eq!(desk.due(), None, "the others wait for its end, which comes by itself");
    assert_eq!((first.pull_secrets.as_slice(), first.target), (&["pull".to_owned()][..], None));
    desk.progress(&first, (3, 7));
    assert_eq!(states(&desk), [State::Pulling, State::Waiting, State::Waiting]);
    desk.finish(&first, Outcome::Ready { target: digest("a") }, now, "t");
    let entry = &desk.entries()[0];
    assert_eq!((entry.state, entry.bytes_done, entry.bytes_total), (State::Ready, 7, 7));
    assert_eq!(entry.digest.as_deref(), Some(&*digest("a").to_string()));
    let second = desk.next(now).unwrap();
    assert_eq!(second.key.1, "r.io/b:1");
    desk.apply(Change::Gone("old".to_owned()));
    desk.tidy(now, "t");
    assert!(!desk.still_wants(&second));
    assert_eq!(desk.kept().unwrap().len(), 1);
    assert_eq!(desk.next(now).unwrap().key.0, "new");
}

#[test]
fn a_node_waits_for_its_wave() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let mut one = prefetch("a", &["r.io/a:1"]);
    let place = waves::place("a", NODE);
    one.status.admitted = place;
    set(&mut desk, one.clone(), now);
    assert_eq!(desk.next(now), None);
    one.status.admitted = place + 1;
    one.status.observed_generation = 0;
    set(&mut desk, one.clone(), now);
    assert_eq!(desk.next(now), None, "the number is of another generation");
    one.status.observed_generation = 1;
    one.spec.paused = true;
    set(&mut desk, one.clone(), now);
    assert_eq!((desk.next(now), desk.due()), (None, None));
    one.spec.paused = false;
    set(&mut desk, one, now);
    assert!(desk.next(now).is_some());
}

#[test]
fn only_nodes_with_the_labels() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let mut one = prefetch("a", &["r.io/a:1"]);
    one.spec.node_selector = Labels::from([("gpu".to_owned(), "yes".to_owned())]);
    desk.apply(Change::All(vec![one]));
    desk.tidy(now, "t");
    assert!(desk.wants_labels() && desk.next(now).is_none());
    assert_eq!(desk.kept().unwrap().len(), 1, "it may be meant");
    desk.set_labels(Labels::from([("gpu".to_owned(), "yes".to_owned())]));
    desk.tidy(now, "t");
    assert!(desk.next(now).is_some());
    desk.set_labels(Labels::new());
    desk.tidy(now, "t");
    assert_eq!((desk.kept().unwrap().len(), desk.entries().len()), (0, 0));
}

#[test]
fn attempts_are_limited_and_a_change_begins_anew() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let one = prefetch("a", &["r.io/a:1"]);
    set(&mut desk, one.clone(), now);
    let job = desk.next(now).unwrap();
    desk.finish(&job, failure(false), now, "t");
    assert_eq!(desk.next(now), None);
    let later = desk.due().unwrap();
    assert!(later >= now + Duration::from_secs(10));
    let job = desk.next(later).unwrap();
    desk.finish(&job, failure(false), later, "t");
    let entry = &desk.entries()[0];
    assert_eq!((entry.state, entry.reason.as_deref()), (State::Failed, Some("Denied")));
    assert_eq!(desk.due(), None);
    let mut changed = Prefetch { generation: 2, ..one };
    changed.status.observed_generation = 2;
    set(&mut desk, changed, later);
    assert_eq!(desk.entries()[0].generation, 2);
    let job = desk.next(later).unwrap();
    desk.finish(&job, failure(true), later, "t");
    assert_eq!(states(&desk), [State::Failed], "no attempt would help");
}

#[test]
fn a_deadline_ends_waiting_and_work() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let mut one = prefetch("a", &["r.io/a:1"]);
    one.spec.active_deadline_seconds = Some(60);
    set(&mut desk, one, now);
    let job = desk.next(now).unwrap();
    let end = now + Duration::from_secs(60);
    assert_eq!(desk.due(), Some(end));
    desk.tidy(end, "t");
    assert!(!desk.still_wants(&job));
    assert_eq!(desk.entries()[0].reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn all_nodes_end_with_the_same_meaning_of_a_tag() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let one = prefetch("a", &["r.io/a:1"]);
    set(&mut desk, one.clone(), now);
    let job = desk.next(now).unwrap();
    // Another node was first, while this one still pulled what the tag meant to it.
    let one = resolved(one, "r.io/a:1", digest("theirs"));
    set(&mut desk, one, now);
    desk.finish(&job, Outcome::Ready { target: digest("ours") }, now, "t");
    let job = desk.next(now).unwrap();
    assert_eq!(job.target, Some(digest("theirs")));
    desk.finish(&job, Outcome::Ready { target: digest("theirs") }, now, "t");
    assert_eq!((states(&desk), desk.due()), (vec![State::Ready], None));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_one_job_and_an_end(
        events in proptest::collection::vec((0_u8..8, 0_usize..3, any::<bool>()), 0..60),
    ) {
        let (mut desk, mut now) = (Desk::new(NODE.to_owned()), Instant::now());
        let uids = ["a", "b", "c"];
        let mut generation = 1;
        let mut job: Option<Job> = None;
        for (event, which, flag) in events {
            match event {
                0 | 1 => {
                    let mut one = prefetch(uids[which], &["r.io/a:1", "r.io/b:1"]);
                    generation += i64::from(flag);
                    one.generation = generation;
                    one.status.observed_generation = generation;
                    set(&mut desk, one, now);
                }
                2 => desk.apply(Change::Gone(uids[which].to_owned())),
                3 | 4 => if let Some(job) = job.take() {
                    let outcome =
                        if flag { Outcome::Ready { target: digest("x") } } else { failure(false) };
                    desk.finish(&job, outcome, now, "t");
                },
                _ => now += Duration::from_secs(60),
            }
            desk.tidy(now, "t");
            if job.as_ref().is_some_and(|job| !desk.still_wants(job)) {
                job = None;
            }
            if job.is_none() {
                job = desk.next(now);
            }
            prop_assert_eq!(desk.count(State::Pulling), u64::from(job.is_some()));
        }
        // Left alone, it comes to an end: each image is here, or given up.
        for _ in 0..100 {
            if let Some(job) = job.take() {
                desk.finish(&job, failure(false), now, "t");
            }
            now = desk.due().map_or(now, |due| due.max(now));
            desk.tidy(now, "t");
            job = desk.next(now);
        }
        prop_assert!(states(&desk).iter().all(|state| matches!(state, State::Ready | State::Failed)));
    }
}

#[test]
fn a_choice_goes_with_its_job_and_keeps_under_its_own_key() {
    let (mut desk, now) = (Desk::new(NODE.to_owned()), Instant::now());
    let choosing = |include: &str, generation| {
        let mut prefetch = Prefetch { generation, ..prefetch("a", &["r.io/a:1"]) };
        prefetch.status.observed_generation = generation;
        prefetch.spec.images[0].include.push(include.to_owned());
        prefetch
    };
    desk.apply(Change::All(vec![choosing("int4", 1)]));
    desk.tidy(now, "t");
    let job = desk.next(now).unwrap();
    assert_eq!(job.wish.include, ["int4"]);
    let kept = desk.kept().unwrap();
    assert_eq!(kept, HashSet::from([("a".to_owned(), job.wish.key().unwrap())]));
    // Another choice begins anew, also while the first is worked on, and the first is kept no longer.
    set(&mut desk, choosing("int8", 2), now);
    assert!(!desk.still_wants(&job));
    assert_eq!(desk.next(now).unwrap().wish.include, ["int8"]);
    assert!(desk.kept().unwrap().is_disjoint(&kept));
    set(&mut desk, choosing("[", 3), now);
    assert!(desk.kept().unwrap().is_empty(), "nothing is kept for what is no choice");
}
