//! The life of mounts on this machine's kernel: restarts, crashes, crowds, leftovers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::{
    Backing, Capabilities, KernelMounter, Labelling, Layers, MountError, Mounter, Verity,
};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::support::again::again;
use crate::support::bench::{below, bench, device, small_image, start, unmount_by_hand, whole};
use crate::support::mount::{Bench, Node, content, mounts_below};

#[test]
fn a_restart_finds_what_is_mounted() {
    let bench = bench("restart");
    let image = small_image(&bench);
    let (a, b, c) = (bench.target("a"), bench.target("b"), bench.target("c"));
    start(&bench).mount(&whole(image), &a).unwrap();

    let restarted = start(&bench);
    assert_eq!(restarted.mounted(&a).unwrap(), Some(whole(image)));
    restarted.mount(&whole(image), &b).unwrap();
    assert_eq!(device(&a), device(&b), "the base mount was found");
    assert_eq!(mounts_below(&bench.root).len(), 4);

    // The plugin's container was replaced: base mounts are gone, published ones are not.
    for point in mounts_below(&bench.state()).iter().rev() {
        unmount_by_hand(point);
    }
    let replaced = start(&bench);
    replaced.mount(&below(image, "data"), &c).unwrap();
    assert_eq!(device(&a), device(&c), "no second superblock");
    for target in [&a, &b, &c] {
        replaced.release(&image).unwrap();
        assert!(bench.state().join("mounts").join(image.hex()).exists(), "a clone remains");
        replaced.unmount(target).unwrap();
    }
    replaced.release(&image).unwrap();
    assert_eq!(mounts_below(&bench.root).len(), 1);
}

#[test]
fn the_same_image_in_two_stores_is_two_mounts() {
    let one = bench("store-one");
    let two = Bench::new(Path::new(env!("CARGO_TARGET_TMPDIR")), "store-two", false);
    let nodes = || [("file", Node::File(content(7, 10_000)))];
    let (image, same) = (one.image(&nodes()), two.image(&nodes()));
    assert_eq!(image, same);
    let (a, b) = (one.target("a"), two.target("b"));
    let (first, second) = (start(&one), start(&two));
    first.mount(&whole(image), &a).unwrap();
    second.mount(&whole(image), &b).unwrap();
    assert_ne!(device(&a), device(&b), "each reads its own store");
    first.unmount(&a).unwrap();
    first.release(&image).unwrap();
    assert_eq!(mounts_below(&one.root).len(), 1, "the other store's mount keeps nothing of ours");
    second.unmount(&b).unwrap();
    second.release(&image).unwrap();
    assert_eq!(mounts_below(&two.root).len(), 1);
}

#[test]
fn unmount_takes_every_mount_of_ours_and_none_of_others() {
    let bench = bench("unmount");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.unmount(&target).unwrap();
    mounter.unmount(&bench.root.join("targets/never-made")).unwrap();
    assert_eq!(mounter.mounted(&bench.root.join("targets/never-made")).unwrap(), None);

    mounter.mount(&whole(image), &target).unwrap();
    assert!(matches!(mounter.mount(&whole(image), &target), Err(MountError::Occupied { .. })));
    rustix::mount::mount_bind(&target, &target).unwrap();
    assert_eq!(mounts_below(&target).len(), 2);
    mounter.unmount(&target).unwrap();
    mounter.unmount(&target).unwrap();
    assert_eq!(mounts_below(&target).len(), 0);

    rustix::mount::mount("somebody", &target, "tmpfs", MountFlags::empty(), None).unwrap();
    for error in [
        mounter.mount(&whole(image), &target).unwrap_err(),
        mounter.mounted(&target).unwrap_err(),
        mounter.unmount(&target).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().contains("tmpfs from `somebody`"), "{error}");
    }
    unmount_by_hand(&target);
}

#[test]
fn a_reader_does_not_keep_a_volume_from_going() {
    let bench = bench("busy");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let held = File::open(target.join("data/big")).unwrap();
    mounter.unmount(&target).unwrap();
    mounter.release(&image).unwrap();
    std::fs::remove_dir(&target).unwrap();
    let mut bytes = vec![0; 4096];
    rustix::io::pread(&held, &mut bytes, 1_000_000).unwrap();
    assert_eq!(bytes, content(1, 3_000_000)[1_000_000..1_004_096]);
}

