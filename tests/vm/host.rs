//! The host's own objects, on a disk with fs-verity: taken by a pull, and mounted from image files, by this program and by
//! the composefs project's.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use composefs_csi::image::store::gc::Policy;
use composefs_csi::image::store::{CollectRequest, Mounted, NodeKey, Options, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::{
    ImageFileError, ImageFileMount, ImageFileName, Mounter as _, image_file_on, mount_image_file,
    unmount_image_file,
};
use composefs_csi::sys::verity::measure_verity;

use crate::disk::{BLOCK, drop_caches, tamper};
use crate::guest::{LENGTH, bench, start, whole};
use crate::pulled::pull;
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::{Bench, Node, content, mounts_below};
use crate::support::pages::Mapping;

/// Where the composefs project's `mount.composefs` and its libraries are in the machine (`initramfs`).
const TOOL: &str = "/composefs";

fn open(bench: &Bench, sources: &[PathBuf]) -> Arc<Store> {
    let options = Options::new(NodeKey::from_bytes(&[42; 32]));
    Arc::new(Store::open(&bench.store(), Options { object_sources: sources.to_vec(), ..options }).unwrap())
}

/// A new, empty store, and another with these files. In the machine /tmp is a tmpfs, where images may be made.
fn stores(name: &str, contents: &[&[u8]]) -> (Bench, Bench) {
    let (own, host) = (bench(name), bench(&format!("{name}-host")));
    std::fs::remove_dir_all(own.store()).unwrap();
    std::fs::create_dir_all(std::env::temp_dir()).unwrap();
    for content in contents {
        host.put(content);
    }
    (own, host)
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// A file that the host has is the pod's file, too: one inode, the same pages. It stays when the host's name goes, and the
/// host's stays when ours goes.
pub fn linked() -> String {
    // One is gathered in memory, the other written while it is hashed.
    let (small, large, own) = (content(70, LENGTH), content(71, 3 << 20), content(72, LENGTH));
    let (bench, host) = stores("linked", &[&small, &large]);
    let files = [("small", &small[..]), ("large", &large), ("own", &own)];
    let layout = Layout::of(&Image::new(vec![archive(&files)]));
    let store = open(&bench, &[host.store()]);
    let ready = pull(&store, &layout.reference("latest"));
    for (text, is_linked) in [(&small, true), (&large, true), (&own, false)] {
        let digest = VerityDigest::of(text);
        let (ours, theirs) = (store.objects().path(&digest), host.object(&digest));
        assert_eq!(measure_verity(File::open(&ours).unwrap()), Ok(digest.0));
        assert_eq!(theirs.exists() && inode(&ours) == inode(&theirs), is_linked, "{}", text.len());
    }
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(ready.record.image), &target).unwrap();
    // Pages that the host's program has are the pod's.
    let frames = |path: &Path| Mapping::new(File::open(path).unwrap()).unwrap().frames().unwrap();
    let digest = VerityDigest::of(&large);
    assert_eq!(frames(&target.join("large")), frames(&host.object(&digest)));
    // What the host removes stays here.
    std::fs::remove_file(host.object(&digest)).unwrap();
    drop_caches();
    assert_eq!(std::fs::read(target.join("large")).unwrap(), large);
    // And the other way around.
    mounter.unmount(&target).unwrap();
    mounter.release(&ready.record.image).unwrap();
    drop((mounter, ready));
    let policy = Policy::Unneeded { min_age: std::time::Duration::ZERO };
    let mounted = || Ok(Mounted::default());
    let gone = store.collect(&CollectRequest { policy, mounted: &mounted, dry_run: false }).unwrap();
    assert_eq!(gone.images.len(), 1);
    let digest = VerityDigest::of(&small);
    assert!(!store.objects().path(&digest).exists());
    assert_eq!(std::fs::read(host.object(&digest)).unwrap(), small);
    // Of the linked file that the host still has, nothing is freed.
    let freed = gone.swept.bytes;
    assert!(freed >= 3 << 20 && freed < (3 << 20) + 2 * LENGTH as u64 + (256 << 10), "{freed}");
    format!("{freed} bytes freed")
}

/// In a container, the host's directory is another mount than the store's, through which the kernel links nothing.
pub fn linked_across_mounts() -> String {
    let text = content(73, LENGTH);
    let (bench, host) = stores("linked-mounts", &[&text]);
    let elsewhere = host.target("bound");
    let (source, place) = (host.store().join("objects"), elsewhere.clone());
    rustix::mount::mount_bind(&source, &place).unwrap();
    rustix::mount::mount_remount(
        &place,
        rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY,
        "",
    )
    .unwrap();
    let digest = VerityDigest::of(&text);
    let hex = digest.hex();
    let there = elsewhere.join(&hex[..2]).join(&hex[2..]);
    let direct = std::fs::hard_link(&there, bench.root.join("direct")).unwrap_err();
    assert_eq!(direct.raw_os_error(), Some(libc::EXDEV), "the kernel's own answer");
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &text)])]));
    let store = open(&bench, &[elsewhere]);
    pull(&store, &layout.reference("latest"));
    assert_eq!(inode(&store.objects().path(&digest)), inode(&host.object(&digest)));
    "EXDEV by path, linked by handle".to_owned()
}

