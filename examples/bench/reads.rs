//! Listing and reading whole trees, cold and warm, beside a plain overlayfs of the extracted layers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::peers::{Ours, Peer, Podman};
use crate::support::frames::files;
use crate::support::measure::cold;

/// Seconds of all rounds of one kind of read.
#[derive(Debug)]
pub struct Reads {
    pub what: &'static str,
    pub overlay: Vec<f64>,
    pub ours: Vec<f64>,
}

/// Fetches `reference` with both, then reads in turn: overlay, ours, overlay, ours.
///
/// The overlay of extracted layers is the one that podman makes; nothing but the kernel is measured.
pub fn measure(ours: &Ours, podman: &Podman, reference: &str, rounds: usize) -> Result<Vec<Reads>> {
    ours.clean()?;
    podman.clean()?;
    let (_, overlay) = podman.fetch(reference)?;
    let (_, composefs) = ours.fetch(reference)?;
    let all = [
        measure_one("`ls -lR`, cold", &overlay, &composefs, rounds, true, list)?,
        measure_one("`ls -lR`, warm", &overlay, &composefs, rounds, false, list)?,
        measure_one("read every file, cold", &overlay, &composefs, rounds, true, read)?,
        measure_one("read every file, warm", &overlay, &composefs, rounds, false, read)?,
    ];
    ours.clean()?;
    podman.clean()?;
    Ok(all.into())
}

fn measure_one(
    what: &'static str,
    overlay: &Path,
    composefs: &Path,
    rounds: usize,
    from_cold: bool,
    work: fn(&Path) -> Result<()>,
) -> Result<Reads> {
    let mut reads = Reads { what, overlay: Vec::new(), ours: Vec::new() };
    if !from_cold {
        work(overlay)?;
        work(composefs)?;
    }
    for round in 0..rounds {
        // The order changes, so that neither side always finds the disk as the other left it.
        let mut pairs = [(overlay, &mut reads.overlay), (composefs, &mut reads.ours)];
        if round % 2 == 1 {
            pairs.reverse();
        }
        for (directory, seconds) in pairs {
            if from_cold {
                cold()?;
            }
            let started = Instant::now();
            work(directory)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    eprintln!("bench: {what}: done");
    Ok(reads)
}

fn list(directory: &Path) -> Result<()> {
    let status = Command::new("ls").arg("-lR").arg(directory).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "ls -lR {} failed", directory.display());
    Ok(())
}

fn read(directory: &Path) -> Result<()> {
    let paths: Vec<PathBuf> = files(directory)?;
    let mut buffer = vec![0; 1 << 17];
    for path in paths {
        let mut file = File::open(directory.join(&path)).with_context(|| format!("cannot open {path:?}"))?;
        while io::Read::read(&mut file, &mut buffer)? > 0 {}
    }
    Ok(())
}
