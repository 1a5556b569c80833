//! Publishes a stored image many times.

use std::path::Path;

use anyhow::Result;

use super::stats::percentile;
use crate::support::node::{Node, Volume};

/// The times of a thousand publishes, in milliseconds.
#[derive(Debug)]
pub struct Latency {
    pub publish: Vec<f64>,
    pub unpublish: Vec<f64>,
}

impl Latency {
    pub fn publish_percentile(&self, percent: f64) -> f64 {
        percentile(&self.publish, percent)
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
    let mut latency = Latency { publish: Vec::new(), unpublish: Vec::new() };
    for number in 1..=count {
        let volume = Volume::new("pod", number, image);
        latency.publish.push(node.publish(&volume)?.as_secs_f64() * 1e3);
        latency.unpublish.push(node.unpublish(&volume)?.as_secs_f64() * 1e3);
    }
    node.unpublish(&keeper)?;
    node.stop()?;
    Ok(latency)
}