/// What is there under an object's name and is not the object is not taken, nor is a composefs image.
pub fn not_believed() -> String {
    let (other, unsealed, good) = (content(74, LENGTH), content(75, LENGTH), content(76, LENGTH));
    let (bench, host) = stores("not-believed", &[&good]);
    // Sealed with another content; the right bytes without fs-verity.
    host.write_object(&VerityDigest::of(&other), &content(77, LENGTH), true);
    host.write_object(&VerityDigest::of(&unsealed), &unsealed, false);
    let files = [("other", &other[..]), ("unsealed", &unsealed), ("good", &good)];
    let layout = Layout::of(&Image::new(vec![archive(&files)]));
    let store = open(&bench, &[host.store()]);
    let image = pull(&store, &layout.reference("latest")).record.image;
    for (text, is_linked) in [(&other, false), (&unsealed, false), (&good, true)] {
        let digest = VerityDigest::of(text);
        let ours = store.objects().path(&digest);
        assert_eq!(inode(&ours) == inode(&host.object(&digest)), is_linked);
        assert_eq!(measure_verity(File::open(&ours).unwrap()), Ok(digest.0));
    }
    // The host has the very image: ours is a file of its own, which mounts lock.
    host.put(&std::fs::read(store.objects().path(&image)).unwrap());
    drop(store);
    std::fs::remove_dir_all(bench.store()).unwrap();
    let store = open(&bench, &[host.store()]);
    pull(&store, &layout.reference("latest"));
    assert_ne!(inode(&store.objects().path(&image)), inode(&host.object(&image)));
    String::new()
}

/// A linked file rots: it is found, and a repair does not take the same file again.
pub fn damaged() -> String {
    let text = content(78, LENGTH);
    let (bench, host) = stores("host-damaged", &[&text]);
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &text)])]));
    let store = open(&bench, &[host.store()]);
    let record = pull(&store, &layout.reference("latest")).record;
    let digest = VerityDigest::of(&text);
    tamper(&text[3 * BLOCK..4 * BLOCK]);
    drop_caches();
    let found = store.examine(&[record]).unwrap();
    let damaged: BTreeSet<_> = found.damaged.keys().copied().collect();
    assert_eq!(damaged, BTreeSet::from([digest]));
    assert_eq!(store.remove_damaged(&damaged).unwrap().len(), 1);
    assert!(host.object(&digest).exists(), "the host's is the host's");
    let record = pull(&store, &layout.reference("latest")).record;
    drop_caches();
    assert_ne!(inode(&store.objects().path(&digest)), inode(&host.object(&digest)));
    assert_eq!(std::fs::read(store.objects().path(&digest)).unwrap(), text);
    assert!(store.examine(&[record]).unwrap().damaged.is_empty());
    String::new()
}

fn wanted(file: &Path, digest: VerityDigest, objects: &[PathBuf]) -> ImageFileMount {
    ImageFileMount {
        image: ImageFileName { path: file.to_owned(), digest },
        objects: objects.to_vec(),
        level: Integrity::Read,
        path: PathBuf::new(),
        noexec: false,
    }
}

