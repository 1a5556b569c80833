//! Waves: which nodes begin when.
//!
//! Every node has a place in every prefetch, by a hash, and begins once its place is below the number that the controller
//! has written ([`admitted`]). The first wave is one node: it finds out what the tags mean, and whether the images can be
//! had at all. Later ones are as large as there are slots; a node that has done, or that is not heard of, frees its own.

use crate::oci::digest::Digest;

/// Places, from 0 on.
pub const PLACES: u16 = 10_000;

/// The place of a node in a prefetch.
pub fn place(uid: &str, node: &str) -> u16 {
    let digest = Digest::of(format!("{uid}\n{node}").as_bytes());
    let bytes = digest.as_bytes();
    let number =
        u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
    // Below 10,000, so it fits.
    (number % u64::from(PLACES)) as u16
}

/// A node that can prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its place.
    pub place: u16,
    /// Whether it would take a slot: it has not done, and is heard of.
    pub works: bool,
}

/// The number to write, where `before` is written; it never falls. `slots` nodes may work at the same time; one, as long as
/// the images are not `resolved`.
pub fn admitted(members: &[Member], before: u16, slots: usize, resolved: bool) -> u16 {
    let slots = if resolved { slots.max(1) } else { 1 };
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let (inside, outside) = sorted.split_at(sorted.partition_point(|member| member.place < before));
    let mut taken = inside.iter().filter(|member| member.works).count();
    let mut number = before;
    for member in outside {
        if taken >= slots && member.place >= number {
            return number;
        }
        taken += usize::from(member.works);
        number = number.max(member.place + 1);
    }
    // Who comes later begins at once, when all that are here have begun.
    if resolved && !members.is_empty() { PLACES } else { number }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn members(places: &[u16]) -> Vec<Member> {
        places.iter().map(|place| Member { place: *place, works: true }).collect()
    }

    #[test]
    fn one_node_first_then_as_many_as_there_are_slots() {
        let mut nodes = members(&[50, 10, 30, 20, 40]);
        assert_eq!(admitted(&nodes, 0, 2, false), 11);
        assert_eq!(admitted(&nodes, 11, 2, false), 11, "it has not resolved anything yet");
        assert_eq!(admitted(&nodes, 11, 2, true), 21, "it still works");
        nodes[1].works = false;
        assert_eq!(admitted(&nodes, 11, 2, true), 31);
        assert_eq!(admitted(&nodes, 31, 2, true), 31);
        assert_eq!(admitted(&nodes, 31, 4, true), PLACES);
        assert_eq!(admitted(&[], 0, 4, true), 0);
    }

    #[test]
    fn places_are_spread() {
        let mut tenths = [0; 10];
        for node in 0..5_000 {
            tenths[usize::from(place("uid", &format!("node-{node}")) / 1_000)] += 1;
        }
        assert!(tenths.iter().all(|count| (400..600).contains(count)), "{tenths:?}");
        assert_ne!(place("a", "node"), place("b", "node"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_more_work_than_slots_and_all_come_to_it(
            places in proptest::collection::hash_set(0_u16..PLACES, 1..200),
            slots in 1_usize..20,
            order in vec(any::<prop::sample::Index>(), 400),
        ) {
            let mut nodes = members(&places.into_iter().collect::<Vec<_>>());
            let (mut number, mut resolved) = (0, false);
            for next in order {
                let before = number;
                number = admitted(&nodes, number, slots, resolved);
                prop_assert!(number >= before);
                let mut working: Vec<&mut Member> =
                    nodes.iter_mut().filter(|node| node.works && node.place < number).collect();
                let most = if resolved { slots } else { 1 };
                prop_assert!(working.len() <= most);
                if working.is_empty() {
                    break;
                }
                resolved = true;
                let done = next.index(working.len());
                working[done].works = false;
            }
            prop_assert!(nodes.iter().all(|node| !node.works));
        }
    }
}
