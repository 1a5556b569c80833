use proptest::prelude::*;

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30)
}

/// Seconds. Ages are some hours, so that there are several windows.
const UNIT: u64 = 120;

fn candidate() -> impl Strategy<Value = Candidate> {
    let need = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Need::Volume)),
        1 => Just(Some(Need::Mount)),
        1 => Just(Some(Need::Pin)),
        1 => Just(Some(Need::Prefetch)),
        1 => Just(Some(Need::Hold)),
    ];
    let worth = (0u64..9, 0u64..9).prop_map(|(gain, refetch)| Worth { gain, refetch });
    (any::<[u8; 32]>(), 0u64..200, need, worth, (0u64..50, 0u64..50)).prop_map(
        |(digest, used, needed, worth, (bytes, inodes))| Candidate {
            manifest: Digest::from_bytes(digest),
            last_used: now() - Duration::from_secs(150 * UNIT) + Duration::from_secs(used * UNIT),
            needed,
            worth,
            frees: Amount { bytes, inodes },
        },
    )
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let space = (1u64..1000, 0u64..1000, 0u64..1000, 0u64..1000);
    (proptest::collection::vec(candidate(), 0..12), space).prop_map(
        |(images, (bytes, used, inodes, taken))| Inventory {
            images,
            unknown: Vec::new(),
            space: Space {
                total: Amount { bytes, inodes },
                used: Amount { bytes: used.min(bytes), inodes: taken.min(inodes) },
            },
            now: now(),
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let min_age = (0u64..100).prop_map(|age| Duration::from_secs(age * UNIT));
    let idle_bytes = proptest::option::of(0u64..300);
    prop_oneof![
        min_age.clone().prop_map(|min_age| Policy::Unneeded { min_age }),
        (0u8..=100, 0u8..=100, min_age, 0u64..200, idle_bytes).prop_map(
            |(a, b, min_age, recent, idle_bytes)| {
                let recent = Duration::from_secs(recent * UNIT);
                Policy::Watermarks { high: a.max(b), low: a.min(b), min_age, recent, idle_bytes }
            }
        ),
    ]
}

/// What the executor does, as far as the plan can tell.
fn carry_out(inventory: &Inventory, plan: &CollectionPlan) -> Inventory {
    let mut after = inventory.clone();
    if let CollectionPlan::Run(manifests) = plan {
        for manifest in manifests {
            let gone = after.images.iter().position(|image| image.manifest == *manifest).unwrap();
            let frees = after.images.remove(gone).frees;
            let used = &mut after.space.used;
            used.bytes = used.bytes.saturating_sub(frees.bytes);
            used.inodes = used.inodes.saturating_sub(frees.inodes);
        }
    }
    after
}

/// Whether no image that could go in the place of one of these ranks before it.
fn are_first(inventory: &Inventory, gone: &[Digest]) -> bool {
    let idle = inventory.images.iter().filter(|image| image.needed.is_none());
    let (going, staying): (Vec<_>, Vec<_>) = idle.partition(|image| gone.contains(&image.manifest));
    let last = going.iter().map(|image| image.rank(now())).max();
    staying.iter().all(|image| Some(image.rank(now())) > last)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_needed_or_young_stays(inventory in inventory(), policy in policy()) {
        let plan = plan(&inventory, &policy);
        let after = carry_out(&inventory, &plan);
        for image in &inventory.images {
            let age = inventory.now.duration_since(image.last_used).unwrap_or_default();
            if image.needed.is_some() || age < policy.min_age() {
                prop_assert!(after.images.contains(image));
            }
        }
    }

    #[test]
    fn after_the_plan_nothing_is_left_to_do(inventory in inventory(), policy in policy()) {
        let first = plan(&inventory, &policy);
        prop_assert_eq!(plan(&carry_out(&inventory, &first), &policy), CollectionPlan::Done);
    }

    #[test]
    fn by_watermarks_the_first_by_rank_go_and_one_less_would_not_do(
        inventory in inventory(), low in 0u8..=100, high in 0u8..=100,
    ) {
        let (high, low, nothing) = (high.max(low), low.min(high), Duration::ZERO);
        let policy = Policy::Watermarks { high, low, min_age: nothing, recent: nothing, idle_bytes: None };
        if let CollectionPlan::Run(manifests) = plan(&inventory, &policy) {
            prop_assert!(are_first(&inventory, &manifests));
            let one_less = CollectionPlan::Run(manifests[..manifests.len() - 1].to_vec());
            prop_assert!(carry_out(&inventory, &one_less).space.exceeds(low));
        }
    }

    #[test]
    fn no_more_than_the_size_is_kept_of_what_is_not_needed(inventory in inventory(), most in 0u64..300) {
        let (nothing, idle_bytes) = (Duration::ZERO, Some(most));
        let policy = Policy::Watermarks { high: 100, low: 100, min_age: nothing, recent: nothing, idle_bytes };
        let plan = plan(&inventory, &policy);
        prop_assert_eq!(carry_out(&inventory, &plan).surplus(idle_bytes), 0);
        if let CollectionPlan::Run(manifests) = plan {
            prop_assert!(are_first(&inventory, &manifests));
            let one_less = CollectionPlan::Run(manifests[..manifests.len() - 1].to_vec());
            prop_assert!(carry_out(&inventory, &one_less).surplus(idle_bytes) > 0);
        }
    }

    #[test]
    fn what_was_used_of_late_goes_only_if_that_ends_the_want(inventory in inventory(), policy in policy()) {
        if let (CollectionPlan::Run(manifests), Policy::Watermarks { high, recent, idle_bytes: None, .. }) =
            (plan(&inventory, &policy), policy)
        {
            let gone = |image: &&Candidate| manifests.contains(&image.manifest);
            let took_recent =
                inventory.images.iter().filter(gone).any(|image| !may_go(image, inventory.now, recent));
            let after = carry_out(&inventory, &CollectionPlan::Run(manifests.clone()));
            prop_assert!(!took_recent || !after.space.exceeds(high));
        }
    }

    #[test]
    fn what_is_unknown_stops_everything(mut inventory in inventory(), policy in policy()) {
        inventory.unknown = vec!["volume record x".to_owned(), "image record y".to_owned()];
        let refused = CollectionPlan::Refuse("volume record x; image record y".to_owned());
        prop_assert_eq!(plan(&inventory, &policy), refused);
    }
}

fn idle(hours: u64, gain: u64, refetch: u64) -> Rank {
    let manifest = Digest::of(format!("{hours} {gain} {refetch}").as_bytes());
    rank(now() - Duration::from_secs(hours * 3600), Worth { gain, refetch }, &manifest, now())
}

#[test]
fn what_is_cheap_to_lose_goes_before_what_is_a_little_older() {
    // Much older goes first, whatever it costs.
    assert!(idle(24, 1, 100) < idle(2, 100, 1));
    // A little older does not, if little is freed for what would be fetched again.
    assert!(idle(4, 100, 100) < idle(7, 10, 100));
    // What differs by less than a tenth is the same.
    assert!(idle(7, 95, 100) < idle(4, 99, 100));
    // Nothing to fetch again: it is put together of what is here.
    assert!(idle(4, 1, 0) < idle(7, 100, 100));
    // Beyond a certain ratio all is as good.
    assert!(idle(7, 200, 100) < idle(4, 9000, 100));
    // A clock that was set back.
    let ahead = rank(now() + Duration::from_secs(9), Worth::default(), &Digest::of(b"x"), now());
    assert!(idle(2, 0, 0) < ahead);
}
