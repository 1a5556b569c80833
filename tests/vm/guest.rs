//! What is tested inside the machine: a disk of ext4 with fs-verity, mounted on /disk, whose raw device is /dev/vda.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::{Backing, KernelMounter, Layers, MountError, MountSpec, Mounter, Verity};
use composefs_csi::sys::verity::{enable_verity, measure_verity};
use rustix::io::Errno;

use crate::disk::{BLOCK, drop_caches, read_block, tamper};
use crate::pulled::{pulled_image, sealed_later};
use crate::support::mount::{Bench, Node, content, image_by, mounts_below};
use crate::support::pages::Mapping;
use crate::{Row, combined, damage, follow, host, mounts, policy, reads, records, selinux};

const DISK: &str = "/disk";
/// Length of the files that are tampered with.
pub const LENGTH: usize = 20 * BLOCK;

/// A row: what is claimed, and the test of it, which returns a detail worth printing or panics.
pub type Test = fn() -> String;

/// Every row, in order.
pub const ROWS: &[(&str, Test)] = &[
    ("the self-test finds verity=require", self_test),
    ("the store seals objects and image, and all is read back", sealed_store),
    ("an image pulled into a sealed store is mounted and read with verity=require", pulled_image),
    ("two images as one are sealed, and each file is proven by its own", combined::sealed),
    ("a store filled before there was fs-verity gets it in the background", sealed_later),
    ("fs-verity's refusals are told apart", verity_errors),
    ("a tampered object gives EIO at exactly its block", tampered_object),
    ("a tampered block cannot be mapped into memory", tampered_mapping),
    ("an object replaced by another sealed one is refused at open", replaced_sealed),
    ("an object replaced by an unsealed copy is refused at open", replaced_unsealed),
    ("a missing object is ENOENT, the rest is fine", missing_object),
    ("an image replaced by another is refused before it is mounted", replaced_image),
    ("an image that is not sealed is refused before it is mounted", unsealed_image),
    ("an image tampered in its first block is not mounted", tampered_superblock),
    ("an image tampered later gives EIO and no wrong name", tampered_directory),
    ("what the kernel says of a tampered block leads to object and image", damage::tampered_block),
    ("what it says of a replaced object does", damage::replaced_object),
    ("what it says of an unsealed object does", damage::unsealed_object),
    ("what it says of a missing object does", damage::missing_object),
    ("a pull links what the host has, and shares its pages", host::linked),
    ("it does so across two mounts of one filesystem, as in a container", host::linked_across_mounts),
    ("what the host has under an object's name is not believed unmeasured", host::not_believed),
    ("a linked file that rots is not taken again", host::damaged),
    ("an image file is mounted by its digest, with every read verified", host::image_file),
    ("mount.composefs mounts an image of our store by its digest", host::their_mount),
    ("an altered image record is named and never mounted", records::image_record),
    ("an altered layer record makes no image", records::layer_record),
    ("an altered link from blob to layer leads nowhere", records::blob_link),
    ("records made with another key are not believed", records::key),
    ("an image that is built otherwise than at first is refused", records::first_digest),
    ("an image that is cached is refused once the policy is another", policy::replaced),
    ("verified reads beside the same file without fs-verity", reads::cost_of_verification),
    ("every way of mounting that this kernel should know works", mounts::ways),
    ("a store on tmpfs is mounted through loop devices", mounts::without_verity),
    ("a restart finds base and published mounts", mounts::restart),
    ("a pod with a user namespace has its owners, and every read is verified", mounts::users),
    ("a pod writes over an image, and what it has not changed is verified", mounts::writable),
    ("a volume follows a tag, and each image that it shows is verified", follow::verified),
    ("publishing does not slow down with the number of volumes", mounts::many),
];

/// Runs all rows, those about SELinux last and in a process of their own: from then on the machine enforces a policy.
pub fn run() {
    run_rows(ROWS);
    selinux::enforce();
}

/// Runs rows, and writes each to the port that the host reads.
pub fn run_rows(rows: &[(&str, Test)]) {
    let port = std::env::var("RESULTS").expect("RESULTS names the port of the results");
    let mut port = File::options().write(true).open(port).expect("cannot open the port of the results");
    for (name, test) in rows {
        println!("== {name}");
        let (passed, detail) = match catch_unwind(AssertUnwindSafe(test)) {
            Ok(detail) => (true, detail),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                (
                    false,
                    text.or_else(|| panic.downcast_ref().map(|text: &&str| text.to_string()))
                        .unwrap_or_default(),
                )
            }
        };
        let row = Row { name: (*name).to_owned(), passed, detail };
        let line = serde_json::to_string(&row).expect("a row is JSON");
        writeln!(port, "{line}").expect("cannot write a result");
    }
}

pub fn bench(name: &str) -> Bench {
    Bench::new(Path::new(DISK), name, true)
}

pub fn start(bench: &Bench) -> KernelMounter {
    KernelMounter::start(&bench.store(), &bench.state(), true).unwrap()
}

