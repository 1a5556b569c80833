//! Extended attributes in the form of the image (Documentation/filesystems/erofs.rst, "Xattrs"; fs/erofs/erofs_fs.h).

use std::cmp::Ordering;

use xxhash_rust::xxh32::Xxh32;

use super::unsupported;
use crate::image::composefs::ImageError;

/// The beginnings of names that the format has numbers for, the longer ones first where one begins with another. The
/// format also has `lustre.`, which composefs does not use.
const PREFIXES: [(u8, &[u8]); 6] = [
    (6, b"security."),
    (4, b"trusted."),
    (3, b"system.posix_acl_default"),
    (2, b"system.posix_acl_access"),
    (1, b"user."),
    (0, b""),
];
/// Seed of the filter of names (EROFS_XATTR_FILTER_SEED).
const FILTER_SEED: u32 = 0x25bb_e08f;

/// What overlayfs takes from the trusted layer, and how a lower layer says that the name is meant for its reader
/// (OVL_XATTR_ESCAPE_PREFIX).
const OVERLAY: &[u8] = b"trusted.overlay.";
const ESCAPED: &[u8] = b"overlay.overlay.";

/// Name and value.
pub(super) type Pair = (&'static [u8], &'static [u8]);

/// The root is all there is: overlayfs merges it with no layer below.
pub(super) const OF_ROOT: &[Pair] = &[(b"trusted.overlay.opaque", b"y")];
/// A whiteout device of the tree's own, as a file.
pub(super) const OF_WHITEOUT: &[Pair] =
    &[(b"trusted.overlay.overlay.whiteout", b""), (b"user.overlay.whiteout", b"")];
/// A directory with such files.
pub(super) const OF_DIR: &[Pair] = &[
    (b"trusted.overlay.overlay.whiteouts", b""),
    (b"user.overlay.whiteouts", b""),
    (b"trusted.overlay.overlay.opaque", b"x"),
    (b"user.overlay.opaque", b"x"),
];

/// Where overlayfs finds the content of a file, and its digest.
pub(super) const REDIRECT: &[u8] = b"trusted.overlay.redirect";
pub(super) const METACOPY: &[u8] = b"trusted.overlay.metacopy";

/// An attribute of an inode. Its name is the prefix, `infix` and `suffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    /// The number of the prefix.
    prefix: u8,
    /// [`ESCAPED`] or nothing.
    infix: &'static [u8],
    suffix: &'a [u8],
    value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// An attribute of the tree. What overlayfs would take for itself is escaped.
    pub(super) fn of_tree(name: &'a [u8], value: &'a [u8]) -> Self {
        match name.strip_prefix(OVERLAY) {
            Some(suffix) => Self { prefix: 4, infix: ESCAPED, suffix, value },
            None => Self::plain(name, value),
        }
    }

    /// An attribute as it is.
    pub(super) fn plain(name: &'a [u8], value: &'a [u8]) -> Self {
        let split = |(prefix, start): &(u8, &[u8])| name.strip_prefix(*start).map(|rest| (*prefix, rest));
        // The last one is the beginning of any name.
        let (prefix, suffix) = PREFIXES.iter().find_map(split).unwrap_or((0, name));
        Self { prefix, infix: b"", suffix, value }
    }

    /// Whether it is a POSIX ACL.
    pub(super) fn is_acl(&self) -> bool {
        matches!(self.prefix, 2 | 3)
    }

    /// Refuses what the fields of the format cannot hold.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.name_len() > u8::MAX.into() || self.value.len() > u16::MAX.into() {
            return Err(unsupported("an extended attribute that is too long"));
        }
        Ok(())
    }

    /// Its bit in the filter of names.
    pub(super) fn filter(&self) -> u32 {
        let mut hash = Xxh32::new(FILTER_SEED.wrapping_add(self.prefix.into()));
        hash.update(self.infix);
        hash.update(self.suffix);
        1 << (hash.digest() % 32)
    }

    /// Bytes that it takes in an image: `struct erofs_xattr_entry`, name, value, and zeros up to four bytes.
    pub(super) fn size(&self) -> u32 {
        (4 + self.name_len() + self.value.len()).next_multiple_of(4) as u32
    }

    /// Its parts in an image, without the zeros at the end.
    pub(super) fn parts(&self) -> ([u8; 4], [&'a [u8]; 3]) {
        let [low, high] = (self.value.len() as u16).to_le_bytes();
        ([self.name_len() as u8, self.prefix, low, high], [self.infix, self.suffix, self.value])
    }

    /// The order of an inode's attributes, and the reverse of that of the shared ones: by whole name, then the shorter value first
    /// (`cmp_xattr`, `xattrs_ht_sort` of composefs).
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let is_alike = (self.prefix, self.infix.len()) == (other.prefix, other.infix.len());
        let names = if is_alike { self.suffix.cmp(other.suffix) } else { self.name().cmp(other.name()) };
        let lengths = || self.value.len().cmp(&other.value.len());
        names.then_with(lengths).then_with(|| self.value.cmp(other.value))
    }

    /// How its name compares with another one.
    pub(super) fn order_by_name(&self, name: &[u8]) -> Ordering {
        self.name().cmp(name)
    }

    fn name(&self) -> impl Iterator<Item = &u8> {
        let known = PREFIXES.iter().find(|(prefix, _)| *prefix == self.prefix);
        let prefix = known.map_or(&b""[..], |(_, start)| start);
        prefix.iter().chain(self.infix).chain(self.suffix)
    }

    fn name_len(&self) -> usize {
        self.infix.len() + self.suffix.len()
    }
}
