use proptest::prelude::*;

use super::*;

const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

fn candidate() -> impl Strategy<Value = Candidate> {
    let need = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Need::Volume)),
        1 => Just(Some(Need::Mount)),
        1 => Just(Some(Need::Pin)),
        1 => Just(Some(Need::Prefetch)),
        1 => Just(Some(Need::Hold)),
    ];
    (any::<[u8; 32]>(), 0u64..200, need, 0u64..50, 0u64..50).prop_map(
        |(digest, used, needed, bytes, inodes)| Candidate {
            manifest: Digest::from_bytes(digest),
            last_used: EPOCH + Duration::from_secs(used),
            needed,
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
            now: EPOCH + Duration::from_secs(150),
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let min_age = (0u64..100).prop_map(Duration::from_secs);
    prop_oneof![
        min_age.clone().prop_map(|min_age| Policy::Unneeded { min_age }),
        (0u8..=100, 0u8..=100, min_age, 0u64..200).prop_map(|(a, b, min_age, recent)| {
            let recent = Duration::from_secs(recent);
            Policy::Watermarks { high: a.max(b), low: a.min(b), min_age, recent }
        }),
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
    fn by_watermarks_the_oldest_go_and_one_less_would_not_do(
        inventory in inventory(), low in 0u8..=100, high in 0u8..=100,
    ) {
        let (high, low, nothing) = (high.max(low), low.min(high), Duration::ZERO);
        let policy = Policy::Watermarks { high, low, min_age: nothing, recent: nothing };
        if let CollectionPlan::Run(manifests) = plan(&inventory, &policy) {
            let used = |manifest: &Digest| inventory.images.iter().find(|i| i.manifest == *manifest).unwrap().last_used;
            let after = carry_out(&inventory, &CollectionPlan::Run(manifests.clone()));
            for image in after.images.iter().filter(|i| i.needed.is_none() && i.last_used <= inventory.now) {
                prop_assert!(manifests.iter().all(|gone| used(gone) <= image.last_used));
            }
            let one_less = CollectionPlan::Run(manifests[..manifests.len() - 1].to_vec());
            prop_assert!(carry_out(&inventory, &one_less).space.exceeds(low));
        }
    }

    #[test]
    fn what_was_used_of_late_goes_only_if_that_ends_the_want(inventory in inventory(), policy in policy()) {
        if let (CollectionPlan::Run(manifests), Policy::Watermarks { high, recent, .. }) =
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
