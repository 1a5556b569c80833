//! Half an hour of what a bad month brings: `make soak [MINUTES=30] [SEED=n]`. Needs root.
//!
//! One node plugin on a little disk of its own, many pods that come and go, registries that misbehave, and somebody who
//! fills the disk, kills the plugin, sets the clock and prunes. What must hold all the time: a mount shows the whole of
//! its image or is not there; a volume can be taken down whatever else is the case; an innocent pod, whose image is
//! there, is not kept waiting. In the end nothing is lost and nothing is left.

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod control;
mod disk;
mod images;
mod innocent;
mod latency;
mod node;
mod pods;
mod registry;
mod tally;
mod verdict;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::task::JoinSet;

use innocent::Innocent;
use node::Node;
use registry::Registries;
use tally::Tally;

/// How many tasks start and stop pods at the same time.
const WORKERS: u64 = 6;

/// What all tasks share.
#[derive(Debug)]
pub struct Soak {
    /// The node.
    pub node: Node,
    /// Where images come from.
    pub registries: Registries,
    /// What has happened.
    pub tally: Tally,
    /// When the storm ends.
    pub end: Instant,
}

fn main() -> ExitCode {
    let number = |name: &str, default: f64| match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        _ => default,
    };
    let minutes = number("MINUTES", 30.0);
    // Another history each time, that can be had again.
    let seed = number("SEED", f64::from(std::process::id())) as u64;
    println!("soak: {minutes} minutes, SEED={seed}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(Duration::from_secs_f64(minutes * 60.0), seed));
    ExitCode::SUCCESS
}

async fn run(length: Duration, seed: u64) {
    let registries = Registries::start().await;
    let node = Node::start(&registries).await;
    let innocent = Innocent::arrive(&node, &registries).await;
    // A tenth of the time, while nothing else happens.
    let idle = innocent.measure(&node, Instant::now() + length / 10).await;
    let end = Instant::now() + length * 9 / 10;
    let soak = Arc::new(Soak { node, registries, tally: Tally::default(), end });
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        tasks.spawn(pods::live(Arc::clone(&soak), worker, ChaCha8Rng::seed_from_u64(seed ^ worker)));
    }
    tasks.spawn(chaos::rage(Arc::clone(&soak), ChaCha8Rng::seed_from_u64(!seed)));
    // What a task has found wrong is its panic, and this one's.
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| panic!("{error}"));
        }
    };
    let (storm, ()) = tokio::join!(innocent.measure(&soak.node, end), all);
    println!("{}", soak.tally);
    verdict::pronounce(&soak).await;
    latency::compare(&idle, &storm);
    println!("soak: nothing lost, nothing left");
}
