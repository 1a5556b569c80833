//! Where a file is cut into pieces: at places that its content decides, so that bytes which are put in or taken out change
//! the pieces around them only ("gear" hashing, as in FastCDC: Xia et al., USENIX ATC 2016).

/// Bits of the hash that are zero where a file is cut: pieces have 128 KiB on average.
const BITS: u32 = 17;
/// Fewest bytes of a piece, but for a file's last.
pub(super) const PIECE_MIN: usize = 16 << 10;
/// Most bytes of a piece, which is held in memory.
pub(super) const PIECE_MAX: usize = 1 << 20;

/// A number for each byte that looks random, and is the same everywhere.
static GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let (mut table, mut state, mut at) = ([0; 256], 0x0063_6f6d_706f_7365_u64, 0);
    while at < 256 {
        // splitmix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
}

/// The hash of the last 64 bytes.
#[derive(Debug, Default)]
pub(super) struct Cutter(u64);

impl Cutter {
    /// How many of `bytes` belong to a piece that has `have` bytes, and whether it ends with them.
    pub(super) fn cut(&mut self, bytes: &[u8], have: usize) -> (usize, bool) {
        let most = bytes.len().min(PIECE_MAX.saturating_sub(have));
        for (at, byte) in bytes[..most].iter().enumerate() {
            self.0 = (self.0 << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if self.0 >> (64 - BITS) == 0 && have + at + 1 >= PIECE_MIN {
                return (at + 1, true);
            }
        }
        (most, have + most >= PIECE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, size: usize) -> Vec<u8> {
        let mut state = seed;
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 56) as u8
        };
        (0..size).map(|_| next(&mut state)).collect()
    }

    fn pieces(content: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut cutter, mut pieces, mut piece) = (Cutter::default(), Vec::new(), Vec::new());
        for part in content.chunks(step) {
            let mut rest = part;
            while !rest.is_empty() {
                let (count, is_cut) = cutter.cut(rest, piece.len());
                piece.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
                if is_cut {
                    pieces.push(std::mem::take(&mut piece));
                }
            }
        }
        pieces.push(piece);
        pieces
    }

    #[test]
    fn pieces_are_within_bounds_however_the_content_comes() {
        let content = noise(1, 8 << 20);
        let cut = pieces(&content, usize::MAX);
        assert_eq!(cut, pieces(&content, 1000));
        assert_eq!(cut.concat(), content);
        let (last, others) = cut.split_last().unwrap();
        assert!(last.len() <= PIECE_MAX);
        assert!(others.iter().all(|piece| (PIECE_MIN..=PIECE_MAX).contains(&piece.len())));
        assert!((16..=256).contains(&cut.len()), "{} pieces", cut.len());
        assert_eq!(pieces(&vec![0; 3 << 20], 4096).len(), 4, "zeros are cut at the longest piece");
    }

    #[test]
    fn what_is_put_in_changes_what_is_around_it_only() {
        let content = noise(2, 8 << 20);
        let mut changed = content.clone();
        changed.splice(3 << 20..3 << 20, *b"fourteen bytes");
        let (before, after) = (pieces(&content, 4096), pieces(&changed, 4096));
        let new = after.iter().filter(|piece| !before.contains(piece)).count();
        assert!((1..=3).contains(&new), "{new} of {} pieces are new", after.len());
    }
}
