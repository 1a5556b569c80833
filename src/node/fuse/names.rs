//! What can be looked up: the objects of one image, by the names that they have in the store.

use crate::image::verity::VerityDigest;

/// The root's node, by the protocol.
pub(super) const ROOT: u64 = 1;
/// The node of the directory `00`; the others follow.
const FIRST: u64 = 2;
/// Hexadecimal digits of a digest that are the name of its directory.
const DIRECTORY: usize = 2;

/// The objects that an image names, and nothing else: a reader of one image cannot ask for what another one has.
#[derive(Debug, Clone, Default)]
pub struct ObjectNames(Box<[VerityDigest]>);

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A directory, by its node.
    Directory(u64),
    /// An object of the image.
    Object(VerityDigest),
    /// Nothing.
    Nothing,
}

impl ObjectNames {
    /// These objects; 32 bytes each.
    pub fn new(objects: impl IntoIterator<Item = VerityDigest>) -> Self {
        let mut objects: Vec<_> = objects.into_iter().collect();
        objects.sort_unstable();
        objects.dedup();
        Self(objects.into_boxed_slice())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What `name` is in the directory with this node.
    pub(super) fn find(&self, node: u64, name: &[u8]) -> Found {
        match directory(node) {
            _ if node == ROOT => match byte(name) {
                Some(byte) => Found::Directory(FIRST + u64::from(byte)),
                None => Found::Nothing,
            },
            Some(byte) => match self.object(byte, name) {
                Some(object) => Found::Object(object),
                None => Found::Nothing,
            },
            None => Found::Nothing,
        }
    }

    fn object(&self, byte: u8, rest: &[u8]) -> Option<VerityDigest> {
        // Two digits in front make it a whole digest, or something that is none.
        let rest = std::str::from_utf8(rest).ok()?;
        let object = VerityDigest::from_hex(&format!("{byte:02x}{rest}"))?;
        // The store writes lower case only.
        let is_named_so = object.hex().get(DIRECTORY..) == Some(rest);
        (is_named_so && self.0.binary_search(&object).is_ok()).then_some(object)
    }
}

/// Whether there is a directory with this node.
pub(super) fn is_directory(node: u64) -> bool {
    node == ROOT || directory(node).is_some()
}

fn directory(node: u64) -> Option<u8> {
    u8::try_from(node.checked_sub(FIRST)?).ok()
}

/// Two hexadecimal digits, in lower case as the store writes them.
fn byte(name: &[u8]) -> Option<u8> {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if name.len() != DIRECTORY || !name.iter().all(is_digit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_images_objects_are_found() {
        let (mine, other) = (VerityDigest([0xab; 32]), VerityDigest([0xac; 32]));
        let names = ObjectNames::new([mine, mine]);
        assert_eq!(names.count(), 1);
        let node = FIRST + 0xab;
        assert_eq!(names.find(ROOT, b"ab"), Found::Directory(node));
        assert_eq!(names.find(node, &mine.hex().as_bytes()[2..]), Found::Object(mine));
        assert_eq!(names.find(FIRST + 0xac, &other.hex().as_bytes()[2..]), Found::Nothing);
        // Another directory makes another digest of the same name.
        assert_eq!(names.find(FIRST, &mine.hex().as_bytes()[2..]), Found::Nothing);
    }

    #[test]
    fn what_is_no_name_of_the_store_is_nothing() {
        let names = ObjectNames::new([VerityDigest([0xab; 32])]);
        let upper = "AB".repeat(31);
        for name in [&b""[..], b"a", b"AB", b"+1", b"abc", b"\xff\xff", b".."] {
            assert_eq!(names.find(ROOT, name), Found::Nothing, "{name:?}");
        }
        for name in [&b""[..], b"ab", b"\xff", upper.as_bytes(), "ab".repeat(32).as_bytes()] {
            assert_eq!(names.find(FIRST + 0xab, name), Found::Nothing, "{name:?}");
        }
        for node in [0, FIRST + 256, u64::MAX] {
            assert!(!is_directory(node));
            assert_eq!(names.find(node, b"ab"), Found::Nothing);
        }
        assert!(is_directory(ROOT) && is_directory(FIRST) && is_directory(FIRST + 255));
    }
}
