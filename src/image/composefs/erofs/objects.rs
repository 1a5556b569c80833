//! The attributes by which overlayfs finds the content of a file and checks it, and which of them are shared: those of
//! objects that several inodes have.

use super::attribute::{Attribute, METACOPY, REDIRECT};
use super::number::{Numbering, Source};
use crate::image::tree::{CheckedTree, Node, NodeKind};
use crate::image::verity::VerityDigest;

/// The values of the attributes of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfObject {
    metacopy: [u8; 36],
    redirect: [u8; 66],
}

impl OfObject {
    pub(super) fn new(digest: &VerityDigest) -> Self {
        // `struct ovl_metacopy` of fs/overlayfs/overlayfs.h: version 0, length, no flags, FS_VERITY_HASH_ALG_SHA256.
        let mut metacopy = [0; 36];
        (metacopy[1], metacopy[3]) = (36, 1);
        metacopy[4..].copy_from_slice(&digest.0);
        // The path of the object below the root of the data layer: `/xx/` and the rest.
        let mut redirect = [b'/'; 66];
        let hex = digest.hex();
        redirect[1..3].copy_from_slice(&hex.as_bytes()[..2]);
        redirect[4..].copy_from_slice(&hex.as_bytes()[2..]);
        Self { metacopy, redirect }
    }

    pub(super) fn metacopy(&self) -> Attribute<'_> {
        Attribute::plain(METACOPY, &self.metacopy)
    }

    pub(super) fn redirect(&self) -> Attribute<'_> {
        Attribute::plain(REDIRECT, &self.redirect)
    }
}

/// The objects of several inodes.
#[derive(Debug)]
pub(super) struct SharedObjects {
    /// In the order of digests: the first 32 bits of the digest, and the number of one of the inodes.
    objects: Vec<u64>,
    /// Bits of the names of an object's attributes.
    pub(super) filter: u32,
}

impl SharedObjects {
    /// Bytes of `metacopy` in an image.
    pub(super) const METACOPY: u32 = 56;
    /// Bytes of `redirect`.
    pub(super) const REDIRECT: u32 = 88;
    /// Bytes of both.
    pub(super) const SIZE: u32 = Self::METACOPY + Self::REDIRECT;

    pub(super) fn of(tree: &CheckedTree, numbering: &Numbering) -> Self {
        let any = OfObject::new(&VerityDigest([0; 32]));
        let filter = any.metacopy().filter() | any.redirect().filter();
        let object = |at: u32| numbering.source(tree, at).object();
        let digest = |key: u64| object(number(key));
        let numbers = || (0..numbering.len()).filter_map(|at| Some(key(object(at)?, at)));
        // Numbers are sorted instead of digests, and few of them need a look at the whole digest.
        let mut all = Vec::with_capacity(numbers().count());
        all.extend(numbers());
        all.sort_unstable();
        for run in all.chunk_by_mut(|one, other| begin(*one) == begin(*other)) {
            run.sort_unstable_by_key(|key| (digest(*key), *key));
        }
        let is_equal =
            |one: &u64, other: &u64| begin(*one) == begin(*other) && digest(*one) == digest(*other);
        let several = all.chunk_by(is_equal).filter(|equal| equal.len() > 1);
        let objects = several.filter_map(|equal| equal.first()).copied().collect();
        Self { objects, filter }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        // Inodes are counted by 32 bits.
        self.objects.len() as u32
    }

    /// The position of an object in the order of digests, if it is one of them.
    pub(super) fn rank(
        &self,
        tree: &CheckedTree,
        numbering: &Numbering,
        digest: &VerityDigest,
    ) -> Option<u32> {
        let begin_of_it = begin(key(digest, 0));
        let order = |at: &u64| {
            let begins = begin(*at).cmp(&begin_of_it);
            begins.then_with(|| numbering.source(tree, number(*at)).object().cmp(&Some(digest)))
        };
        self.objects.binary_search_by(order).ok().map(|rank| rank as u32)
    }

    /// They in the reverse of their order.
    pub(super) fn backwards<'t>(
        &self,
        tree: &'t CheckedTree,
        numbering: &'t Numbering,
    ) -> impl Iterator<Item = &'t VerityDigest> {
        self.objects.iter().rev().filter_map(|key| numbering.source(tree, number(*key)).object())
    }
}

fn key(digest: &VerityDigest, number: u32) -> u64 {
    let [a, b, c, d, ..] = digest.0;
    u64::from(u32::from_be_bytes([a, b, c, d])) << 32 | u64::from(number)
}

fn begin(key: u64) -> u32 {
    (key >> 32) as u32
}

fn number(key: u64) -> u32 {
    key as u32
}

impl<'t> Source<'t> {
    /// The object of a file that has one.
    pub(super) fn object(self) -> Option<&'t VerityDigest> {
        match self {
            Self::Node(Node { kind: NodeKind::Object(digest, _), .. }) => Some(digest),
            _ => None,
        }
    }
}
