//! From a registry to readable files, cold: all peers in turn, several rounds.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::fixtures::Fixture;
use super::peers::Peer;
use super::registry::Registry;
use super::stats::median;
use crate::support::measure::{Cost, cold};

/// All rounds of one peer.
#[derive(Debug)]
pub struct Rounds {
    pub peer: &'static str,
    pub costs: Vec<Cost>,
}

impl Rounds {
    pub fn seconds(&self) -> Vec<f64> {
        self.costs.iter().map(|cost| cost.wall.as_secs_f64()).collect()
    }

    pub fn median_seconds(&self) -> f64 {
        median(&self.seconds())
    }

    pub fn median_cpu(&self) -> f64 {
        median(&self.costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>())
    }

    pub fn median_peak(&self) -> f64 {
        median(&self.costs.iter().map(|cost| cost.peak as f64).collect::<Vec<_>>())
    }
}

/// Fetches `fixture` with every peer, A B C A B C, each time from nothing and with cold caches.
pub fn rounds(
    peers: &[Box<dyn Peer>],
    registry: &Registry,
    fixture: &Fixture,
    count: usize,
) -> Result<Vec<Rounds>> {
    let reference = registry.reference(&fixture.tag);
    let mut all: Vec<Rounds> =
        peers.iter().map(|peer| Rounds { peer: peer.name(), costs: Vec::new() }).collect();
    for round in 0..count {
        for (peer, rounds) in peers.iter().zip(&mut all) {
            peer.clean()?;
            cold()?;
            let (cost, directory) = peer.fetch(&reference).with_context(|| peer.name())?;
            if round == 0 {
                // A fast but wrong result does not count.
                let files = count_files(&directory)?;
                ensure!(
                    files == fixture.files,
                    "{} shows {files} files of {}'s {}",
                    peer.name(),
                    fixture.tag,
                    fixture.files
                );
            }
            peer.clean()?;
            eprintln!(
                "bench: {} {}/{count} {}: {:.2} s, {:.0} MiB",
                fixture.tag,
                round + 1,
                peer.name(),
                cost.wall.as_secs_f64(),
                cost.peak as f64 / 1_048_576.0
            );
            rounds.costs.push(cost);
        }
    }
    Ok(all)
}

/// Regular files below `directory`; a file with several names counts once.
fn count_files(directory: &Path) -> Result<u64> {
    let mut inodes = HashSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory:?}"))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                let metadata = entry.metadata()?;
                inodes.insert((metadata.dev(), metadata.ino()));
            }
        }
    }
    Ok(inodes.len() as u64)
}
