//! Mounting images: every way of it, what a volume shows and refuses, what is found and left.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::{
    Backing, Capabilities, KernelMounter, Labelling, Layers, MountError, MountSpec, Mounter, Verity,
};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, OpenTreeFlags};

use crate::support::bench::{below, bench, device, small_image, start, unmount_by_hand, whole};
use crate::support::mount::{Node, content, mounts_below};
use crate::support::pages::{Mapping, read_through};

fn ways() -> Vec<Capabilities> {
    let mut ways = Vec::new();
    for backing in [Backing::File, Backing::LoopDevice] {
        for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
            ways.push(Capabilities {
                kernel: "forced".into(),
                backing,
                layers,
                verity: Verity::NotInStore,
                selinux: Labelling::default(),
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
    assert!(mounter.mounted_images().unwrap().all().contains(&image));
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
    let before = bench.leftovers();
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
    assert_eq!(bench.leftovers(), before);
}

#[test]
fn noexec_belongs_to_the_clone_alone() {
    let bench = bench("noexec");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let (strict, loose) = (bench.target("strict"), bench.target("loose"));
    let spec = MountSpec { noexec: true, ..whole(image) };
    mounter.mount(&spec, &strict).unwrap();
    mounter.mount(&whole(image), &loose).unwrap();
    let error = std::process::Command::new(strict.join("bin/tool")).status().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(std::process::Command::new(loose.join("bin/tool")).status().unwrap().success());
    assert_eq!(mounter.mounted(&strict).unwrap(), Some(spec));

    // A base made anew from the strict clone is not strict itself.
    mounter.unmount(&loose).unwrap();
    unmount_by_hand(&bench.state().join("mounts").join(image.hex()));
    mounter.mount(&whole(image), &loose).unwrap();
    assert!(std::process::Command::new(loose.join("bin/tool")).status().unwrap().success());
    assert_eq!(device(&strict), device(&loose));
}

#[test]
fn a_path_is_resolved_inside_the_image() {
    let bench = bench("path");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let target = bench.target("a");
    for path in ["data/deep", "current", "absolute", "escape", "data/../data/deep/."] {
        let mounted = mounter.mount(&below(image, path), &target);
        if path.contains("..") {
            assert!(matches!(mounted, Err(MountError::BadPath { .. })), "{path}");
            continue;
        }
        mounted.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(std::fs::read(target.join("small")).unwrap(), b"inline", "{path}");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1, "{path}");
        // As documented: links are resolved.
        assert_eq!(mounter.mounted(&target).unwrap(), Some(below(image, "data/deep")), "{path}");
        mounter.unmount(&target).unwrap();
    }
    for (path, kind) in [
        ("outside", Kind::NotFound),
        ("missing", Kind::NotFound),
        ("circle", Kind::Invalid),
        ("data/big", Kind::Invalid),
        ("data/big/more", Kind::Invalid),
        ("/data", Kind::Invalid),
        ("..", Kind::Invalid),
    ] {
        let error = mounter.mount(&below(image, path), &target).unwrap_err();
        assert_eq!(error.kind(), kind, "{path}: {error}");
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(mounter.mounted(&target).unwrap(), None, "{path}");
    }
    mounter.release(&image).unwrap();
    assert_eq!(mounts_below(&bench.root).len(), 1, "a failed publish leaves no base behind");
}

#[test]
fn two_pods_share_inodes_and_two_images_share_pages() {
    let bench = bench("share");
    let image = small_image(&bench);
    let other = bench.image(&[("elsewhere/copy", Node::File(content(1, 3_000_000)))]);
    let mounter = start(&bench);
    let (a, b, c) = (bench.target("a"), bench.target("b"), bench.target("c"));
    mounter.mount(&whole(image), &a).unwrap();
    mounter.mount(&below(image, "data"), &b).unwrap();
    mounter.mount(&whole(other), &c).unwrap();
    let (first, second) =
        (std::fs::metadata(a.join("data/big")).unwrap(), std::fs::metadata(b.join("big")).unwrap());
    assert_eq!((first.dev(), first.ino()), (second.dev(), second.ino()));

    let mut file = File::open(a.join("data/big")).unwrap();
    read_through(&mut file).unwrap();
    let object = bench.object(&VerityDigest::of(&content(1, 3_000_000)));
    let maps: Vec<Mapping> = [a.join("data/big"), b.join("big"), c.join("elsewhere/copy"), object]
        .iter()
        .map(|path| Mapping::new(File::open(path).unwrap()).unwrap())
        .collect();
    for map in &maps {
        assert!(map.resident().unwrap().iter().all(|page| *page), "read once, resident everywhere");
        assert_eq!(map.frames().unwrap(), maps[0].frames().unwrap(), "the same physical pages");
    }
}

#[test]
fn targets_and_images_that_are_none() {
    let bench = bench("bad");
    let image = small_image(&bench);
    let mounter = start(&bench);
    let (file, link) = (bench.root.join("targets/file"), bench.root.join("targets/link"));
    File::create(&file).unwrap();
    std::os::unix::fs::symlink(bench.target("real"), &link).unwrap();
    for bad in [&file, &link, &bench.root.join("targets/missing")] {
        let error = mounter.mount(&whole(image), bad).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(bad.to_str().unwrap()), "{error}");
        assert_eq!(mounter.mounted(bad).unwrap(), None);
        mounter.unmount(bad).unwrap();
    }
    let target = bench.target("a");
    let absent = VerityDigest([1; 32]);
    let error = mounter.mount(&whole(absent), &target).unwrap_err();
    assert!(matches!(error, MountError::NoSuchImage { .. }), "{error}");
    mounter.release(&absent).unwrap();

    let garbage = bench.put(&content(9, 20_000));
    let error = mounter.mount(&whole(garbage), &target).unwrap_err();
    assert!(matches!(&error, MountError::NotAnImage { image, .. } if *image == garbage), "{error}");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(mounts_below(&bench.root).len(), 1);
}

/// Mounts an overlay of `lower`, with its writable layer below `scratch`, on `on`.
fn mount_overlay(lower: &Path, scratch: &Path, on: &Path) {
    let directories = ["upper", "work"].map(|name| scratch.join(name));
    directories.iter().for_each(|directory| std::fs::create_dir_all(directory).unwrap());
    let context = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, value) in [("lowerdir", lower), ("upperdir", &directories[0]), ("workdir", &directories[1])] {
        rustix::mount::fsconfig_set_string(&context, key, value).unwrap();
    }
    rustix::mount::fsconfig_create(&context).unwrap();
    let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = rustix::mount::fsmount(&context, flags, rustix::mount::MountAttrFlags::empty()).unwrap();
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", rustix::fs::CWD, on, flags).unwrap();
}

