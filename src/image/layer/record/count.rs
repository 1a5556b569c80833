//! The number of entries of a record, from its end alone.

use super::format::CHECKSUM_LENGTH;
use super::tag;

/// Bytes of the end of a record that hold the number and what follows it.
pub(in crate::image) const TAIL: usize = CHECKSUM_LENGTH + 11;

/// The number of entries that the end of a record states; `None` if this is no such end. Nothing has been checked: it
/// says how much work the record may be, no more.
pub(in crate::image) fn stated_count(tail: &[u8]) -> Option<u64> {
    let end = tail.len().checked_sub(CHECKSUM_LENGTH)?;
    // The tag, and a number of seven bits a byte, of which all but the last have the eighth.
    let start = tail[..end].iter().rposition(|byte| *byte == tag::END)?;
    let number = tail.get(start + 1..end)?;
    // The number 0 looks like the tag.
    let Some((last, others)) = number.split_last() else { return Some(0) };
    if *last >= 0x80 || others.len() > 9 || others.iter().any(|byte| *byte < 0x80) {
        return None;
    }
    let shifted = |(at, byte): (usize, &u8)| u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
    Some(number.iter().enumerate().map(shifted).fold(0, |sum, part| sum | part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::entry::{EntryKind, LayerEntry, Meta};
    use crate::image::layer::RecordWriter;

    #[test]
    fn the_end_says_how_many_entries_there_are() {
        for count in [0_u32, 1, 127, 128, 256, 300, 16_384, 40_000] {
            let mut writer = RecordWriter::new(Vec::new());
            for number in 0..count {
                let path = number.to_string().into_bytes().into();
                writer.push(&LayerEntry { path, meta: Meta::default(), kind: EntryKind::Directory }).unwrap();
            }
            let record = writer.finish().unwrap();
            let tail = &record[record.len().saturating_sub(TAIL)..];
            assert_eq!(stated_count(tail), Some(u64::from(count)), "{count}");
        }
        for nothing in [&b""[..], b"short", &[1; TAIL], &[0xff; TAIL]] {
            assert_eq!(stated_count(nothing), None);
        }
    }
}
