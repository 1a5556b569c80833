//! What a hold keeps, and how its file says so: 33 bytes each, a letter and a digest.

use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Bytes of one entry.
pub(super) const LENGTH: usize = 33;

/// Something that a holder relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// An object.
    Object(VerityDigest),
    /// A layer: its record, and every object that it names.
    Layer(Digest),
    /// All that is recorded about an image, by its manifest. Its record, if it has one, keeps its layers.
    Manifest(Digest),
    /// A composefs image and every object that it names, whatever becomes of its record.
    Composefs(VerityDigest),
    /// The record of a name, by the digest that its file is called by.
    Name(Digest),
}

impl Held {
    /// The entry as it is written.
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let (letter, digest) = match self {
            Self::Object(digest) => (b'o', &digest.0),
            Self::Layer(digest) => (b'l', digest.as_bytes()),
            Self::Manifest(digest) => (b'm', digest.as_bytes()),
            Self::Composefs(digest) => (b'c', &digest.0),
            Self::Name(digest) => (b'n', digest.as_bytes()),
        };
        let mut entry = [letter; LENGTH];
        entry[1..].copy_from_slice(digest);
        entry
    }

    /// Reads an entry; `None` for what a later release writes, which is not known to keep anything here.
    fn decode(entry: &[u8; LENGTH]) -> Option<Self> {
        let (letter, digest) = entry.split_first()?;
        let digest: [u8; 32] = digest.try_into().ok()?;
        match letter {
            b'o' => Some(Self::Object(VerityDigest(digest))),
            b'l' => Some(Self::Layer(Digest::from_bytes(digest))),
            b'm' => Some(Self::Manifest(Digest::from_bytes(digest))),
            b'c' => Some(Self::Composefs(VerityDigest(digest))),
            b'n' => Some(Self::Name(Digest::from_bytes(digest))),
            _ => None,
        }
    }
}

/// Calls `visit` for each whole entry in `bytes`; returns the length of these entries, or `None` if one is not known.
pub(super) fn for_each(bytes: &[u8], mut visit: impl FnMut(Held)) -> Option<usize> {
    let (entries, _incomplete) = bytes.as_chunks::<LENGTH>();
    for entry in entries {
        visit(Held::decode(entry)?);
    }
    Some(entries.len() * LENGTH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held() -> impl Strategy<Value = Held> {
        (any::<[u8; 32]>(), 0..5).prop_map(|(digest, sort)| match sort {
            0 => Held::Object(VerityDigest(digest)),
            1 => Held::Layer(Digest::from_bytes(digest)),
            2 => Held::Manifest(Digest::from_bytes(digest)),
            3 => Held::Composefs(VerityDigest(digest)),
            _ => Held::Name(Digest::from_bytes(digest)),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_up_to_the_last_whole_entry(all in proptest::collection::vec(held(), 0..9), cut in 0..LENGTH) {
            let mut bytes: Vec<u8> = all.iter().flat_map(Held::encode).collect();
            let whole = bytes.len();
            bytes.extend_from_slice(&Held::Object(VerityDigest([7; 32])).encode()[..cut]);
            let mut found = Vec::new();
            prop_assert_eq!(for_each(&bytes, |held| found.push(held)), Some(whole));
            prop_assert_eq!(found, all);
        }
    }

    #[test]
    fn what_a_later_release_may_write_is_not_skipped() {
        let known = Held::Name(Digest::of(b"x")).encode();
        let later = [b'z'; LENGTH];
        assert_eq!(for_each(&[known, later].concat(), drop), None);
    }
}
