//! Caps on what one image may use of this node, each with the flag that changes it.
//!
//! The defaults are far above what container images have, and they bound what an image costs. Building one takes some
//! 210 bytes of memory for an ordinary file, and at all caps at once [`ImageLimits::BUILD_MEMORY`]; disk use is also
//! bounded by the room that pulls leave on the filesystem. An image beyond a cap is refused with
//! [`Kind::Exhausted`](crate::kind::Kind::Exhausted) and an [`Exceeded`] that names cap, number and flag.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Caps on one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of a manifest or index. distribution-spec 1.1, "Pushing Manifests": registries should
    /// accept at least 4 MiB, and images need no more.
    pub manifest_bytes: usize,
    /// Bytes of a config, which has a history entry per layer.
    pub config_bytes: usize,
    /// Entries of an index.
    pub index_entries: usize,
    /// Layers. Runtimes stop at 127 (overlayfs' limit under Docker).
    pub layers: usize,
    /// Unpacked bytes of one layer; holes of sparse files count.
    pub layer_bytes: u64,
    /// Unpacked bytes of a layer per compressed byte, above [`ImageLimits::RATIO_FREE`]; holes do not count.
    pub ratio: u64,
    /// Unpacked bytes of all layers together, and bytes of all files of the image.
    pub image_bytes: u64,
    /// Tar headers of one layer, and entries of all layers that a pull fetches.
    pub entries: u64,
    /// Bytes of a path or link target. Linux takes 4095.
    pub path_bytes: usize,
    /// Bytes of names and values of one entry's extended attributes. An inode takes 32767 in any case.
    pub xattr_bytes: usize,
    /// Inodes of the image; each takes some 210 bytes of memory while the image is built.
    pub inodes: usize,
    /// Bytes of extended attributes of the image; equal sets count once.
    pub image_xattr_bytes: usize,
    /// Bytes of names, link targets, attributes and inline files of all entries of all layers.
    pub metadata_bytes: usize,
    /// Path components that are looked up while the image is built, those of symbolic links on the way included. No
    /// flag sets it: two million files, each 60 directories deep and none beside the one before, need no more.
    pub path_steps: u64,
}

impl ImageLimits {
    /// The caps without any flag.
    pub const DEFAULT: Self = Self {
        manifest_bytes: 4 << 20,
        config_bytes: 4 << 20,
        index_entries: 1000,
        layers: 1000,
        layer_bytes: 1 << 40,
        ratio: 200,
        image_bytes: 2 << 40,
        entries: 8 << 20,
        path_bytes: 4095,
        xattr_bytes: 64 << 10,
        inodes: 1 << 20,
        image_xattr_bytes: 64 << 20,
        metadata_bytes: 512 << 20,
        path_steps: 1 << 27,
    };

    /// Bytes of memory that building an image takes at most if it is at all default caps at once: 0.9 KB for each of its
    /// inodes, measured by `cargo test --test image_memory -- --nocapture`.
    pub const BUILD_MEMORY: u64 = 1 << 30;

    /// Unpacked bytes that every layer may have, however small its blob: real layers can be mostly zeros.
    pub const RATIO_FREE: u64 = 1 << 30;

    /// The bytes that a blob of `size` compressed bytes may unpack to, and the cap that says so.
    pub fn unpacked(&self, size: u64) -> (u64, Cap) {
        let by_ratio = size.saturating_mul(self.ratio).max(Self::RATIO_FREE);
        if by_ratio < self.layer_bytes { (by_ratio, Cap::Ratio) } else { (self.layer_bytes, Cap::LayerBytes) }
    }
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The name of a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// [`ImageLimits::manifest_bytes`]
    ManifestBytes,
    /// [`ImageLimits::config_bytes`]
    ConfigBytes,
    /// [`ImageLimits::index_entries`]
    IndexEntries,
    /// [`ImageLimits::layers`]
    Layers,
    /// [`ImageLimits::layer_bytes`]
    LayerBytes,
    /// [`ImageLimits::ratio`]
    Ratio,
    /// [`ImageLimits::image_bytes`]
    ImageBytes,
    /// [`ImageLimits::entries`]
    Entries,
    /// [`ImageLimits::path_bytes`]
    PathBytes,
    /// [`ImageLimits::xattr_bytes`]
    XattrBytes,
    /// [`ImageLimits::inodes`]
    Inodes,
    /// [`ImageLimits::image_xattr_bytes`]
    ImageXattrBytes,
    /// [`ImageLimits::metadata_bytes`]
    MetadataBytes,
    /// MiB of memory that building the image takes, as estimated.
    BuildMemory,
    /// [`ImageLimits::path_steps`]; fixed.
    PathSteps,
    /// Bytes of a tar's extended header; fixed.
    HeaderBytes,
    /// Segments of a sparse file; fixed.
    Segments,
    /// Bytes of an attribute's name; fixed by the kernel.
    XattrName,
}

