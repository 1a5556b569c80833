//! Flags for layers that are fetched in parts.

use clap::{Args, ValueEnum};

use crate::pull::{PartialPulls, PlanRules, ReuseFrom};

/// How layers are fetched of which files are here.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Layers in parts")]
pub struct PartsArgs {
    /// Of zstd:chunked layers fetch only the files that are not here, and say whose files may be used for that.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_PARTIAL_PULLS", value_enum, default_value_t = PartialPullsArg::Own)]
    pub partial_pulls: PartialPullsArg,
    /// Bytes between two ranges of a layer that are fetched along rather than asked for apart.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_PARTIAL_PULL_GAP", value_name = "BYTES", default_value_t = 1 << 10)]
    pub partial_pull_gap: u64,
    /// The most ranges of a layer. Where there would be more, they are joined over the smallest gaps.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_PARTIAL_PULL_REQUESTS",
        value_name = "N",
        default_value_t = 2000
    )]
    pub partial_pull_requests: usize,
    /// Ranges of a layer that are asked for at the same time.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_PARTIAL_PULL_CONNECTIONS",
        value_name = "N",
        default_value_t = 16
    )]
    pub partial_pull_connections: usize,
}

/// Whose files are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartialPullsArg {
    /// Of none: layers are fetched whole.
    None,
    /// Of layers that the caller has fetched, or anybody may.
    Own,
    /// Of all layers. For nodes of one tenant: what a pull fetches then tells which files others have.
    All,
}

impl PartsArgs {
    /// The settings of a puller.
    pub fn partial_pulls(&self) -> PartialPulls {
        let from = match self.partial_pulls {
            PartialPullsArg::None => ReuseFrom::Nothing,
            PartialPullsArg::Own => ReuseFrom::Own,
            PartialPullsArg::All => ReuseFrom::All,
        };
        let rules = PlanRules { gap: self.partial_pull_gap, requests: self.partial_pull_requests };
        PartialPulls { from, rules, connections: self.partial_pull_connections }
    }
}
