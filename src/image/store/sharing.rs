//! Which images share which objects, and how much that is. Each layer's record is read once, however many images have it.
//!
//! An object belongs to a *group*: the sources that name it, which are layers and composefs images. Objects of the same
//! sources are one group, so the memory is some 60 bytes per object, whatever the number of images.

use std::collections::{BTreeSet, HashMap};

use super::contents::{Contents, Source};
use super::space::Amount;
use super::{ImageRecord, StoreError};
use crate::image::verity::VerityDigest;

/// Blocks that filesystems allocate files in, for estimates.
const BLOCK: u64 = 4096;

/// Objects that the same images have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    /// Which of the images, in their order.
    pub(super) images: BTreeSet<usize>,
    /// Bytes of the objects.
    pub(super) bytes: u64,
    /// What they take of the filesystem, by estimate.
    pub(super) room: Amount,
}

/// Who has which objects and layers.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Every object is in one of these.
    pub(super) groups: Vec<Shared>,
    /// The layers that have objects.
    pub(super) layers: Vec<SharedLayer>,
}

/// A layer that some images have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SharedLayer {
    /// Which of the images, in their order.
    pub(super) images: Vec<usize>,
    /// Bytes of its files, each as often as it names it.
    pub(super) bytes: u64,
}

/// The objects of these images, group by group, and their layers. Blocking: reads the records of all their layers.
///
/// # Errors
/// Those of reading records.
pub(super) fn shared(contents: Contents<'_>, records: &[&ImageRecord]) -> Result<Sharing, StoreError> {
    let mut groups = Groups::default();
    let mut images: Vec<Vec<usize>> = Vec::new();
    let mut layers: Vec<SharedLayer> = Vec::new();
    contents.each_object_of_all(records, |source, digest, size| {
        // One without objects was not seen.
        if images.len() <= source.number {
            images.resize(source.number, Vec::new());
            images.push(source.images.clone());
            if source.is_layer {
                layers.push(SharedLayer { images: source.images.clone(), bytes: 0 });
            }
        }
        if let (true, Some(layer)) = (source.is_layer, layers.last_mut()) {
            layer.bytes = layer.bytes.saturating_add(size);
        }
        groups.add(source.number, digest, size);
    })?;
    Ok(Sharing { groups: groups.resolve(&images), layers })
}

/// The sources of objects, as lists that share their beginnings.
#[derive(Debug, Default)]
struct Groups {
    of: HashMap<VerityDigest, usize>,
    groups: Vec<Group>,
    /// Group by the one that it goes on from, and the source that it adds.
    extended: HashMap<(Option<usize>, usize), usize>,
}

#[derive(Debug)]
struct Group {
    before: Option<usize>,
    source: usize,
    bytes: u64,
    room: Amount,
}

impl Groups {
    /// A source names an object. The sources come in order, and may name an object twice.
    fn add(&mut self, source: usize, digest: VerityDigest, size: u64) {
        let before = self.of.get(&digest).copied();
        let room = Amount { bytes: size.next_multiple_of(BLOCK), inodes: 1 };
        if let Some(group) = before.and_then(|group| self.groups.get_mut(group)) {
            if group.source == source {
                return;
            }
            group.bytes = group.bytes.saturating_sub(size);
            group.room -= room;
        }
        let new = self.groups.len();
        let number = *self.extended.entry((before, source)).or_insert(new);
        if number == new {
            self.groups.push(Group { before, source, bytes: 0, room: Amount::default() });
        }
        if let Some(group) = self.groups.get_mut(number) {
            group.bytes += size;
            group.room += room;
        }
        self.of.insert(digest, number);
    }

    /// The groups that have objects, with the images that have the sources.
    fn resolve(&self, images: &[Vec<usize>]) -> Vec<Shared> {
        let with_objects = self.groups.iter().filter(|group| group.room.inodes > 0);
        let resolved = with_objects.map(|group| {
            let before = |group: &&Group| group.before.and_then(|before| self.groups.get(before));
            let sources = std::iter::successors(Some(group), before);
            let images = sources.filter_map(|group| images.get(group.source)).flatten().copied().collect();
            Shared { images, bytes: group.bytes, room: group.room }
        });
        resolved.collect()
    }
}

impl Source {
    /// Which of `records` have one of the objects for which `wanted` holds, by object.
    ///
    /// # Errors
    /// Those of reading records.
    pub(super) fn owners(
        contents: Contents<'_>,
        records: &[&ImageRecord],
        wanted: impl Fn(&VerityDigest) -> bool,
    ) -> Result<HashMap<VerityDigest, BTreeSet<usize>>, StoreError> {
        let mut owners: HashMap<_, BTreeSet<usize>> = HashMap::new();
        contents.each_object_of_all(records, |source, digest, _| {
            if wanted(&digest) {
                owners.entry(digest).or_default().extend(&source.images);
            }
        })?;
        Ok(owners)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn object(number: u8) -> (VerityDigest, u64) {
        (VerityDigest([number; 32]), u64::from(number) * 1000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

        #[test]
        fn groups_say_what_a_list_of_owners_would(
            sources in proptest::collection::vec(
                (proptest::collection::vec(0u8..12, 0..20), proptest::collection::btree_set(0usize..5, 1..4)),
                0..6,
            ),
        ) {
            let mut groups = Groups::default();
            let mut owners: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
            for (number, (objects, images)) in sources.iter().enumerate() {
                for named in objects {
                    let (digest, size) = object(*named);
                    groups.add(number, digest, size);
                    owners.entry(*named).or_default().extend(images);
                }
            }
            let images: Vec<Vec<usize>> =
                sources.iter().map(|(_, images)| images.iter().copied().collect()).collect();
            let mut expected: BTreeMap<BTreeSet<usize>, (u64, Amount)> = BTreeMap::new();
            for (named, images) in owners {
                let size = object(named).1;
                let (bytes, room) = expected.entry(images).or_default();
                *bytes += size;
                *room += Amount { bytes: size.next_multiple_of(BLOCK), inodes: 1 };
            }
            let mut found: BTreeMap<BTreeSet<usize>, (u64, Amount)> = BTreeMap::new();
            for group in groups.resolve(&images) {
                let (bytes, room) = found.entry(group.images).or_default();
                *bytes += group.bytes;
                *room += group.room;
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_all_images_share_is_one_group() {
        let mut groups = Groups::default();
        let all: Vec<usize> = (0..1000).collect();
        for number in 0..=255 {
            let (digest, size) = object(number);
            groups.add(0, digest, size);
        }
        assert_eq!((groups.groups.len(), groups.of.len()), (1, 256));
        assert_eq!(groups.resolve(&[all])[0].images.len(), 1000);
    }
}
