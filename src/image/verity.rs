//! fs-verity digests: the names of objects. The kernel checks them at every read.
//!
//! The parameters are those of composefs: sha256, 4096-byte blocks, no salt
//! (Documentation/filesystems/fsverity.rst, "Merkle tree" and "fs-verity descriptor").

use std::fmt;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// An fs-verity digest (sha256, 4 KiB blocks, no salt).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerityDigest(pub [u8; 32]);

impl VerityDigest {
    /// The digest of a buffer that is already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = VerityHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for VerityDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for VerityDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an fs-verity digest")))
    }
}

/// Bytes hashed per leaf of the Merkle tree, and per node.
const BLOCK: usize = 4096;
const HASHES_PER_BLOCK: u8 = (BLOCK / 32) as u8;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Levels of the tree of the largest stream: 2^64 bytes are 128^7 blocks and a few more.
const LEVELS: usize = 8;
/// The hash at each level of the tree, from the leaves upwards, of zeros that fill what is below it.
static ZERO_HASHES: LazyLock<[[u8; 32]; LEVELS]> = LazyLock::new(|| {
    let mut hashes = [<[u8; 32]>::from(Sha256::digest(ZEROS)); LEVELS];
    for level in 1..LEVELS {
        let node = hashes[level - 1].repeat(usize::from(HASHES_PER_BLOCK));
        hashes[level] = Sha256::digest(node).into();
    }
    hashes
});

/// Computes the fs-verity digest of a stream. Memory is constant except for one hash state per level of the
/// Merkle tree. A level covers 128 times the data of the one below, so there are at most eight.
#[derive(Clone, Default)]
pub struct VerityHasher {
    block: Sha256,
    /// Bytes hashed into `block`, fewer than [`BLOCK`].
    filled: usize,
    /// Bytes of the stream so far.
    size: u64,
    /// From the leaves' hashes upwards.
    levels: Vec<Level>,
}

/// The block of hashes being gathered at one level of the tree.
#[derive(Clone, Default)]
struct Level {
    block: Sha256,
    /// Hashes in `block`.
    filled: u8,
    /// The hash, if the level has taken exactly one so far. It may be the root.
    single: Option<[u8; 32]>,
    /// Whether the level has taken any hash.
    started: bool,
}

impl fmt::Debug for VerityHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerityHasher({} bytes)", self.size)
    }
}

impl VerityHasher {
    /// Takes the next bytes of the stream, any number of them.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block.update(now);
            self.filled += now.len();
            bytes = rest;
            if self.filled == BLOCK {
                self.end_block();
            }
        }
    }

    /// Takes `count` zeros. That costs hardly more for many than for few: what a whole subtree of zeros hashes to is
    /// known.
    pub fn zeros(&mut self, count: u64) {
        let to_border = (BLOCK - self.filled) % BLOCK;
        let head = usize::try_from(count).unwrap_or(usize::MAX).min(to_border);
        self.update(&ZEROS[..head]);
        let left = count - head as u64;
        let blocks = left / BLOCK as u64;
        self.size += blocks * BLOCK as u64;
        self.zero_blocks(blocks);
        self.update(&ZEROS[..(left % BLOCK as u64) as usize]);
    }

    /// Adds whole blocks of zeros to the tree, as few and as large subtrees as fit.
    fn zero_blocks(&mut self, mut blocks: u64) {
        const FANOUT: u64 = HASHES_PER_BLOCK as u64;
        while blocks > 0 {
            let (mut level, mut covered) = (0, 1);
            // A subtree begins where all the nodes below it are empty.
            while level + 1 < LEVELS
                && covered * FANOUT <= blocks
                && self.levels.get(level).is_none_or(|node| node.filled == 0)
            {
                level += 1;
                covered *= FANOUT;
            }
            // The levels in between have taken hashes without seeing them, and so none of them is the root.
            while self.levels.len() < level {
                self.levels.push(Level::default());
            }
            for below in self.levels.iter_mut().take(level) {
                (below.started, below.single) = (true, None);
            }
            self.add(level, ZERO_HASHES[level]);
            blocks -= covered;
        }
    }

    /// The digest of everything taken.
    pub fn finish(mut self) -> VerityDigest {
        // The last block is padded with zeros. The size in the descriptor tells it from a full one.
        if self.filled > 0 {
            self.block.update(&ZEROS[self.filled..]);
            self.end_block();
        }
        // `struct fsverity_descriptor`. The rest stays zero: no salt and no signature.
        let mut descriptor = [0; 256];
        descriptor[0] = 1; // version
        descriptor[1] = 1; // hash_algorithm: sha256
        descriptor[2] = BLOCK.trailing_zeros() as u8; // log_blocksize
        descriptor[8..16].copy_from_slice(&self.size.to_le_bytes());
        descriptor[16..48].copy_from_slice(&self.root());
        VerityDigest(Sha256::digest(descriptor).into())
    }

    /// Ends the data block and adds its hash to the tree.
    fn end_block(&mut self) {
        self.filled = 0;
        let hash = self.block.finalize_reset().into();
        self.add(0, hash);
    }

    /// Adds `hash` to `level`. A block that this completes is hashed into the level above, and so on.
    fn add(&mut self, mut level: usize, mut hash: [u8; 32]) {
        loop {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let Some(node) = self.levels.get_mut(level) else { return };
            node.single = (!node.started).then_some(hash);
            node.started = true;
            node.block.update(hash);
            node.filled += 1;
            if node.filled < HASHES_PER_BLOCK {
                return;
            }
            node.filled = 0;
            hash = node.block.finalize_reset().into();
            level += 1;
        }
    }

    /// The root hash: zero for no data, the hash of the block for one block, else that of the tree.
    fn root(&mut self) -> [u8; 32] {
        let mut level = 0;
        while let Some(node) = self.levels.get_mut(level) {
            // A level of one hash is the top of the tree.
            if let Some(root) = node.single {
                return root;
            }
            // Pads the last block, whose hash may be the second one of the level above.
            if node.filled > 0 {
                node.block.update(&ZEROS[usize::from(node.filled) * 32..]);
                node.filled = 0;
                let hash = node.block.finalize_reset().into();
                self.add(level + 1, hash);
            }
            level += 1;
        }
        [0; 32]
    }
}

