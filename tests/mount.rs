//! Real mounts on this machine's kernel. Needs root, and a build directory on a disk filesystem.

#[path = "support/mount.rs"]
mod support;

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::{
    Backing, Capabilities, KernelMounter, Layers, MountError, MountSpec, Mounter, Verity,
};
use composefs_csi::sys::pages::{Mapping, read_through};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use support::{Bench, Node, content, leftovers, mounts_below};

/// A bench, and the turn of its test: they count descriptors and loop devices, which have to be their own.
struct Turn {
    bench: Bench,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Bench;
    fn deref(&self) -> &Bench {
        &self.bench
    }
}

fn bench(name: &str) -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests mount for real: run them as root, as make test does"
    );
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { bench: Bench::new(Path::new(env!("CARGO_TARGET_TMPDIR")), name, false), _turn: turn }
}

fn start(bench: &Bench) -> KernelMounter {
    KernelMounter::start(&bench.store(), &bench.state(), false).expect("this node cannot mount")
}

fn whole(image: VerityDigest) -> MountSpec {
    MountSpec { image, path: PathBuf::new(), noexec: false }
}

fn below(image: VerityDigest, path: &str) -> MountSpec {
    MountSpec { image, path: path.into(), noexec: false }
}

/// A small tree with links that lead out of it.
fn small_image(bench: &Bench) -> VerityDigest {
    let name = bench.root.to_string_lossy().into_owned();
    bench.image(&[
        // The tests run side by side, and a mount table has no walls: no two have an image in common.
        ("name", Node::File(name.into_bytes())),
        ("bin/tool", Node::File(b"#!/bin/sh\nexit 0\n".to_vec())),
        ("data/big", Node::File(content(1, 3_000_000))),
        ("data/deep/small", Node::File(b"inline".to_vec())),
        ("current", Node::Link("data/deep")),
        ("absolute", Node::Link("/data/deep")),
        ("escape", Node::Link("../../../../../../../../data/deep")),
        ("outside", Node::Link("/proc")),
        ("circle", Node::Link("circle")),
    ])
}

fn ways() -> Vec<Capabilities> {
    let mut ways = Vec::new();
    for backing in [Backing::File, Backing::LoopDevice] {
        for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
            ways.push(Capabilities {
                kernel: "forced".into(),
                backing,
                layers,
                verity: Verity::NotInStore,
                failed: Vec::new(),
            });
        }
    }
    ways
}

#[test]
fn an_image_is_read_through_a_confined_mount() {
    let bench = bench("read");
    let image = small_image(&bench);
    let mounter = start(&bench);
    println!("{}", mounter.capabilities());
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();

    assert_eq!(std::fs::read(target.join("data/big")).unwrap(), content(1, 3_000_000));
    assert_eq!(std::fs::read(target.join("current/small")).unwrap(), b"inline");
    let flags = rustix::fs::statvfs(&target).unwrap().f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV));
    assert!(!flags.contains(StatVfsMountFlags::NOEXEC));
    assert!(std::process::Command::new(target.join("bin/tool")).status().unwrap().success());
    let error = File::create(target.join("new")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    assert_eq!(mounter.mounted(&target).unwrap(), Some(whole(image)));
    assert_eq!(mounter.mounted_images().unwrap().contains(&image), true);
    let statistics = mounter.statistics(&target).unwrap().unwrap();
    println!("{statistics:?}");
    assert!(statistics.image_bytes >= 4096);
    mounter.unmount(&target).unwrap();
    mounter.release(&image).unwrap();
    assert_eq!(
        mounts_below(&bench.root),
        [bench.state().join("mounts")],
        "only the home of the mounts is left"
    );
    assert_eq!(std::fs::read_dir(bench.state().join("mounts")).unwrap().count(), 0);
}

#[test]
fn every_way_of_mounting_gives_the_same_files() {
    let bench = bench("ways");
    let image = small_image(&bench);
    let before = leftovers();
    for way in ways() {
        let mounter =
            KernelMounter::with_capabilities(&bench.store(), &bench.state(), false, way.clone()).unwrap();
        let target = bench.target("a");
        mounter.mount(&whole(image), &target).unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!(std::fs::read(target.join("data/big")).unwrap(), content(1, 3_000_000), "{way}");
        assert_eq!(mounts_below(&bench.root).len(), 3, "{way}: home, base and clone");
        mounter.unmount(&target).unwrap();
        mounter.release(&image).unwrap();
        assert_eq!(mounts_below(&bench.root).len(), 1, "{way}");
    }
    assert_eq!(leftovers(), before);
}
