//! The order of turns, by example and over random histories.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn enter<'a>(queue: &mut Queue<&'a str>, tenants: &[&'a str]) -> Vec<Ticket> {
    tenants.iter().map(|tenant| queue.enter(tenant, 1)).collect()
}

#[test]
fn a_share_leaves_room_for_whoever_comes() {
    let mut queue = Queue::new(4, 3);
    let greedy = enter(&mut queue, &["a"; 10]);
    assert_eq!(queue.admit(), greedy[..3]);
    assert_eq!(queue.admit(), []);
    let other = enter(&mut queue, &["b"]);
    assert_eq!(queue.admit(), other, "not behind those that came before it");
    // What leaves makes room for its own tenant again.
    queue.leave(greedy[0]);
    assert_eq!(queue.admit(), [greedy[3]]);
}

#[test]
fn tenants_take_turns_however_long_their_lines_are() {
    let mut queue = Queue::new(1, 1);
    let inside = enter(&mut queue, &["a"]);
    queue.admit();
    let (a, b, c) = (enter(&mut queue, &["a"; 9]), enter(&mut queue, &["b"; 2]), enter(&mut queue, &["c"]));
    let (mut order, mut leaving) = (Vec::new(), inside[0]);
    loop {
        queue.leave(leaving);
        match queue.admit()[..] {
            [next] => (leaving, _) = (next, order.push(next)),
            _ => break,
        }
    }
    assert_eq!(order[..4], [b[0], c[0], a[0], b[1]]);
    assert_eq!(order.len(), 12);
}

#[test]
fn a_giant_waits_for_its_room_and_gets_it() {
    let mut queue = Queue::new(10, 10);
    let small = queue.enter("s", 4);
    assert_eq!(queue.admit(), [small]);
    let giant = queue.enter("g", 100);
    assert_eq!(queue.admit(), [], "it wants everything");
    // Small ones go on for a while, and then make room.
    let mut inside = vec![small];
    let mut passed = 0;
    let name: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    for name in &name {
        queue.enter(name, 4);
        let admitted = queue.admit();
        passed += admitted.len();
        inside.extend(admitted);
        if inside.len() > 1 {
            queue.leave(inside.remove(0));
        }
    }
    for ticket in inside.drain(..) {
        queue.leave(ticket);
    }
    assert_eq!(passed, PATIENCE as usize);
    assert_eq!(queue.admit(), [giant]);
    assert_eq!(queue.admit(), [], "alone");
    queue.leave(giant);
    assert_eq!(queue.admit().len(), 2, "the small ones that waited meanwhile");
}

