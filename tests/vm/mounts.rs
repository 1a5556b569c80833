//! Mounting itself: the ways that a kernel knows, restarts, and many volumes.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::{
    Backing, Capabilities, IdRange, KernelMounter, Labelling, Layers, MountSpec, Mounter as _, UpperSpec,
    Verity,
};

use crate::guest::{LENGTH, bench, is_6_12, start, whole};
use crate::support::mount::{Bench, Node, content, mounts_below};
use crate::support::pod_users::idmap_as_runtimes_do;

pub fn ways() -> String {
    let bench = bench("ways");
    let image = bench.image(&[("file", Node::File(content(30, LENGTH)))]);
    let before = bench.leftovers();
    let mut words = Vec::new();
    for backing in [Backing::File, Backing::LoopDevice] {
        for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
            let (kernel, verity, failed) = (String::new(), Verity::Required, Vec::new());
            let selinux = Labelling::default();
            let forced = Capabilities { kernel, backing, layers, verity, selinux, failed };
            let mounter =
                KernelMounter::with_capabilities(&bench.store(), &bench.state(), true, forced).unwrap();
            let target = bench.target("a");
            match mounter.mount(&whole(image), &target) {
                Err(error) if is_6_12() && layers == Layers::Descriptors => words.push(error.to_string()),
                other => other.unwrap_or_else(|error| panic!("{layers}, {backing}: {error}")),
            }
            if mounter.mounted(&target).unwrap().is_some() {
                assert_eq!(std::fs::read(target.join("file")).unwrap(), content(30, LENGTH));
            }
            mounter.unmount(&target).unwrap();
            mounter.release(&image).unwrap();
            assert_eq!(mounts_below(&bench.root).len(), 1);
        }
    }
    assert_eq!(bench.leftovers(), before);
    words.first().cloned().unwrap_or_default()
}

pub fn without_verity() -> String {
    let bench = Bench::new(Path::new("/tmp"), "plain", false);
    let image = bench.image(&[("file", Node::File(content(31, LENGTH)))]);
    let mounter = KernelMounter::start(&bench.store(), &bench.state(), false).unwrap();
    assert_eq!(mounter.capabilities().verity, Verity::NotInStore);
    assert_eq!(mounter.capabilities().backing, Backing::LoopDevice);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    assert_eq!(std::fs::read(target.join("file")).unwrap(), content(31, LENGTH));
    mounter.capabilities().to_string()
}

pub fn restart() -> String {
    let bench = bench("restart");
    let image = bench.image(&[("d/file", Node::File(content(32, LENGTH)))]);
    let (a, b, c) = (bench.target("a"), bench.target("b"), bench.target("c"));
    start(&bench).mount(&whole(image), &a).unwrap();
    start(&bench).mount(&whole(image), &b).unwrap();
    for point in mounts_below(&bench.state()).iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    let mounter = start(&bench);
    let below = MountSpec { path: "d".into(), noexec: true, ..whole(image) };
    mounter.mount(&below, &c).unwrap();
    assert_eq!(mounter.mounted(&c).unwrap(), Some(below));
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    assert!(device(&a) == device(&b) && device(&b) == device(&c), "one superblock");
    assert_eq!(mounter.mounted_images().unwrap().here.into_iter().collect::<Vec<_>>(), [image]);
    for target in [&a, &b, &c] {
        mounter.unmount(target).unwrap();
        mounter.release(&image).unwrap();
    }
    assert_eq!(mounts_below(&bench.root).len(), 1);
    String::new()
}

/// By every way of stacking, on top of what is published already.
pub fn users() -> String {
    const FIRST: u32 = 131_072;
    let bench = bench("users");
    let nodes = [("d/file", Node::File(content(34, LENGTH))), ("f", Node::File(content(35, LENGTH)))];
    let image = bench.image(&nodes);
    let users = IdRange { first: FIRST, length: 65_536 };
    for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
        if is_6_12() && layers == Layers::Descriptors {
            continue;
        }
        let (kernel, backing, verity) = (String::new(), Backing::File, Verity::Required);
        let (selinux, failed) = (Labelling::default(), Vec::new());
        let forced = Capabilities { kernel, backing, layers, verity, selinux, failed };
        let mounter = KernelMounter::with_capabilities(&bench.store(), &bench.state(), true, forced).unwrap();
        let (with, without) = (bench.target("with"), bench.target("without"));
        mounter.mount(&whole(image), &with).unwrap();
        mounter.mount(&whole(image), &without).unwrap();
        assert_eq!(idmap_as_runtimes_do(&with, FIRST).unwrap_err(), rustix::io::Errno::INVAL);
        assert!(mounter.map(&whole(image), Integrity::Read, users, &with).unwrap());
        assert!(!mounter.map(&whole(image), Integrity::Read, users, &with).unwrap(), "once is enough");
        let tree = idmap_as_runtimes_do(&with, FIRST).unwrap();
        let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        for name in ["", "d", "d/file", "f"] {
            assert_eq!(std::fs::metadata(inside.join(name)).unwrap().uid(), FIRST, "{layers}: {name}");
            assert_eq!(std::fs::metadata(without.join(name)).unwrap().uid(), 0, "{layers}: {name}");
        }
        assert_eq!(std::fs::read(inside.join("d/file")).unwrap(), content(34, LENGTH));
        assert_eq!(mounter.mounted(&with).unwrap(), Some(whole(image)));
        assert!(std::fs::write(inside.join("new"), "x").is_err());
        if layers == Layers::Classic {
            // The last one: another object in the place of one is refused here too.
            let digest = VerityDigest::of(&content(35, LENGTH));
            bench.write_object(&digest, &content(36, LENGTH), true);
            let fresh = bench.target("fresh");
            mounter.mount(&whole(image), &fresh).unwrap();
            mounter.map(&whole(image), Integrity::Read, users, &fresh).unwrap();
            let refused = std::fs::read(fresh.join("f")).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{refused}");
            mounter.unmount(&fresh).unwrap();
        }
        drop(tree);
        for target in [&with, &without] {
            mounter.unmount(target).unwrap();
        }
        mounter.release(&image).unwrap();
        assert_eq!(mounts_below(&bench.root).len(), 1, "{layers}");
    }
    String::new()
}

