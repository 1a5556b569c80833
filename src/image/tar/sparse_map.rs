//! Reading a sparse map from the stream: behind an old-GNU header, or at the beginning of the content.

use std::io::BufRead;

use super::error::TarError;
use super::header::{BLOCK, Header, sparse_extension};
use super::limits::TarLimits;
use super::number::PaxError;
use super::sparse::Segment;
use super::stream::Stream;
use crate::oci::limits::Cap;

/// The map of an old-GNU sparse file, in the header and in the blocks that follow it; and the file's size.
pub(super) fn old_gnu<R: BufRead>(
    header: &Header,
    stream: &mut Stream<R>,
    limits: &TarLimits,
) -> Result<(Vec<Segment>, u64), TarError> {
    let (mut table, size) = header.sparse().map_err(|what| stream.malformed(what))?;
    while table.more {
        let block = stream.need_block()?;
        let next = sparse_extension(&block).map_err(|what| stream.malformed(what))?;
        table.segments.extend(next.segments);
        if table.segments.len() > limits.segments {
            return Err(stream.limit(Cap::Segments.exceeded(table.segments.len(), limits.segments)));
        }
        table.more = next.more;
    }
    let segment = |(offset, length): (i64, i64)| {
        Some(Segment { offset: u64::try_from(offset).ok()?, length: u64::try_from(length).ok()? })
    };
    let segments: Option<Vec<_>> = table.segments.into_iter().map(segment).collect();
    match (segments, u64::try_from(size)) {
        (Some(segments), Ok(size)) => Ok((segments, size)),
        _ => Err(stream.malformed("its sparse map has negative numbers")),
    }
}

/// The map of a sparse file of format 1.0, in the first blocks of its content. Takes these blocks off
/// `stored`, the bytes of content in the stream.
pub(super) fn in_content<R: BufRead>(
    stored: &mut u64,
    stream: &mut Stream<R>,
    limits: &TarLimits,
) -> Result<Vec<u64>, TarError> {
    let mut reader = MapReader::default();
    loop {
        let Some(left) = stored.checked_sub(BLOCK as u64) else {
            return Err(stream.malformed("its sparse map is longer than its content"));
        };
        *stored = left;
        let block = stream.need_block()?;
        let map = reader.block(&block, limits).map_err(|error| stream.pax_error(error))?;
        if let Some(map) = map {
            return Ok(map);
        }
    }
}

/// Parses the map of format 1.0: decimal numbers, one a line. The first is the number of pairs; then follow
/// offset and length in turn.
#[derive(Debug, Default)]
struct MapReader {
    /// The number that is being read.
    number: Option<u64>,
    /// Numbers that the map will have.
    wanted: Option<u64>,
    numbers: Vec<u64>,
}

impl MapReader {
    /// Takes a block of the content. `Some` when the map is complete: the next block is data.
    fn block(&mut self, block: &[u8], limits: &TarLimits) -> Result<Option<Vec<u64>>, PaxError> {
        for byte in block {
            match byte {
                b'\n' => {
                    let number = self.number.take().ok_or("its sparse map has an empty line")?;
                    match self.wanted {
                        None if number > limits.segments as u64 => {
                            return Err(PaxError::Limit(Cap::Segments.exceeded(number, limits.segments)));
                        }
                        None => self.wanted = Some(number * 2),
                        Some(_) => self.numbers.push(number),
                    }
                    // The rest of the block is padding.
                    if self.wanted == Some(self.numbers.len() as u64) {
                        return Ok(Some(std::mem::take(&mut self.numbers)));
                    }
                }
                b'0'..=b'9' => {
                    let longer = self.number.unwrap_or_default().checked_mul(10);
                    let longer = longer.and_then(|number| number.checked_add(u64::from(byte - b'0')));
                    self.number = Some(longer.ok_or("its sparse map has a number too large")?);
                }
                _ => return Err(PaxError::Malformed("its sparse map is not made of numbers")),
            }
        }
        Ok(None)
    }
}
