//! What a puller does at once, and what it takes.

use std::time::Duration;

use super::turns::TurnRules;
use crate::image::tree::Rules;
use crate::oci::limits::ImageLimits;

/// How much a node does at once, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    /// Layers fetched at the same time, over all pulls. Each holds a few MiB and three threads.
    pub parallel_layers: usize,
    /// How layers take turns where there are more.
    pub turns: TurnRules,
    /// MiB that builds take together, as estimated.
    pub build_memory: u64,
    /// How long a pull goes on that nobody waits for.
    pub grace: Duration,
    /// Caps on each image.
    pub image: ImageLimits,
    /// Whether images keep their device nodes and named pipes.
    pub keep_special_files: bool,
}

impl PullLimits {
    /// The rules by which images that are pulled become trees.
    pub fn rules(&self) -> Rules {
        if self.keep_special_files { Rules::Verbatim } else { Rules::Faithful }
    }
}

impl Default for PullLimits {
    fn default() -> Self {
        Self {
            parallel_layers: 4,
            turns: TurnRules::default(),
            build_memory: 1024,
            grace: Duration::from_secs(600),
            image: ImageLimits::DEFAULT,
            keep_special_files: false,
        }
    }
}
