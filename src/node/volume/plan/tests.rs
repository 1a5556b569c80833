//! Plans carried out on a fake mounter with the kernel's rules, and real directories and records.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::mount::Mounter as _;
use crate::node::mount::fake::FakeMounter;
use crate::node::state_directory::StateDirectory;
use crate::node::volume::execute::Io;
use crate::node::volume::guard::{Guards, VolumeGuard};
use crate::node::volume::record::Records;
use crate::oci::digest::Digest;

/// A node with two images in two forms, the volumes `v0`.. and the targets `t0`..
struct Node {
    directory: tempfile::TempDir,
    mounter: FakeMounter,
    records: Records,
    state: StateDirectory,
    boot: u32,
    guards: Guards,
}

/// Two images in two forms: 2 and 3 are of the same manifests as 0 and 1.
fn image(number: u8) -> PinnedImage {
    let composefs = VerityDigest([number; 32]);
    let image = Digest::from_bytes([number % 2; 32]);
    PinnedImage { image, manifest: image, composefs, bytes: 1, inodes: 1, members: Vec::new() }
}

/// What a request for the manifest of `pinned` gets when the registry, the policy and the release say `tag`.
fn form_of(pinned: PinnedImage, tag: u8) -> PinnedImage {
    image(pinned.image.as_bytes()[0] + tag / 2 * 2)
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path().join("volumes")).unwrap();
        let mounter = FakeMounter::new();
        (0..4).for_each(|number| mounter.add_image(image(number).composefs, &["sub"]));
        let state = StateDirectory::claim(directory.path()).unwrap();
        Self { directory, mounter, records, state, boot: 0, guards: Guards::default() }
    }

    fn target(&self, number: u8) -> TargetPath {
        TargetPath::recorded(&self.directory.path().join(format!("t{number}")))
    }

    fn guard(&self, volume: u8) -> VolumeGuard {
        self.guards.take(&format!("v{volume}").parse().unwrap()).unwrap()
    }

    fn want(&self, op: &Publish) -> PublishSpec {
        PublishSpec {
            volume: format!("v{}", op.volume).parse().unwrap(),
            target: self.target(op.target),
            request: request(op.request),
            noexec: op.noexec,
            least: Integrity::Fetch,
            namespace: Some("shop".to_owned()),
            mode: if op.single {
                AccessMode::SingleNodeSingleWriter
            } else {
                AccessMode::MultiNodeReaderOnly
            },
        }
    }

    /// Plans, as a call does; `tag` is what the registry would say now.
    fn plan(&self, op: &Op, tag: u8) -> (Observed, VolumePlan) {
        let boot = self.boot.to_string();
        let io = Io {
            records: &self.records,
            mounter: &self.mounter,
            state: &self.state,
            kubelet: self.directory.path(),
            boot: &boot,
        };
        let guard = self.guard(op.volume());
        let target = self.target(op.target());
        let volume = guard.volume().clone();
        let chosen = |image_of: ImageChoice| match image_of {
            ImageChoice::Pinned(pinned) => form_of(pinned, tag),
            _ => image(tag),
        };
        match op {
            Op::Publish(publish_op) => {
                let (want, seen) = (self.want(publish_op), io.observe(&guard, &target).unwrap());
                let plan = publish(&want, chosen(image_to_publish(&want, &seen)), &seen);
                (seen, plan)
            }
            Op::Unpublish { .. } => {
                let seen = io.observe(&guard, &target).unwrap();
                let plan = unpublish(&target, &seen);
                (seen, plan)
            }
            Op::Stage { request: number, .. } => {
                let (seen, path) = (io.observe_record(&guard).unwrap(), self.staging(op.volume()));
                let request = request(*number);
                let chosen = chosen(image_to_stage(&volume, &request, &path, &seen));
                let plan = stage(&volume, &request, &path, chosen, &seen);
                (seen, plan)
            }
            Op::Unstage { .. } => {
                let seen = io.observe_record(&guard).unwrap();
                let plan = unstage(&self.staging(op.volume()), &seen);
                (seen, plan)
            }
        }
    }

    fn staging(&self, volume: u8) -> TargetPath {
        TargetPath::recorded(&self.directory.path().join(format!("s{volume}")))
    }

    /// Carries out at most `limit` steps: a process killed after that many.
    fn run(&self, op: &Op, seen: &Observed, steps: &[Step], limit: usize) -> bool {
        let boot = self.boot.to_string();
        let io = Io {
            records: &self.records,
            mounter: &self.mounter,
            state: &self.state,
            kubelet: self.directory.path(),
            boot: &boot,
        };
        let steps = &steps[..limit.min(steps.len())];
        let target = self.target(op.target());
        io.run(&self.guard(op.volume()), &target, seen.record.as_ref(), steps).is_ok()
    }

    /// Every mount has a record that names it, with the right image, and one only.
    fn check(&self) {
        let all = self.records.all().unwrap();
        let records: Vec<_> = all.into_iter().map(|(_, record)| record.unwrap()).collect();
        for target in self.mounter.targets() {
            let spec = self.mounter.mounted(&target).unwrap().unwrap();
            let names = |record: &&VolumeRecord| {
                record.boot == self.boot.to_string() && record.target(&target).is_some()
            };
            let named: Vec<_> = records.iter().filter(names).collect();
            assert_eq!(named.len(), 1, "{target:?} is in {named:?}");
            assert_eq!(spec.image, named[0].composefs);
            assert_eq!(spec.path, named[0].request.path);
        }
    }
}

