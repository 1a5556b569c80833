//! DEFLATE (RFC 1951), decoded as a stream: blocks, and the window that matches reach back into.
//!
//! Why it is our own, with figures: docs/adr/0038-inflate-of-our-own.md. In short: a third of a pull's processor time
//! goes in here, and what is faster than zlib either does not stream or is assembler fed with foreign bytes. This is safe
//! Rust, so bad input can at worst be an error; whatever comes out is compared with the layer's DiffID.
//!
//! Memory is constant: 175 KB, whatever the input. Nothing is read beyond the end of the stream.

mod codes;
mod lengths;
mod table;
#[cfg(test)]
mod tests;

use lengths::Lengths;
use table::{DISTANCE_BITS, DISTANCES, LITERAL_BITS, LITERALS, build};

/// How far back a match may reach.
const WINDOW: usize = 32 << 10;
/// Where decoding pauses until the output is taken: the window, and what is decoded before it moves again.
const FULL: usize = WINDOW + (128 << 10);
/// Literals and the longest match of one pass that starts just before [`FULL`], and what copying in words writes beyond.
const SLACK: usize = 3 + 258 + 16;
const BUFFER: usize = FULL + SLACK;

/// zlib's `ENOUGH`: entries of the largest tables of complete codes, for the bits that the first lookup takes.
const LITERAL_ENTRIES: usize = 2342;
const DISTANCE_ENTRIES: usize = 402;

/// Why the input is no DEFLATE stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadStream(pub(super) &'static str);

/// Why decoding paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    /// All input is used, and the stream goes on.
    NeedsInput,
    /// The output must be taken first.
    Full,
    /// The stream has ended. What follows it starts with [`Inflater::left_over`].
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a block's first three bits.
    Block,
    /// Before the length of a stored block.
    StoredLength,
    /// In a stored block, of which so many bytes are left.
    Stored(usize),
    /// In the codes of a dynamic block.
    Lengths,
    /// In a block's symbols.
    Symbols,
    Ended,
}

