//! What is read first when an image starts: objects in the order of their first use, as `composefs-csi record` finds it.
//!
//! A text of lines, each the 64 lowercase hexadecimal digits of an object's fs-verity digest. It is a hint: an object that it
//! names is fetched earlier, and one that the image does not have is nothing.

use std::collections::HashSet;

use super::error::LazyError;
use crate::image::verity::VerityDigest;

const PART: &str = "list of first uses";
/// Digits of a digest, and the end of the line.
const LINE: usize = 65;

/// Objects in the order of their first use, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstList(Vec<VerityDigest>);

impl FirstList {
    /// Objects of a list; beyond so many, what starts is the image as a whole.
    pub const OBJECTS_MAX: usize = 1 << 16;
    /// Bytes of a list.
    pub const BYTES_MAX: u64 = (Self::OBJECTS_MAX * LINE) as u64;

    /// The first so many of these, each once.
    pub fn of(objects: impl IntoIterator<Item = VerityDigest>) -> Self {
        let mut seen = HashSet::new();
        let first = objects.into_iter().filter(|object| seen.insert(*object)).take(Self::OBJECTS_MAX);
        Self(first.collect())
    }

    /// Reads a list.
    ///
    /// # Errors
    /// A line is no digest, or there are too many.
    pub fn read(bytes: &[u8]) -> Result<Self, LazyError> {
        if bytes.len() as u64 > Self::BYTES_MAX {
            return Err(LazyError::TooLarge { part: PART, limit: Self::BYTES_MAX });
        }
        let bad = |number: usize| LazyError::malformed(PART, format!("has no digest in line {}", number + 1));
        let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if lines.is_empty() {
            return Ok(Self::default());
        }
        let mut objects = Vec::new();
        for (number, line) in lines.split(|byte| *byte == b'\n').enumerate() {
            let text = std::str::from_utf8(line).map_err(|_| bad(number))?;
            let is_lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
            let object = VerityDigest::from_hex(text).filter(|_| is_lowercase);
            objects.push(object.ok_or_else(|| bad(number))?);
        }
        Ok(Self::of(objects))
    }

    /// The list as it is kept.
    pub fn write(&self) -> String {
        self.0.iter().map(|object| format!("{object}\n")).collect()
    }

    /// The same without the objects that are not `wanted`.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&VerityDigest) -> bool) -> Self {
        self.0.retain(|object| wanted(object));
        self
    }

    /// The objects, the first to be used first.
    pub fn objects(&self) -> &[VerityDigest] {
        &self.0
    }
}
