//! The symbols of a block: literals and matches.

use super::table::{DISTANCE_BITS, END, LEADS_ON, LITERAL, LITERAL_BITS, OTHER, bits_of, led_to, value_of};
use super::{BUFFER, BadStream, FULL, Inflater, Paused, State, mask};

/// Input that one pass of [`Inflater::quickly`] may look at, and a bit more.
const AHEAD: usize = 24;

const NO_LITERAL: BadStream = BadStream("a literal or length has no code");
const NO_DISTANCE: BadStream = BadStream("a distance has no code");
const TOO_FAR: BadStream = BadStream("a match reaches back beyond the start");

impl Inflater {
    /// Decodes symbols to the end of the block, of the input, or of the room.
    pub(super) fn symbols(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Paused>, BadStream> {
        if self.quickly(input, used)? {
            self.state = State::Block;
            return Ok(None);
        }
        // Near the end of the input: symbol by symbol, each as soon as all of its bits are here.
        while self.end < FULL && input.len() - *used < AHEAD + 8 {
            self.fill(input, used);
            match self.symbol()? {
                Symbol::Incomplete => return Ok(Some(Paused::NeedsInput)),
                Symbol::EndOfBlock => {
                    self.state = State::Block;
                    return Ok(None);
                }
                Symbol::Decoded => {}
            }
        }
        Ok(None)
    }

    /// One symbol. Changes nothing if not all of its bits are here.
    fn symbol(&mut self) -> Result<Symbol, BadStream> {
        let mut rest = Rest { bits: self.bits, count: self.count };
        let Some((entry, bits)) = rest.next(&self.literals[..], LITERAL_BITS) else {
            return Ok(Symbol::Incomplete);
        };
        if entry & LITERAL != 0 {
            self.buffer[self.end] = (entry >> 16) as u8;
            self.end += 1;
        } else if entry & END != 0 {
            (self.bits, self.count) = (rest.bits, rest.count);
            return Ok(Symbol::EndOfBlock);
        } else if entry & OTHER != 0 {
            return Err(NO_LITERAL);
        } else {
            let length = value_of(entry, bits);
            let Some((entry, bits)) = rest.next(&self.distances[..], DISTANCE_BITS) else {
                return Ok(Symbol::Incomplete);
            };
            if entry & OTHER != 0 {
                return Err(NO_DISTANCE);
            }
            let distance = value_of(entry, bits);
            if distance > self.end - self.start {
                return Err(TOO_FAR);
            }
            copy(&mut self.buffer, self.end, distance, length);
            self.end += length;
        }
        (self.bits, self.count) = (rest.bits, rest.count);
        Ok(Symbol::Decoded)
    }

    /// As long as the ends of input and room are far, without asking at every bit whether it is there. True at the end of
    /// the block.
    ///
    /// A pass takes at most 42 bits for literals and a length and 28 for a distance, and 56 are here before either.
    fn quickly(&mut self, input: &[u8], used: &mut usize) -> Result<bool, BadStream> {
        let (literals, distances, buffer) = (&*self.literals, &*self.distances, &mut *self.buffer);
        let (mut bits, mut count, mut at, mut end) = (self.bits, self.count, *used, self.end);
        let mut ended = false;
        // Bits above the count are the next ones of the input, too: to read them again changes nothing.
        macro_rules! refill {
            () => {
                // `AHEAD` makes sure that there are so many bytes.
                let Some(word) = input.get(at..).and_then(|rest| rest.first_chunk()) else {
                    return Err(BadStream("the input ended early; report this as a bug"));
                };
                bits |= u64::from_le_bytes(*word) << count;
                at += ((63 - count) >> 3) as usize;
                count |= 56;
            };
        }
        macro_rules! take {
            ($entry:expr) => {
                bits >>= bits_of($entry);
                count -= bits_of($entry);
            };
        }
        macro_rules! look {
            () => {
                literals[(bits & mask(LITERAL_BITS)) as usize]
            };
        }
        if input.len() - at < AHEAD + 8 {
            return Ok(false);
        }
        refill!();
        // Looked up before a match is copied, so that the processor does both at once.
        let mut entry = look!();
        while input.len() - at >= AHEAD && end < FULL {
            let mut from = bits;
            take!(entry);
            if entry & LITERAL != 0 {
                buffer[end] = (entry >> 16) as u8;
                entry = look!();
                from = bits;
                take!(entry);
                if entry & LITERAL != 0 {
                    buffer[end + 1] = (entry >> 16) as u8;
                    entry = look!();
                    from = bits;
                    take!(entry);
                    if entry & LITERAL != 0 {
                        buffer[end + 2] = (entry >> 16) as u8;
                        end += 3;
                        refill!();
                        entry = look!();
                        continue;
                    }
                    end += 2;
                } else {
                    end += 1;
                }
            }
            if entry & OTHER != 0 {
                if entry & LEADS_ON != 0 {
                    entry = *literals.get(led_to(entry, bits)).ok_or(NO_LITERAL)?;
                    from = bits;
                    take!(entry);
                    if entry & LITERAL != 0 {
                        buffer[end] = (entry >> 16) as u8;
                        end += 1;
                        refill!();
                        entry = look!();
                        continue;
                    }
                }
                if entry & OTHER != 0 {
                    ended = entry & END != 0;
                    if ended {
                        break;
                    }
                    return Err(NO_LITERAL);
                }
            }
            let length = value_of(entry, from);
            refill!();
            let mut place = distances[(bits & mask(DISTANCE_BITS)) as usize];
            if place & LEADS_ON != 0 {
                take!(place);
                place = *distances.get(led_to(place, bits)).ok_or(NO_DISTANCE)?;
            }
            if place & OTHER != 0 {
                return Err(NO_DISTANCE);
            }
            let distance = value_of(place, bits);
            take!(place);
            if distance > end - self.start {
                return Err(TOO_FAR);
            }
            refill!();
            entry = look!();
            copy(buffer, end, distance, length);
            end += length;
        }
        // Whole bytes go back, so that nothing is read beyond the stream's end.
        let back = ((count >> 3) as usize).min(at - *used);
        count -= back as u32 * 8;
        (self.bits, self.count, self.end) = (bits & mask(count), count, end);
        *used = at - back;
        Ok(ended)
    }
}

/// What became of a symbol.
enum Symbol {
    Decoded,
    EndOfBlock,
    /// Not all of its bits are here.
    Incomplete,
}

/// The input behind what is decoded.
struct Rest {
    bits: u64,
    count: u32,
}

impl Rest {
    /// The entry of the next code, and the input from its last part on; `None` if not all of its bits are here.
    fn next(&mut self, table: &[u32], bits: u32) -> Option<(u32, u64)> {
        let (mut entry, mut first) = (table[(self.bits & mask(bits)) as usize], 0);
        if entry & LITERAL == 0 && entry & LEADS_ON != 0 {
            (entry, first) = (*table.get(led_to(entry, self.bits >> bits))?, bits);
        }
        // With fewer bits than the longest code has, what seems to be none may be the start of one.
        let is_none = entry & (LITERAL | OTHER | END) == OTHER;
        let all = if is_none { 15 } else { first + bits_of(entry) };
        if self.count < all {
            return None;
        }
        let from = self.bits >> first;
        self.bits >>= all;
        self.count -= all;
        Some((entry, from))
    }
}

/// Copies `length` bytes from `distance` before `at` to it. May write 15 bytes more.
#[inline(always)]
fn copy(buffer: &mut [u8; BUFFER], at: usize, distance: usize, length: usize) {
    let (mut from, mut to, end) = (at - distance, at, at + length);
    if distance >= 16 {
        while to < end {
            copy_word::<16>(buffer, from, to);
            (from, to) = (from + 16, to + 16);
        }
    } else if distance == 1 {
        let byte = buffer[from];
        buffer[at..end].fill(byte);
    } else {
        // Where source and destination overlap, only so many bytes of a word are right; the next word corrects the rest.
        let step = distance.min(8);
        while to < end {
            copy_word::<8>(buffer, from, to);
            (from, to) = (from + step, to + step);
        }
    }
}

#[inline(always)]
fn copy_word<const N: usize>(buffer: &mut [u8; BUFFER], from: usize, to: usize) {
    let word: Option<[u8; N]> = buffer.get(from..).and_then(|rest| rest.first_chunk()).copied();
    let place = buffer.get_mut(to..).and_then(|rest| rest.first_chunk_mut());
    // `SLACK` is such that both are always there.
    if let (Some(word), Some(place)) = (word, place) {
        *place = word;
    }
}
