//! The bytes of an image that is laid out, in their order.

use super::attribute::Attribute;
use super::entries::{Splitter, Target};
use super::format::{
    BLOCK, DIRENT, FileType, InodeHeader, SLOT, Superblock, dirent, inode_size, xattr_header,
};
use super::layout::{Inode, Layout};
use super::number::{Dir, Source};
use super::objects::OfObject;
use super::out::Out;
use crate::image::tree::{CheckedTree, NodeKind};

/// Which of a directory's entries are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Blocks,
    Tail,
}

/// An entry of a directory: name, place of the inode, and type.
type Entry<'t> = (&'t [u8], u32, FileType);

/// Hands on an image, from its beginning to its end.
pub(super) struct Emitter<'t, F> {
    tree: &'t CheckedTree,
    layout: &'t Layout,
    out: Out<F>,
}

impl<'t, E, F: FnMut(&[u8]) -> Result<(), E>> Emitter<'t, F> {
    pub(super) fn new(tree: &'t CheckedTree, layout: &'t Layout, take: F) -> Self {
        Self { tree, layout, out: Out::new(take) }
    }

    /// # Errors
    /// The first of whoever takes the bytes.
    pub(super) fn run(mut self) -> Result<(), E> {
        let layout = self.layout;
        let superblock = Superblock {
            has_acl: layout.sharing.has_acl,
            // In the first blocks.
            root: layout.slots[0] as u16,
            inodes: layout.numbering.len(),
            time: layout.time,
            blocks: layout.blocks,
            xattrs: (layout.table / BLOCK) as u32,
        };
        self.out.put(&superblock.encode())?;
        self.inodes()?;
        self.out.pad_to(layout.table)?;
        self.table()?;
        self.out.align(BLOCK)?;
        self.blocks()?;
        self.out.end()
    }

