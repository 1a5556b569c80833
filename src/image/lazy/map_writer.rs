//! Writing an offset map.

use std::collections::BTreeMap;

use super::map::{
    FSVERITY_SHA256, HEADER, LAYER, Located, MAGIC, MapLayer, OffsetMap, Packing, Place, RECORD, VERSION,
};
use crate::image::verity::VerityDigest;

impl OffsetMap {
    /// Writes the map of a composefs image: of these layers, and of these places of its objects. The same image gives the
    /// same bytes. What cannot be, [`OffsetMap::read`] refuses.
    pub fn write(
        image: &VerityDigest,
        layers: &[MapLayer],
        objects: &BTreeMap<VerityDigest, Located>,
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + layers.len() * LAYER + objects.len() * RECORD);
        bytes.extend_from_slice(&MAGIC);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for number in [VERSION, FSVERITY_SHA256, count(layers.len()), 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(objects.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&image.0);
        for layer in layers {
            let packing: u32 = match layer.packing {
                Packing::Raw => 0,
                Packing::Zstd => 1,
                Packing::Stream => 2,
            };
            bytes.extend_from_slice(layer.blob.as_bytes());
            bytes.extend_from_slice(&layer.size.to_le_bytes());
            bytes.extend_from_slice(&packing.to_le_bytes());
            bytes.extend_from_slice(&0_u32.to_le_bytes());
        }
        for (object, located) in objects {
            let (kind, frames, inner): (u32, _, u64) = match &located.place {
                Place::Own(frames) => (0, frames.clone(), 0),
                Place::Shared(frames, inner) => (1, frames.clone(), *inner),
                Place::Stream => (2, 0..0, 0),
            };
            bytes.extend_from_slice(&object.0);
            bytes.extend_from_slice(&count(located.layer).to_le_bytes());
            bytes.extend_from_slice(&kind.to_le_bytes());
            for number in [frames.start, frames.end.saturating_sub(frames.start), inner, located.size] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }
}
