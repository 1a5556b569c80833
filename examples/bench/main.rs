//! Measures the driver beside its peers; `make bench` runs it and docs/benchmarks.md has the result.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(missing_docs, reason = "not a library")]

mod fixtures;
mod packages;
mod peers;
mod pull;
mod registry;
mod stats;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;

use anyhow::Result;

fn main() -> Result<()> {
    let cache = PathBuf::from(std::env::var("HOME")?).join(".cache/composefs-csi/bench");
    let fixtures = fixtures::Fixtures::prepare(&cache)?;
    let registry = registry::Registry::start(&cache)?;
    let work = PathBuf::from("/var/tmp/composefs-csi-bench");
    let cfsctl = cache.parent().unwrap().join("tools/cfsctl/bin/cfsctl");
    let mut peers: Vec<Box<dyn peers::Peer>> = vec![
        Box::new(peers::Podman::new(&work)?),
        Box::new(peers::Umoci::new(&work)),
        Box::new(peers::Cfsctl::new(cfsctl, &work, &registry.home)),
    ];
    if std::env::var_os("OURS").is_some() {
        peers.insert(0, Box::new(peers::Ours::new("target/release/composefs-csi".into(), &work)));
    }
    let rounds = pull::rounds(&peers, &registry, fixtures.get(&std::env::args().nth(1).unwrap())?, 1)?;
    println!("{rounds:?}");
    Ok(())
}
