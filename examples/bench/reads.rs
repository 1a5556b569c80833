//! Listing, opening and reading whole trees, cold and warm, beside a plain overlayfs of the extracted layers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::disk::Disk;
use super::peers::{Ours, Peer, Podman};
use crate::support::frames::files;
use crate::support::measure::cold;

/// All rounds of one kind of read.
#[derive(Debug)]
pub struct Reads {
    pub what: &'static str,
    pub overlay: Side,
    pub ours: Side,
}

/// All rounds of one side.
#[derive(Debug, Default)]
pub struct Side {
    pub seconds: Vec<f64>,
    /// Read requests to the device, those of mounting included; none where the caches were warm.
    pub requests: Vec<f64>,
}

/// The two sides, which have the image.
struct Sides<'a> {
    ours: &'a Ours,
    podman: &'a Podman,
    reference: &'a str,
    disk: &'a Disk,
}

/// Fetches `reference` with both, then reads in turn: overlay, ours, ours, overlay.
///
/// The overlay of extracted layers is the one that podman makes; nothing but the kernel is measured.
pub fn measure(
    ours: &Ours,
    podman: &Podman,
    reference: &str,
    rounds: usize,
    disk: &Disk,
) -> Result<Vec<Reads>> {
    ours.clean()?;
    podman.clean()?;
    podman.fetch(reference)?;
    ours.fetch(reference)?;
    let sides = Sides { ours, podman, reference, disk };
    let all = [
        sides.measure("`ls -lR`, cold", rounds, true, list)?,
        sides.measure("open every file, cold", rounds, true, open)?,
        sides.measure("read every file, cold", rounds, true, read)?,
        sides.measure("`ls -lR`, warm", rounds, false, list)?,
        sides.measure("read every file, warm", rounds, false, read)?,
    ];
    ours.clean()?;
    podman.clean()?;
    Ok(all.into())
}

impl Sides<'_> {
    fn measure(
        &self,
        what: &'static str,
        rounds: usize,
        from_cold: bool,
        work: fn(&Path) -> Result<()>,
    ) -> Result<Reads> {
        let mut reads = Reads { what, overlay: Side::default(), ours: Side::default() };
        let mut mounted = [self.podman.remount(self.reference)?, self.ours.remount(self.reference)?];
        if !from_cold {
            mounted.iter().try_for_each(|directory| work(directory))?;
        }
        for round in 0..rounds {
            // The order changes, so that neither side always finds the disk as the other left it.
            for is_ours in [round % 2 == 1, round % 2 == 0] {
                let side = if is_ours { &mut reads.ours } else { &mut reads.overlay };
                let directory = &mut mounted[usize::from(is_ours)];
                let before = self.disk.requests()?;
                if from_cold {
                    // The mount is made anew, as on a node that has just started.
                    cold()?;
                    *directory = self.remount(is_ours)?;
                }
                let started = Instant::now();
                work(directory)?;
                side.seconds.push(started.elapsed().as_secs_f64());
                if from_cold {
                    side.requests.push((self.disk.requests()? - before) as f64);
                }
            }
            reads.report(round);
        }
        Ok(reads)
    }

    fn remount(&self, is_ours: bool) -> Result<PathBuf> {
        if is_ours { self.ours.remount(self.reference) } else { self.podman.remount(self.reference) }
    }
}

impl Reads {
    fn report(&self, round: usize) {
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        let (ours, overlay) = (&self.ours, &self.overlay);
        eprintln!(
            "bench: {} {}: ours {:.2} s, {} requests; overlayfs {:.2} s, {} requests",
            self.what,
            round + 1,
            last(&ours.seconds),
            last(&ours.requests),
            last(&overlay.seconds),
            last(&overlay.requests)
        );
    }
}

fn list(directory: &Path) -> Result<()> {
    let status = Command::new("ls").arg("-lR").arg(directory).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "ls -lR {} failed", directory.display());
    Ok(())
}

fn open(directory: &Path) -> Result<()> {
    let paths: Vec<PathBuf> = files(directory)?;
    for path in paths {
        File::open(directory.join(&path)).with_context(|| format!("cannot open {path:?}"))?;
    }
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
