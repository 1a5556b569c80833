//! From the lengths of codes to tables that decode them (RFC 1951, section 3.2.2).
//!
//! A table is looked up by the next bits of the input. Codes longer than its first part's bits have a second part, to which
//! an entry of the first one leads. An entry, from its lowest bit:
//!
//! ```text
//!  0..8   bits to drop: of the code and its extra bits (in a second part: without those of the first)
//!  8..12  bits of the code alone, behind which the extra bits are; in an entry that leads on: bits of the second part
//! 13      the end of a block
//! 14      leads on to the second part
//! 15      neither literal, length nor distance: one of the two above, or no code at all
//! 16..31  the literal, or what the extra bits are added to, or where the second part begins
//! 31      a literal
//! ```
//! The layout is that of libdeflate: one comparison tells the frequent kinds from all others.

use super::{BadStream, mask};

pub(super) const LITERAL: u32 = 1 << 31;
pub(super) const OTHER: u32 = 1 << 15;
pub(super) const LEADS_ON: u32 = 1 << 14;
pub(super) const END: u32 = 1 << 13;

/// Bits of the first lookup.
pub(super) const LITERAL_BITS: u32 = 11;
pub(super) const DISTANCE_BITS: u32 = 8;

/// The longest code.
const LONGEST: usize = 15;
/// The largest alphabet.
const SYMBOLS: usize = 288;

/// Bits of an entry to drop.
#[inline(always)]
pub(super) fn bits_of(entry: u32) -> u32 {
    entry & 63
}

/// What an entry stands for, given the input from its code on.
#[inline(always)]
pub(super) fn value_of(entry: u32, bits: u64) -> usize {
    (entry >> 16) as usize + ((bits & mask(bits_of(entry))) >> (entry >> 8 & 15)) as usize
}

/// Where an entry leads, given the input behind the bits that the first lookup took.
#[inline(always)]
pub(super) fn led_to(entry: u32, bits: u64) -> usize {
    (entry >> 16 & 0x7fff) as usize + (bits & mask(entry >> 8 & 15)) as usize
}

/// What the symbols of literals and lengths mean (section 3.2.5), as entries without the code's own length.
pub(super) const LITERALS: [u32; SYMBOLS] = {
    let base = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163,
        195, 227, 258,
    ];
    let extra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
    let mut all = [OTHER; SYMBOLS];
    let mut symbol = 0;
    while symbol < 256 {
        all[symbol] = LITERAL | (symbol as u32) << 16;
        symbol += 1;
    }
    all[256] = OTHER | END;
    let mut length = 0;
    while length < base.len() {
        all[257 + length] = base[length] << 16 | extra[length];
        length += 1;
    }
    all
};

/// The same for distances.
pub(super) const DISTANCES: [u32; 32] = {
    let mut all = [OTHER; 32];
    let (mut symbol, mut base) = (0, 1);
    while symbol < 30 {
        let extra: u32 = if symbol < 4 { 0 } else { symbol as u32 / 2 - 1 };
        all[symbol] = base << 16 | extra;
        base += 1 << extra;
        symbol += 1;
    }
    all
};

/// Makes the table of a code. `lengths` has that of each symbol, 0 of one that has none; `meanings` has what each symbol
/// means, `bits` are those of the first lookup.
///
/// # Errors
/// The code is none, or does not use all of its bits. As in zlib that is allowed to a code of one symbol, or of none.
pub(super) fn build(lengths: &[u8], table: &mut [u32], bits: u32, meanings: &[u32]) -> Result<(), BadStream> {
    let mut counts = [0u16; LONGEST + 1];
    for length in lengths {
        counts[usize::from(*length) & LONGEST] += 1;
    }
    counts[0] = 0;
    let longest = (1..=LONGEST).rev().find(|length| counts[*length] > 0).unwrap_or(0);
    // The first code of each length, and where its symbols begin when they are sorted by length.
    let (mut code, mut free) = (0u32, 1i32);
    let (mut first, mut place) = ([0u32; LONGEST + 1], [0u16; LONGEST + 1]);
    for length in 1..=LONGEST {
        free = free * 2 - i32::from(counts[length]);
        if free < 0 {
            return Err(BadStream("a code has too many symbols"));
        }
        code = (code + u32::from(counts[length - 1])) << 1;
        first[length] = code;
        place[length] = place[length - 1] + counts[length - 1];
    }
    if free > 0 && longest > 1 {
        return Err(BadStream("a code has too few symbols"));
    }
    let mut sorted = [0u16; SYMBOLS];
    let mut next = place;
    for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let next = &mut next[usize::from(*length) & LONGEST];
        sorted[usize::from(*next)] = symbol as u16;
        *next += 1;
    }

    let size = 1 << bits;
    if free > 0 {
        table[..size].fill(OTHER);
    }
    // Codes with the same first bits follow each other, and share a second part.
    let (mut shared, mut part, mut used) = (u32::MAX, 0..0, size);
    for length in 1..=longest {
        for nth in 0..counts[length] {
            let symbol = usize::from(sorted[usize::from(place[length] + nth)]);
            let code = (first[length] + u32::from(nth)).reverse_bits() >> (32 - length);
            let length = length as u32;
            if length <= bits {
                let entry = meanings[symbol] + (length << 8) + length;
                fill(&mut table[..size], code as usize, 1 << length, entry);
                continue;
            }
            let start = code & mask(bits) as u32;
            if start != shared {
                shared = start;
                let mut part_bits = length - bits;
                // As long as the codes that are left do not fill it.
                let mut open = (1i32 << part_bits) - i32::from(counts[length as usize] - nth);
                while open > 0 && part_bits + bits < longest as u32 {
                    part_bits += 1;
                    open = open * 2 - i32::from(counts[(part_bits + bits) as usize]);
                }
                part = used..used + (1 << part_bits);
                if part.end > table.len() {
                    return Err(BadStream("a code needs too large a table"));
                }
                table[start as usize] = OTHER | LEADS_ON | (used as u32) << 16 | part_bits << 8 | bits;
                used = part.end;
            }
            let rest = length - bits;
            let entry = meanings[symbol] + (rest << 8) + rest;
            fill(&mut table[part.clone()], (code >> bits) as usize, 1 << rest, entry);
        }
    }
    Ok(())
}

/// Writes `entry` to every place whose lowest bits are the code: the bits above are those of what follows it.
fn fill(table: &mut [u32], code: usize, step: usize, entry: u32) {
    table.iter_mut().skip(code).step_by(step).for_each(|place| *place = entry);
}
