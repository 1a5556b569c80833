//! Flags for how layers are fetched.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::image::store::KEEP_PARTIAL;
use crate::pull::RangeRules;

/// How the layers of images are fetched.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fetching layers")]
pub struct TransferArgs {
    /// MiB of the ranges in which a layer is fetched, where its registry serves ranges.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_RANGE_SIZE", value_name = "MIB", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub range_size: u64,
    /// Ranges of one layer that are fetched at the same time; 1 for one after another.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_RANGES", value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub ranges: u16,
    /// Connections for ranges that all layers together have besides the first of each. One registry and credential has at
    /// most three quarters of them.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_RANGE_CONNECTIONS", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub range_connections: u16,
    /// Seconds that what was received of a layer is kept when nobody goes on with it. 0 keeps nothing: an interrupted layer
    /// begins anew, and each comes by one connection.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_KEEP_PARTIAL", value_name = "SECONDS",
          default_value_t = KEEP_PARTIAL.as_secs())]
    pub keep_partial: u64,
    /// A directory of another store on this machine, with objects at `xx/…` by sha256 fs-verity digest (of a composefs
    /// repository, or its `objects`). What is there, measured equal by the kernel, is linked instead of being written, where
    /// the store has fs-verity; may be repeated, or hold several with commas between them. For `mount composefs:…`, where
    /// the files of the image are.
    #[arg(
        long = "object-source",
        global = true,
        env = "COMPOSEFS_CSI_OBJECT_SOURCE",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub object_sources: Vec<PathBuf>,
}

impl TransferArgs {
    /// How large layers are fetched.
    pub fn ranges(&self) -> RangeRules {
        RangeRules {
            size: self.range_size << 20,
            at_once: self.ranges.into(),
            connections: self.range_connections.into(),
        }
    }

    /// How long what was received of a layer is kept.
    pub fn keep_partial(&self) -> Duration {
        Duration::from_secs(self.keep_partial)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::Cli;
    use super::*;

    #[test]
    fn without_flags_the_defaults_hold() {
        let cli = Cli::try_parse_from(["composefs-csi", "ls"]).unwrap();
        assert_eq!(cli.transfer.ranges(), RangeRules::default());
        assert_eq!(cli.transfer.keep_partial(), KEEP_PARTIAL);
    }
}