#[cfg(test)]
mod tests {
    use composefs::fsverity::{FsVerityHashValue as _, FsVerityHasher, Sha256HashValue};
    use proptest::prelude::*;

    use super::*;

    fn reference(data: &[u8]) -> String {
        FsVerityHasher::<Sha256HashValue>::hash(data).to_hex()
    }

    fn content(size: usize) -> Vec<u8> {
        (0..size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    #[test]
    fn agrees_with_composefs_around_block_and_level_borders() {
        const LEVEL: usize = BLOCK * 128;
        for border in [0, BLOCK, 2 * BLOCK, LEVEL - BLOCK, LEVEL, LEVEL + BLOCK, 2 * LEVEL, 3 * LEVEL] {
            for size in border.saturating_sub(1)..=border + 1 {
                let data = content(size);
                assert_eq!(VerityDigest::of(&data).hex(), reference(&data), "{size} bytes");
            }
        }
    }

    #[test]
    fn agrees_with_composefs_on_three_levels() {
        // 128 * 128 blocks fill two levels of hashes; one byte more makes a third.
        let data = content(BLOCK * 128 * 128 + 1);
        assert_eq!(VerityDigest::of(&data[..data.len() - 1]).hex(), reference(&data[..data.len() - 1]));
        assert_eq!(VerityDigest::of(&data).hex(), reference(&data));
    }

    #[test]
    fn zeros_that_are_not_looked_at_count_as_zeros() {
        const LEVEL: usize = BLOCK * 128;
        for size in [1, BLOCK - 1, BLOCK, LEVEL, LEVEL + 1, LEVEL + BLOCK, 128 * LEVEL, 129 * LEVEL + 7] {
            let data = vec![0; size];
            for before in [0, 1, BLOCK, LEVEL - BLOCK] {
                let mut hasher = VerityHasher::default();
                hasher.update(&vec![3; before]);
                hasher.zeros(size as u64);
                let mut after = hasher.clone();
                after.update(b"after");
                let data = [vec![3; before], data.clone()].concat();
                assert_eq!(hasher.finish().hex(), reference(&data), "{before} and {size} zeros");
                assert_eq!(
                    after.finish().hex(),
                    reference(&[&data[..], b"after"].concat()),
                    "{before}, {size}"
                );
            }
        }
        // As many as a file may have.
        let mut hasher = VerityHasher::default();
        hasher.zeros(1 << 43);
        hasher.finish();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
        #[test]
        fn any_split_gives_the_same_digest(
            size in 0usize..700_000,
            cuts in proptest::collection::vec(1usize..9000, 1..8),
        ) {
            let data = content(size);
            let mut hasher = VerityHasher::default();
            let mut rest = &data[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                hasher.update(now);
                rest = later;
            }
            prop_assert_eq!(hasher.finish().hex(), reference(&data));
        }

        #[test]
        fn zeros_between_data_give_the_same_digest(
            parts in proptest::collection::vec((any::<bool>(), 0usize..900_000), 1..6),
        ) {
            let (mut hasher, mut data) = (VerityHasher::default(), Vec::new());
            for (is_zero, size) in parts {
                let part = if is_zero { vec![0; size] } else { content(size) };
                if is_zero { hasher.zeros(size as u64) } else { hasher.update(&part) }
                data.extend(part);
            }
            prop_assert_eq!(hasher.finish().hex(), reference(&data));
        }
    }
}
