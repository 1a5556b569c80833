//! Where everything is in an image: the inodes with what is beside them, the table of shared attributes, and blocks
//! (`lcfs-writer-erofs.c` of composefs: `compute_erofs_inode_padding_for_tail`, `compute_erofs_shared_xattrs`).

use super::format::{BLOCK, DataLayout, FileType, INODES, SLOT, inode_size};
use super::number::{Dir, Numbering, STUB_MODE, Source};
use super::sets::{self, SetsOf};
use super::share::{Extent, Sharing};
use super::unsupported;
use crate::image::composefs::ImageError;
use crate::image::entry::Mtime;
use crate::image::tree::{CheckedTree, NodeKind, Stat};

/// An image that is laid out.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) numbering: Numbering,
    pub(super) sharing: Sharing,
    /// The place of each inode in slots.
    pub(super) slots: Vec<u32>,
    /// The earliest time of all inodes. Those that have it need not say so.
    pub(super) time: Mtime,
    /// Where the inodes end and the table of shared attributes begins, in bytes.
    pub(super) table: u64,
    /// The first block of content.
    pub(super) first_block: u32,
    /// Blocks in all.
    pub(super) blocks: u32,
}

/// An inode as the image has it.
#[derive(Debug)]
pub(super) struct Inode<'t> {
    pub(super) source: Source<'t>,
    pub(super) file_type: FileType,
    pub(super) layout: DataLayout,
    pub(super) is_compact: bool,
    pub(super) mode: u16,
    pub(super) stat: &'t Stat,
    pub(super) links: u32,
    pub(super) size: u64,
    /// What the header says in place of a block: the device number or the size of chunks.
    pub(super) address: u32,
    /// Blocks of its content.
    pub(super) blocks: u32,
    /// Bytes of its content beside it.
    pub(super) tail: u32,
    pub(super) sets: SetsOf,
    /// Of a file with an object that is shared: its rank.
    pub(super) rank: Option<u32>,
    pub(super) xattrs: Extent,
}

impl Layout {
    /// # Errors
    /// The tree holds what the fields of the format cannot.
    pub(super) fn of(tree: &CheckedTree) -> Result<Self, ImageError> {
        let numbering = Numbering::of(tree)?;
        let sharing = Sharing::of(tree, &numbering)?;
        let times = (0..numbering.len()).map(|number| numbering.source(tree, number).stat().mtime);
        let time = times.min().unwrap_or_default();
        let mut slots = Vec::with_capacity(numbering.len() as usize);
        let mut this =
            Self { numbering, sharing, slots: Vec::new(), time, table: 0, first_block: 0, blocks: 0 };
        let (mut position, mut blocks) = (INODES, 0);
        for number in 0..this.numbering.len() {
            let inode = this.inode(tree, number);
            inode.xattrs.check()?;
            let start = inode.start(position);
            slots.push(u32::try_from(start / SLOT).map_err(|_| too_large())?);
            position = (start + inode.head() + u64::from(inode.tail)).next_multiple_of(SLOT);
            blocks += u64::from(inode.blocks);
        }
        let first = (position + u64::from(this.sharing.size)).div_ceil(BLOCK);
        (this.slots, this.table) = (slots, position);
        this.first_block = u32::try_from(first).map_err(|_| too_large())?;
        this.blocks = u32::try_from(first + blocks).map_err(|_| too_large())?;
        Ok(this)
    }

    /// The inode of a number.
    pub(super) fn inode<'t>(&'t self, tree: &'t CheckedTree, number: u32) -> Inode<'t> {
        let source = self.numbering.source(tree, number);
        let mut inode = Inode::empty(source);
        match source {
            Source::Directory(_, dir) => inode.hold_entries(dir),
            Source::Node(node) => inode.hold(&node.kind),
            Source::Escaped(_) | Source::Stub(_) => {}
        }
        inode.sets = sets::of(tree, source);
        let digest = source.object();
        inode.rank = digest.and_then(|digest| self.sharing.objects.rank(tree, &self.numbering, digest));
        inode.xattrs = self.sharing.extent(inode.sets, digest.map(|_| inode.rank.is_some()));
        inode.is_compact = inode.fits_compact(self.time);
        // A link whose target would fill the block with its inode has a block of its own.
        if inode.file_type == FileType::Symlink && inode.head() + inode.size >= BLOCK {
            (inode.layout, inode.blocks, inode.tail) = (DataLayout::Plain, 1, 0);
        }
        inode
    }
}

