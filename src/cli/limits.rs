//! Flags for limits on images.

use clap::Args;

use super::parts::PartsArgs;
use crate::image::store::MIN_FREE;
use crate::oci::limits::ImageLimits;
use crate::pull::PullLimits;

/// Limits on the resources that one image may use on this node.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits on images")]
pub struct LimitArgs {
    /// Bytes of a manifest or index.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_MANIFEST_BYTES", value_name = "BYTES", default_value_t = D.manifest_bytes)]
    pub max_manifest_bytes: usize,
    /// Bytes of an image's config.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_CONFIG_BYTES", value_name = "BYTES", default_value_t = D.config_bytes)]
    pub max_config_bytes: usize,
    /// Entries of an index.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_INDEX_ENTRIES", value_name = "N", default_value_t = D.index_entries)]
    pub max_index_entries: usize,
    /// Layers of an image.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_LAYERS", value_name = "N", default_value_t = D.layers)]
    pub max_layers: usize,
    /// Bytes that one layer may unpack to.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_LAYER_BYTES", value_name = "BYTES", default_value_t = D.layer_bytes)]
    pub max_layer_bytes: u64,
    /// The largest ratio of a layer's unpacked to its compressed size; holes do not count, and 1 GiB is always allowed.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_RATIO", value_name = "N", default_value_t = D.ratio)]
    pub max_ratio: u64,
    /// Bytes that all layers of an image may unpack to together, and bytes of its files.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_IMAGE_BYTES", value_name = "BYTES", default_value_t = D.image_bytes)]
    pub max_image_bytes: u64,
    /// Tar headers of one layer, and entries of all layers that a pull fetches.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_ENTRIES", value_name = "N", default_value_t = D.entries)]
    pub max_entries: u64,
    /// Bytes of a path or link target.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_PATH_BYTES", value_name = "BYTES", default_value_t = D.path_bytes)]
    pub max_path_bytes: usize,
    /// Bytes of the extended attributes of one file.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_XATTR_BYTES", value_name = "BYTES", default_value_t = D.xattr_bytes)]
    pub max_xattr_bytes: usize,
    /// Inodes of an image. Building it takes some 210 bytes of memory for each.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_INODES", value_name = "N", default_value_t = D.inodes)]
    pub max_inodes: usize,
    /// Bytes of the extended attributes of an image, with equal sets counted once.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_IMAGE_XATTR_BYTES", value_name = "BYTES", default_value_t = D.image_xattr_bytes)]
    pub max_image_xattr_bytes: usize,
    /// Bytes of names, link targets, attributes and small files of all layers.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_METADATA_BYTES", value_name = "BYTES", default_value_t = D.metadata_bytes)]
    pub max_metadata_bytes: usize,
    /// The lowest transfer rate of a registry, in bytes per second over a minute; 0 for no limit.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MIN_TRANSFER_RATE", value_name = "BYTES", default_value_t = 10 << 10)]
    pub min_transfer_rate: u64,
    /// Percent of the store's filesystem, of its bytes and of its inodes, that pulls leave free for others; 0 for none.
    /// A pull that would go below fails, and the node plugin removes images that nothing needs.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MIN_FREE", value_name = "PERCENT", default_value_t = MIN_FREE,
          value_parser = clap::value_parser!(u8).range(0..=50))]
    pub min_free: u8,
    /// The longest time in seconds that a layer may take at the rate of its registry: a large layer needs a higher rate
    /// than --min-transfer-rate. 0 for no limit.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MAX_LAYER_TIME", value_name = "SECONDS", default_value_t = 12 * 3600)]
    pub max_layer_time: u64,
    /// MiB of memory that building images may take at the same time, as estimated: 400 bytes for each file and
    /// its names and attributes, 1 KB if images are combined. An image that needs more is refused.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_BUILD_MEMORY",
        value_name = "MIB",
        default_value_t = 1024
    )]
    pub build_memory: u64,
    /// Keep the device nodes and named pipes of images. A pipe connects all pods that use the same image on a node;
    /// devices can be opened in containers whose runtime mounts a volume again without `nodev`.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_KEEP_SPECIAL_FILES")]
    pub keep_special_files: bool,
    /// Keep the set-user-ID and set-group-ID bits and file capabilities of images. Container runtimes may mount a volume
    /// again without `nosuid`, and then such a program gives its owner's rights.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_KEEP_PRIVILEGES")]
    pub keep_privileges: bool,
    /// How layers are fetched of which files are here.
    #[command(flatten)]
    pub parts: PartsArgs,
}

const D: ImageLimits = ImageLimits::DEFAULT;

impl LimitArgs {
    /// The limits of a puller that fetches `parallel_layers` at a time.
    pub fn limits(&self, parallel_layers: usize) -> PullLimits {
        let Self { keep_special_files, keep_privileges, build_memory, .. } = *self;
        PullLimits {
            parallel_layers,
            build_memory,
            image: self.image(),
            keep_special_files,
            keep_privileges,
            partial: self.parts.partial_pulls(),
            ..PullLimits::default()
        }
    }

    fn image(&self) -> ImageLimits {
        ImageLimits {
            manifest_bytes: self.max_manifest_bytes,
            config_bytes: self.max_config_bytes,
            index_entries: self.max_index_entries,
            layers: self.max_layers,
            layer_bytes: self.max_layer_bytes,
            ratio: self.max_ratio,
            image_bytes: self.max_image_bytes,
            entries: self.max_entries,
            path_bytes: self.max_path_bytes,
            xattr_bytes: self.max_xattr_bytes,
            inodes: self.max_inodes,
            image_xattr_bytes: self.max_image_xattr_bytes,
            metadata_bytes: self.max_metadata_bytes,
            path_steps: D.path_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::args::Cli;
    use super::*;
    use crate::oci::limits::Cap;

    const CAPS: [Cap; 13] = [
        Cap::ManifestBytes,
        Cap::ConfigBytes,
        Cap::IndexEntries,
        Cap::Layers,
        Cap::LayerBytes,
        Cap::Ratio,
        Cap::ImageBytes,
        Cap::Entries,
        Cap::PathBytes,
        Cap::XattrBytes,
        Cap::Inodes,
        Cap::ImageXattrBytes,
        Cap::MetadataBytes,
    ];

    #[test]
    fn every_flag_that_an_error_names_is_there_and_sets_its_own_cap() {
        let mut arguments = vec!["composefs-csi".to_owned()];
        for (number, cap) in CAPS.iter().enumerate() {
            let flag = cap.flag().unwrap();
            assert!(Cli::command().get_arguments().any(|known| known.get_long() == Some(flag)), "{flag}");
            arguments.extend([format!("--{flag}"), (number + 1).to_string()]);
        }
        arguments.push("ls".to_owned());
        let limits = Cli::try_parse_from(arguments).unwrap().limits.image();
        let expected = ImageLimits {
            manifest_bytes: 1,
            config_bytes: 2,
            index_entries: 3,
            layers: 4,
            layer_bytes: 5,
            ratio: 6,
            image_bytes: 7,
            entries: 8,
            path_bytes: 9,
            xattr_bytes: 10,
            inodes: 11,
            image_xattr_bytes: 12,
            metadata_bytes: 13,
            path_steps: D.path_steps,
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn without_flags_the_defaults_hold() {
        let cli = Cli::try_parse_from(["composefs-csi", "ls"]).unwrap();
        assert_eq!(cli.limits.limits(4), PullLimits::default());
        let pace = crate::oci::Pace::default();
        assert_eq!(cli.limits.min_transfer_rate, pace.minimum);
        assert_eq!(cli.limits.max_layer_time, pace.longest.as_secs());
    }
}
