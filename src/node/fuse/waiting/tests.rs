use super::*;

const OBJECT: VerityDigest = VerityDigest([1; 32]);
const OTHER: VerityDigest = VerityDigest([2; 32]);

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

fn living(_: u32) -> Fate {
    Fate::Living
}

fn unseen(_: u32) -> Fate {
    Fate::Unseen
}

#[test]
fn who_waits_for_an_object_is_answered_when_it_comes_and_nobody_else() {
    let (start, mut waiting) = (Instant::now(), Waiting::default());
    waiting.begin(1, OBJECT, 10, start);
    waiting.begin(2, OTHER, 11, start);
    waiting.begin(3, OBJECT, 12, start);
    assert_eq!(waiting.objects(), [OBJECT, OTHER]);
    assert_eq!(waiting.arrived(&OBJECT), [(1, Errno::STALE), (3, Errno::STALE)]);
    assert!(waiting.arrived(&OBJECT).is_empty(), "each is answered once");
    assert!(!waiting.waits_for(&OBJECT) && waiting.waits_for(&OTHER));
    assert_eq!(waiting.fail(Errno::HOSTUNREACH), [(2, Errno::HOSTUNREACH)]);
    assert_eq!(waiting.rest(start), None);
}

#[test]
fn a_killed_reader_is_let_go_and_one_with_another_signal_waits_on() {
    let (start, mut waiting) = (Instant::now(), Waiting::default());
    waiting.begin(1, OBJECT, 10, start);
    waiting.begin(2, OBJECT, 11, start);
    let fate = |pid| if pid == 10 { Fate::Dying } else { Fate::Living };
    assert!(waiting.due(after(start, 5), fate).is_empty(), "nothing was said of a signal");
    waiting.interrupt(1, after(start, 10));
    waiting.interrupt(2, after(start, 10));
    assert_eq!(waiting.due(after(start, 11), fate), [(1, Errno::INTR)]);
    assert!(waiting.due(after(start, 60_000), living).is_empty());
    // The one that kills is not told of.
    assert_eq!(waiting.due(after(start, 70_000), |_| Fate::Dying), [(2, Errno::INTR)]);
}

#[test]
fn a_reader_that_cannot_be_seen_is_asked_to_come_again_once() {
    let (start, mut waiting) = (Instant::now(), Waiting::default());
    waiting.begin(1, OBJECT, 0, start);
    waiting.interrupt(1, start);
    assert!(waiting.due(after(start, 49), living).is_empty());
    assert_eq!(waiting.due(after(start, 50), living), [(1, Errno::STALE)], "there is no thread 0 to look at");
    // It lives, and waits again, for as long as it takes.
    waiting.begin(2, OBJECT, 0, after(start, 51));
    waiting.interrupt(2, after(start, 60));
    assert!(waiting.due(after(start, 90_000), unseen).is_empty());
    assert_eq!(waiting.arrived(&OBJECT), [(2, Errno::STALE)]);
    // What came and is gone again is another story.
    waiting.begin(3, OBJECT, 0, after(start, 90_001));
    waiting.interrupt(3, after(start, 90_001));
    assert_eq!(waiting.due(after(start, 90_060), unseen), [(3, Errno::STALE)]);
}

#[test]
fn nobody_waits_longer_than_the_kernel_bears() {
    let (start, mut waiting) = (Instant::now(), Waiting::default());
    waiting.begin(1, OBJECT, 10, start);
    assert_eq!(waiting.rest(start), Some(LONGEST));
    assert!(waiting.due(after(start, 99_999), living).is_empty());
    assert_eq!(waiting.due(after(start, 100_000), living), [(1, Errno::STALE)], "once more");
    waiting.begin(2, OBJECT, 10, after(start, 100_001));
    assert_eq!(waiting.due(after(start, 200_001), living), [(2, Errno::TIMEDOUT)]);
    assert_eq!(waiting.rest(start), None);
}

#[test]
fn an_interrupt_of_what_is_answered_is_nothing() {
    let (start, mut waiting) = (Instant::now(), Waiting::default());
    waiting.interrupt(1, start);
    waiting.begin(1, OBJECT, 10, start);
    waiting.interrupt(1, start);
    assert_eq!(waiting.rest(start), Some(LOOK));
    assert_eq!(waiting.rest(after(start, 2_000)), Some(LOOK_SELDOM));
    waiting.arrived(&OBJECT);
    waiting.interrupt(1, start);
    assert!(waiting.due(after(start, 200_000), |_| Fate::Dying).is_empty());
}