impl<'t> Source<'t> {
    /// The metadata. A stub has the root's owner and time.
    fn stat(self) -> &'t Stat {
        match self {
            Self::Node(node) | Self::Directory(node, _) | Self::Escaped(node) | Self::Stub(node) => {
                &node.stat
            }
        }
    }

    /// The type in the image.
    pub(super) fn file_type(self) -> FileType {
        match self {
            Self::Directory(..) => FileType::Directory,
            Self::Escaped(_) => FileType::Regular,
            Self::Stub(_) => FileType::CharDevice,
            Self::Node(node) => match node.kind {
                NodeKind::Inline(_) | NodeKind::Object(..) => FileType::Regular,
                NodeKind::Symlink(_) => FileType::Symlink,
                NodeKind::CharDevice(_) => FileType::CharDevice,
                NodeKind::BlockDevice(_) => FileType::BlockDevice,
                NodeKind::Fifo => FileType::Fifo,
                // None of those is in an image.
                NodeKind::Directory(_) | NodeKind::LeftOut | NodeKind::Pending | NodeKind::Free => {
                    FileType::Directory
                }
            },
        }
    }
}

impl<'t> Inode<'t> {
    /// Without content and attributes.
    fn empty(source: Source<'t>) -> Self {
        let stat = source.stat();
        let (mode, links) = match source {
            Source::Node(node) | Source::Escaped(node) => (stat.mode, node.links),
            Source::Directory(_, dir) => (stat.mode, dir.links()),
            Source::Stub(_) => (STUB_MODE, 1),
        };
        Self {
            source,
            file_type: source.file_type(),
            layout: DataLayout::Plain,
            is_compact: false,
            mode,
            stat,
            links,
            size: 0,
            address: 0,
            blocks: 0,
            tail: 0,
            sets: [None; 3],
            rank: None,
            xattrs: Extent::default(),
        }
    }

    /// Bytes of the inode and its attributes.
    fn head(&self) -> u64 {
        u64::from(inode_size(self.is_compact) + self.xattrs.bytes)
    }

    /// Where it begins if what is before it ends at `end`. What is beside an inode must not go over the end of a block:
    /// of links nothing may, and of others their content.
    fn start(&self, end: u64) -> u64 {
        let room = BLOCK - end % BLOCK;
        if self.file_type == FileType::Symlink {
            return if self.head() + self.size > room { end.next_multiple_of(BLOCK) } else { end };
        }
        let room = (end + self.head()).next_multiple_of(BLOCK) - (end + self.head());
        if room < u64::from(self.tail) { end + room.next_multiple_of(SLOT) } else { end }
    }

    /// Whether a compact header can hold everything.
    fn fits_compact(&self, time: Mtime) -> bool {
        let small = |number: u32| number <= u16::MAX.into();
        self.stat.mtime == time
            && small(self.links)
            && small(self.stat.uid)
            && small(self.stat.gid)
            && self.size <= u32::MAX.into()
    }

    fn hold_entries(&mut self, dir: &Dir) {
        (self.blocks, self.tail) = (dir.blocks, dir.tail.into());
        self.size = u64::from(dir.blocks) * BLOCK + u64::from(dir.tail);
        if dir.tail > 0 {
            self.layout = DataLayout::Inline;
        }
    }

    fn hold(&mut self, kind: &NodeKind) {
        match kind {
            NodeKind::Inline(bytes) if bytes.is_empty() => {}
            NodeKind::Inline(bytes) | NodeKind::Symlink(bytes) => {
                (self.layout, self.size, self.tail) =
                    (DataLayout::Inline, bytes.len() as u64, bytes.len() as u32);
            }
            NodeKind::Object(_, size) => {
                // One chunk that is a hole, as small as can hold the file: its exponent above that of a block. Its
                // address takes four bytes.
                let exponent = size.next_power_of_two().max(BLOCK).trailing_zeros();
                (self.layout, self.size) = (DataLayout::Chunks, *size);
                self.address = exponent - BLOCK.trailing_zeros();
                self.tail = if *size == 0 { 0 } else { 4 };
            }
            NodeKind::CharDevice(device) | NodeKind::BlockDevice(device) => self.address = *device,
            _ => {}
        }
    }
}

fn too_large() -> ImageError {
    unsupported("more than 16 TiB of names, attributes and links")
}
