//! What must stay: the roots that the store can see, and those that its caller names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use super::gc::{Candidate, Inventory, Need};
use super::marked::{add_missing, unreadable_mount};
use super::parts::Parts;
use super::space::Amount;
use super::{Space, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Everything that the garbage collector's decision depends on. Only exact under the store's exclusive
/// lock. `frees` says what each image's removal frees; nothing for those not listed.
pub(super) fn take(
    parts: &Parts,
    mounted: &BTreeSet<VerityDigest>,
    frees: &HashMap<Digest, Amount>,
    space: Space,
) -> Result<Inventory, StoreError> {
    let listing = parts.images.list()?;
    let mut unknown: Vec<String> = listing.unreadable.iter().map(ToString::to_string).collect();
    let volumes = parts.volumes.list(&mut unknown)?;
    add_missing(parts, &volumes, &mut unknown)?;
    let volumes: HashSet<Digest> = volumes.into_iter().map(|volume| volume.image).collect();
    let pins: HashSet<Digest> = parts.pins.list()?.into_iter().collect();
    let known: BTreeSet<VerityDigest> =
        listing.images.iter().flat_map(|image| image.record.images()).map(|own| own.image).collect();
    for image in mounted.difference(&known) {
        // Otherwise it belongs to another store on this machine.
        if !parts.contents().has_image(image)? {
            continue;
        }
        // One that has no record keeps what it lists. Before any record goes it must be sure that it can be read.
        if let Err(why) = parts.contents().named_by(image)? {
            unknown.push(unreadable_mount(image, &why));
        }
    }
    let images = listing.images.iter().map(|image| {
        let manifest = image.record.manifest;
        // One reason is enough.
        let needed = if image.record.is_any_of(mounted) {
            Some(Need::Mount)
        } else if volumes.contains(&manifest) {
            Some(Need::Volume)
        } else {
            pins.contains(&manifest).then_some(Need::Pin)
        };
        let frees = frees.get(&manifest).copied().unwrap_or_default();
        Candidate { manifest, last_used: image.last_used, needed, frees }
    });
    Ok(Inventory { images: images.collect(), unknown, space, now: SystemTime::now() })
}
