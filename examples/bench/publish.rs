//! Publishes a stored image many times.

use std::path::Path;

use anyhow::Result;

use super::stats::percentile;
use crate::support::node::{Node, Volume};

/// How many pods start at once.
pub const AT_ONCE: u32 = 30;

/// The times of a thousand publishes, in milliseconds.
#[derive(Debug)]
pub struct Latency {
    pub publish: Vec<f64>,
    /// [`AT_ONCE`] at the same time, as often as it takes.
    pub at_once: Vec<f64>,
    pub unpublish: Vec<f64>,
}

impl Latency {
    pub fn publish_percentile(&self, percent: f64) -> f64 {
        percentile(&self.publish, percent)
    }

    pub fn at_once_percentile(&self, percent: f64) -> f64 {
        percentile(&self.at_once, percent)
    }

    pub fn unpublish_percentile(&self, percent: f64) -> f64 {
        percentile(&self.unpublish, percent)
    }
}

/// Publishes `image` `count` times to one pod after another, over the socket as kubelet does.
///
/// One pod keeps it mounted throughout, so that this measures the n-th pod and not the first one.
pub fn measure(program: &Path, base: &Path, registry: &str, image: &str, count: u32) -> Result<Latency> {
    let mut node = Node::start(program, base, &["--insecure-registry", registry])?;
    let keeper = Volume::new("keeper", 0, image);
    node.publish(&keeper)?;
    let mut latency = Latency { publish: Vec::new(), at_once: Vec::new(), unpublish: Vec::new() };
    for number in 1..=count {
        let volume = Volume::new("pod", number, image);
        latency.publish.push(node.publish(&volume)?.as_secs_f64() * 1e3);
        latency.unpublish.push(node.unpublish(&volume)?.as_secs_f64() * 1e3);
    }
    let volumes: Vec<Volume> = (1..=AT_ONCE).map(|number| Volume::new("pod", number, image)).collect();
    for _ in 0..count.div_ceil(AT_ONCE) {
        let times = node.publish_at_once(&volumes)?;
        latency.at_once.extend(times.iter().map(|time| time.as_secs_f64() * 1e3));
        for volume in &volumes {
            node.unpublish(volume)?;
        }
    }
    node.unpublish(&keeper)?;
    node.stop()?;
    Ok(latency)
}
