//! Sparse files in GNU's four formats: where in a file the stored bytes belong. The rest are zeros.

use super::limits::Limits;
use super::number::{PaxWrong, decimal};
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
    /// The file's own name; the header's is made up.
    pub(super) name: Option<Vec<u8>>,
    /// The file's size with its holes.
    pub(super) size: Option<u64>,
    /// Format 1.0: the map stands at the beginning of the content.
    pub(super) map_in_content: bool,
    /// Formats 0.0 and 0.1: offsets and lengths in turn.
    pub(super) map: Option<Vec<u64>>,
}

impl PaxSparse {
    pub(super) fn is_sparse(&self) -> bool {
        self.map_in_content || self.map.is_some()
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), PaxWrong> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = decimal(value)?,
            b"major" => self.map_in_content = value == b"1",
            b"numblocks" => drop(self.map.get_or_insert_default()),
            b"offset" | b"numbytes" => self.push(key == b"offset", value, limits)?,
            b"map" => {
                self.map = Some(Vec::new());
                for (index, part) in value.split(|byte| *byte == b',').enumerate() {
                    if !value.is_empty() {
                        self.push(index % 2 == 0, part, limits)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, is_offset: bool, value: &[u8], limits: &Limits) -> Result<(), PaxWrong> {
        let map = self.map.get_or_insert_default();
        if map.len().is_multiple_of(2) != is_offset {
            return Err(PaxWrong::Malformed("its sparse map has offsets and lengths out of turn"));
        }
        if map.len() >= limits.segments * 2 {
            return Err(PaxWrong::Limit(Cap::Segments.exceeded(map.len() / 2 + 1, limits.segments)));
        }
        map.push(decimal(value)?.ok_or("its sparse map has an empty number")?);
        Ok(())
    }
}

/// Pairs up the numbers of a map.
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

/// Checks that the segments are in order, lie within `size` and add up to the `stored` bytes;
/// empty ones (they mark the end) are left out.
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

/// Reads the map of format 1.0, which stands at the beginning of the content: decimal numbers, one
/// a line; first their count in pairs, then offset and length in turn.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    number: Option<u64>,
    wanted: Option<u64>,
    numbers: Vec<u64>,
}

impl MapReader {
    /// Takes a block of the content. `Some` when the map is complete: the next block is data.
    pub(super) fn block(&mut self, block: &[u8], limits: &Limits) -> Result<Option<Vec<u64>>, PaxWrong> {
        for byte in block {
            match byte {
                b'\n' => {
                    let number = self.number.take().ok_or("its sparse map has an empty line")?;
                    match self.wanted {
                        None if number > limits.segments as u64 => {
                            return Err(PaxWrong::Limit(Cap::Segments.exceeded(number, limits.segments)));
                        }
                        None => self.wanted = Some(number * 2),
                        Some(_) => self.numbers.push(number),
                    }
                    if self.wanted == Some(self.numbers.len() as u64) {
                        return Ok(Some(std::mem::take(&mut self.numbers)));
                    }
                }
                b'0'..=b'9' => {
                    let longer = self.number.unwrap_or_default().checked_mul(10);
                    let longer = longer.and_then(|number| number.checked_add(u64::from(byte - b'0')));
                    self.number = Some(longer.ok_or("its sparse map has a number too large")?);
                }
                _ => return Err(PaxWrong::Malformed("its sparse map is not made of numbers")),
            }
        }
        Ok(None)
    }
}
