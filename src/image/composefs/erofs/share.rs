//! Which extended attributes are in the image once, in a table, and which beside their inode: those of several inodes are
//! shared (`xattrs_ht` of composefs).
//!
//! They are counted by set: each set is in the tree once, however many inodes have it. The attributes of objects are in
//! none, see [`objects`](super::objects).

use std::ops::Range;

use super::attribute::{Attribute, METACOPY, REDIRECT};
use super::format::XATTR_HEADER;
use super::number::Numbering;
use super::objects::SharedObjects;
use super::sets::{self, Member, SetsOf};
use super::unsupported;
use crate::image::composefs::ImageError;
use crate::image::tree::CheckedTree;

/// In the table of places: beside the inode.
const LOCAL: u32 = u32::MAX;

/// One set, and what it adds to the attributes of an inode.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    /// Inodes with it.
    inodes: u32,
    /// Where its attributes begin in the table of places.
    start: u32,
    /// How many of them are shared.
    shared: u32,
    /// Bytes of those that are not.
    local: u32,
    /// Bits of their names.
    filter: u32,
}

/// What the attributes of an inode take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// Bytes in all; 0 without any attribute.
    pub(super) bytes: u32,
    /// How many of them are in the table.
    pub(super) shared: u32,
    /// Bits of their names.
    pub(super) filter: u32,
}

impl Extent {
    /// Refuses what the fields of an inode cannot say: words are counted by 16 bits, and the shared ones by 8.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.shared > u8::MAX.into() || self.bytes / 4 > u16::MAX.into() {
            return Err(unsupported("an inode with too many extended attributes"));
        }
        Ok(())
    }
}

/// The table of shared attributes, and what of them each inode has.
#[derive(Debug)]
pub(super) struct Sharing {
    sets: Vec<Set>,
    /// For each attribute of each set in use: its offset in the table of shared attributes, or [`LOCAL`].
    places: Vec<u32>,
    /// The shared ones of the sets, in their order.
    shared: Vec<Member>,
    /// Those of objects, which are in the table wherever their names belong.
    pub(super) objects: SharedObjects,
    /// Which of `shared` come after the objects' `metacopy`, and which also after their `redirect`.
    bounds: (usize, usize),
    /// Offsets in the table of the objects' attributes.
    metacopies: u32,
    redirects: u32,
    /// Bytes of the table.
    pub(super) size: u32,
    /// Whether any inode has a POSIX ACL.
    pub(super) has_acl: bool,
}

impl Sharing {
    /// # Errors
    /// Attributes that the fields of the format cannot hold.
    pub(super) fn of(tree: &CheckedTree, numbering: &Numbering) -> Result<Self, ImageError> {
        let mut this = Self {
            sets: vec![Set::default(); sets::len(tree)],
            places: Vec::new(),
            shared: Vec::new(),
            objects: SharedObjects::of(tree, numbering),
            bounds: (0, 0),
            metacopies: 0,
            redirects: 0,
            size: 0,
            has_acl: false,
        };
        this.count(tree, numbering);
        let members = this.list(tree)?;
        this.share(tree, members);
        this.arrange(tree)?;
        this.sum_up(tree);
        Ok(this)
    }

    /// What the attributes of these sets take, and with them those of an object, which are shared or not.
    pub(super) fn extent(&self, sets: SetsOf, object: Option<bool>) -> Extent {
        let (mut local, mut shared, mut filter) = (0, 0, 0);
        for set in sets.into_iter().flatten() {
            let set = &self.sets[set];
            (local, shared, filter) = (local + set.local, shared + set.shared, filter | set.filter);
        }
        if let Some(is_shared) = object {
            filter |= self.objects.filter;
            if is_shared { shared += 2 } else { local += SharedObjects::SIZE }
        }
        let bytes = if local == 0 && shared == 0 { 0 } else { XATTR_HEADER as u32 + 4 * shared + local };
        Extent { bytes, shared, filter }
    }

