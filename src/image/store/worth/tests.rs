use std::time::Duration;

use super::super::sharing::{Shared, SharedLayer};
use super::*;
use crate::image::store::ImageRecord;
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30)
}

/// Last used so many hours ago.
fn image(name: &str, hours: u64) -> StoredImage {
    let record = ImageRecord {
        manifest: Digest::of(name.as_bytes()),
        choice: Choice::default(),
        image: VerityDigest([7; 32]),
        image_size: 4096,
        rules: Rules::Faithful,
        builder: ImageRecord::BUILDER,
        sealed: false,
        layers: Vec::new(),
        places: Vec::new(),
        platform: None,
        names: Vec::new(),
        inodes: 1,
        bytes: 1,
        created: 1,
        powers: None,
        variants: Vec::new(),
        members: Vec::new(),
    };
    StoredImage { record, last_used: now() - Duration::from_secs(hours * 3600) }
}

fn group(images: &[usize], bytes: u64) -> Shared {
    Shared { images: images.iter().copied().collect(), bytes, room: Amount { bytes, inodes: 1 } }
}

fn layer(images: &[usize], bytes: u64) -> SharedLayer {
    SharedLayer { images: images.to_vec(), bytes }
}

#[test]
fn what_is_shared_counts_in_part_and_what_is_needed_not_at_all() {
    let images = [image("a", 1), image("b", 2), image("needed", 3)];
    let sharing = Sharing {
        groups: vec![group(&[0], 10), group(&[0, 1], 100), group(&[1, 2], 1000), group(&[2], 5)],
        layers: vec![layer(&[0], 10), layer(&[0, 1], 300), layer(&[1, 2], 1000)],
    };
    let worth = weigh(&images, &[true, true, false], &sharing);
    let expected = [(60, 160), (50, 150), (0, 0)].map(|(gain, refetch)| Worth { gain, refetch });
    assert_eq!(worth, expected);
}

#[test]
fn an_object_is_freed_by_the_last_image_that_goes() {
    let sharing = Sharing {
        groups: vec![group(&[0], 1), group(&[0, 1], 10), group(&[0, 1, 2], 100), group(&[2, 3], 1000)],
        layers: Vec::new(),
    };
    // 1 goes first, then 2, then 0; 3 stays.
    let frees = frees(&[Some(2), Some(0), Some(1), None], &sharing);
    assert_eq!(frees.iter().map(|amount| amount.bytes).collect::<Vec<_>>(), [111, 0, 0, 0]);
}

#[test]
fn the_order_is_that_of_the_plan() {
    let images =
        [image("young", 1), image("old", 100), image("needed", 200), image("dear", 7), image("cheap", 4)];
    let worth = [(1, 1), (1, 100), (0, 0), (1, 100), (1, 1)].map(|(gain, refetch)| Worth { gain, refetch });
    let places = order(&images, &[true, true, false, true, true], &worth, now());
    assert_eq!(places, [Some(3), Some(0), None, Some(2), Some(1)]);
}
