//! Sparse files in GNU's four formats: which parts of a file are stored. The rest is zeros.

use super::limits::TarLimits;
use super::number::{PaxError, decimal};
use crate::oci::limits::Cap;

/// A run of stored bytes: where in the file it begins, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The `GNU.sparse.*` records of a PAX header (formats 0.0, 0.1 and 1.0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    /// The file's name. The one in the header is invented.
    pub(super) name: Option<Vec<u8>>,
    /// The file's size with its holes.
    pub(super) size: Option<u64>,
    /// Format 1.0: the map is at the beginning of the content.
    pub(super) map_in_content: bool,
    /// Formats 0.0 and 0.1: offsets and lengths in turn.
    pub(super) map: Option<Vec<u64>>,
}

impl PaxSparse {
    pub(super) fn is_sparse(&self) -> bool {
        self.map_in_content || self.map.is_some()
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8], limits: &TarLimits) -> Result<(), PaxError> {
        match key {
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"size" | b"realsize" => self.size = decimal(value)?,
            b"major" => self.map_in_content = value == b"1",
            // Marks the file as sparse. The count itself is implied by the map.
            b"numblocks" => drop(self.map.get_or_insert_default()),
            b"offset" | b"numbytes" => self.push(key == b"offset", value, limits)?,
            b"map" => {
                self.map = Some(Vec::new());
                for (index, part) in value.split(|byte| *byte == b',').enumerate() {
                    // An empty map has no numbers, but `split` gives one empty part.
                    if !value.is_empty() {
                        self.push(index % 2 == 0, part, limits)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, is_offset: bool, value: &[u8], limits: &TarLimits) -> Result<(), PaxError> {
        let map = self.map.get_or_insert_default();
        if map.len().is_multiple_of(2) != is_offset {
            return Err(PaxError::Malformed("its sparse map has offsets and lengths out of turn"));
        }
        if map.len() >= limits.segments * 2 {
            return Err(PaxError::Limit(Cap::Segments.exceeded(map.len() / 2 + 1, limits.segments)));
        }
        map.push(decimal(value)?.ok_or("its sparse map has an empty number")?);
        Ok(())
    }
}

/// Turns the numbers of a map into segments.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err("its sparse map has an offset without a length");
    }
    Ok(numbers
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[offset, length]| Segment { offset: *offset, length: *length })
        .collect())
}

/// Checks that the segments are in order, lie within `size` and add up to the `stored` bytes. Drops empty
/// segments, which mark the end.
pub(super) fn check(segments: Vec<Segment>, size: u64, stored: u64) -> Result<Vec<Segment>, &'static str> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for segment in &segments {
        if segment.offset < end {
            return Err("its sparse map is out of order");
        }
        end = segment.offset.checked_add(segment.length).ok_or("its sparse map overflows")?;
        sum += segment.length;
    }
    if end > size {
        return Err("its sparse map exceeds its size");
    }
    if sum != stored {
        return Err("its sparse map does not add up to its stored bytes");
    }
    Ok(segments.into_iter().filter(|segment| segment.length > 0).collect())
}