/// By every way of stacking: what is not changed is verified, also under another name and mode; what is changed is the pod's.
pub fn writable() -> String {
    let bench = bench("writable");
    let (text, other) = (content(37, LENGTH), content(38, LENGTH));
    let nodes = [("d/file", Node::File(text.clone())), ("f", Node::File(other.clone()))];
    let image = bench.image(&nodes);
    let by = |on_disk| MountSpec { upper: Some(UpperSpec { bytes: 4 << 20, on_disk }), ..whole(image) };
    let ways = [Layers::Descriptors, Layers::Paths, Layers::Classic];
    for (layers, on_disk) in ways.into_iter().flat_map(|layers| [(layers, false), (layers, true)]) {
        if is_6_12() && layers == Layers::Descriptors {
            continue;
        }
        let spec = by(on_disk);
        let (kernel, backing, verity) = (String::new(), Backing::File, Verity::Required);
        let (selinux, failed) = (Labelling::default(), Vec::new());
        let forced = Capabilities { kernel, backing, layers, verity, selinux, failed };
        let mounter = KernelMounter::with_capabilities(&bench.store(), &bench.state(), true, forced).unwrap();
        let (mine, plain) = (bench.target("mine"), bench.target("plain"));
        mounter.mount(&spec, &mine).unwrap();
        mounter.mount(&whole(image), &plain).unwrap();
        assert_eq!(mounter.mounted(&mine).unwrap(), Some(spec.clone()), "{layers}");
        assert_eq!(mounter.mounted_images().unwrap().here.into_iter().collect::<Vec<_>>(), [image]);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let options = table
            .lines()
            .find(|line| line.contains(if on_disk { "+disk:" } else { "+upper:" }))
            .unwrap()
            .to_owned();
        assert!(options.contains("verity=require") && options.contains("index=on"), "{options}");
        std::fs::set_permissions(mine.join("d/file"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(mine.join("d"), mine.join("e")).unwrap();
        std::fs::write(mine.join("new"), "new").unwrap();
        let usage = mounter.usage(&mine).unwrap().unwrap();
        let written = usage.bytes - usage.free_bytes;
        match on_disk {
            false => assert_eq!((usage.bytes, written), (4 << 20, 4096), "no data was copied"),
            true => assert!(usage.free_bytes >= 4 << 20, "no data was copied: {usage:?}"),
        }
        assert!(std::fs::read(mine.join("e/file")).unwrap() == text);
        assert_eq!(mounter.usage(&plain).unwrap(), None);
        std::fs::write(mine.join("f"), "mine").unwrap();
        assert_eq!(std::fs::read(mine.join("f")).unwrap(), b"mine");
        assert!(std::fs::read(plain.join("f")).unwrap() == other);
        for target in [&mine, &plain] {
            mounter.unmount(target).unwrap();
        }
        mounter.release(&image).unwrap();
        assert_eq!(mounts_below(&bench.root).len(), 1, "{layers}");
    }
    let spec = by(false);
    // Another sealed object in the place of each: the pod gets none of it, nor does its upper, by whatever name or change.
    for (right, wrong) in [(&text, &other), (&other, &text)] {
        bench.write_object(&VerityDigest::of(right), &wrong[..LENGTH - 1], true);
    }
    let (mounter, mine) = (start(&bench), bench.target("mine"));
    mounter.mount(&spec, &mine).unwrap();
    std::fs::rename(mine.join("d"), mine.join("e")).unwrap();
    for name in ["e/file", "f"] {
        let mode = std::fs::Permissions::from_mode(0o600);
        let refused = std::fs::set_permissions(mine.join(name), mode).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{name} has no place in the upper: {refused}");
        let refused = std::fs::read(mine.join(name)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{name}: {refused}");
        let refused = std::fs::File::options().append(true).open(mine.join(name)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{name} is not copied up: {refused}");
    }
    mounter.unmount(&mine).unwrap();
    mounter.release(&image).unwrap();
    assert_eq!(mounts_below(&bench.root).len(), 1);
    String::new()
}

pub fn many() -> String {
    let bench = bench("many");
    let image = bench.image(&[("file", Node::File(content(33, LENGTH)))]);
    let mounter = start(&bench);
    let targets: Vec<PathBuf> = (0..200).map(|count| bench.target(&count.to_string())).collect();
    let times: Vec<_> = targets
        .iter()
        .map(|target| {
            let started = std::time::Instant::now();
            mounter.mount(&whole(image), target).unwrap();
            started.elapsed()
        })
        .collect();
    let median = |part: &[std::time::Duration]| {
        let mut part = part.to_vec();
        part.sort();
        part[part.len() / 2]
    };
    let (first, last) = (median(&times[1..51]), median(&times[150..]));
    // Emulation is noisy, reading the table of 200 mounts each time would not be mistaken for noise.
    assert!(last < first * 4, "the first fifty take {first:?} each, the last fifty {last:?}");
    for target in [&targets[0], &targets[199]] {
        assert_eq!(mounter.mounted(target).unwrap(), Some(whole(image)));
    }
    format!("first fifty {first:?} each, last fifty {last:?}, emulated")
}