#[test]
fn those_behind_wait_for_all_others_and_nobody_makes_room_for_them() {
    let mut queue = Queue::new(1, 1);
    let pod = queue.enter("a", 1);
    queue.admit();
    let patient = queue.enter_behind("z", 1);
    assert!(!queue.is_wanted(pod), "not for one behind");
    let others = enter(&mut queue, &["a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "b", "c"]);
    let mut leaving = pod;
    for _ in &others {
        queue.leave(leaving);
        let admitted = queue.admit();
        assert!(admitted.len() == 1 && others.contains(&admitted[0]), "however often it is passed by");
        leaving = admitted[0];
    }
    queue.leave(leaving);
    assert_eq!(queue.admit(), [patient]);
    let next = queue.enter_behind("y", 1);
    assert!(queue.is_wanted(patient) && !queue.is_wanted_in_front(patient));
    let pod = queue.enter("a", 1);
    assert!(queue.is_wanted_in_front(patient));
    queue.leave(patient);
    assert_eq!(queue.admit(), [pod]);
    queue.leave(pod);
    assert_eq!(queue.admit(), [next]);
}

#[test]
fn what_would_let_nobody_in_need_not_leave() {
    let mut queue = Queue::new(2, 1);
    let (a, b) = (queue.enter("a", 1), queue.enter("b", 1));
    queue.admit();
    assert!(!queue.is_wanted(a), "nobody waits");
    queue.enter("a", 1);
    assert!(queue.is_wanted(a) && !queue.is_wanted(b), "the other is at its share");
    assert!(!queue.is_wanted_by_others(a));
    queue.enter("c", 1);
    assert!(queue.is_wanted_by_others(a));
    assert!(queue.is_wanted(a) && queue.is_wanted(b));
}

#[derive(Debug, Clone)]
enum Event {
    Enter {
        tenant: u8,
        units: u64,
    },
    /// Leaves what stands at this place among all that is inside or waits.
    Leave(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let enter = (0..6u8, 1..7u64).prop_map(|(tenant, units)| Event::Enter { tenant, units });
    vec(prop_oneof![3 => enter, 2 => any::<usize>().prop_map(Event::Leave)], 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn shares_are_kept_room_is_used_and_nobody_starves(
        events in events(), capacity in 1..8u64, less in 0..4u64,
    ) {
        let share = capacity.saturating_sub(less).max(1);
        let mut queue = Queue::new(capacity, share);
        // Ticket, tenant, units.
        let mut waiting: Vec<(Ticket, u8, u64)> = vec![];
        let mut inside: Vec<(Ticket, u8, u64)> = vec![];
        let mut passed: HashMap<u8, u32> = HashMap::new();
        let held = |inside: &[(Ticket, u8, u64)], of: u8| -> u64 {
            inside.iter().filter(|(_, tenant, _)| *tenant == of).map(|(.., units)| units).sum()
        };
        for event in events {
            match event {
                Event::Enter { tenant, units } => {
                    waiting.push((queue.enter(tenant, units), tenant, units.min(capacity)));
                }
                Event::Leave(at) => {
                    let all = waiting.len() + inside.len();
                    if all > 0 {
                        let at = at % all;
                        let from_line = at < waiting.len();
                        let list = if from_line { &mut waiting } else { &mut inside };
                        let (ticket, ..) = list.remove(if from_line { at } else { at - (all - list.len()) });
                        queue.leave(ticket);
                    }
                }
            }
            for ticket in queue.admit() {
                let at = waiting.iter().position(|(waiting, ..)| *waiting == ticket).expect("it waited");
                let (_, tenant, units) = waiting[at];
                prop_assert!(waiting[..at].iter().all(|(_, other, _)| *other != tenant), "out of its own line");
                let could: Vec<u8> = (0..6).filter(|other| {
                    let (first, own) = (waiting.iter().find(|(_, tenant, _)| tenant == other), held(&inside, *other));
                    first.is_some_and(|(.., units)| own == 0 || own + units <= share)
                }).collect();
                for other in could.into_iter().filter(|other| *other != tenant) {
                    *passed.entry(other).or_default() += 1;
                }
                passed.insert(tenant, 0);
                inside.push(waiting.remove(at));
                // Kept shares.
                prop_assert!(held(&inside, tenant) <= share.max(units));
                prop_assert!(inside.iter().map(|(.., units)| units).sum::<u64>() <= capacity);
            }
            passed.retain(|tenant, _| waiting.iter().any(|(_, other, _)| other == tenant));
            // At most its patience, and the tenants that lost theirs before it.
            prop_assert!(passed.values().all(|passed| *passed <= PATIENCE + 6), "{passed:?}");
            // Work is conserved: what waits does not fit, is over its share, or stands behind one that lost patience.
            let used: u64 = inside.iter().map(|(.., units)| units).sum();
            if passed.values().all(|passed| *passed < PATIENCE) {
                for tenant in 0..6 {
                    let first = waiting.iter().find(|(_, other, _)| *other == tenant);
                    let Some((.., units)) = first else { continue };
                    let own = held(&inside, tenant);
                    prop_assert!(used + units > capacity || (own > 0 && own + units > share));
                }
            }
        }
        // Whoever stays gets in when the others leave.
        let mut rounds = 0;
        while !waiting.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 1000);
            for (ticket, ..) in inside.drain(..) {
                queue.leave(ticket);
            }
            let admitted = queue.admit();
            prop_assert!(!admitted.is_empty());
            for ticket in admitted {
                let at = waiting.iter().position(|(waiting, ..)| *waiting == ticket).expect("it waited");
                inside.push(waiting.remove(at));
            }
        }
        for (ticket, ..) in inside {
            queue.leave(ticket);
        }
        prop_assert!(queue.tenants.is_empty() && queue.inside.is_empty() && queue.used == 0);
    }
}
