//! Benches for tests that mount on this machine's kernel, one at a time.

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::mount::{KernelMounter, MountSpec};
use rustix::mount::UnmountFlags;

use super::mount::{Bench, Node, content};

/// A bench, and the turn of its test: tests count this process's descriptors and mounts.
pub struct Turn {
    bench: Bench,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Bench;
    fn deref(&self) -> &Bench {
        &self.bench
    }
}

/// A bench on the disk that holds the build directory.
pub fn bench(name: &str) -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests mount for real: run them as root, as make test does"
    );
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { bench: Bench::new(Path::new(env!("CARGO_TARGET_TMPDIR")), name, false), _turn: turn }
}

/// A mounter as after a start of the plugin.
pub fn start(bench: &Bench) -> KernelMounter {
    KernelMounter::start(&bench.store(), &bench.state(), false).expect("this node cannot mount")
}

/// The whole of an image.
pub fn whole(image: VerityDigest) -> MountSpec {
    MountSpec { image, path: PathBuf::new(), noexec: false, upper: None }
}

/// A directory of an image.
pub fn below(image: VerityDigest, path: &str) -> MountSpec {
    MountSpec { image, path: path.into(), noexec: false, upper: None }
}

/// A small tree with links that lead out of it.
pub fn small_image(bench: &Bench) -> VerityDigest {
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

/// What an administrator does.
pub fn unmount_by_hand(path: &Path) {
    rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap();
}

/// The filesystem that a directory is of.
pub fn device(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().dev()
}
