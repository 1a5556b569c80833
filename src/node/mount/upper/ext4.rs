//! An empty ext4 filesystem, as mke2fs would make it, for the upper of one pod. Pure.
//!
//! Written by hand because a node has no mkfs for certain, and the driver starts no programs. Only what an empty filesystem
//! needs is written; all else is a hole of the new file, which reads as zeros. It has no journal, because it ends with its
//! mount, no copies of its superblock, and no checksums, so that no table needs to be begun.
//!
//! Source: "ext4 Data Structures and Algorithms" of the Linux kernel's documentation (Documentation/filesystems/ext4).

/// Bytes of a block, which is also a page.
const BLOCK: u64 = 4096;
/// Blocks of a group: as many as one block has bits.
const GROUP: u64 = 8 * BLOCK;
const INODE_SIZE: u64 = 256;
const INODES_PER_BLOCK: u64 = BLOCK / INODE_SIZE;
const DESCRIPTOR: u64 = 32;
/// Bytes of the filesystem for each inode, as mke2fs has it, and how many inodes there are at least.
const BYTES_PER_INODE: u64 = 16 << 10;
const LEAST_INODES: u64 = 1024;
/// The first ten inodes are reserved; the second is the root directory.
const RESERVED_INODES: u64 = 10;
const ROOT: u64 = 2;
/// Blocks that a new mount takes for itself: its directories, and an index of the overlay.
const OWN: u64 = 16;
/// The kernel keeps a fiftieth back for what it writes late, and no more than so many blocks.
const LATE: (u64, u64) = (50, 4096);
/// Groups, of which there must be fewer: at 16 TiB a number of 32 bits ends.
const MOST_GROUPS: u64 = (u32::MAX as u64 + 1) / GROUP;

/// `has_compat`: extended attributes, indexed directories, no copies of the superblock by rule (sparse_super2).
const COMPATIBLE: u32 = 0x8 | 0x20 | 0x200;
/// Types in directory entries, extents.
const INCOMPATIBLE: u32 = 0x2 | 0x40;
/// Large files, many subdirectories, inodes with nanoseconds.
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x20 | 0x40;

/// An empty filesystem that is yet to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EmptyExt4 {
    blocks: u64,
    groups: u64,
    inodes_per_group: u64,
}

impl EmptyExt4 {
    /// One in which `bytes` can be written, and hardly more. `None` if ext4 has no such size.
    pub(super) fn for_bytes(bytes: u64) -> Option<Self> {
        let wanted = bytes.div_ceil(BLOCK).checked_add(OWN)?;
        // Tables take more groups as there are more groups: the second round or the third is enough.
        let mut blocks = wanted;
        for _ in 0..8 {
            let found = Self::of_blocks(blocks)?;
            let usable = found.blocks - found.overhead() - found.late();
            if usable >= wanted {
                return Some(found);
            }
            blocks = found.blocks + (wanted - usable);
        }
        None
    }

    /// One of so many blocks, or a few more, so that the last group has room for its tables.
    fn of_blocks(blocks: u64) -> Option<Self> {
        let groups = blocks.div_ceil(GROUP);
        if groups >= MOST_GROUPS {
            return None;
        }
        let per_group = (blocks.min(GROUP) * BLOCK / BYTES_PER_INODE).max(LEAST_INODES);
        let inodes_per_group = per_group.next_multiple_of(INODES_PER_BLOCK);
        let mut found = Self { blocks, groups, inodes_per_group };
        let least = found.first_of(groups - 1) + found.tables_of(groups - 1) + OWN;
        found.blocks = found.blocks.max(least);
        Some(found)
    }

    /// Bytes of the file that it lies in.
    pub(super) fn size(&self) -> u64 {
        self.blocks * BLOCK
    }