#[test]
fn what_a_crash_leaves_is_swept() {
    let bench = bench("crash");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let home = bench.state().join("mounts");
    // Killed between mkdir and attaching; and while an old kernel's EROFS mount was attached.
    std::fs::create_dir(home.join(VerityDigest([1; 32]).hex())).unwrap();
    let lower = home.join(format!("{}.lower", VerityDigest([2; 32])));
    std::fs::create_dir(&lower).unwrap();
    rustix::mount::mount("leftover", &lower, "tmpfs", MountFlags::empty(), None).unwrap();
    // Killed in the self-test, before it had written all.
    let scratch = bench.store().join(".self-test");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::create_dir_all(scratch.join("objects/aa")).unwrap();
    std::fs::write(scratch.join("objects/aa/bb"), "x").unwrap();
    // Killed after the last unmount and before the release.
    mounter.unmount(&target).unwrap();

    let restarted = start(&bench);
    assert_eq!(mounts_below(&bench.root), [home.clone(), home.join(image.hex())]);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1);
    assert!(!scratch.join("objects/aa/bb").exists());
    assert_eq!(std::fs::read_dir(scratch.join("objects")).unwrap().count(), 3, "kept for the next start");
    for image in restarted.mounted_images().unwrap().all() {
        if bench.object(&image).exists() {
            restarted.release(&image).unwrap();
        }
    }
    assert_eq!(mounts_below(&bench.root), [home]);
}

#[test]
fn pods_of_one_image_at_once_get_one_superblock() {
    let bench = bench("parallel");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let targets: Vec<PathBuf> = (0..8).map(|count| bench.target(&count.to_string())).collect();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for target in &targets {
                scope.spawn(|| mounter.mount(&whole(image), target).unwrap());
            }
        });
        assert!(targets.iter().all(|target| device(target) == device(&targets[0])));
        assert_eq!(mounts_below(&bench.root).len(), 2 + targets.len());
        // Others are released while some are published: a base never goes below a clone being made.
        std::thread::scope(|scope| {
            for target in &targets {
                scope.spawn(|| {
                    mounter.unmount(target).unwrap();
                    mounter.release(&image).unwrap();
                    mounter.mount(&whole(image), target).unwrap();
                    assert!(target.join("data/big").exists());
                    mounter.unmount(target).unwrap();
                    mounter.release(&image).unwrap();
                });
            }
        });
        assert_eq!(mounts_below(&bench.root).len(), 1);
    }
}