/// An image file and two directories of objects: the kernel measures all of it.
pub fn image_file() -> String {
    let (first, second, bad) = (content(80, LENGTH), content(81, LENGTH), content(82, LENGTH));
    let (bench, more) = (bench("image-file"), self::bench("image-file-more"));
    let image = bench.image(&[
        ("d/first", Node::File(first.clone())),
        ("d/second", Node::File(second.clone())),
        ("bad", Node::File(bad.clone())),
    ]);
    // The second file is in the other directory only.
    more.put(&second);
    std::fs::remove_file(bench.object(&VerityDigest::of(&second))).unwrap();
    let file = bench.root.join("image.cfs");
    std::fs::hard_link(bench.object(&image), &file).unwrap();
    let objects = [bench.store(), more.store().join("objects")];
    let target = bench.target("a");
    mount_image_file(&wanted(&file, image, &objects), &bench.state(), &target).unwrap();
    assert_eq!(image_file_on(&target).unwrap(), Some(image));
    // Of what the mount was made with, nothing is left.
    assert_eq!(mounts_below(&bench.root), [&*target]);
    drop_caches();
    assert_eq!(std::fs::read(target.join("d/first")).unwrap(), first);
    assert_eq!(std::fs::read(target.join("d/second")).unwrap(), second);
    bench.write_object(&VerityDigest::of(&bad), &content(83, LENGTH), true);
    drop_caches();
    assert_eq!(std::fs::read(target.join("bad")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(unmount_image_file(&target).unwrap(), Some(image));
    assert_eq!(unmount_image_file(&target).unwrap(), None);
    // A directory of it, without programs.
    let part = ImageFileMount { path: "d".into(), noexec: true, ..wanted(&file, image, &objects) };
    mount_image_file(&part, &bench.state(), &target).unwrap();
    assert_eq!(std::fs::read(target.join("first")).unwrap(), first);
    assert_eq!(unmount_image_file(&target).unwrap(), Some(image));
    // Another file under the digest, and the right one without fs-verity.
    let refused = |file: &Path, digest| {
        let error = mount_image_file(&wanted(file, digest, &objects), &bench.state(), &target).unwrap_err();
        assert_eq!(mounts_below(&bench.root), Vec::<PathBuf>::new(), "{error}");
        error
    };
    let other = VerityDigest([7; 32]);
    assert!(
        matches!(refused(&file, other), ImageFileError::WrongDigest { measured, .. } if measured == image)
    );
    let copy = bench.root.join("copy.cfs");
    std::fs::copy(&file, &copy).unwrap();
    assert!(matches!(refused(&copy, image), ImageFileError::NotSealed { .. }));
    // Sealed, vouched for, and still no composefs image.
    let object = VerityDigest::of(&first);
    assert!(matches!(refused(&bench.object(&object), object), ImageFileError::NotAnImage { .. }));
    String::new()
}

fn mount_composefs(options: &str, image: &Path, target: &Path) -> Output {
    Command::new(format!("{TOOL}/ld.so"))
        .args(["--library-path", &format!("{TOOL}/lib"), &format!("{TOOL}/mount.composefs"), "-o", options])
        .args([image, target])
        .output()
        .unwrap()
}

/// `mount.composefs` mounts an image of our store by its digest, and reads every file with fs-verity.
pub fn their_mount() -> String {
    let (text, bad) = (content(90, LENGTH), content(91, LENGTH));
    let (bench, _host) = stores("their-mount", &[]);
    let layout =
        Layout::of(&Image::new(vec![archive(&[("file", &text), ("bad", &bad), ("small", b"inline")])]));
    let store = open(&bench, &[]);
    let image = pull(&store, &layout.reference("latest")).record.image;
    let file = store.objects().path(&image);
    let objects = bench.store().join("objects");
    let options = |digest: &VerityDigest| format!("basedir={},digest={digest}", objects.display());
    let target = bench.target("a");
    let refused = mount_composefs(&options(&VerityDigest([7; 32])), &file, &target);
    assert!(!refused.status.success(), "another digest");
    let mounted = mount_composefs(&options(&image), &file, &target);
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    drop_caches();
    assert_eq!(std::fs::read(target.join("file")).unwrap(), text);
    assert_eq!(std::fs::read(target.join("small")).unwrap(), b"inline");
    bench.write_object(&VerityDigest::of(&bad), &content(92, LENGTH), true);
    drop_caches();
    assert_eq!(std::fs::read(target.join("bad")).unwrap_err().raw_os_error(), Some(libc::EIO));
    String::from_utf8_lossy(&refused.stderr).trim().to_owned()
}