    /// What is written, each with its place in the file in bytes; all else is zeros.
    pub(super) fn writes(&self, uuid: [u8; 16]) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let this = *self;
        let at_start = [
            (1024, this.superblock(uuid)),
            (BLOCK, this.descriptors()),
            (this.inode_table(0) * BLOCK + (ROOT - 1) * INODE_SIZE, this.root_inode()),
            (this.root_block() * BLOCK, root_directory()),
        ];
        let bitmaps = (0..this.groups).flat_map(move |group| {
            let first = this.bitmaps(group);
            [(first * BLOCK, this.block_bitmap(group)), ((first + 1) * BLOCK, this.inode_bitmap(group))]
        });
        at_start.into_iter().chain(bitmaps)
    }

    fn first_of(&self, group: u64) -> u64 {
        group * GROUP
    }

    fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - self.first_of(group)).min(GROUP)
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups * DESCRIPTOR).div_ceil(BLOCK)
    }

    /// The first of the two bitmaps, which the table of inodes follows. The first group begins with the superblock and the
    /// descriptors of all groups.
    fn bitmaps(&self, group: u64) -> u64 {
        self.first_of(group) + if group == 0 { 1 + self.descriptor_blocks() } else { 0 }
    }

    fn inode_table(&self, group: u64) -> u64 {
        self.bitmaps(group) + 2
    }

    fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Blocks at the start of a group that no file can have.
    fn tables_of(&self, group: u64) -> u64 {
        self.inode_table(group) + self.table_blocks() - self.first_of(group)
    }

    fn root_block(&self) -> u64 {
        self.inode_table(0) + self.table_blocks()
    }

    /// Blocks in use, of a group.
    fn used_of(&self, group: u64) -> u64 {
        self.tables_of(group) + u64::from(group == 0)
    }

    fn overhead(&self) -> u64 {
        (0..self.groups).map(|group| self.used_of(group)).sum()
    }

    fn late(&self) -> u64 {
        (self.blocks / LATE.0).min(LATE.1)
    }

    fn superblock(&self, uuid: [u8; 16]) -> Vec<u8> {
        let mut block = vec![0; 1024];
        let inodes = self.groups * self.inodes_per_group;
        for (offset, value) in [
            (0x00, inodes),
            (0x04, self.blocks),
            (0x0c, self.blocks - self.overhead()),
            (0x10, inodes - RESERVED_INODES),
            // Blocks and clusters of 1024 << 2 bytes.
            (0x18, 2),
            (0x1c, 2),
            (0x20, GROUP),
            (0x24, GROUP),
            (0x28, self.inodes_per_group),
            // Revision 1: all of the below counts.
            (0x4c, 1),
            (0x54, RESERVED_INODES + 1),
            (0x5c, COMPATIBLE.into()),
            (0x60, INCOMPATIBLE.into()),
            (0x64, READ_ONLY_COMPATIBLE.into()),
            // Attributes of users and access control lists, if nobody says otherwise.
            (0x100, 0x4 | 0x8),
            // Names are hashed as unsigned bytes.
            (0x160, 0x2),
        ] {
            put32(&mut block, offset, value);
        }
        for (offset, value) in [
            // Mounted as often as one likes; sound; on an error read-only.
            (0x36, 0xffff),
            (0x38, 0xef53),
            (0x3a, 1),
            (0x3c, 2),
            (0x58, INODE_SIZE),
            (0x15c, 32),
            (0x15e, 32),
        ] {
            put16(&mut block, offset, value);
        }
        put(&mut block, 0x68, &uuid);
        put(&mut block, 0x78, b"composefs-upper");
        // The seed of names' hashes: a pod cannot know it, and so not choose names that collide.
        put(&mut block, 0xec, &uuid);
        // Half MD4.
        put(&mut block, 0xfc, &[1]);
        block
    }

    fn descriptors(&self) -> Vec<u8> {
        let one = |group: u64| {
            let mut descriptor = [0; DESCRIPTOR as usize];
            let first = self.bitmaps(group);
            put32(&mut descriptor, 0x00, first);
            put32(&mut descriptor, 0x04, first + 1);
            put32(&mut descriptor, 0x08, first + 2);
            put16(&mut descriptor, 0x0c, self.blocks_of(group) - self.used_of(group));
            let reserved = if group == 0 { RESERVED_INODES } else { 0 };
            put16(&mut descriptor, 0x0e, self.inodes_per_group - reserved);
            put16(&mut descriptor, 0x10, u64::from(group == 0));
            descriptor
        };
        (0..self.groups).flat_map(one).collect()
    }

    fn block_bitmap(&self, group: u64) -> Vec<u8> {
        // What lies beyond the end counts as used.
        bitmap(self.used_of(group), self.blocks_of(group))
    }

    fn inode_bitmap(&self, group: u64) -> Vec<u8> {
        bitmap(if group == 0 { RESERVED_INODES } else { 0 }, self.inodes_per_group)
    }

    fn root_inode(&self) -> Vec<u8> {
        let mut inode = vec![0; INODE_SIZE as usize];
        put16(&mut inode, 0x00, 0o040_700);
        put32(&mut inode, 0x04, BLOCK);
        // Itself and its own `.`.
        put16(&mut inode, 0x1a, 2);
        put32(&mut inode, 0x1c, BLOCK / 512);
        // Its blocks are said by extents: a header with one of four entries, and that.
        put32(&mut inode, 0x20, 0x8_0000);
        put16(&mut inode, 0x28, 0xf30a);
        put16(&mut inode, 0x2a, 1);
        put16(&mut inode, 0x2c, 4);
        put16(&mut inode, 0x38, 1);
        put32(&mut inode, 0x3c, self.root_block());
        put16(&mut inode, 0x80, 32);
        inode
    }
}