#[test]
fn published_mounts_travel_to_the_host_and_base_mounts_do_not() {
    let bench = bench("propagation");
    let image = small_image(&bench);
    // The host's tree is shared; a peer stands for another namespace that sees it.
    rustix::mount::mount_bind(&bench.root, &bench.root).unwrap();
    rustix::mount::mount_change(&bench.root, MountPropagationFlags::SHARED).unwrap();
    let peer = bench.root.with_extension("peer");
    std::fs::create_dir_all(&peer).unwrap();
    rustix::mount::mount_bind(&bench.root, &peer).unwrap();

    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    assert!(peer.join("targets/a/data/big").exists(), "kubelet sees the volume");
    assert!(!mounts_below(&peer).contains(&peer.join("state/mounts").join(image.hex())));
    mounter.unmount(&target).unwrap();
    assert!(!peer.join("targets/a/data").exists());

    // A container that binds the host's tree recursively copies the volume, but no base mount.
    mounter.mount(&whole(image), &target).unwrap();
    let container = bench.root.with_extension("container");
    std::fs::create_dir_all(&container).unwrap();
    rustix::mount::mount_bind_recursive(&bench.root, &container).unwrap();
    rustix::mount::mount_change(&container, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .unwrap();
    assert_eq!(mounts_below(&container), [container.clone(), container.join("targets/a")]);
    for directory in [&container, &peer] {
        unmount_by_hand(directory);
        std::fs::remove_dir(directory).unwrap();
    }
}

#[test]
fn a_thousand_cycles_leave_nothing() {
    let bench = bench("cycles");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let before = bench.leftovers();
    for count in 0..1000 {
        let target = bench.target(&format!("{count}"));
        mounter.mount(&below(image, "data"), &target).unwrap();
        assert!(target.join("big").exists());
        mounter.unmount(&target).unwrap();
        mounter.release(&image).unwrap();
        std::fs::remove_dir(&target).unwrap();
    }
    assert_eq!(bench.leftovers(), before);
    assert_eq!(mounts_below(&bench.root).len(), 1);
    assert_eq!(std::fs::read_dir(bench.state().join("mounts")).unwrap().count(), 0);
}

#[test]
fn a_thousand_volumes_of_one_image() {
    let bench = bench("thousand");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let targets: Vec<PathBuf> = (0..1000).map(|count| bench.target(&format!("{count}"))).collect();
    let mut times: Vec<_> = targets
        .iter()
        .map(|target| {
            let start = std::time::Instant::now();
            assert_eq!(mounter.mounted(target).unwrap(), None);
            mounter.mount(&whole(image), target).unwrap();
            start.elapsed()
        })
        .collect();
    let unmounting = std::time::Instant::now();
    for target in &targets {
        mounter.unmount(target).unwrap();
        mounter.release(&image).unwrap();
    }
    let unmounting = unmounting.elapsed() / 1000;
    times.sort();
    println!("publish: median {:?}, p99 {:?}; unpublish: mean {unmounting:?}", times[500], times[990]);
    // `make bench` holds p99 to 5 ms; a test says nothing of times.
    assert_eq!(mounts_below(&bench.root).len(), 1, "the directory of base mounts alone");
}

/// Publishes and unpublishes until it is killed.
#[test]
#[ignore = "started and killed by the test below"]
fn victim() {
    let root = PathBuf::from(std::env::var("VICTIM_ROOT").expect("the victim's directory"));
    let image = VerityDigest::from_hex(&std::env::var("VICTIM_IMAGE").unwrap()).unwrap();
    let layers =
        if std::env::var("VICTIM_LAYERS").unwrap() == "paths" { Layers::Paths } else { Layers::Descriptors };
    let (kernel, failed) = (String::new(), Vec::new());
    let (backing, verity, selinux) = (Backing::LoopDevice, Verity::NotInStore, Labelling::default());
    let forced = Capabilities { kernel, backing, layers, verity, selinux, failed };
    let mounter =
        KernelMounter::with_capabilities(&root.join("store"), &root.join("state"), false, forced).unwrap();
    let targets = ["a", "b", "c"].map(|name| root.join("targets").join(name));
    loop {
        // Many clones for one base, whose making and unmaking takes longest.
        for _ in 0..20 {
            targets.iter().for_each(|target| mounter.mount(&below(image, "data"), target).unwrap());
            targets.iter().for_each(|target| mounter.unmount(target).unwrap());
        }
        mounter.release(&image).unwrap();
    }
}

#[test]
fn killed_at_any_instant_the_next_start_repairs() {
    let bench = bench("killed");
    let image = small_image(&bench);
    let targets = ["a", "b", "c"].map(|name| bench.target(name));
    let before = bench.leftovers();
    let (mut published, mut based) = (0, 0);
    for round in 0..60 {
        let mut victim = again(module_path!(), "victim")
            .env("VICTIM_ROOT", &bench.root)
            .env("VICTIM_IMAGE", image.hex())
            .env("VICTIM_LAYERS", if round % 2 == 0 { "paths" } else { "descriptors" })
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Past the start of the process, when it has mounted something, then at another instant each time.
        while mounts_below(&bench.root).len() < 2 {
            assert!(victim.try_wait().unwrap().is_none(), "the victim ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(977 * round));
        assert!(victim.try_wait().unwrap().is_none(), "the victim ended by itself");
        victim.kill().unwrap();
        victim.wait().unwrap();

        based += usize::from(mounts_below(&bench.state()).len() > 1);
        let mounter = start(&bench);
        for target in &targets {
            match mounter.mounted(target).unwrap() {
                None => assert_eq!(std::fs::read_dir(target).unwrap().count(), 0, "nothing is half mounted"),
                Some(spec) => {
                    published += 1;
                    assert_eq!(spec, below(image, "data"), "flags come before the mount is seen");
                    assert_eq!(std::fs::read(target.join("deep/small")).unwrap(), b"inline");
                }
            }
            mounter.unmount(target).unwrap();
        }
        mounter.release(&image).unwrap();
        let home = bench.state().join("mounts");
        assert_eq!(mounts_below(&bench.root), std::slice::from_ref(&home), "round {round}");
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "round {round}");
    }
    println!("killed 60 times: {based} times with base mounts, {published} volumes published");
    assert!(based > 5 && published > 5, "the kills must hit the work: {based} bases, {published} volumes");
    assert_eq!(bench.leftovers(), before);
}
