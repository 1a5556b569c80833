//! The part of HPACK (RFC 7541) that is needed to find one literal value in a header block, and its length.

use std::ops::Range;

/// Index of `:authority` in the static table (appendix A).
const AUTHORITY: usize = 1;
/// The same name as a literal, which gRPC's C core writes at each new value: as it is, and Huffman-coded.
const NAMES: [(&[u8], bool); 2] =
    [(b":authority", false), (&[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f], true)];
/// The number of symbols, of 257, whose Huffman code has as many bits as the index (appendix B). Codes of one length are
/// consecutive and follow the shorter ones, so the counts determine where each code ends.
const CODES: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
/// The last code is the end of a string (EOS), which no string may contain.
const END: u32 = 0x3fff_ffff;

/// A string literal in a header block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Its range in the block, length prefix included.
    pub(super) bytes: Range<usize>,
    /// The number of its characters.
    pub(super) characters: usize,
}

/// The value of `:authority`, if it is a literal in this block.
pub(super) fn authority(block: &[u8]) -> Option<Literal> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        // Section 6: indexed field, literal with indexing, table size update, literal without indexing.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(block, &mut at, prefix)?;
        if !literal {
            continue;
        }
        // Index 0: the name is a literal as well.
        let named = index == AUTHORITY || index == 0 && NAMES.contains(&string(block, &mut at)?);
        let start = at;
        let (bytes, huffman) = string(block, &mut at)?;
        if named {
            let characters = if huffman { huffman_characters(bytes)? } else { bytes.len() };
            return Some(Literal { bytes: start..at, characters });
        }
    }
    None
}

/// A string literal with this number of characters, all valid in a host name.
pub(super) fn plain_string(characters: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(characters + 3);
    // Section 5.1, with a prefix of 7 bits and no Huffman bit.
    let mut rest = characters.saturating_sub(127);
    out.push(characters.min(127) as u8);
    if characters >= 127 {
        while rest >= 128 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.resize(out.len() + characters, b'x');
    out
}

/// Section 5.1. A header block is at most one frame long, so four continuation bytes are enough.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Section 5.2: the bytes, and whether they are Huffman-coded.
fn string<'a>(block: &'a [u8], at: &mut usize) -> Option<(&'a [u8], bool)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let bytes = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some((bytes, huffman))
}

/// The number of characters that Huffman-coded bytes stand for.
fn huffman_characters(bytes: &[u8]) -> Option<usize> {
    let (mut characters, mut code, mut first, mut length) = (0, 0_u32, 0_u32, 0_usize);
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    for bit in bits {
        code = code << 1 | bit;
        length += 1;
        first <<= 1;
        let count = *CODES.get(length)?;
        if code - first < count {
            if length == 30 && code == END {
                return None;
            }
            (characters, code, first, length) = (characters + 1, 0, 0, 0);
        } else {
            first += count;
        }
    }
    // Section 5.2: the padding is fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:authority: www.example.com` with and without Huffman, from RFC 7541, C.4.1 and C.3.1.
    const HUFFMAN: &str = "828684418cf1e3c2e5f23a6ba0ab90f4ff";
    const PLAIN: &str = "828684410f7777772e6578616d706c652e636f6d";

    #[test]
    fn the_examples_of_the_standard() {
        for text in [HUFFMAN, PLAIN] {
            let block = hex::decode(text).unwrap();
            assert_eq!(authority(&block), Some(Literal { bytes: 4..block.len(), characters: 15 }), "{text}");
        }
        // The second request of C.4 refers to the first one's authority by its index.
        assert_eq!(authority(&hex::decode("828684be5886a8eb10649cbf").unwrap()), None);
    }

    #[test]
    fn the_name_may_be_a_literal() {
        let value = b"\x09a%2Fb.soc";
        for name in [&b"\x0a:authority"[..], b"\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f"] {
            let block = [b"\x83\x40", name, value].concat();
            let found = Literal { bytes: 2 + name.len()..block.len(), characters: 9 };
            assert_eq!(authority(&block), Some(found));
        }
        assert_eq!(authority(&[&b"\x40\x0a:authoritx"[..], value].concat()), None);
    }

    #[test]
    fn the_code_is_complete() {
        let filled: u64 =
            CODES.iter().zip(0..).map(|(count, bits): (_, u32)| u64::from(*count) << (30 - bits)).sum();
        assert_eq!(filled, 1 << 30);
        assert_eq!(CODES.iter().sum::<u32>(), 257);
    }

    #[test]
    fn lengths_of_strings_are_read_as_they_are_written() {
        for characters in [0, 1, 126, 127, 128, 254, 255, 300, 16_000] {
            let written = plain_string(characters);
            let mut at = 0;
            assert_eq!(string(&written, &mut at), Some((&vec![b'x'; characters][..], false)));
            assert_eq!(at, written.len());
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let block = hex::decode(HUFFMAN).unwrap();
        for end in 0..block.len() {
            assert_eq!(authority(&block[..end]), None, "{end} bytes");
        }
        assert_eq!(huffman_characters(&[0xff; 4]), None, "the end of a string within it");
        assert_eq!(huffman_characters(&[0xff]), None, "a byte of padding");
    }
}
