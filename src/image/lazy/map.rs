//! The map from each object of an image to its place in the image's layers.
//!
//! ```text
//! header   magic "CFSOMAP\0", version u32 = 1, algorithm u32 = 1 (fs-verity, sha256, 4096-byte blocks, no salt),
//!          layers u32, 0 u32, records u64, fs-verity digest of the image [32]                              64 bytes
//! layer    blob's sha256 [32], its size u64, packing u32 (0 as it is, 1 zstd, 2 another), 0 u32            48 bytes
//! record   object's fs-verity digest [32], layer u32, kind u32, frame offset u64, frame size u64,
//!          inner offset u64, size u64                                                                      72 bytes
//! ```
//! Numbers are little-endian. Layers are those of the manifest, in its order; records are sorted by digest, each once. Kinds:
//! 0, the frames hold this object alone; 1, it begins at the inner offset of what they decompress to; 2, there is no range,
//! and the whole layer must pass. Numbers that a kind does not use are 0.
//!
//! Anybody may have written it. Reading it allocates nothing by a number in it, and keeps its bytes as they are.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::error::LazyError;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;

pub(super) const MAGIC: [u8; 8] = *b"CFSOMAP\0";
pub(super) const VERSION: u32 = 1;
pub(super) const FSVERITY_SHA256: u32 = 1;
pub(super) const HEADER: usize = 64;
pub(super) const LAYER: usize = 48;
pub(super) const RECORD: usize = 72;
/// What errors call it.
pub(super) const PART: &str = "offset map";
/// Bytes of shared frames that may have to be decompressed for an object: only small files share frames.
const SHARED_MAX: u64 = 16 << 20;

/// Where the objects of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMap {
    image: VerityDigest,
    layers: Vec<MapLayer>,
    /// The records, checked.
    records: Bytes,
}

/// A layer of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapLayer {
    /// The digest of its blob.
    pub blob: Digest,
    /// Bytes of its blob.
    pub size: u64,
    /// How the blob holds content.
    pub packing: Packing,
}

/// How the bytes of a blob lead to the content of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// They are the content.
    Raw,
    /// Frames of zstd, each of which can be decompressed alone.
    Zstd,
    /// Only as a stream from the beginning.
    Stream,
}

/// The place of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The object.
    pub object: VerityDigest,
    /// Bytes of its content.
    pub size: u64,
    /// The number of its layer, below that of [`OffsetMap::layers`].
    pub layer: usize,
    /// Where it is in the layer.
    pub place: Place,
}

/// Where an object is in a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// These bytes of the blob hold it and nothing else.
    Own(Range<u64>),
    /// It begins so many bytes into what these bytes of the blob decompress to.
    Shared(Range<u64>, u64),
    /// Somewhere: the layer must be read from its beginning.
    Stream,
}

impl OffsetMap {
    /// Reads a map.
    ///
    /// # Errors
    /// It is malformed or contradicts itself, or it has more layers or objects than `limits` allow images.
    pub fn read(bytes: Bytes, limits: &ImageLimits) -> Result<Self, LazyError> {
        let mut fields = Fields(&bytes);
        let head = Head::read(&mut fields).ok_or_else(|| malformed("ends within its header"))?;
        let Head { layers, records, image } = head?;
        if layers as usize > limits.layers || records > limits.inodes as u64 {
            return Err(malformed(format!("has {layers} layers and {records} objects, which is too many")));
        }
        let expected = Self::bytes_of(u64::from(layers), records);
        if bytes.len() as u64 != expected {
            return Err(malformed(format!("has {} bytes instead of {expected}", bytes.len())));
        }
        let layers: Vec<MapLayer> = (0..layers)
            .map(|_| {
                MapLayer::read(&mut fields).ok_or_else(|| malformed("describes a layer of no known form"))
            })
            .collect::<Result<_, _>>()?;
        let map = Self { image, layers, records: bytes.slice(bytes.len() - fields.0.len()..) };
        map.check(limits)?;
        Ok(map)
    }

    /// The most bytes that a map of an image within `limits` has.
    pub fn bytes_max(limits: &ImageLimits) -> u64 {
        Self::bytes_of(limits.layers as u64, limits.inodes as u64)
    }

    fn bytes_of(layers: u64, records: u64) -> u64 {
        let layers = layers.saturating_mul(LAYER as u64);
        records.saturating_mul(RECORD as u64).saturating_add(layers).saturating_add(HEADER as u64)
    }

    /// The fs-verity digest of the composefs image whose objects these are.
    pub fn image(&self) -> VerityDigest {
        self.image
    }

