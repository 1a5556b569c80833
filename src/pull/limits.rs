//! What a puller does at once, and what it takes.

use std::time::Duration;

use super::chunked::settings::PartialPulls;
use super::partial::RangeRules;
use super::turns::TurnRules;
use crate::image::tree::{Reduction, Rules};
use crate::oci::limits::ImageLimits;

/// How much a node does at once, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    /// Layers fetched at the same time, over all pulls. Each holds a few MiB and three threads.
    pub parallel_layers: usize,
    /// How layers take turns where there are more.
    pub turns: TurnRules,
    /// How large layers are fetched.
    pub ranges: RangeRules,
    /// How layers are fetched of which files are here.
    pub partial: PartialPulls,
    /// MiB that builds take together, as estimated.
    pub build_memory: u64,
    /// What a layer takes of the disk at least, in percent of its size in the registry: what cannot fit is not fetched.
    pub min_unpacked: u8,
    /// How long a pull goes on that nobody waits for.
    pub grace: Duration,
    /// Caps on each image.
    pub image: ImageLimits,
    /// Whether images keep their device nodes and named pipes.
    pub keep_special_files: bool,
    /// Whether images keep set-user-ID and set-group-ID bits and file capabilities.
    pub keep_privileges: bool,
}

/// What images that are not sealed keep, beyond files to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Device nodes and named pipes.
    pub special_files: bool,
    /// Set-user-ID and set-group-ID bits of regular files, and file capabilities.
    pub privileges: bool,
}

impl PullLimits {
    /// What images keep on this node.
    pub fn kept(&self) -> Kept {
        Kept { special_files: self.keep_special_files, privileges: self.keep_privileges }
    }

    /// The rules by which images that are pulled become trees.
    pub fn rules(&self) -> Rules {
        self.kept().rules(false)
    }
}

impl Kept {
    /// The rules by which layers become the tree that a volume shows. With `noexec` nothing in it can be executed, and
    /// so nothing gives rights.
    pub fn rules(self, noexec: bool) -> Rules {
        let Self { special_files, privileges } = self;
        match (noexec, privileges, special_files) {
            (true, _, _) => Rules::Reduced { to: Reduction::NotExecutable, special_files },
            (false, false, _) => Rules::Reduced { to: Reduction::Unprivileged, special_files },
            (false, true, false) => Rules::Faithful,
            (false, true, true) => Rules::Verbatim,
        }
    }
}

impl Default for PullLimits {
    fn default() -> Self {
        Self {
            parallel_layers: 4,
            turns: TurnRules::default(),
            ranges: RangeRules::default(),
            partial: PartialPulls::default(),
            build_memory: 1024,
            min_unpacked: 100,
            grace: Duration::from_secs(600),
            image: ImageLimits::DEFAULT,
            keep_special_files: false,
            keep_privileges: false,
        }
    }
}
