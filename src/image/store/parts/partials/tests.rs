//! The room for what is kept, as several connections take it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::durable_file::Steps;
use crate::image::store::space::{Amount, Measure, Space};

const MIB: u64 = 1 << 20;

/// Two connections end a grain between them, so that neither has seen its end in what itself has brought.
#[test]
fn the_room_is_looked_at_once_per_grain_whoever_ends_it() {
    let root = tempfile::tempdir().unwrap();
    let used = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&used);
    let total = Amount { bytes: 1000 * MIB, inodes: 1000 };
    let measure = Measure::new(move |_| {
        Ok(Space { total, used: Amount { bytes: now.load(Ordering::SeqCst), inodes: 0 } })
    });
    let spare = Spare::new(measure, root.path(), 0);
    let disk = Disk::new(root.path(), Steps::default());
    let partials = Partials::new(&disk, "boot", spare, Duration::from_secs(3600));
    let blob = Digest::of(b"a blob");
    let of = PartialOf { blob: &blob, size: 40 * MIB, host: "registry.test", reader: "anybody" };
    let (partial, _) = partials.open(of, MIB).unwrap().unwrap();
    let bytes = [Bytes::from(vec![1; 1 << 16])];
    // 8 MiB are missing of the third grain, and then 90 MiB are left of the disk.
    partial.keep(0, 0, &bytes, 40 * MIB - (1 << 16)).unwrap();
    used.store(910 * MIB, Ordering::SeqCst);
    partial.keep(1, 0, &bytes, 33 * MIB).expect("the grain has not ended");
    let why = partial.keep(2, 0, &bytes, 31 * MIB).expect_err("it has, before these bytes came").to_string();
    assert!(why.contains("to spare"), "{why}");
}