impl Cap {
    /// What the cap counts, for messages.
    fn what(self) -> &'static str {
        match self {
            Self::ManifestBytes => "bytes of a manifest or index",
            Self::ConfigBytes => "bytes of a config",
            Self::IndexEntries => "entries of an index",
            Self::Layers => "layers",
            Self::LayerBytes => "unpacked bytes of a layer",
            Self::Ratio => "unpacked bytes of a layer with so few compressed ones",
            Self::ImageBytes => "unpacked bytes of an image",
            Self::Entries => "headers of a layer's archive, or entries of all layers",
            Self::PathBytes => "bytes of a name or link target",
            Self::XattrBytes => "bytes of a file's extended attributes",
            Self::Inodes => "inodes of an image",
            Self::ImageXattrBytes => "bytes of an image's extended attributes",
            Self::MetadataBytes => "bytes of names, link targets, extended attributes and inline files",
            Self::BuildMemory => "MiB of memory to build an image with so many files",
            Self::HeaderBytes => "bytes of an extended header",
            Self::Segments => "segments of a sparse file",
            Self::PathSteps => "steps along the paths of an image and the symbolic links in them",
            Self::XattrName => "bytes of an extended attribute's name",
        }
    }

    /// The flag that sets the cap, without its dashes; `None` where the format or the kernel sets it.
    pub fn flag(self) -> Option<&'static str> {
        Some(match self {
            Self::ManifestBytes => "max-manifest-bytes",
            Self::ConfigBytes => "max-config-bytes",
            Self::IndexEntries => "max-index-entries",
            Self::Layers => "max-layers",
            Self::LayerBytes => "max-layer-bytes",
            Self::Ratio => "max-ratio",
            Self::ImageBytes => "max-image-bytes",
            Self::Entries => "max-entries",
            Self::PathBytes => "max-path-bytes",
            Self::XattrBytes => "max-xattr-bytes",
            Self::Inodes => "max-inodes",
            Self::ImageXattrBytes => "max-image-xattr-bytes",
            Self::MetadataBytes => "max-metadata-bytes",
            Self::BuildMemory => "build-memory",
            Self::PathSteps | Self::HeaderBytes | Self::Segments | Self::XattrName => return None,
        })
    }

    /// The error of exceeding the cap. `found` may be a lower bound, because a stream is not read to
    /// its end.
    pub fn exceeded(self, found: impl TryInto<u64>, limit: impl TryInto<u64>) -> Exceeded {
        // Only numbers for a message are converted, so saturating loses nothing that matters.
        let number = |result: Option<u64>| result.unwrap_or(u64::MAX);
        Exceeded { cap: self, found: number(found.try_into().ok()), limit: number(limit.try_into().ok()) }
    }
}

/// A cap that an image exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The cap.
    pub cap: Cap,
    /// What the image has, or a lower bound of it.
    pub found: u64,
    /// The limit.
    pub limit: u64,
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cap, found, limit } = self;
        write!(f, "{found} {}, and the limit is {limit}; ", cap.what())?;
        match cap.flag() {
            Some(flag) => write!(f, "make the image smaller, or raise --{flag} if it is to be trusted"),
            None => f.write_str("rebuild the image without it"),
        }
    }
}

/// What is left of the limits that the layers of one image share while they are fetched in parallel.
#[derive(Debug)]
pub struct Budget {
    unpacked: Share,
    entries: Share,
    record_bytes: Share,
    /// What an attempt takes, it takes of this too.
    whole: Option<Arc<Budget>>,
}

/// One limit, and how much of it is used.
#[derive(Debug)]
struct Share {
    cap: Cap,
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// The unused budget of an image.
    pub fn of(limits: &ImageLimits) -> Self {
        let share = |cap, limit| Share { cap, limit, used: AtomicU64::new(0) };
        Self {
            unpacked: share(Cap::ImageBytes, limits.image_bytes),
            entries: share(Cap::Entries, limits.entries),
            record_bytes: share(Cap::MetadataBytes, limits.metadata_bytes as u64),
            whole: None,
        }
    }

    /// A part of this budget for one attempt at a layer, whose use can be given back.
    pub fn attempt(self: &Arc<Self>) -> Self {
        let share = |share: &Share| Share { cap: share.cap, limit: u64::MAX, used: AtomicU64::new(0) };
        let Self { unpacked, entries, record_bytes, .. } = &**self;
        Self {
            unpacked: share(unpacked),
            entries: share(entries),
            record_bytes: share(record_bytes),
            whole: Some(Arc::clone(self)),
        }
    }

