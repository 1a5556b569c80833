//! An image and its map, held against each other.

use super::error::LazyError;
use super::map::OffsetMap;
use crate::image::composefs::each_entry;
use crate::image::tree::{CheckedTree, Combiner, Powers, Stop};
use crate::oci::limits::ImageLimits;

/// What a composefs image holds, and its map agrees with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedImage {
    /// Inodes, the root included.
    pub inodes: u64,
    /// Bytes of all regular files, hard links counted once.
    pub file_bytes: u64,
    /// What it gives to the pods that see it.
    pub powers: Powers,
}

/// Checks that a composefs image is within `limits`, and that `map` has exactly its objects with their sizes. The digest of
/// the image must be known to be the right one: the map is compared with it, and not the other way round. Takes as much
/// memory as building the image does.
///
/// # Errors
/// The bytes are no such image, the image exceeds a limit, `stop` says so, or the map is not of this image.
pub fn check(
    image: &[u8],
    map: &OffsetMap,
    limits: &ImageLimits,
    stop: &Stop,
) -> Result<CheckedImage, LazyError> {
    let tree = tree_of(image, limits, stop)?;
    let mut objects: Vec<_> = tree.objects().collect();
    objects.sort_unstable();
    objects.dedup();
    let mut mapped = map.objects();
    for (object, size) in &objects {
        let why = match mapped.next() {
            Some(located) if located.object == *object && located.size == *size => continue,
            Some(located) if located.object == *object => {
                format!("gives object {object} {} bytes, and the image {size}", located.size)
            }
            _ => format!("has other objects than the image, of which {object} is one"),
        };
        return Err(LazyError::malformed(super::map::PART, why));
    }
    if let Some(more) = mapped.next() {
        let why = format!("has other objects than the image, such as {}", more.object);
        return Err(LazyError::malformed(super::map::PART, why));
    }
    Ok(CheckedImage { inodes: tree.inodes(), file_bytes: tree.file_bytes(), powers: tree.powers() })
}

fn tree_of(image: &[u8], limits: &ImageLimits, stop: &Stop) -> Result<CheckedTree, LazyError> {
    let mut combiner = Combiner::new(*limits, stop);
    combiner.begin("", b"");
    each_entry(image, b"", |entry| combiner.add(entry))??;
    Ok(combiner.finish())
}
