//! The annotations by which a layer's descriptor says that it is zstd:chunked (containers/storage,
//! docs/containers-storage-zstd-chunked.md).

use std::ops::Range;

use super::doubt::Doubt;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;

pub(super) const TOC_DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
pub(super) const TOC_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
pub(super) const TAR_SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";

/// Compressed bytes of a table that are taken, which are held in memory: some 150,000 files.
const PACKED_MAX: u64 = 16 << 20;
/// Bytes of a table of contents: some 100,000 files.
const TOC_MAX: u64 = 48 << 20;
/// Bytes of a tar-split, which is never held in memory.
const TAR_SPLIT_MAX: u64 = 1 << 30;

/// One of the tables behind the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where its compressed bytes are in the blob: a zstd frame, or several.
    pub start: u64,
    /// Their number.
    pub length: u64,
    /// Bytes that it decompresses to.
    pub unpacked: u64,
}

impl Section {
    /// Its place in the blob.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.length
    }
}

/// Where the tables of a layer are. All of it is only a claim of the manifest, but for the digest, which the manifest
/// fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// The table of contents.
    pub toc: Section,
    /// The sha256 of its compressed bytes.
    pub toc_digest: Digest,
    /// The tar-split.
    pub tar_split: Section,
}

impl Positions {
    /// The most bytes of memory that a plan for any layer takes.
    pub const MEMORY_MAX: u64 = 2 * TOC_MAX + 2 * PACKED_MAX;

    /// Bytes of memory that a plan for the layer takes: its tables as they come, and what is kept of the TOC and of what
    /// was found for it. An entry takes at most twice the bytes of its JSON.
    pub fn memory(&self) -> u64 {
        2 * self.toc.unpacked + self.toc.length + self.tar_split.length
    }

    /// Those that the descriptor states; `None` if the layer is not zstd:chunked. An eStargz layer, and one without a
    /// tar-split, is not: its tar cannot be rebuilt.
    ///
    /// # Errors
    /// The annotations contradict themselves or the layer's size, or a table is too large.
    pub fn of(layer: &Descriptor) -> Result<Option<Self>, Doubt> {
        let annotation = |name| layer.annotations.get(name).map(String::as_str);
        let (Some(digest), Some(toc), Some(tar_split)) =
            (annotation(TOC_DIGEST), annotation(TOC_POSITION), annotation(TAR_SPLIT_POSITION))
        else {
            return Ok(None);
        };
        let toc_digest =
            digest.parse().map_err(|_| Doubt::Annotations("the checksum is no sha256 digest"))?;
        // The fourth number is the type of the table, of which there is one.
        let toc = toc.strip_suffix(":1").ok_or(Doubt::Annotations("the table is of no known type"))?;
        let toc = section(toc, layer.size, "table of contents", TOC_MAX)?;
        let tar_split = section(tar_split, layer.size, "tar-split", TAR_SPLIT_MAX)?;
        Ok(Some(Self { toc, toc_digest, tar_split }))
    }
}

fn section(text: &str, size: u64, what: &'static str, unpacked_max: u64) -> Result<Section, Doubt> {
    let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten().ok_or(Doubt::Annotations("a position is not made of numbers"));
    let section = Section { start: next()?, length: next()?, unpacked: next()? };
    if numbers.next().is_some() {
        return Err(Doubt::Annotations("a position has too many numbers"));
    }
    let end = section.start.checked_add(section.length);
    if section.length == 0 || end.is_none_or(|end| end > size) {
        return Err(Doubt::Annotations("a position is not within the layer"));
    }
    let within = |bytes: u64, limit: u64| match bytes > limit {
        true => Err(Doubt::TooLarge { what, bytes, limit }),
        false => Ok(()),
    };
    within(section.length, PACKED_MAX)?;
    within(section.unpacked, unpacked_max)?;
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(annotations: &[(&str, &str)]) -> Descriptor {
        Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            digest: Digest::of(b"layer"),
            size: 1000,
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn with(toc: &str, tar_split: &str) -> Result<Option<Positions>, Doubt> {
        let digest = Digest::of(b"toc").to_string();
        Positions::of(&layer(&[(TOC_DIGEST, &digest), (TOC_POSITION, toc), (TAR_SPLIT_POSITION, tar_split)]))
    }

    #[test]
    fn positions_are_read() {
        let found = with("500:100:800:1", "608:200:9000").unwrap().unwrap();
        assert_eq!(found.toc, Section { start: 500, length: 100, unpacked: 800 });
        assert_eq!((found.tar_split.range(), found.tar_split.unpacked), (608..808, 9000));
        assert_eq!(found.toc_digest, Digest::of(b"toc"));
    }

    #[test]
    fn what_has_no_tar_split_is_another_format() {
        let digest = Digest::of(b"toc").to_string();
        assert_eq!(Positions::of(&layer(&[])), Ok(None));
        assert_eq!(Positions::of(&layer(&[(TOC_DIGEST, &digest), (TOC_POSITION, "5:1:1:1")])), Ok(None));
        let estargz = [("containerd.io/snapshot/stargz/toc.digest", digest.as_str())];
        assert_eq!(Positions::of(&layer(&estargz)), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_a_doubt() {
        let good = ("500:100:800:1", "608:200:9000");
        for toc in [
            "",
            "500:100:800",
            "500:100:800:2",
            "500:100:1",
            "500:901:800:1",
            "500:0:800:1",
            "a:1:1:1",
            "500:100:800:9:1",
            "18446744073709551615:100:800:1",
            "-5:100:800:1",
            "500:100:50331649:1",
        ] {
            assert!(with(toc, good.1).is_err(), "{toc}");
        }
        for tar_split in ["608:200", "608:200:9000:1", "801:200:9000", "608:200:1073741825"] {
            assert!(with(good.0, tar_split).is_err(), "{tar_split}");
        }
        let large = Descriptor { size: 1 << 40, ..layer(&[]) };
        assert_eq!(
            section("0:16777216:1", large.size, "x", 1),
            Ok(Section { start: 0, length: 16 << 20, unpacked: 1 })
        );
        assert!(matches!(section("0:16777217:1", large.size, "x", 1), Err(Doubt::TooLarge { .. })));
    }
}