fn request(number: u8) -> Requested {
    let path = if number == 0 { PathBuf::new() } else { "sub".into() };
    Requested {
        image: format!("r.example/i{number}:1"),
        path,
        platform: None,
        choice: Default::default(),
        upper: None,
        upper_on_disk: false,
        follow: false,
    }
}

#[derive(Debug, Clone)]
struct Publish {
    volume: u8,
    target: u8,
    request: u8,
    noexec: bool,
    single: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Publish(Publish),
    Unpublish { volume: u8, target: u8 },
    Stage { volume: u8, request: u8 },
    Unstage { volume: u8 },
}

impl Op {
    fn volume(&self) -> u8 {
        match self {
            Self::Publish(publish) => publish.volume,
            Self::Unpublish { volume, .. } | Self::Stage { volume, .. } | Self::Unstage { volume } => *volume,
        }
    }

    fn target(&self) -> u8 {
        match self {
            Self::Publish(publish) => publish.target,
            Self::Unpublish { target, .. } => *target,
            Self::Stage { .. } | Self::Unstage { .. } => 0,
        }
    }
}

#[derive(Debug, Clone)]
struct Act {
    op: Op,
    tag: u8,
    /// Killed after so many steps.
    limit: usize,
    fault: Option<&'static str>,
    reboot: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let publish = (0..2u8, 0..3u8, 0..2u8, any::<bool>(), prop::bool::weighted(0.2));
    prop_oneof![
        4 => publish.prop_map(|(volume, target, request, noexec, single)| {
            Op::Publish(Publish { volume, target, request, noexec, single })
        }),
        3 => (0..2u8, 0..3u8).prop_map(|(volume, target)| Op::Unpublish { volume, target }),
        1 => (0..2u8, 0..2u8).prop_map(|(volume, request)| Op::Stage { volume, request }),
        1 => (0..2u8).prop_map(|volume| Op::Unstage { volume }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let limit = prop_oneof![3 => Just(usize::MAX), 1 => 0..4usize];
    let fault = prop_oneof![
        6 => Just(None),
        1 => prop::sample::select(vec!["mount", "unmount", "release"]).prop_map(Some),
    ];
    (op(), 0..4u8, limit, fault, prop::bool::weighted(0.05)).prop_map(|(op, tag, limit, fault, reboot)| Act {
        op,
        tag,
        limit,
        fault,
        reboot,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever calls came before, wherever the process was killed: a plan that was carried out leaves
    /// nothing to do, every mount has its record, and in the end everything can be unpublished.
    #[test]
    fn plans_converge(acts in prop::collection::vec(act(), 1..24)) {
        let mut node = Node::new();
        for act in acts {
            if act.reboot {
                node.mounter.reboot();
                node.boot += 1;
            }
            let (seen, plan) = node.plan(&act.op, act.tag);
            if let VolumePlan::Run(steps) = &plan {
                if let Some(operation) = act.fault {
                    node.mounter.fail_next(operation, Errno::BUSY);
                }
                let complete = node.run(&act.op, &seen, steps, act.limit) && act.limit >= steps.len();
                if complete {
                    let again = node.plan(&act.op, 3 - act.tag).1;
                    prop_assert_eq!(again, VolumePlan::Done, "after {:?} of {:?}", &plan, &act.op);
                }
                // A fault that was not met must not wait for a later call.
                let _ = (node.mounter.unmount(Path::new("/x")), node.mounter.release(&VerityDigest([9; 32])));
                let _ = node.mounter.mount(&spec_of_nothing(), Path::new("/x"));
            }
            node.check();
        }
        for volume in 0..2 {
            for op in (0..3).map(|target| Op::Unpublish { volume, target }).chain([Op::Unstage { volume }]) {
                let (seen, plan) = node.plan(&op, 0);
                if let VolumePlan::Run(steps) = plan {
                    prop_assert!(node.run(&op, &seen, &steps, usize::MAX));
                }
            }
        }
        prop_assert!(node.mounter.targets().is_empty());
        // The private mount that a killed process has left is released when the records are put in order.
        for image in node.mounter.mounted_images().unwrap().all() {
            node.mounter.release(&image).unwrap();
        }
        prop_assert!(node.mounter.bases().is_empty(), "private mounts are released");
        prop_assert!(node.records.all().unwrap().is_empty());
        for target in 0..3 {
            prop_assert_eq!(node.target(target).inspect().unwrap(), TargetState::Missing);
        }
    }
}

fn spec_of_nothing() -> MountSpec {
    MountSpec { image: VerityDigest([9; 32]), path: PathBuf::new(), noexec: false, upper: None }
}

fn publish_op(volume: u8, target: u8) -> Publish {
    Publish { volume, target, request: 0, noexec: false, single: false }
}

fn done(node: &Node, op: &Op, tag: u8) {
    let (seen, plan) = node.plan(op, tag);
    let VolumePlan::Run(steps) = plan else { panic!("{plan:?}") };
    assert!(node.run(op, &seen, &steps, usize::MAX));
}

fn refusal_of(node: &Node, op: Op) -> VolumeRefusal {
    match node.plan(&op, 0).1 {
        VolumePlan::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_capability_or_attribute_is_a_conflict() {
    let node = Node::new();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    for changed in [
        Publish { noexec: true, ..publish_op(0, 0) },
        Publish { request: 1, ..publish_op(0, 0) },
        Publish { single: true, ..publish_op(0, 0) },
        Publish { request: 1, ..publish_op(0, 1) },
        publish_op(1, 0),
    ] {
        assert_eq!(refusal_of(&node, Op::Publish(changed.clone())).kind(), Kind::Conflict, "{changed:?}");
    }
}

#[test]
fn a_second_target_shows_the_same_image_even_if_the_tag_has_moved() {
    let node = Node::new();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    done(&node, &Op::Publish(publish_op(0, 1)), 1);
    let shown = node.mounter.mounted(node.target(1).path()).unwrap().unwrap().image;
    assert_eq!(shown, image(0).composefs);
}

#[test]
fn all_targets_show_the_same_form_of_an_image() {
    let node = Node::new();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    // Since then the policy has changed, or the release: the same manifest is now given in another form.
    let (old, new) = (image(0).composefs, image(2).composefs);
    assert_eq!(image(0).image, image(2).image);
    let shown = |target: u8| node.mounter.mounted(node.target(target).path()).unwrap().unwrap().image;
    done(&node, &Op::Stage { volume: 0, request: 0 }, 2);
    done(&node, &Op::Publish(publish_op(0, 1)), 2);
    assert_eq!((shown(0), shown(1)), (old, old));
    node.check();
    // Once nothing shows the old form, it is not given any more.
    for target in 0..2 {
        done(&node, &Op::Unpublish { volume: 0, target }, 2);
    }
    done(&node, &Op::Publish(publish_op(0, 2)), 2);
    assert_eq!(shown(2), new);
    node.check();
    // What may be executed is a property of the image, of which there is one.
    let other = Op::Publish(Publish { noexec: true, ..publish_op(0, 1) });
    assert_eq!(refusal_of(&node, other).kind(), Kind::Conflict);
}

#[test]
fn a_volume_for_one_pod_is_not_given_to_a_second() {
    let node = Node::new();
    done(&node, &Op::Publish(Publish { single: true, ..publish_op(0, 0) }), 0);
    let second = Op::Publish(Publish { single: true, ..publish_op(0, 1) });
    assert_eq!(refusal_of(&node, second).kind(), Kind::Unsupported);
}

#[test]
fn unpublishing_the_wrong_volume_touches_nothing() {
    let node = Node::new();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    assert_eq!(node.plan(&Op::Unpublish { volume: 1, target: 0 }, 0).1, VolumePlan::Done);
    assert_eq!(node.mounter.targets().len(), 1);
}

#[test]
fn a_mount_without_record_is_taken_over_or_removed() {
    let node = Node::new();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    node.records.remove(&"v0".parse().unwrap()).unwrap();
    done(&node, &Op::Publish(publish_op(0, 0)), 0);
    node.check();
    node.records.remove(&"v0".parse().unwrap()).unwrap();
    assert!(matches!(refusal_of_other_image(&node), VolumeRefusal::Occupied { .. }));
    done(&node, &Op::Unpublish { volume: 0, target: 0 }, 0);
    assert!(node.mounter.targets().is_empty());
}

fn refusal_of_other_image(node: &Node) -> VolumeRefusal {
    match node.plan(&Op::Publish(publish_op(0, 0)), 1).1 {
        VolumePlan::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn links_files_and_filled_directories_are_refused() {
    let node = Node::new();
    let path = node.target(0).path().to_owned();
    std::os::unix::fs::symlink("/etc", &path).unwrap();
    assert_eq!(refusal_of(&node, Op::Publish(publish_op(0, 0))).kind(), Kind::Invalid);
    assert_eq!(refusal_of(&node, Op::Unpublish { volume: 0, target: 0 }).kind(), Kind::Invalid);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("theirs"), "").unwrap();
    assert_eq!(refusal_of(&node, Op::Publish(publish_op(0, 0))).kind(), Kind::Conflict);
}

#[test]
fn a_failed_mount_leaves_nothing_behind() {
    let node = Node::new();
    let op = Op::Publish(publish_op(0, 0));
    let (seen, plan) = node.plan(&op, 0);
    let VolumePlan::Run(steps) = plan else { panic!("{plan:?}") };
    node.mounter.fail_next("mount", Errno::INVAL);
    assert!(!node.run(&op, &seen, &steps, usize::MAX));
    assert_eq!(node.target(0).inspect().unwrap(), TargetState::Missing);
    assert!(node.records.all().unwrap().is_empty());
}
