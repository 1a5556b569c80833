//! The annotations that this driver acts on. A document may have hundreds of thousands of others, which would take many
//! times its own size in memory, so no others are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// Annotations that something is made of: names in layouts, seals, what describes something else, and where the files of
/// artifacts lie. Whoever reads another one adds it here.
const KEPT: [&str; 13] = [
    "org.opencontainers.image.ref.name",
    "org.opencontainers.image.title",
    "composefs.merged.erofs.v1.fsverity-sha256-12",
    "composefs.merged.erofs.v1.fsverity-sha512-12",
    "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12",
    "vnd.docker.reference.type",
    "io.deis.oras.content.digest",
    "io.deis.oras.content.unpack",
    "org.cncf.model.filepath",
    "org.cncf.model.file.metadata+json",
    "org.cnai.model.filepath",
    "org.cnai.model.file.metadata+json",
    UNPACKED_SIZE,
];

/// Beginnings of names that describe how a layer is compressed. They are long, so that many of them need many bytes.
const KEPT_BEGINNINGS: [&str; 3] = [ZSTD_CHUNKED, OLD_ZSTD_CHUNKED, "containerd.io/snapshot/stargz/"];

/// Bytes of a layer's tar archive, in decimal digits, as eStargz's builders state them (stargz-snapshotter, docs/estargz.md).
pub(super) const UNPACKED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// The beginning of the names by which zstd:chunked layers are described.
pub(super) const ZSTD_CHUNKED: &str = "io.github.containers.zstd-chunked.";
/// The same, by older tools such as Debian 12's.
pub(super) const OLD_ZSTD_CHUNKED: &str = "io.containers.zstd-chunked.";

/// Reads annotations. As in Go, null is the same as none.
///
/// # Errors
/// They are no map, or one that is kept is no text.
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
            if !KEPT.contains(&&*name) && !KEPT_BEGINNINGS.iter().any(|begins| name.starts_with(begins)) {
                access.next_value::<IgnoredAny>()?;
            } else if let Some(value) = access.next_value::<Option<String>>()? {
                kept.insert(name.into_owned(), value);
            }
        }
        Ok(kept)
    }
}
