use super::*;
use crate::prefetch::report::{Entry, State};
use crate::prefetch::status::Condition;

fn prefetch() -> Prefetch {
    Prefetch {
        uid: "uid".to_owned(),
        namespace: "shop".to_owned(),
        name: "models".to_owned(),
        generation: 1,
        version: "1".to_owned(),
        created: 0,
        spec: serde_json::from_str(
            r#"{"images":[{"reference":"r.io/a:1"}],"parallelism":1,"ttlSecondsAfterFinished":60}"#,
        )
        .unwrap(),
        status: PrefetchStatus::default(),
    }
}

fn report(state: State) -> NodeReport {
    let entry = Entry {
        uid: "uid".to_owned(),
        image: "r.io/a:1".to_owned(),
        generation: 1,
        digest: Some(format!("sha256:{}", "a".repeat(64))),
        state,
        reason: None,
        message: None,
        bytes_done: 0,
        bytes_total: 9,
        finished: None,
    };
    NodeReport { entries: vec![entry], ..NodeReport::default() }
}

fn fleet(now: Instant) -> Fleet {
    let mut fleet = Fleet::default();
    let stamp = Timestamp::UNIX_EPOCH;
    fleet.apply(Seen::Nodes(vec![("a".to_owned(), Labels::new()), ("b".to_owned(), Labels::new())]), now);
    assert!(fleet.due(now, stamp).is_none());
    fleet.apply(Seen::Prefetches(Change::All(vec![prefetch()])), now);
    assert!(fleet.due(now, stamp).is_none() && fleet.next_due().is_none(), "the reports are not known yet");
    let silent = ["a", "b"].map(|name| (name.to_owned(), NodeReport::default()));
    fleet.apply(Seen::Reports(silent.into()), now);
    fleet
}

fn written(fleet: &mut Fleet, now: Instant, stamp: Timestamp) -> Option<PrefetchStatus> {
    let Due::Write(prefetch, status) = fleet.due(now, stamp)? else { panic!("a deletion") };
    let version = format!("{}0", prefetch.version);
    fleet.wrote(&prefetch.uid, &status, Written::As(version), now);
    Some(status)
}

#[test]
fn one_write_in_ten_seconds_and_none_without_news() {
    let (mut now, stamp) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let mut fleet = fleet(now);
    let first = written(&mut fleet, now, stamp).unwrap();
    assert!(first.admitted > 0 && first.nodes.waiting == 2);
    fleet.apply(Seen::Report("a".to_owned(), Some(report(State::Ready))), now);
    assert!(fleet.due(now, stamp).is_none(), "not yet");
    let due = fleet.next_due().unwrap();
    assert!(due > now && due <= now + Duration::from_secs(10));
    now = due;
    let second = written(&mut fleet, now, stamp).unwrap();
    assert_eq!((second.nodes.ready, second.images.len()), (1, 1));
    now += Duration::from_secs(10);
    while written(&mut fleet, now, stamp).is_some() {
        now += Duration::from_secs(10);
    }
    assert!(fleet.next_due().is_none());
    // The watch tells what was written, and nothing follows.
    let echo = fleet.prefetches["uid"].prefetch.clone();
    fleet.apply(Seen::Prefetches(Change::Set(Box::new(echo))), now);
    assert!(fleet.due(now, stamp).is_none());
}

#[test]
fn another_ones_write_is_taken_into_account() {
    let (now, stamp) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let mut fleet = fleet(now);
    let Some(Due::Write(one, status)) = fleet.due(now, stamp) else { panic!("nothing to write") };
    fleet.wrote("uid", &status, Written::Outdated, now);
    assert!(fleet.due(now, stamp).is_none());
    // The other controller has come to the same.
    let theirs = Prefetch { version: "2".to_owned(), status, ..*one };
    fleet.apply(Seen::Prefetches(Change::Set(Box::new(theirs))), now);
    assert!(fleet.due(now + Duration::from_secs(20), stamp).is_none());
}

#[test]
fn what_is_complete_goes_when_its_time_has_come() {
    let mut one = prefetch();
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(!is_over(&one, at(1_000)));
    let complete = Condition {
        kind: "Complete".to_owned(),
        status: "True".to_owned(),
        observed_generation: 1,
        last_transition_time: "1970-01-01T00:10:00Z".to_owned(),
        ..Condition::default()
    };
    one.status.conditions.push(complete);
    assert!(!is_over(&one, at(659)) && is_over(&one, at(660)));
    one.generation = 2;
    assert!(!is_over(&one, at(660)), "of another generation");
    one.generation = 1;
    one.status.conditions[0].status = "False".to_owned();
    assert!(!is_over(&one, at(660)));
}
