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

/// Fetches `fixture` with every peer, A B C C B A A B C, each time from nothing and with cold caches: none always finds
/// disk and machine as the same other one left them.
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
        let mut turns: Vec<_> = peers.iter().zip(&mut all).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (peer, rounds) in turns {
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
                "bench: {} {}/{count} {}: {:.2} s, {:.2} s of CPU, {:.0} MiB",
                fixture.tag,
                round + 1,
                peer.name(),
                cost.wall.as_secs_f64(),
                cost.cpu,
                cost.peak as f64 / 1_048_576.0
            );
            rounds.costs.push(cost);
        }
        report_ratios(&fixture.tag, &all);
    }
    Ok(all)
}

/// What the first peer took of the others' time and processor time in the round that has just ended.
fn report_ratios(tag: &str, all: &[Rounds]) {
    let Some((ours, others)) = all.split_first() else { return };
    for other in others {
        let last = ours.costs.last().zip(other.costs.last());
        let Some((ours, theirs)) = last else { continue };
        let (time, cpu) = (ours.wall.as_secs_f64() / theirs.wall.as_secs_f64(), ours.cpu / theirs.cpu);
        eprintln!("bench: {tag}: ours takes {time:.2} of the time of {}, {cpu:.2} of its CPU", other.peer);
    }
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
