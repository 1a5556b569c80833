//! How a pull looks in 80 columns.

use super::*;
use crate::oci::digest::Digest;

fn pull() -> PullUnderWay {
    let layer = |state, done_bytes| LayerUnderWay {
        blob: Digest::of(b"layer"),
        state,
        done_bytes,
        unpacked_bytes: 0,
        total_bytes: 1000,
        bytes_per_second: 5,
    };
    let waiter = |pod: &str| Waiter { pod: pod.to_owned(), volume: "csi-7".to_owned() };
    PullUnderWay {
        image: "r.io/x:1".to_owned(),
        digest: Digest::of(b"m"),
        waiting: 3,
        waiters: vec![waiter("shop/web-0"), waiter("")],
        seconds: 95,
        done_bytes: 1500,
        total_bytes: 4000,
        fetched_bytes: 500,
        bytes_per_second: 10,
        seconds_left: Some(250),
        seconds_silent: None,
        phase: Phase::Fetching,
        building: false,
        layers: vec![
            layer(LayerState::Reused, 1000),
            layer(LayerState::Aside, 500),
            layer(LayerState::Fetching, 1000),
            layer(LayerState::Waiting, 0),
        ],
    }
}

#[test]
fn a_pull_says_what_it_does_for_whom_and_when_it_ends() {
    let text = blocks(&[pull()], 80);
    let short = Digest::of(b"layer").short();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "r.io/x:1");
    assert_eq!(lines[1], format!("  {}", Digest::of(b"m")));
    assert_eq!(lines[2], "  fetching, 1.5 kB of 4.0 kB, 10 B/s, about 4 min 30 s left");
    assert_eq!(lines[3], "  begun 1 min 35 s ago; 4 layers: 1 here before, 1 fetching, 1 aside, 1 waiting");
    assert_eq!(lines[4], "  3 calls wait, for shop/web-0, volume csi-7");
    assert_eq!(lines[5], format!("    {short}  500 B of 1.0 kB  5 B/s, aside"));
    assert_eq!(lines[6], format!("    {short}  1.0 kB of 1.0 kB  unpacking"));
    assert_eq!(lines.len(), 7, "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(blocks(&[], 80), NONE);
}

#[test]
fn one_that_does_not_move_says_so() {
    let silent =
        PullUnderWay { seconds_silent: Some(125), seconds_left: None, waiting: 0, waiters: vec![], ..pull() };
    let line = line(&silent);
    assert!(
        line.ends_with("1.5 kB of 4.0 kB, NOTHING received for 2 min 5 s; no call waits for it"),
        "{line}"
    );
    let building = PullUnderWay { phase: Phase::Syncing, ..pull() };
    assert_eq!(doing(&building), "writing the image to disk");
    let again = PullUnderWay { phase: Phase::Waiting, layers: vec![], ..pull() };
    assert_eq!(doing(&again), "building another image of the same layers");
}

#[test]
fn many_waiters_and_strange_names_do_not_break_the_screen() {
    let waiter = |n: usize| Waiter { pod: format!("shop/w{n}\n\u{1b}[31m"), volume: String::new() };
    let crowded = PullUnderWay { waiting: 40, waiters: (0..40).map(waiter).collect(), ..pull() };
    let text = blocks(&[crowded], 60);
    assert!(text.contains("40 calls wait, for shop/w0") && text.contains("and 36 more"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // The image and the digest stay whole.
    let narrow = text.lines().skip(2).all(|line| line.chars().count() <= 60);
    assert!(narrow, "{text}");
}