pub fn whole(image: VerityDigest) -> MountSpec {
    MountSpec { image, path: PathBuf::new(), noexec: false, upper: None }
}

pub fn is_6_12() -> bool {
    rustix::system::uname().release().to_bytes().starts_with(b"6.12")
}

fn self_test() -> String {
    let bench = bench("self-test");
    let mounter = start(&bench);
    let found = mounter.capabilities();
    assert_eq!(found.verity, Verity::Required, "{found}");
    assert_eq!(found.backing, Backing::File, "{found}");
    let layers = if is_6_12() { Layers::Paths } else { Layers::Descriptors };
    assert_eq!(found.layers, layers, "{found}");
    assert_eq!(mounts_below(&bench.root).len(), 1);
    found.to_string()
}

/// The real store, not the tests' own.
fn sealed_store() -> String {
    let bench = bench("store");
    let text = content(1, LENGTH);
    std::fs::remove_dir_all(bench.store()).unwrap();
    let store = Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap();
    assert_eq!(store.integrity(), Integrity::Read);
    let hold = store.hold();
    let objects = store.objects().under(&hold).unwrap();
    let image =
        image_by(&[("file", Node::File(text.clone())), ("s", Node::File(b"inline".to_vec()))], |bytes| {
            objects.put(bytes).unwrap().0
        });
    for digest in [image, VerityDigest::of(&text)] {
        let object = File::open(store.objects().path(&digest)).unwrap();
        assert_eq!(measure_verity(&object), Ok(digest.0));
    }
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    drop_caches();
    assert_eq!(std::fs::read(target.join("file")).unwrap(), text);
    assert_eq!(std::fs::read(target.join("s")).unwrap(), b"inline");
    store.filesystem().name.clone()
}

fn verity_errors() -> String {
    let bench = bench("errors");
    let path = bench.root.join("file");
    std::fs::write(&path, content(40, LENGTH)).unwrap();
    let (reader, writer) = (File::open(&path).unwrap(), File::options().append(true).open(&path).unwrap());
    assert_eq!(measure_verity(&reader), Err(Errno::NODATA));
    assert_eq!(enable_verity(&reader), Err(Errno::TXTBSY));
    drop(writer);
    assert_eq!(enable_verity(&reader), Ok(()));
    assert_eq!(enable_verity(&reader), Err(Errno::EXIST));
    assert_eq!(measure_verity(&reader), Ok(VerityDigest::of(&content(40, LENGTH)).0));
    assert_eq!(File::options().append(true).open(&path).unwrap_err().raw_os_error(), Some(libc::EPERM));
    std::fs::write("/tmp/file", "x").unwrap();
    assert_eq!(enable_verity(File::open("/tmp/file").unwrap()), Err(Errno::NOTTY));
    "ENODATA, ETXTBSY, EEXIST, ENOTTY".into()
}

fn tampered_object() -> String {
    let bench = bench("tampered");
    let (text, other) = (content(2, LENGTH), content(3, LENGTH));
    let image = bench.image(&[("bad", Node::File(text.clone())), ("good", Node::File(other.clone()))]);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let number = 7;
    tamper(&text[number * BLOCK..(number + 1) * BLOCK]);
    drop_caches();
    // Block by block, without readahead: the tampered one fails, and no other.
    let bad = File::open(target.join("bad")).unwrap();
    rustix::fs::fadvise(&bad, 0, None, rustix::fs::Advice::Random).unwrap();
    for block in 0..LENGTH / BLOCK {
        let expected = text[block * BLOCK..(block + 1) * BLOCK].to_vec();
        let expected = if block == number { Err(libc::EIO) } else { Ok(expected) };
        assert!(read_block(&bad, block) == expected, "block {block}");
    }
    // With readahead a large folio fails as a whole: blocks beside the tampered one may give EIO, but no wrong bytes.
    drop_caches();
    let bad = File::open(target.join("bad")).unwrap();
    let read: Vec<_> = (0..LENGTH / BLOCK).map(|block| read_block(&bad, block)).collect();
    assert_eq!(read[number], Err(libc::EIO));
    let right = |(block, found): (usize, &Result<Vec<u8>, i32>)| match found {
        Ok(bytes) => bytes[..] == text[block * BLOCK..(block + 1) * BLOCK],
        Err(errno) => *errno == libc::EIO,
    };
    assert!(read.iter().enumerate().all(right), "wrong bytes");
    let failed = read.iter().filter(|found| found.is_err()).count();
    assert_eq!(std::fs::read(target.join("good")).unwrap(), other);
    format!("block {number} of {}; {failed} with readahead", LENGTH / BLOCK)
}