/// A decoder. Input goes in by [`Inflater::decode`], output is taken from [`Inflater::output`].
pub(super) struct Inflater {
    state: State,
    /// Whether the current block is the last one.
    is_last: bool,
    /// Bits of the input that are not used yet, the next one lowest, and how many. Above them are zeros.
    bits: u64,
    count: u32,
    lengths: Lengths,
    literals: Box<[u32; LITERAL_ENTRIES]>,
    distances: Box<[u32; DISTANCE_ENTRIES]>,
    /// The window, and behind it what was decoded and not taken: `taken..end`.
    buffer: Box<[u8; BUFFER]>,
    /// Where the stream began, or 0: no match may reach back beyond it.
    start: usize,
    taken: usize,
    end: usize,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            state: State::Block,
            is_last: false,
            bits: 0,
            count: 0,
            lengths: Lengths::new(),
            literals: Box::new([0; LITERAL_ENTRIES]),
            distances: Box::new([0; DISTANCE_ENTRIES]),
            buffer: Box::new([0; BUFFER]),
            start: 0,
            taken: 0,
            end: 0,
        }
    }

    /// Starts another stream, once all output is taken.
    pub(super) fn restart(&mut self) {
        (self.state, self.is_last, self.bits, self.count) = (State::Block, false, 0, 0);
        (self.start, self.taken, self.end) = (0, 0, 0);
    }

    /// What was decoded and not taken yet.
    pub(super) fn output(&self) -> &[u8] {
        self.buffer.get(self.taken..self.end).unwrap_or_default()
    }

    /// Takes the first `count` bytes of the output.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.end);
    }

    /// The next byte after the end of the stream, if it was among the input.
    pub(super) fn left_over(&mut self) -> Option<u8> {
        self.drop_bits(self.count & 7);
        (self.count > 0).then(|| {
            let byte = self.bits as u8;
            self.drop_bits(8);
            byte
        })
    }

    /// Decodes as much of `input` as there is room for. Returns how many bytes it used, and why it paused.
    ///
    /// # Errors
    /// The stream is damaged, or none.
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<(usize, Paused), BadStream> {
        if self.end >= FULL && self.taken == self.end {
            let from = self.end - WINDOW;
            self.buffer.copy_within(from..self.end, 0);
            self.start = self.start.saturating_sub(from);
            (self.taken, self.end) = (WINDOW, WINDOW);
        }
        let mut used = 0;
        let paused = loop {
            let pause = match self.state {
                State::Ended => Some(Paused::Ended),
                State::Block => self.block(input, &mut used)?,
                State::StoredLength => self.stored_length(input, &mut used)?,
                State::Stored(left) => self.stored(left, input, &mut used),
                State::Lengths => self.lengths(input, &mut used)?,
                State::Symbols if self.end >= FULL => Some(Paused::Full),
                State::Symbols => self.symbols(input, &mut used)?,
            };
            if let Some(pause) = pause {
                break pause;
            }
        };
        Ok((used, paused))
    }

    /// The start of a block (section 3.2.3).
    fn block(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Paused>, BadStream> {
        if self.is_last {
            self.state = State::Ended;
            return Ok(None);
        }
        self.fill(input, used);
        if self.count < 3 {
            return Ok(Some(Paused::NeedsInput));
        }
        self.is_last = self.bits & 1 == 1;
        let kind = self.bits >> 1 & 3;
        self.drop_bits(3);
        self.state = match kind {
            0 => {
                self.drop_bits(self.count & 7);
                State::StoredLength
            }
            1 => {
                let (literals, distances) = lengths::fixed();
                build(&literals, &mut self.literals[..], LITERAL_BITS, &LITERALS)?;
                build(&distances, &mut self.distances[..], DISTANCE_BITS, &DISTANCES)?;
                State::Symbols
            }
            2 => {
                self.lengths = Lengths::new();
                State::Lengths
            }
            _ => return Err(BadStream("a block of an unknown type")),
        };
        Ok(None)
    }

    /// Section 3.2.4.
    fn stored_length(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Paused>, BadStream> {
        self.fill(input, used);
        if self.count < 32 {
            return Ok(Some(Paused::NeedsInput));
        }
        let (length, complement) = (self.bits as u16, (self.bits >> 16) as u16);
        if length != !complement {
            return Err(BadStream("the length of a stored block is damaged"));
        }
        self.drop_bits(32);
        self.state = State::Stored(length.into());
        Ok(None)
    }

    fn stored(&mut self, left: usize, input: &[u8], used: &mut usize) -> Option<Paused> {
        if left == 0 {
            self.state = State::Block;
            return None;
        }
        let room = FULL.saturating_sub(self.end);
        if room == 0 {
            return Some(Paused::Full);
        }
        // Bytes that were read ahead come first.
        if let Some(byte) = self.left_over() {
            self.buffer[self.end] = byte;
            self.end += 1;
            self.state = State::Stored(left - 1);
            return None;
        }
        let rest = input.get(*used..).unwrap_or_default();
        let now = left.min(room).min(rest.len());
        if now == 0 {
            return Some(Paused::NeedsInput);
        }
        self.buffer[self.end..self.end + now].copy_from_slice(&rest[..now]);
        self.end += now;
        *used += now;
        self.state = State::Stored(left - now);
        None
    }

    /// Reads ahead as many bytes as fit, and there are.
    fn fill(&mut self, input: &[u8], used: &mut usize) {
        while self.count < 56
            && let Some(&byte) = input.get(*used)
        {
            self.bits |= u64::from(byte) << self.count;
            self.count += 8;
            *used += 1;
        }
    }

    fn drop_bits(&mut self, count: u32) {
        self.bits >>= count;
        self.count -= count;
    }
}

/// The lowest `count` bits, fewer than 64.
const fn mask(count: u32) -> u64 {
    (1 << count) - 1
}