    /// The layers of the image.
    pub fn layers(&self) -> &[MapLayer] {
        &self.layers
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    /// Whether the image has no objects: all of its files are small.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The place of an object; `None` if the image has no such object.
    pub fn get(&self, object: &VerityDigest) -> Option<Located> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.at(middle)?;
            match found.object.cmp(object) {
                Ordering::Equal => return Some(found),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All objects, by ascending digests.
    pub fn objects(&self) -> impl Iterator<Item = Located> {
        (0..self.len()).filter_map(|number| self.at(number))
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects().map(|located| located.size).fold(0, u64::saturating_add)
    }

    fn at(&self, number: usize) -> Option<Located> {
        let start = number.checked_mul(RECORD)?;
        Located::read(&mut Fields(self.records.get(start..start + RECORD)?))
    }

    fn check(&self, limits: &ImageLimits) -> Result<(), LazyError> {
        let (mut last, mut bytes) = (None, 0_u64);
        for number in 0..self.len() {
            let located = self.at(number).ok_or_else(|| malformed("has an object of no known kind"))?;
            if last.is_some_and(|last| last >= located.object) {
                return Err(malformed("is not sorted, or has an object twice"));
            }
            let layer =
                self.layers.get(located.layer).ok_or_else(|| malformed("names a layer that is not there"))?;
            if !located.fits(layer) {
                return Err(malformed(format!("has object {} where it cannot be", located.object)));
            }
            bytes = bytes.saturating_add(located.size);
            last = Some(located.object);
        }
        match bytes > limits.image_bytes {
            true => Err(malformed(format!("has objects of {bytes} bytes, which is too much"))),
            false => Ok(()),
        }
    }
}

impl Located {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let object = VerityDigest(fields.array()?);
        let (layer, kind) = (fields.u32()? as usize, fields.u32()?);
        let (start, length, inner, size) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        let frames = start..start.checked_add(length)?;
        let place = match (kind, inner) {
            (0, 0) => Place::Own(frames),
            (1, inner) => Place::Shared(frames, inner),
            (2, 0) if frames == (0..0) => Place::Stream,
            _ => return None,
        };
        Some(Self { object, size, layer, place })
    }

    /// Whether the object can be there.
    fn fits(&self, layer: &MapLayer) -> bool {
        let lies_within = |frames: &Range<u64>| frames.start < frames.end && frames.end <= layer.size;
        let is_there = match (&self.place, layer.packing) {
            (Place::Stream, _) => true,
            (Place::Own(frames), Packing::Raw) => {
                lies_within(frames) && frames.end - frames.start == self.size
            }
            (Place::Own(frames), Packing::Zstd) => lies_within(frames),
            (Place::Shared(frames, offset), Packing::Zstd) => {
                lies_within(frames) && offset.checked_add(self.size).is_some_and(|end| end <= SHARED_MAX)
            }
            (Place::Own(_), Packing::Stream) | (Place::Shared(..), Packing::Raw | Packing::Stream) => false,
        };
        is_there && self.size > 0
    }

    /// The bytes of the blob that hold the object, if they can be asked for.
    pub fn range(&self) -> Option<Range<u64>> {
        match &self.place {
            Place::Own(frames) | Place::Shared(frames, _) => Some(frames.clone()),
            Place::Stream => None,
        }
    }
}

impl MapLayer {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (blob, size) = (Digest::from_bytes(fields.array()?), fields.u64()?);
        let packing = match (fields.u32()?, fields.u32()?) {
            (0, 0) => Packing::Raw,
            (1, 0) => Packing::Zstd,
            (2, 0) => Packing::Stream,
            _ => return None,
        };
        Some(Self { blob, size, packing })
    }
}

struct Head {
    layers: u32,
    records: u64,
    image: VerityDigest,
}

impl Head {
    /// `None` if the bytes end before it does.
    fn read(fields: &mut Fields<'_>) -> Option<Result<Self, LazyError>> {
        let (magic, version, algorithm) = (fields.array::<8>()?, fields.u32()?, fields.u32()?);
        let (layers, reserved, records) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let image = VerityDigest(fields.array()?);
        Some(match (magic, version, algorithm, reserved) {
            (MAGIC, VERSION, FSVERITY_SHA256, 0) => Ok(Self { layers, records, image }),
            (MAGIC, VERSION, ..) => Err(malformed("is by another algorithm than fs-verity with sha256")),
            (MAGIC, other, ..) => {
                Err(malformed(format!("is of version {other}, and this release reads version {VERSION}")))
            }
            _ => Err(malformed("does not begin as one")),
        })
    }
}

/// Bytes that are read field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

fn malformed(why: impl Into<String>) -> LazyError {
    LazyError::malformed(PART, why)
}