fn tampered_mapping() -> String {
    let bench = bench("mapping");
    let text = content(4, LENGTH);
    let image = bench.image(&[("bad", Node::File(text.clone()))]);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    assert_eq!(Mapping::new(File::open(target.join("bad")).unwrap()).unwrap().frames().unwrap().len(), 20);
    tamper(&text[..BLOCK]);
    drop_caches();
    let mapping = Mapping::new(File::open(target.join("bad")).unwrap()).unwrap();
    assert_eq!(mapping.frames(), Err(Errno::FAULT));
    String::new()
}

fn open_error(path: &Path) -> i32 {
    File::open(path).unwrap_err().raw_os_error().unwrap()
}

/// Mounts an image of two files, lets `change` loose on the object of one, and says how it fails.
fn open_after(name: &str, seed: u8, change: impl Fn(&Bench, &VerityDigest, &[u8])) -> i32 {
    let bench = bench(name);
    let (text, other) = (content(seed, LENGTH), content(seed + 1, LENGTH));
    let image = bench.image(&[("bad", Node::File(text.clone())), ("good", Node::File(other.clone()))]);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    change(&bench, &VerityDigest::of(&text), &text);
    drop_caches();
    assert_eq!(std::fs::metadata(target.join("bad")).unwrap().len(), LENGTH as u64, "stat needs no object");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 2, "nor does ls");
    let errno = open_error(&target.join("bad"));
    assert_eq!(std::fs::read(target.join("good")).unwrap(), other);
    // What a new pull repairs is good again without a new mount. An object that was found and refused stays refused
    // until the kernel forgets the name, at the latest when the image is mounted anew.
    bench.write_object(&VerityDigest::of(&text), &text, true);
    if errno != libc::ENOENT {
        assert_eq!(open_error(&target.join("bad")), errno);
        drop_caches();
    }
    assert_eq!(std::fs::read(target.join("bad")).unwrap(), text, "after the repair");
    errno
}

fn replaced_sealed() -> String {
    let errno = open_after("replaced", 10, |bench, digest, _| {
        bench.write_object(digest, &content(12, LENGTH), true);
    });
    assert_eq!(errno, libc::EIO);
    "EIO".into()
}

fn replaced_unsealed() -> String {
    let errno = open_after("unsealed", 13, |bench, digest, text| bench.write_object(digest, text, false));
    assert_eq!(errno, libc::EIO);
    "EIO, even with the same bytes".into()
}

fn missing_object() -> String {
    let errno =
        open_after("missing", 16, |bench, digest, _| std::fs::remove_file(bench.object(digest)).unwrap());
    assert_eq!(errno, libc::ENOENT);
    "ENOENT".into()
}

/// Mounting must fail as corrupt, name the image, and leave nothing.
fn refused(bench: &Bench, image: VerityDigest) -> MountError {
    drop_caches();
    let mounter = start(bench);
    let target = bench.target("a");
    let error = mounter.mount(&whole(image), &target).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains(&image.hex()), "{error}");
    assert_eq!(mounts_below(&bench.root).len(), 1, "{error}");
    error
}

fn replaced_image() -> String {
    let bench = bench("image-replaced");
    let image = bench.image(&[("file", Node::File(content(20, LENGTH)))]);
    let other = bench.image(&[("file", Node::File(content(21, LENGTH)))]);
    bench.write_object(&image, &std::fs::read(bench.object(&other)).unwrap(), true);
    let error = refused(&bench, image);
    assert!(matches!(error, MountError::WrongDigest { measured, .. } if measured == other), "{error}");
    error.to_string()
}

fn unsealed_image() -> String {
    let bench = bench("image-unsealed");
    let image = bench.image(&[("file", Node::File(content(22, LENGTH)))]);
    bench.write_object(&image, &std::fs::read(bench.object(&image)).unwrap(), false);
    let error = refused(&bench, image);
    assert!(matches!(error, MountError::NotSealed { .. }), "{error}");
    error.to_string()
}

fn tampered_superblock() -> String {
    let bench = bench("image-superblock");
    let image = bench.image(&[("file", Node::File(content(23, LENGTH)))]);
    tamper(&std::fs::read(bench.object(&image)).unwrap()[..BLOCK]);
    refused(&bench, image).to_string()
}

fn tampered_directory() -> String {
    let bench = bench("image-directory");
    let names: Vec<String> =
        (0..500).map(|count| format!("d{}/a-rather-long-name-{count:05}", count % 50)).collect();
    let nodes: Vec<_> =
        names.iter().map(|name| (name.as_str(), Node::File(name.clone().into_bytes()))).collect();
    let image = bench.image(&nodes);
    let bytes = std::fs::read(bench.object(&image)).unwrap();
    let number = bytes.len() / BLOCK / 2;
    tamper(&bytes[number * BLOCK..(number + 1) * BLOCK]);
    drop_caches();
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let (mut good, mut errors) = (0, 0);
    for name in &names {
        match std::fs::read(target.join(name)) {
            Ok(found) if found == name.as_bytes() => good += 1,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => errors += 1,
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(errors > 0, "the tampered block {number} was never read");
    format!("block {number}: {good} files read, {errors} EIO")
}
