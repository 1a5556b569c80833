//! The room for what is kept: as several connections take it at once, and of what nobody goes on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::durable_file::Steps;
use crate::image::store::space::{Amount, Measure, Space};

const MIB: u64 = 1 << 20;

/// The partial blobs below `root`, on a disk of so many bytes, of which so many are used.
fn partials(root: &Path, bytes: u64, used: &Arc<AtomicU64>) -> Partials {
    let (total, now) = (Amount { bytes, inodes: 1000 }, Arc::clone(used));
    let measure = Measure::new(move |_| {
        Ok(Space { total, used: Amount { bytes: now.load(Ordering::SeqCst), inodes: 0 } })
    });
    let spare = Spare::new(measure, root, 0);
    Partials::new(&Disk::new(root, Steps::default()), "boot", spare, Duration::from_secs(3600))
}

fn of(blob: &Digest, size: u64) -> PartialOf<'_> {
    PartialOf { blob, size, host: "registry.test", reader: "anybody" }
}

/// Two connections end a grain between them, so that neither has seen its end in what itself has brought.
#[test]
fn the_room_is_looked_at_once_per_grain_whoever_ends_it() {
    let (root, used) = (tempfile::tempdir().unwrap(), Arc::default());
    let partials = partials(root.path(), 1000 * MIB, &used);
    let blob = Digest::of(b"a blob");
    let (partial, _) = partials.open(of(&blob, 40 * MIB), MIB).unwrap().unwrap();
    let bytes = [Bytes::from(vec![1; 1 << 16])];
    // 8 MiB are missing of the third grain, and then 90 MiB are left of the disk.
    partial.keep(0, 0, &bytes, 40 * MIB - (1 << 16)).unwrap();
    used.store(910 * MIB, Ordering::SeqCst);
    partial.keep(1, 0, &bytes, 33 * MIB).expect("the grain has not ended");
    let why = partial.keep(2, 0, &bytes, 31 * MIB).expect_err("it has, before these bytes came").to_string();
    assert!(why.contains("to spare"), "{why}");
}

/// A blob that is larger than all that may lie idle is gone on with all the same; what is old and idle goes for it.
#[test]
fn what_is_gone_on_with_is_no_surplus() {
    let (root, used) = (tempfile::tempdir().unwrap(), Arc::default());
    let partials = partials(root.path(), 10 * MIB, &used);
    let keep = |name: &[u8]| {
        let blob = Digest::of(name);
        let (partial, have) = partials.open(of(&blob, 2 * MIB), MIB).unwrap().unwrap();
        assert_eq!(have, [0, 0]);
        partial.keep(0, 0, &[Bytes::from(vec![7; MIB as usize])], MIB).unwrap();
        partial.keep(1, 0, &[Bytes::from(vec![7; 1 << 19])], 1 << 19).unwrap();
        blob
    };
    let have = |blob: &Digest| partials.open(of(blob, 2 * MIB), MIB).unwrap().unwrap().1;
    let age = |blob: &Digest| {
        let path = root.path().join(Partials::DIRECTORY).join("boot").join(name_of(of(blob, 2 * MIB)));
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1800)).unwrap();
    };
    let [first, second, third] = [b"1", b"2", b"3"].map(|name| keep(name));
    // All were written to just now, as after a restart in the middle of an image.
    assert_eq!([&first, &second, &third].map(have), [const { [MIB, 1 << 19] }; 3]);
    [&first, &second].into_iter().for_each(age);
    assert_eq!(have(&second), [MIB, 1 << 19], "however large and old");
    assert_eq!(have(&first), [0, 0], "it was surplus then");
}