#[test]
fn a_store_that_cannot_back_erofs_uses_loop_devices() {
    let bench = bench("loop");
    let before = bench.leftovers();
    rustix::mount::mount("store", bench.store(), "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::create_dir(bench.store().join("objects")).unwrap();
    let image = small_image(&bench);
    let mounter = start(&bench);
    println!("{}", mounter.capabilities());
    assert_eq!(mounter.capabilities().backing, Backing::LoopDevice);
    assert!(mounter.capabilities().failed.iter().any(|why| why.contains("os error 15")), "ENOTBLK");
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    assert_eq!(std::fs::read(target.join("data/big")).unwrap(), content(1, 3_000_000));
    mounter.unmount(&target).unwrap();
    mounter.release(&image).unwrap();
    drop(mounter);
    assert_eq!(bench.leftovers(), before);
}

#[test]
fn a_store_on_overlayfs_works_and_on_two_of_them_is_refused_in_the_kernels_words() {
    let bench = bench("overlay");
    let image = small_image(&bench);
    let (once, twice) = (bench.root.join("once"), bench.root.join("twice"));
    mount_overlay(&bench.store(), &once, &bench.store());
    let mounter = start(&bench);
    println!("{}", mounter.capabilities());
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    assert_eq!(std::fs::read(target.join("data/big")).unwrap(), content(1, 3_000_000));
    mounter.unmount(&target).unwrap();
    mounter.release(&image).unwrap();

    mount_overlay(&bench.store(), &twice, &bench.store());
    let error = KernelMounter::start(&bench.store(), &bench.state(), false).unwrap_err();
    println!("{error}");
    assert!(matches!(error, MountError::NoMountMethod { .. }));
    assert_eq!(error.kind(), Kind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("EROFS from the image file") && text.contains("EROFS from a loop device"),
        "{text}"
    );
    assert!(!bench.store().join(".self-test").exists());
}

/// Not used by mounts yet; pods with a user namespace of their own will need it.
#[test]
fn a_mount_shows_its_owners_through_an_id_mapping() {
    let bench = bench("idmap");
    // A process in a user namespace whose root is 100000 outside.
    let mut child = std::process::Command::new("unshare").args(["--user", "sleep", "60"]).spawn().unwrap();
    let proc = Path::new("/proc").join(child.id().to_string());
    let ours = std::fs::read_link("/proc/self/ns/user").unwrap();
    while std::fs::read_link(proc.join("ns/user")).unwrap() == ours {
        // In a chroot, for one, the kernel refuses user namespaces.
        assert_eq!(child.try_wait().unwrap(), None, "unshare --user has failed");
        std::thread::yield_now();
    }
    for map in ["uid_map", "gid_map"] {
        std::fs::write(proc.join(map), "0 100000 65536").unwrap();
    }
    let userns = File::open(proc.join("ns/user")).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(rustix::fs::CWD, &bench.root, flags).unwrap();
    map_ids(clone.as_fd(), userns.as_fd()).unwrap();
    let stat = rustix::fs::statat(&clone, "store", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!((stat.st_uid, stat.st_gid), (100_000, 100_000));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// mount_setattr(2) with MOUNT_ATTR_IDMAP, of a detached mount.
#[allow(unsafe_code)]
fn map_ids(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> std::io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: both descriptors are open for the call; the path is a NUL-terminated literal; the kernel reads
    // `size_of::<libc::mount_attr>()` bytes of `attr`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
