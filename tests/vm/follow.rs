//! A volume that follows a tag, on a store with fs-verity: each image that it shows is verified at every read.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::{CURRENT, Mounter as _};

use crate::disk::drop_caches;
use crate::guest::{LENGTH, bench, start, whole};
use crate::support::mount::{Node, content, mounts_below};

/// It shows one image and then another; what is open goes on, and an object that is not the image's is refused in each.
pub fn verified() -> String {
    let bench = bench("follow");
    let (first, second, other) = (content(60, LENGTH), content(61, LENGTH), content(62, LENGTH));
    let node = |bytes: &[u8]| Node::File(bytes.to_vec());
    let old = bench.image(&[("f", node(&first)), ("g", node(&other))]);
    let new = bench.image(&[("f", node(&second)), ("g", node(&other))]);
    let (mounter, target) = (start(&bench), bench.target("a"));
    assert_eq!(mounter.show_current(&whole(old), Integrity::Read, &target).unwrap(), Integrity::Read);
    let file = target.join(CURRENT).join("f");
    let mut open = File::open(&file).unwrap();
    let mut read = || {
        let mut bytes = Vec::new();
        open.rewind().and_then(|()| open.read_to_end(&mut bytes)).unwrap();
        bytes
    };
    assert!(read() == first);
    assert_eq!(mounter.show_current(&whole(new), Integrity::Read, &target).unwrap(), Integrity::Read);
    drop_caches();
    assert!(fs::read(&file).unwrap() == second, "opened anew");
    assert!(read() == first, "what is open goes on");
    assert_eq!(mounter.mounted(&target).unwrap(), Some(whole(new)));
    // Another sealed object in the place of one, before anybody has opened it by this image.
    bench.write_object(&VerityDigest::of(&other), &first[..LENGTH - 1], true);
    let refused = fs::read(target.join(CURRENT).join("g")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{refused}");
    assert!(mounter.in_use(&old), "by the open file");
    drop(open);
    mounter.unmount(&target).unwrap();
    for image in [old, new] {
        mounter.release(&image).unwrap();
        assert!(!mounter.in_use(&image));
    }
    assert_eq!(mounts_below(&bench.root).len(), 1);
    String::new()
}
