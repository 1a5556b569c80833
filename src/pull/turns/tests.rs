//! Turns by events: each test waits for what must happen, however long that takes on a busy machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::oci::digest::Digest;
use crate::pull::progress::{LayerState, Progress};

fn tenant(host: &str) -> Tenant {
    (host.to_owned(), AccessRecord::Anonymous)
}

/// Turns that end soon.
fn quick(slots: usize, places: usize) -> Arc<Turns> {
    let look = Duration::from_millis(5);
    let turn = Duration::from_millis(20);
    Arc::new(Turns::new(slots, TurnRules { look, turn, trickle: 64 << 10, places }))
}

fn progress() -> Arc<Progress> {
    Arc::new(Progress::new("r.io/x:1", Digest::of(b"m"), [(Digest::of(b"a"), 1 << 40)]))
}

/// A layer whose registry sends nothing until it is released; says how it ended.
fn silent(
    turns: &Arc<Turns>,
    host: &str,
) -> (Arc<Progress>, oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), GaveWay>>) {
    let (turns, progress, host) = (Arc::clone(turns), progress(), host.to_owned());
    let (release, released) = oneshot::channel::<()>();
    let seen = Arc::clone(&progress);
    let task = tokio::spawn(async move {
        let mut turn = turns.begin(tenant(&host), &seen.layers[0], &Urgency::urgent()).await;
        turn.during(released).await.map(drop)
    });
    (progress, release, task)
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn state(progress: &Progress) -> LayerState {
    progress.layers[0].state()
}

#[tokio::test]
async fn silent_registries_keep_nobody_out() {
    let turns = quick(2, 16);
    let attackers: Vec<_> = (0..6).map(|n| silent(&turns, &format!("evil-{n}"))).collect();
    let good = progress();
    let mut turn = turns.begin(tenant("good"), &good.layers[0], &Urgency::urgent()).await;
    turn.during(async {}).await.unwrap();
    // They all go on, beside the slots.
    for (progress, release, task) in attackers {
        until(|| state(&progress) != LayerState::Waiting).await;
        release.send(()).unwrap();
        assert_eq!(task.await.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn nobody_steps_aside_while_nobody_waits() {
    let turns = quick(1, 16);
    let (progress, release, task) = silent(&turns, "slow");
    until(|| state(&progress) == LayerState::Fetching).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(state(&progress), LayerState::Fetching);
    let other = silent(&turns, "other");
    until(|| state(&progress) == LayerState::Aside && state(&other.0) == LayerState::Fetching).await;
    release.send(()).unwrap();
    assert_eq!(task.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_long_layer_of_a_fast_registry_takes_turns_with_another() {
    let turns = quick(1, 16);
    let layer = |host: &'static str| {
        let (turns, progress) = (Arc::clone(&turns), progress());
        let seen = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            let mut turn = turns.begin(tenant(host), &seen.layers[0], &Urgency::urgent()).await;
            loop {
                turn.during(async {}).await.unwrap();
                turn.took(1 << 20).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        (progress, task)
    };
    let (a, b) = (layer("a"), layer("b"));
    for _ in 0..3 {
        for (now, then) in [(&a, &b), (&b, &a)] {
            until(|| state(&now.0) == LayerState::Fetching && state(&then.0) != LayerState::Fetching).await;
        }
    }
    a.1.abort();
    b.1.abort();
}

#[tokio::test]
async fn beyond_the_places_the_slowest_gives_way() {
    let turns = quick(1, 2);
    // The last one keeps the slot: nobody waits behind it.
    let layers: Vec<_> = (0..5).map(|n| silent(&turns, &format!("evil-{n}"))).collect();
    let ended = || layers.iter().filter(|(_, _, task)| task.is_finished()).count();
    until(|| ended() == 2).await;
    let aside = layers
        .iter()
        .filter(|(progress, _, task)| !task.is_finished() && state(progress) == LayerState::Aside);
    assert_eq!(aside.count(), 2);
    for (_, _, task) in layers {
        if task.is_finished() {
            assert!(matches!(task.await.unwrap(), Err(GaveWay { rate: 0 })));
        }
    }
}

#[test]
fn only_the_registrys_own_slowness_counts() {
    let rules = TurnRules::default();
    let seen = |bytes, seconds| Seen { bytes, waited: Duration::from_secs(seconds) };
    let over = |seen| rules.is_over(seen, Duration::ZERO);
    assert!(over(seen(12 << 12, 4)) && over(seen(0, 5)));
    assert!(!over(seen(1 << 20, 4)), "fast enough");
    assert!(!over(seen(0, 1)), "the disk was waited for, or our own brake");
    assert!(rules.is_over(seen(1 << 30, 1), rules.turn), "a turn is over for the fastest");
}

#[tokio::test]
async fn what_nobody_waits_for_stands_behind_and_gives_way() {
    let turns = quick(2, 16);
    let (patient, progress_of_it) = (Urgency::patient(), progress());
    let begin = |turns: &Arc<Turns>, urgency: &Urgency| {
        let (turns, urgency, seen) = (Arc::clone(turns), urgency.clone(), Arc::clone(&progress_of_it));
        tokio::spawn(async move {
            let mut turn = turns.begin(tenant("a"), &seen.layers[0], &urgency).await;
            let _ = turn.during(std::future::pending::<()>()).await;
        })
    };
    // It has a slot as long as nobody else wants it.
    let first = begin(&turns, &patient);
    until(|| state(&progress_of_it) == LayerState::Fetching).await;
    // Two pods' layers, of the same tenant and another: the second one gets the prefetch's slot.
    let (one, two) = (progress(), progress());
    let _one = turns.begin(tenant("a"), &one.layers[0], &Urgency::urgent()).await;
    let _two = turns.begin(tenant("b"), &two.layers[0], &Urgency::urgent()).await;
    until(|| state(&progress_of_it) == LayerState::Aside).await;
    first.abort();
}

#[tokio::test]
async fn a_pull_that_somebody_joins_leaves_the_line_behind() {
    let gate = Gate::new(1, 1);
    let lane = |host: &str, behind| Lane { tenant: tenant(host), behind };
    let held = gate.enter(lane("x", false), 1).await;
    let urgency = Urgency::patient();
    let waiting = tokio::spawn(enter(gate.clone(), tenant("a"), urgency.clone()));
    let behind = gate.enter_behind(lane("b", true), 1);
    tokio::pin!(behind);
    assert!(futures_util::FutureExt::now_or_never(&mut behind).is_none());
    until(|| gate.occupancy().waiting == 2).await;
    urgency.hurry();
    // It has changed lines when the one in the slot would make room for it.
    until(|| held.is_wanted()).await;
    drop(held);
    let _pass = waiting.await.unwrap();
    assert!(futures_util::FutureExt::now_or_never(&mut behind).is_none());
}
