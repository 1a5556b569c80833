//! The code lengths at the start of a dynamic block (RFC 1951, section 3.2.7).

use super::table::{DISTANCE_BITS, DISTANCES, LITERAL_BITS, LITERALS, OTHER, build};
use super::{BadStream, Inflater, Paused, State, mask};

/// Bits of the longest code of a code length.
const BITS: u32 = 7;
const KINDS: usize = 19;
/// What a code of a code length stands for is its symbol.
const MEANINGS: [u32; KINDS] = {
    let mut all = [0; KINDS];
    let mut symbol = 0;
    while symbol < KINDS {
        all[symbol] = (symbol as u32) << 16;
        symbol += 1;
    }
    all
};

/// How far they are read.
pub(super) struct Lengths {
    step: Step,
    /// How many lengths of literals, of distances, and of the lengths' own code there are.
    literals: usize,
    distances: usize,
    own: usize,
    /// How many of the current kind are known.
    known: usize,
    values: [u8; 286 + 30],
    /// Of the lengths' own code.
    table: [u32; 1 << BITS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Counts,
    Own,
    Values,
}

impl Lengths {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Counts,
            literals: 0,
            distances: 0,
            own: 0,
            known: 0,
            values: [0; 286 + 30],
            table: [0; 1 << BITS],
        }
    }
}

/// The lengths of a fixed block (section 3.2.6).
pub(super) fn fixed() -> ([u8; 288], [u8; 32]) {
    let mut literals = [8; 288];
    literals[144..256].fill(9);
    literals[256..280].fill(7);
    (literals, [5; 32])
}

impl Inflater {
    /// Reads the lengths and makes the tables.
    pub(super) fn lengths(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Paused>, BadStream> {
        const ORDER: [usize; KINDS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        self.fill(input, used);
        match self.lengths.step {
            Step::Counts if self.count < 14 => return Ok(Some(Paused::NeedsInput)),
            Step::Counts => {
                let field = |from: u32, width: u32| (self.bits >> from & mask(width)) as usize;
                let (literals, distances, own) = (field(0, 5) + 257, field(5, 5) + 1, field(10, 4) + 4);
                // zlib's limits: there are no symbols beyond them.
                if literals > 286 || distances > 30 {
                    return Err(BadStream("a block has too many symbols"));
                }
                let lengths = &mut self.lengths;
                (lengths.literals, lengths.distances, lengths.own) = (literals, distances, own);
                self.drop_bits(14);
                self.lengths.step = Step::Own;
            }
            Step::Own if self.lengths.known < self.lengths.own => {
                if self.count < 3 {
                    return Ok(Some(Paused::NeedsInput));
                }
                self.lengths.values[ORDER[self.lengths.known]] = (self.bits & 7) as u8;
                self.lengths.known += 1;
                self.drop_bits(3);
            }
            Step::Own => {
                let Lengths { values, table, .. } = &mut self.lengths;
                let used_codes = values[..KINDS].iter().filter(|length| **length > 0).count();
                build(&values[..KINDS], table, BITS, &MEANINGS)?;
                // Unlike the other codes, this one must be complete.
                if used_codes < 2 {
                    return Err(BadStream("the code of code lengths has too few symbols"));
                }
                (self.lengths.step, self.lengths.known) = (Step::Values, 0);
            }
            Step::Values if self.lengths.known < self.lengths.literals + self.lengths.distances => {
                return self.length();
            }
            Step::Values => {
                let Lengths { values, literals, distances, .. } = &self.lengths;
                if values[256] == 0 {
                    return Err(BadStream("a block cannot end"));
                }
                let (of_literals, rest) = values.split_at(*literals);
                build(of_literals, &mut self.literals[..], LITERAL_BITS, &LITERALS)?;
                build(&rest[..*distances], &mut self.distances[..], DISTANCE_BITS, &DISTANCES)?;
                self.state = State::Symbols;
            }
        }
        Ok(None)
    }

    /// One code of one or several lengths.
    fn length(&mut self) -> Result<Option<Paused>, BadStream> {
        let entry = self.lengths.table[(self.bits & mask(BITS)) as usize];
        let (code, symbol) = (entry & 15, entry >> 16);
        let (extra, least) = match symbol {
            16 => (2, 3),
            17 => (3, 3),
            18 => (7, 11),
            _ => (0, 1),
        };
        if self.count < code + extra {
            return Ok(Some(Paused::NeedsInput));
        }
        if entry & OTHER != 0 {
            return Err(BadStream("a code length has no code"));
        }
        let times = least + (self.bits >> code & mask(extra)) as usize;
        let Lengths { values, known, literals, distances, .. } = &mut self.lengths;
        let value = match (symbol, known.checked_sub(1)) {
            (16, None) => return Err(BadStream("the first code length repeats another")),
            (16, Some(last)) => values[last],
            (17 | 18, _) => 0,
            _ => symbol as u8,
        };
        if *known + times > *literals + *distances {
            return Err(BadStream("a block has more code lengths than symbols"));
        }
        values[*known..*known + times].fill(value);
        *known += times;
        self.drop_bits(code + extra);
        Ok(None)
    }
}
