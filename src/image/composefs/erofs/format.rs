//! The fixed parts of an EROFS image (fs/erofs/erofs_fs.h) and the header that composefs puts before them, encoded.
//! Numbers are little-endian.

use crate::image::entry::Mtime;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// The unit in which the places of inodes are counted.
pub(super) const SLOT: u64 = 32;
/// Bytes of `struct erofs_dirent`.
pub(super) const DIRENT: usize = 12;
/// Bytes of `struct erofs_xattr_ibody_header`.
pub(super) const XATTR_HEADER: usize = 12;
/// Where the inodes begin: the headers end there.
pub(super) const INODES: u64 = 1024 + 128;

/// How the content of an inode is stored (`enum erofs_inode_datalayout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// In blocks, or there is none.
    Plain = 0,
    /// Its end is beside the inode.
    Inline = 2,
    /// By chunks, whose addresses are beside the inode. Here all are holes: the content is an object.
    Chunks = 4,
}

/// The type of an inode in a mode and in a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    /// Its bits of a mode (inode(7)).
    fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// What the superblock says.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) has_acl: bool,
    /// The place of the root's inode, in slots.
    pub(super) root: u16,
    pub(super) inodes: u32,
    /// The time of every inode that has none.
    pub(super) time: Mtime,
    /// Blocks of the image.
    pub(super) blocks: u32,
    /// The block of the table of shared attributes.
    pub(super) xattrs: u32,
}

impl Superblock {
    /// The image up to its first inode: `struct lcfs_erofs_header_s` of composefs, then `struct erofs_super_block`.
    pub(super) fn encode(&self) -> [u8; INODES as usize] {
        let mut bytes = [0; INODES as usize];
        // Magic, version, flags (LCFS_EROFS_FLAGS_HAS_ACL), format V1.
        let header = [0xd078_629a, 1, u32::from(self.has_acl), 1];
        put(&mut bytes, 0, header.map(u32::to_le_bytes).as_flattened());
        let (block, at) = (&mut bytes, 1024);
        put(block, at, &0xe0f5_e1e2_u32.to_le_bytes());
        // feature_compat: EROFS_FEATURE_COMPAT_MTIME and _XATTR_FILTER.
        put(block, at + 8, &6u32.to_le_bytes());
        put(block, at + 12, &[BLOCK.trailing_zeros() as u8]);
        put(block, at + 14, &self.root.to_le_bytes());
        put(block, at + 16, &u64::from(self.inodes).to_le_bytes());
        put(block, at + 24, &self.time.secs.to_le_bytes());
        put(block, at + 32, &self.time.nanos.to_le_bytes());
        put(block, at + 36, &self.blocks.to_le_bytes());
        put(block, at + 44, &self.xattrs.to_le_bytes());
        bytes
    }
}

/// What an inode says.
#[derive(Debug)]
pub(super) struct InodeHeader {
    pub(super) is_compact: bool,
    pub(super) layout: DataLayout,
    pub(super) file_type: FileType,
    /// Permissions.
    pub(super) mode: u16,
    /// Bytes of its attributes.
    pub(super) xattr_bytes: u32,
    pub(super) size: u64,
    /// `i_u`: the first block, the device number or the size of chunks.
    pub(super) address: u32,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) links: u32,
}

/// Bytes of `struct erofs_inode_compact` or `struct erofs_inode_extended`.
pub(super) fn inode_size(is_compact: bool) -> u32 {
    if is_compact { 32 } else { 64 }
}

impl InodeHeader {
    /// The header, in the first [`inode_size`] bytes.
    pub(super) fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let format = u16::from(!self.is_compact) | (self.layout as u16) << 1;
        // The header of the attributes counts as one word.
        let words = self.xattr_bytes.checked_sub(XATTR_HEADER as u32).map_or(0, |bytes| 1 + bytes / 4);
        put(&mut bytes, 0, &format.to_le_bytes());
        put(&mut bytes, 2, &(words as u16).to_le_bytes());
        put(&mut bytes, 4, &(self.file_type.mode() | self.mode).to_le_bytes());
        put(&mut bytes, 16, &self.address.to_le_bytes());
        put(&mut bytes, 20, &self.number.to_le_bytes());
        if self.is_compact {
            put(&mut bytes, 6, &(self.links as u16).to_le_bytes());
            put(&mut bytes, 8, &(self.size as u32).to_le_bytes());
            put(&mut bytes, 24, &(self.uid as u16).to_le_bytes());
            put(&mut bytes, 26, &(self.gid as u16).to_le_bytes());
        } else {
            put(&mut bytes, 8, &self.size.to_le_bytes());
            put(&mut bytes, 24, &self.uid.to_le_bytes());
            put(&mut bytes, 28, &self.gid.to_le_bytes());
            put(&mut bytes, 32, &self.mtime.secs.to_le_bytes());
            put(&mut bytes, 40, &self.mtime.nanos.to_le_bytes());
            put(&mut bytes, 44, &self.links.to_le_bytes());
        }
        bytes
    }
}

/// `struct erofs_dirent`.
pub(super) fn dirent(slot: u32, name_offset: usize, file_type: FileType) -> [u8; DIRENT] {
    let mut bytes = [0; DIRENT];
    put(&mut bytes, 0, &u64::from(slot).to_le_bytes());
    // Below the size of a block.
    put(&mut bytes, 8, &(name_offset as u16).to_le_bytes());
    bytes[10] = file_type as u8;
    bytes
}

/// `struct erofs_xattr_ibody_header`.
pub(super) fn xattr_header(filter: u32, shared: u32) -> [u8; XATTR_HEADER] {
    let mut bytes = [0; XATTR_HEADER];
    // A bit that is set says that no name has it.
    put(&mut bytes, 0, &(!filter).to_le_bytes());
    bytes[4] = shared as u8;
    bytes
}

/// Copies a field to its place.
fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