/// `.` and `..`, which takes the rest of the block.
fn root_directory() -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    for (offset, length, name) in [(0, 12, &b"."[..]), (12, BLOCK - 12, b"..")] {
        put32(&mut block, offset, ROOT);
        put16(&mut block, offset + 4, length);
        // The length of the name, and what it names: a directory.
        put(&mut block, offset + 6, &[if offset == 0 { 1 } else { 2 }, 2]);
        put(&mut block, offset + 8, name);
    }
    block
}

/// A block of bits, of which the first `used` are set, and all from `end` on.
fn bitmap(used: u64, end: u64) -> Vec<u8> {
    let byte =
        |first: u64| (0..8).filter(|bit| first + bit < used || first + bit >= end).map(|bit| 1 << bit).sum();
    (0..BLOCK).map(|number| byte(number * 8)).collect()
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
        *to = *from;
    }
}

/// The numbers fit: a filesystem has fewer than 2^32 blocks and inodes, and a group fewer than 2^16 of either.
fn put32(bytes: &mut [u8], offset: usize, value: u64) {
    put(bytes, offset, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn put16(bytes: &mut [u8], offset: usize, value: u64) {
    put(bytes, offset, &u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_can_be_written_as_asked_for_and_hardly_more() {
        for mebibytes in [1, 2, 7, 127, 128, 129, 1000, 1024, 10 << 10, 1 << 20] {
            let bytes = mebibytes << 20;
            let found = EmptyExt4::for_bytes(bytes).unwrap();
            let usable = (found.blocks - found.overhead() - found.late() - OWN) * BLOCK;
            assert!(usable >= bytes && usable < bytes + (4 << 20), "{mebibytes} MiB: {usable}");
            assert!(found.size() < bytes + bytes / 20 + (1 << 20), "{mebibytes} MiB: {}", found.size());
        }
        assert_eq!(EmptyExt4::for_bytes(1 << 60), None);
        assert_eq!(EmptyExt4::for_bytes(u64::MAX), None);
    }

    #[test]
    fn nothing_is_written_twice_or_beyond_the_end() {
        let found = EmptyExt4::for_bytes(300 << 20).unwrap();
        let mut writes: Vec<_> = found.writes([7; 16]).collect();
        writes.sort();
        assert!(writes.windows(2).all(|pair| pair[0].0 + pair[0].1.len() as u64 <= pair[1].0));
        assert!(writes.iter().all(|(at, bytes)| at + bytes.len() as u64 <= found.size()));
    }

    #[test]
    fn a_bitmap_has_its_ends_set() {
        let bits = bitmap(10, 20);
        assert_eq!(bits[..4], [0xff, 0b11, 0b1111_0000, 0xff]);
        assert_eq!(bits.len(), BLOCK as usize);
    }
}