    fn inodes(&mut self) -> Result<(), E> {
        let mut next_block = self.layout.first_block;
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let inode = self.layout.inode(self.tree, number as u32);
            self.out.pad_to(u64::from(*slot) * SLOT)?;
            let header = InodeHeader {
                is_compact: inode.is_compact,
                layout: inode.layout,
                file_type: inode.file_type,
                mode: inode.mode,
                xattr_bytes: inode.xattrs.bytes,
                size: inode.size,
                address: if inode.blocks > 0 { next_block } else { inode.address },
                number: number as u32,
                uid: inode.stat.uid,
                gid: inode.stat.gid,
                mtime: inode.stat.mtime,
                links: inode.links,
            };
            self.out.put(&header.encode()[..inode_size(inode.is_compact) as usize])?;
            self.attributes(&inode)?;
            if inode.tail > 0 {
                self.tail(&inode)?;
            }
            next_block += inode.blocks;
        }
        Ok(())
    }

    /// The attributes of an inode: references to the shared ones, then the others.
    fn attributes(&mut self, inode: &Inode<'_>) -> Result<(), E> {
        if inode.xattrs.bytes == 0 {
            return Ok(());
        }
        let (tree, layout) = (self.tree, self.layout);
        let object = inode.source.object().map(OfObject::new);
        let mut all: Vec<(Attribute<'_>, Option<u32>)> = Vec::new();
        for set in inode.sets.into_iter().flatten() {
            all.extend(layout.sharing.attributes(tree, set));
        }
        if let Some(object) = &object {
            let (metacopy, redirect) = inode.rank.map(|rank| layout.sharing.of_object(rank)).unzip();
            all.extend([(object.metacopy(), metacopy), (object.redirect(), redirect)]);
        }
        all.sort_by(|(one, _), (other, _)| one.order(other));
        self.out.put(&xattr_header(inode.xattrs.filter, inode.xattrs.shared))?;
        for offset in all.iter().filter_map(|(_, offset)| *offset) {
            // In words, from the beginning of the block in which the table begins.
            let place = (layout.table % BLOCK + u64::from(offset)) / 4;
            self.out.put(&(place as u32).to_le_bytes())?;
        }
        for (attribute, _) in all.iter().filter(|(_, offset)| offset.is_none()) {
            self.attribute(attribute)?;
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: &Attribute<'_>) -> Result<(), E> {
        let (header, parts) = attribute.parts();
        self.out.put(&header)?;
        parts.into_iter().try_for_each(|part| self.out.put(part))?;
        self.out.align(4)
    }

    /// The content beside an inode.
    fn tail(&mut self, inode: &Inode<'_>) -> Result<(), E> {
        match inode.source {
            Source::Directory(_, dir) => self.entries(dir, Part::Tail),
            Source::Node(node) => match &node.kind {
                NodeKind::Inline(bytes) | NodeKind::Symlink(bytes) => self.out.put(bytes),
                // The address of a chunk that is a hole.
                _ => self.out.put(&[0xff; 4]),
            },
            Source::Escaped(_) | Source::Stub(_) => Ok(()),
        }
    }

    /// The table of shared attributes.
    fn table(&mut self) -> Result<(), E> {
        let (tree, layout) = (self.tree, self.layout);
        let objects = || layout.sharing.objects.backwards(tree, &layout.numbering).map(OfObject::new);
        let [high, middle, low] = layout.sharing.table(tree);
        for attribute in high {
            self.attribute(&attribute)?;
        }
        for object in objects() {
            self.attribute(&object.redirect())?;
        }
        for attribute in middle {
            self.attribute(&attribute)?;
        }
        for object in objects() {
            self.attribute(&object.metacopy())?;
        }
        for attribute in low {
            self.attribute(&attribute)?;
        }
        Ok(())
    }

    /// The content that is not beside its inode.
    fn blocks(&mut self) -> Result<(), E> {
        for number in 0..self.layout.numbering.len() {
            match self.layout.numbering.source(self.tree, number) {
                Source::Directory(_, dir) => self.entries(dir, Part::Blocks)?,
                Source::Node(node) => {
                    if let NodeKind::Symlink(target) = &node.kind
                        && self.layout.inode(self.tree, number).blocks > 0
                    {
                        self.out.put(target)?;
                        self.out.align(BLOCK)?;
                    }
                }
                Source::Escaped(_) | Source::Stub(_) => {}
            }
        }
        Ok(())
    }

    /// Entries of a directory: those in blocks, or those beside its inode.
    fn entries(&mut self, dir: &Dir, part: Part) -> Result<(), E> {
        let wanted = match part {
            Part::Blocks => dir.blocks > 0,
            Part::Tail => dir.tail > 0,
        };
        if !wanted {
            return Ok(());
        }
        let mut splitter = Splitter::default();
        let mut block = Vec::new();
        for (name, target) in self.layout.numbering.entries(self.tree, dir) {
            if splitter.begins_block(name) {
                if part == Part::Blocks {
                    self.block(&block)?;
                }
                block.clear();
            }
            block.push(self.entry(dir, name, target));
        }
        match part {
            Part::Tail => self.part_of_block(&block),
            Part::Blocks if dir.tail == 0 => self.block(&block),
            Part::Blocks => Ok(()),
        }
    }

    fn entry(&self, dir: &Dir, name: &'t [u8], target: Target) -> Entry<'t> {
        let number = self.layout.numbering.number(dir, target);
        let file_type = self.layout.numbering.source(self.tree, number).file_type();
        (name, self.layout.slots[number as usize], file_type)
    }

    fn block(&mut self, entries: &[Entry<'_>]) -> Result<(), E> {
        self.part_of_block(entries)?;
        self.out.align(BLOCK)
    }

    /// First all fixed parts, then all names, in the order of names.
    fn part_of_block(&mut self, entries: &[Entry<'_>]) -> Result<(), E> {
        let mut offset = entries.len() * DIRENT;
        for (name, slot, file_type) in entries {
            self.out.put(&dirent(*slot, offset, *file_type))?;
            offset += name.len();
        }
        entries.iter().try_for_each(|(name, ..)| self.out.put(name))
    }
}
