//! fs-verity digests: the names of objects, and what the kernel checks at every read.
//!
//! The parameters are those of composefs: sha256, 4096-byte blocks, no salt
//! (Documentation/filesystems/fsverity.rst, "Merkle tree" and "fs-verity descriptor").

use std::fmt;

/// An fs-verity digest (sha256, 4 KiB blocks, no salt).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerityDigest(pub [u8; 32]);

impl VerityDigest {
    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for VerityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for VerityDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for VerityDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an fs-verity digest")))
    }
}

/// Computes the fs-verity digest of a stream, in constant memory but for one digest per level.
#[derive(Debug, Default)]
pub struct VerityHasher {}
