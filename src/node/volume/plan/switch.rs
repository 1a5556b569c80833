//! Plans for a volume that follows a tag, when the tag has been asked for.

use std::path::Path;

use super::SwitchPlan::{Gone, Run, Same, TooMany};
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::volume::record::{EarlierImage, PinnedImage, Requested, VolumeRecord};

/// Earlier images of one volume that may be in use. Each is kept from collection, so a volume does not go on without an
/// end.
pub(crate) const EARLIER_MAX: usize = 16;

/// What a volume is to show from now on.
#[derive(Debug, Clone)]
pub(crate) struct SwitchSpec<'a> {
    /// What was asked for.
    pub request: &'a Requested,
    /// Where.
    pub target: &'a Path,
    /// What the tag names now.
    pub image: PinnedImage,
    /// The integrity level that the mount must reach.
    pub least: Integrity,
}

/// What to do about a volume that follows a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SwitchPlan {
    /// Nothing: the volume is not there, or is another by now.
    Gone,
    /// It shows the image. Its record gets shorter, if one is given.
    Same(Option<Box<VolumeRecord>>),
    /// So many earlier images are in use that there is no further one.
    TooMany,
    /// Write this record, then show the image that it names.
    Run(Box<VolumeRecord>),
}

/// How to show what the tag names now. `mounted` is what the target shows; `in_use` says of an image whether it is mounted
/// anywhere.
pub(crate) fn switch(
    want: SwitchSpec<'_>,
    record: Option<&VolumeRecord>,
    boot: &str,
    mounted: Option<&VerityDigest>,
    in_use: impl Fn(&VerityDigest) -> bool,
) -> SwitchPlan {
    let SwitchSpec { request, target, image, least } = want;
    let (Some(old), Some(mounted)) = (record, mounted) else { return Gone };
    let is_known = old.composefs == *mounted || old.has_shown(mounted);
    if old.boot != boot || old.request != *request || old.target(target).is_none() || !is_known {
        return Gone;
    }
    let mut new = old.clone();
    // What is mounted is in use, whoever else has it.
    new.earlier.retain(|earlier| earlier.composefs == *mounted || in_use(&earlier.composefs));
    let is_shown = image.composefs == *mounted && image.composefs == old.composefs;
    if is_shown && image.image == old.image {
        return Same((new != *old).then(|| Box::new(new)));
    }
    new.earlier.retain(|earlier| earlier.composefs != old.composefs);
    new.earlier.push(EarlierImage { image: old.image, composefs: old.composefs });
    // Also where two manifests are the same files.
    new.earlier.retain(|earlier| earlier.composefs != image.composefs);
    if new.earlier.len() > EARLIER_MAX {
        return TooMany;
    }
    let PinnedImage { image, manifest, composefs, bytes, inodes, members } = image;
    (new.image, new.composefs, new.bytes, new.inodes) = (image, composefs, bytes, inodes);
    new.manifest = (manifest != image).then_some(manifest);
    new.members = members;
    if let Some(target) = new.targets.iter_mut().find(|found| found.path == target) {
        target.least = least;
    }
    Run(Box::new(new))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::node::mount::MountSpec;
    use crate::node::volume::plan::{
        ImageChoice, Observed, PublishSpec, Step, VolumePlan, image_to_publish, publish,
    };
    use crate::node::volume::record::PublishedTarget;
    use crate::node::volume::target::{TargetPath, TargetState};
    use crate::oci::digest::Digest;
    use crate::volume::access::AccessMode;

    const TARGET: &str = "/pods/a/mount";

    fn request() -> Requested {
        let image = "r.example/a:1".to_owned();
        Requested {
            image,
            path: "".into(),
            platform: None,
            choice: Default::default(),
            upper: None,
            upper_on_disk: false,
            follow: true,
        }
    }

    fn image(number: u8) -> PinnedImage {
        let (image, composefs) = (Digest::of(&[number]), VerityDigest([number; 32]));
        PinnedImage { image, manifest: image, composefs, bytes: 1, inodes: 1, members: Vec::new() }
    }

    fn record(number: u8) -> VolumeRecord {
        let mut record = VolumeRecord::new(&"csi-a".parse().unwrap(), request(), image(number), "boot");
        record.targets.push(PublishedTarget {
            path: TARGET.into(),
            noexec: false,
            mode: AccessMode::SingleNodeSingleWriter,
            least: Integrity::Fetch,
            namespace: None,
        });
        record
    }

    fn decide(number: u8, record: &VolumeRecord, mounted: u8, in_use: &[u8]) -> SwitchPlan {
        let request = request();
        let (target, image) = (Path::new(TARGET), image(number));
        let want = SwitchSpec { request: &request, target, image, least: Integrity::Mount };
        let mounted = VerityDigest([mounted; 32]);
        switch(want, Some(record), "boot", Some(&mounted), |image| in_use.contains(&image.0[0]))
    }

    fn earlier(record: &VolumeRecord) -> Vec<u8> {
        record.earlier.iter().map(|earlier| earlier.composefs.0[0]).collect()
    }

    #[test]
    fn another_image_is_shown_and_the_last_one_kept() {
        let old = record(1);
        assert_eq!(decide(1, &old, 1, &[]), SwitchPlan::Same(None));
        let SwitchPlan::Run(new) = decide(2, &old, 1, &[]) else { panic!("a switch") };
        assert_eq!((new.composefs.0[0], earlier(&new)), (2, vec![1]));
        assert_eq!(new.targets[0].least, Integrity::Mount);
        // Killed before the mount: the same again, and nothing is kept twice.
        let SwitchPlan::Run(again) = decide(2, &new, 1, &[]) else { panic!("it goes on") };
        assert_eq!(*again, *new);
        // And where the tag moves in between, even back.
        let SwitchPlan::Run(third) = decide(3, &new, 1, &[]) else { panic!("it goes on") };
        assert_eq!((third.composefs.0[0], earlier(&third)), (3, vec![1, 2]));
        let SwitchPlan::Run(back) = decide(1, &new, 1, &[]) else { panic!("it goes back") };
        assert_eq!((back.composefs.0[0], earlier(&back)), (1, vec![2]));
        // What nobody has open any more is let go of.
        assert_eq!(decide(2, &new, 2, &[1]), SwitchPlan::Same(None));
        let SwitchPlan::Same(Some(short)) = decide(2, &new, 2, &[]) else { panic!("a shorter record") };
        assert_eq!(earlier(&short), Vec::<u8>::new());
    }

    #[test]
    fn a_publish_ends_a_switch_that_was_interrupted() {
        let SwitchPlan::Run(new) = decide(2, &record(1), 1, &[]) else { panic!("a switch") };
        let want = PublishSpec {
            volume: "csi-a".parse().unwrap(),
            target: TargetPath::recorded(Path::new(TARGET)),
            request: request(),
            noexec: false,
            mode: AccessMode::SingleNodeSingleWriter,
            least: Integrity::Fetch,
            namespace: None,
        };
        let mounted = MountSpec { image: VerityDigest([1; 32]), path: "".into(), noexec: false, upper: None };
        let mut seen = Observed {
            record: Some(*new),
            directory: TargetState::Filled,
            mounted: Some(mounted),
            owner: None,
            boot: "boot".to_owned(),
        };
        let shows_the_second =
            |step: Option<&Step>| matches!(step, Some(Step::ShowCurrent(spec, _)) if spec.image.0[0] == 2);
        assert_eq!(image_to_publish(&want, &seen), ImageChoice::Pinned(image(2)));
        let VolumePlan::Run(steps) = publish(&want, image(2), &seen) else { panic!("something to do") };
        assert!(shows_the_second(steps.last()), "{steps:?}");
        // The first publish of all shows it in the same way.
        (seen.record, seen.mounted, seen.directory) = (None, None, TargetState::Missing);
        let VolumePlan::Run(steps) = publish(&want, image(2), &seen) else { panic!("something to do") };
        assert!(steps.contains(&Step::CreateDirectory) && shows_the_second(steps.last()), "{steps:?}");
    }

    #[test]
    fn what_is_not_this_volume_any_more_is_left_alone() {
        let old = record(1);
        let request = request();
        let want = || SwitchSpec {
            request: &request,
            target: Path::new(TARGET),
            image: image(2),
            least: Integrity::Fetch,
        };
        let one = VerityDigest([1; 32]);
        let gone = |record: Option<&VolumeRecord>, boot: &str, mounted: Option<&VerityDigest>| {
            assert_eq!(switch(want(), record, boot, mounted, |_| true), SwitchPlan::Gone);
        };
        gone(None, "boot", Some(&one));
        gone(Some(&old), "another boot", Some(&one));
        gone(Some(&old), "boot", None);
        gone(Some(&old), "boot", Some(&VerityDigest([9; 32])));
        let mut other = old.clone();
        other.request.path = "b".into();
        gone(Some(&other), "boot", Some(&one));
        other = old.clone();
        other.targets.clear();
        gone(Some(&other), "boot", Some(&one));
    }

    #[test]
    fn it_ends_where_nobody_lets_go() {
        let (mut shown, all): (_, Vec<u8>) = (record(0), (0..100).collect());
        for number in 1..=16 {
            let SwitchPlan::Run(new) = decide(number, &shown, number - 1, &all) else { panic!("{number}") };
            shown = *new;
        }
        assert_eq!(decide(17, &shown, 16, &all), SwitchPlan::TooMany);
        assert_eq!(decide(16, &shown, 16, &all), SwitchPlan::Same(None));
        assert!(matches!(decide(17, &shown, 16, &all[1..]), SwitchPlan::Run(_)), "one was let go of");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever moves, whoever holds what, and wherever it is killed: what is mounted or in use is in the record.
        #[test]
        fn nothing_in_use_is_lost(moves in prop::collection::vec((0_u8..6, any::<bool>(), 0_u8..64), 1..40)) {
            let (mut shown, mut mounted) = (record(0), 0_u8);
            let in_use = RefCell::new(BTreeSet::new());
            for (number, killed, held) in moves {
                // Others hold only what was shown.
                let kept: BTreeSet<u8> = earlier(&shown).into_iter().filter(|one| held >> one & 1 == 1).collect();
                *in_use.borrow_mut() = kept;
                let held: Vec<u8> = in_use.borrow().iter().copied().collect();
                match decide(number, &shown, mounted, &held) {
                    SwitchPlan::Gone => prop_assert!(false, "it is there"),
                    SwitchPlan::TooMany => prop_assert!(false, "there are six"),
                    SwitchPlan::Same(new) => {
                        prop_assert_eq!((number, shown.composefs.0[0]), (mounted, mounted));
                        shown = new.map_or(shown, |new| *new);
                    }
                    SwitchPlan::Run(new) => {
                        shown = *new;
                        prop_assert_eq!(shown.composefs.0[0], number);
                        if !killed {
                            mounted = number;
                        }
                    }
                }
                for one in held.into_iter().chain([mounted]) {
                    prop_assert!(shown.composefs.0[0] == one || earlier(&shown).contains(&one), "{} is lost", one);
                }
            }
        }
    }
}