    /// The attributes of a set, each with its offset in the table if it is shared.
    pub(super) fn attributes<'t>(
        &self,
        tree: &'t CheckedTree,
        set: usize,
    ) -> impl Iterator<Item = (Attribute<'t>, Option<u32>)> {
        let start = self.sets[set].start as usize;
        sets::attributes(tree, set)
            .zip(&self.places[start..])
            .map(|(attribute, place)| (attribute, Some(*place).filter(|place| *place != LOCAL)))
    }

    /// The offsets in the table of the attributes of the shared object of this rank: `metacopy` and `redirect`.
    pub(super) fn of_object(&self, rank: u32) -> (u32, u32) {
        // In reverse, as the others.
        let back = self.objects.len() - 1 - rank;
        (self.metacopies + back * SharedObjects::METACOPY, self.redirects + back * SharedObjects::REDIRECT)
    }

    /// The parts of the table: attributes of sets in the reverse of their order, and between them all `redirect`, then all
    /// `metacopy` of objects.
    pub(super) fn table<'t>(&self, tree: &'t CheckedTree) -> [impl Iterator<Item = Attribute<'t>>; 3] {
        let ((low, high), end) = (self.bounds, self.shared.len());
        let part = |range: Range<usize>| {
            self.shared[range].iter().rev().map(|member| sets::attribute(tree, *member))
        };
        [part(high..end), part(low..high), part(0..low)]
    }

    /// Counts the inodes of each set.
    fn count(&mut self, tree: &CheckedTree, numbering: &Numbering) {
        for number in 0..numbering.len() {
            for set in sets::of(tree, numbering.source(tree, number)).into_iter().flatten() {
                self.sets[set].inodes += 1;
            }
        }
    }

    /// The attributes of the sets in use.
    fn list(&mut self, tree: &CheckedTree) -> Result<Vec<Member>, ImageError> {
        let mut all = Vec::new();
        for set in 0..self.sets.len() {
            self.sets[set].start = narrow(all.len())?;
            if self.sets[set].inodes == 0 {
                continue;
            }
            for (at, attribute) in sets::attributes(tree, set).enumerate() {
                attribute.check()?;
                self.has_acl |= attribute.is_acl();
                all.push((narrow(set)?, narrow(at)?));
            }
        }
        self.places = vec![LOCAL; all.len()];
        Ok(all)
    }

    /// Finds those of several inodes. Their places are their positions in the list for now.
    fn share(&mut self, tree: &CheckedTree, mut all: Vec<Member>) {
        let nth = |member: &Member| sets::attribute(tree, *member);
        all.sort_unstable_by(|one, other| nth(one).order(&nth(other)));
        for equal in all.chunk_by(|one, other| nth(one) == nth(other)) {
            let inodes: u64 = equal.iter().map(|(set, _)| u64::from(self.sets[*set as usize].inodes)).sum();
            if inodes > 1 {
                for (set, at) in equal {
                    self.places[(self.sets[*set as usize].start + at) as usize] = self.shared.len() as u32;
                }
                self.shared.extend(equal.first());
            }
        }
    }

    /// Gives the shared ones their offsets: the last in order is the first in the table.
    fn arrange(&mut self, tree: &CheckedTree) -> Result<(), ImageError> {
        let nth = |member: &Member| sets::attribute(tree, *member);
        let before =
            |name: &[u8]| self.shared.partition_point(|member| nth(member).order_by_name(name).is_lt());
        let ((low, high), end) = ((before(METACOPY), before(REDIRECT)), self.shared.len());
        let mut offsets = vec![0u64; end];
        let mut size = 0;
        let mut place = |range: Range<usize>, size: &mut u64| {
            for at in range.rev() {
                offsets[at] = *size;
                *size += u64::from(nth(&self.shared[at]).size());
            }
        };
        let objects = u64::from(self.objects.len());
        place(high..end, &mut size);
        let redirects = size;
        size += objects * u64::from(SharedObjects::REDIRECT);
        place(low..high, &mut size);
        let metacopies = size;
        size += objects * u64::from(SharedObjects::METACOPY);
        place(0..low, &mut size);
        // Those within it fit if it does.
        self.size = narrow(size)?;
        (self.bounds, self.metacopies, self.redirects) = ((low, high), metacopies as u32, redirects as u32);
        for number in self.places.iter_mut().filter(|place| **place != LOCAL) {
            *number = offsets[*number as usize] as u32;
        }
        Ok(())
    }

    /// What each set adds to an inode.
    fn sum_up(&mut self, tree: &CheckedTree) {
        for set in 0..self.sets.len() {
            if self.sets[set].inodes == 0 {
                continue;
            }
            let mut sum = self.sets[set];
            for (attribute, place) in self.attributes(tree, set) {
                sum.filter |= attribute.filter();
                match place {
                    Some(_) => sum.shared += 1,
                    None => sum.local += attribute.size(),
                }
            }
            self.sets[set] = sum;
        }
    }
}

/// The table is addressed by 32 bits, and its parts are counted by them.
fn narrow(number: impl TryInto<u32>) -> Result<u32, ImageError> {
    let number = number.try_into().ok().filter(|number| *number < LOCAL);
    number.ok_or_else(|| unsupported("more extended attributes than 32 bits can address"))
}
