//! The annotations that this driver acts on. A document may have hundreds of thousands of others, which would take many
//! times its own size in memory, so no others are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Names, or beginnings of names, of annotations that something is made of: names in layouts, seals, what is no image,
/// and how a layer is compressed.
const KEPT: [&str; 6] = [
    "org.opencontainers.image.ref.name",
    "composefs.",
    "dev.composefs.",
    "vnd.docker.reference.",
    ZSTD_CHUNKED,
    "containerd.io/snapshot/stargz/",
];

/// The beginning of the names by which zstd:chunked layers are described.
pub(super) const ZSTD_CHUNKED: &str = "io.github.containers.zstd-chunked.";

/// More of them in one place have no meaning, and leaving out the rest could leave out a seal.
const KEPT_MAX: usize = 64;

/// Reads annotations. As in Go, null is the same as none.
///
/// # Errors
/// They are no map, or one that is kept is no text, or there are too many of those.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(Kept)
}

struct Kept;

impl<'de> Visitor<'de> for Kept {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(name) = access.next_key::<Cow<'_, str>>()? {
            if !KEPT.iter().any(|beginning| name.starts_with(beginning)) {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            if let Some(value) = access.next_value::<Option<String>>()? {
                kept.insert(name.into_owned(), value);
            }
            if kept.len() > KEPT_MAX {
                return Err(A::Error::custom(format!(
                    "more than {KEPT_MAX} annotations that mean something here"
                )));
            }
        }
        Ok(kept)
    }
}