    /// Gives back what an attempt that came to nothing has taken. Nobody may take any more of it.
    pub fn give_back(&self) {
        let Some(whole) = &self.whole else { return };
        for (of, own) in [
            (&whole.unpacked, &self.unpacked),
            (&whole.entries, &self.entries),
            (&whole.record_bytes, &self.record_bytes),
        ] {
            of.used.fetch_sub(own.used.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Counts bytes that a layer unpacks to.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn take(&self, bytes: u64) -> Result<(), Exceeded> {
        self.spend(|budget| &budget.unpacked, bytes)
    }

    /// Counts an entry that takes so many bytes in its layer's record. A header for all entries makes each of them
    /// long, and the tree would count them only when the record is on the disk.
    ///
    /// # Errors
    /// A limit is exceeded.
    pub fn take_entry(&self, record_bytes: u64) -> Result<(), Exceeded> {
        self.spend(|budget| &budget.entries, 1)?;
        self.spend(|budget| &budget.record_bytes, record_bytes)
    }

    /// Each share of an attempt counts exactly what that of the whole does, so that it can be given back.
    fn spend(&self, share: fn(&Self) -> &Share, amount: u64) -> Result<(), Exceeded> {
        share(self).take(amount)?;
        self.whole.as_ref().map_or(Ok(()), |whole| whole.spend(share, amount))
    }
}

impl Share {
    fn take(&self, amount: u64) -> Result<(), Exceeded> {
        // One caller over the limit is enough to fail the image, so the order between callers does not matter.
        let used = self.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        if used > self.limit { Err(self.cap.exceeded(used, self.limit)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_counts_between_what_is_free_and_what_no_layer_may_have() {
        let limits = ImageLimits { layer_bytes: 100 << 30, ..ImageLimits::default() };
        assert_eq!(limits.unpacked(0), (1 << 30, Cap::Ratio));
        assert_eq!(limits.unpacked(1 << 20), (1 << 30, Cap::Ratio));
        assert_eq!(limits.unpacked(100 << 20), (20_000 << 20, Cap::Ratio));
        assert_eq!(limits.unpacked(1 << 30), (100 << 30, Cap::LayerBytes));
        assert_eq!(limits.unpacked(u64::MAX), (100 << 30, Cap::LayerBytes));
        let tight = ImageLimits { layer_bytes: 1000, ..limits };
        assert_eq!(tight.unpacked(10), (1000, Cap::LayerBytes), "less than what is free");
    }

    #[test]
    fn an_error_names_cap_number_and_flag() {
        let text = Cap::Layers.exceeded(1001usize, 1000usize).to_string();
        for part in ["1001 layers", "limit is 1000", "--max-layers"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!Cap::Segments.exceeded(9u64, 8u64).to_string().contains("--"));
    }

    #[test]
    fn what_an_attempt_takes_is_given_back_whole() {
        let limits =
            ImageLimits { image_bytes: 100, entries: 2, metadata_bytes: 50, ..ImageLimits::default() };
        let budget = Arc::new(Budget::of(&limits));
        budget.take(10).unwrap();
        let attempt = budget.attempt();
        attempt.take(80).unwrap();
        attempt.take_entry(40).unwrap();
        // The one that fails counts as well.
        assert_eq!(attempt.take(20), Err(Cap::ImageBytes.exceeded(110u64, 100u64)));
        assert!(attempt.take_entry(20).is_err());
        attempt.give_back();
        attempt.give_back();
        let again = budget.attempt();
        again.take(90).unwrap();
        again.take_entry(25).unwrap();
        again.take_entry(25).unwrap();
        assert!(budget.take(1).is_err());
    }

    #[test]
    fn a_budget_is_shared_and_does_not_wrap() {
        let limits =
            ImageLimits { image_bytes: 100, entries: 2, metadata_bytes: 50, ..ImageLimits::default() };
        let budget = Budget::of(&limits);
        assert_eq!(budget.take(60), Ok(()));
        assert_eq!(budget.take(40), Ok(()));
        assert_eq!(budget.take(1), Err(Cap::ImageBytes.exceeded(101u64, 100u64)));
        assert!(Budget::of(&limits).take(u64::MAX).is_err());
        let image = Arc::new(Budget::of(&limits));
        let first = Budget::attempt(&image);
        assert_eq!((first.take(90), image.take(20).is_err()), (Ok(()), true), "it counts while it lasts");
        first.give_back();
        assert_eq!(Budget::attempt(&image).take(80), Ok(()), "the 20 stay");
        assert_eq!(budget.take_entry(30), Ok(()));
        assert_eq!(budget.take_entry(21), Err(Cap::MetadataBytes.exceeded(51u64, 50u64)));
        assert_eq!(budget.take_entry(0), Err(Cap::Entries.exceeded(3u64, 2u64)));
    }

    #[test]
    fn an_attempt_that_fails_has_taken_nothing() {
        let image =
            Arc::new(Budget::of(&ImageLimits { image_bytes: 100, entries: 2, ..ImageLimits::default() }));
        assert_eq!(image.take(30), Ok(()));
        let attempt = Budget::attempt(&image);
        assert_eq!((attempt.take(60), attempt.take_entry(5)), (Ok(()), Ok(())));
        assert_eq!(attempt.take(11), Err(Cap::ImageBytes.exceeded(101u64, 100u64)));
        attempt.give_back();
        assert_eq!(image.take(70), Ok(()));
        assert_eq!((image.take_entry(1), image.take_entry(1)), (Ok(()), Ok(())));
    }
}
