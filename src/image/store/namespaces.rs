//! What the namespaces of pods keep in the store. Each volume's record says for whose pods it is published.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::gc::Need;
use super::inventory::Needs;
use super::mounted::MountedImages;
use super::parts::volumes::VolumeImage;
use super::{ImageRecord, Store, StoreError, sharing};
use crate::oci::digest::Digest;

/// What the pods of a namespace keep, by the images that their volumes show or are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NamespaceUsage {
    /// The namespace; `None` of volumes whose record does not say: staged ones, and those of earlier releases.
    pub namespace: Option<String>,
    /// Volumes.
    pub volumes: u64,
    /// Images.
    pub images: u64,
    /// Bytes of the objects of these images, each once.
    pub total: u64,
    /// Bytes of those that nothing else keeps: no other namespace, pin, prefetch or pull. What nothing needs may have them,
    /// too, so that they can go when the namespace's pods have.
    pub alone: u64,
}

impl NamespaceUsage {
    /// Bytes that something else keeps, too.
    pub fn shared(&self) -> u64 {
        self.total - self.alone
    }
}

/// What keeps the bytes of all images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Keepers {
    /// Each namespace, by its name.
    pub namespaces: Vec<NamespaceUsage>,
    /// Bytes that no volume keeps: pins, prefetches, pulls and mounts by hand do.
    pub others: u64,
    /// Bytes that nothing keeps.
    pub idle: u64,
}

/// Pins, prefetches, pulls and mounts by hand, among what keeps an image.
const OTHERS: usize = 0;

impl Store {
    /// What each namespace keeps. Blocking; reads every layer record once. Memory: some 60 bytes per object. What comes or goes
    /// meanwhile may be missing: it is for people, and decides nothing.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if it is unknown what is needed, and those of reading records.
    pub fn keepers(&self, mounted: &MountedImages<'_>) -> Result<Keepers, StoreError> {
        // Before this process holds all that it looks at.
        let needs = Needs::read(&self.parts, mounted)?;
        if !needs.unknown.is_empty() {
            return Err(StoreError::Blocked(needs.unknown.join("; ")));
        }
        let (_hold, listing) = self.hold_all_images()?;
        let volumes = self.parts.volumes.list(&mut Vec::new())?;
        let mut keepers = Keepers { namespaces: namespaces(&volumes), ..Keepers::default() };
        let numbers: HashMap<Option<String>, usize> = keepers
            .namespaces
            .iter()
            .zip(OTHERS + 1..)
            .map(|(of, number)| (of.namespace.clone(), number))
            .collect();
        let shown = shown(&volumes, &numbers);
        let records: Vec<&ImageRecord> = listing.images.iter().map(|image| &image.record).collect();
        let kept_by: Vec<BTreeSet<usize>> =
            records.iter().map(|record| kept_by(record, &shown, &needs)).collect();
        for kept in &kept_by {
            keepers.each(kept, |usage| usage.images += 1);
        }
        for group in sharing::shared(self.parts.contents(), &records)?.groups {
            let all =
                group.images.iter().filter_map(|image| kept_by.get(*image)).flatten().copied().collect();
            keepers.add(&all, group.bytes);
        }
        Ok(keepers)
    }
}

/// The namespaces of volumes, each with the number of its volumes.
fn namespaces(volumes: &[VolumeImage]) -> Vec<NamespaceUsage> {
    let mut counted: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for namespace in volumes.iter().flat_map(VolumeImage::namespaces) {
        *counted.entry(namespace.map(str::to_owned)).or_default() += 1;
    }
    let usage = |(namespace, volumes)| NamespaceUsage { namespace, volumes, ..NamespaceUsage::default() };
    counted.into_iter().map(usage).collect()
}

/// Which namespaces' volumes show an image or are made of it, by its key.
fn shown(
    volumes: &[VolumeImage],
    numbers: &HashMap<Option<String>, usize>,
) -> HashMap<Digest, BTreeSet<usize>> {
    let mut shown: HashMap<Digest, BTreeSet<usize>> = HashMap::new();
    for volume in volumes {
        let own = volume.namespaces().into_iter().filter_map(|name| numbers.get(&name.map(str::to_owned)));
        let own: BTreeSet<usize> = own.copied().collect();
        let parts = volume.members.iter().chain(&volume.earlier).map(|member| member.image);
        for image in parts.chain([volume.image]) {
            shown.entry(image).or_default().extend(&own);
        }
    }
    shown
}

fn kept_by(record: &ImageRecord, shown: &HashMap<Digest, BTreeSet<usize>>, needs: &Needs) -> BTreeSet<usize> {
    let volumes = shown.get(&record.key()).cloned().unwrap_or_default();
    // A volume's image is mounted in any case.
    let by_others = needs.all_of(record).any(|need| match need {
        Need::Mount => volumes.is_empty(),
        Need::Volume => false,
        Need::Pin | Need::Prefetch | Need::Hold => true,
    });
    let mut kept = volumes;
    kept.extend(by_others.then_some(OTHERS));
    kept
}

impl Keepers {
    fn each(&mut self, kept_by: &BTreeSet<usize>, mut act: impl FnMut(&mut NamespaceUsage)) {
        for number in kept_by {
            if let Some(usage) =
                number.checked_sub(OTHERS + 1).and_then(|place| self.namespaces.get_mut(place))
            {
                act(usage);
            }
        }
    }

    /// Counts bytes that all of these keep.
    fn add(&mut self, kept_by: &BTreeSet<usize>, bytes: u64) {
        let alone = kept_by.len() == 1;
        self.each(kept_by, |usage| {
            usage.total += bytes;
            usage.alone += if alone { bytes } else { 0 };
        });
        if kept_by.is_empty() {
            self.idle += bytes;
        } else if alone && kept_by.contains(&OTHERS) {
            self.others += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_keeps_is_its_own_and_what_several_keep_is_shared() {
        let named =
            |name: &str| NamespaceUsage { namespace: Some(name.to_owned()), ..NamespaceUsage::default() };
        let mut keepers = Keepers { namespaces: vec![named("a"), named("b")], ..Keepers::default() };
        for (kept_by, bytes) in [
            (vec![1], 1),
            (vec![1, 2], 10),
            (vec![0, 1], 100),
            (vec![0], 1000),
            (vec![], 10_000),
            (vec![2], 7),
        ] {
            keepers.add(&kept_by.into_iter().collect(), bytes);
        }
        let [a, b] = &keepers.namespaces[..] else { panic!("{keepers:?}") };
        assert_eq!((a.total, a.alone, a.shared()), (111, 1, 110));
        assert_eq!((b.total, b.alone, b.shared()), (17, 7, 10));
        assert_eq!((keepers.others, keepers.idle), (1000, 10_000));
    }
}
