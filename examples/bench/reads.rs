//! Listing, opening and reading whole trees, cold and warm, beside a plain overlayfs of the extracted layers.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::disk::Disk;
use super::peers::{Ours, Peer, Podman};
use crate::support::frames::files;
use crate::support::measure::cold;

/// Threads that look objects up, as with `--stat-ahead`.
const LOOKUPS: usize = 4;

/// All rounds of one kind of read.
#[derive(Debug)]
pub struct Reads {
    pub what: &'static str,
    pub overlay: Side,
    pub ours: Side,
    /// Cold only: ours without its metadata read ahead.
    pub plain: Side,
    /// Cold only: ours with all objects looked up beforehand.
    pub looked_up: Side,
}

/// All rounds of one side.
#[derive(Debug, Default)]
pub struct Side {
    pub seconds: Vec<f64>,
    /// Read requests to the device, those of mounting included; none where the caches were warm.
    pub requests: Vec<f64>,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Overlay,
    Ours,
    Plain,
    LookedUp,
}

const COLD: [Way; 4] = [Way::Overlay, Way::Ours, Way::Plain, Way::LookedUp];
const WARM: [Way; 2] = [Way::Overlay, Way::Ours];

/// The two sides, which have the image.
struct Sides<'a> {
    ours: &'a Ours,
    podman: &'a Podman,
    reference: &'a str,
    disk: &'a Disk,
}

/// Fetches `reference` with both, then reads in turn, one way after another, and backwards in the next round.
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
        let mut reads = Reads::new(what);
        let warm = [self.podman.remount(self.reference)?, self.ours.remount(self.reference)?];
        if !from_cold {
            warm.iter().try_for_each(|directory| work(directory))?;
        }
        for round in 0..rounds {
            let mut ways = if from_cold { COLD.to_vec() } else { WARM.to_vec() };
            // The order changes, so that no way always finds the disk as the same other left it.
            if round % 2 == 1 {
                ways.reverse();
            }
            for way in ways {
                let before = self.disk.requests()?;
                let directory = match (from_cold, way) {
                    (true, _) => self.anew(way)?,
                    (false, Way::Overlay) => warm[0].clone(),
                    (false, _) => warm[1].clone(),
                };
                let started = Instant::now();
                work(&directory)?;
                let side = reads.side(way);
                side.seconds.push(started.elapsed().as_secs_f64());
                if from_cold {
                    side.requests.push((self.disk.requests()? - before) as f64);
                }
                reads.report(way, round);
            }
        }
        Ok(reads)
    }

    /// The image, mounted anew as on a node that has just started.
    fn anew(&self, way: Way) -> Result<PathBuf> {
        cold()?;
        if way == Way::Overlay {
            return self.podman.remount(self.reference);
        }
        let (directory, image) = self.ours.remount_image(self.reference)?;
        match way {
            Way::Plain => forget(&image)?,
            Way::LookedUp => look_up(&self.ours.objects())?,
            Way::Overlay | Way::Ours => {}
        }
        Ok(directory)
    }
}

impl Reads {
    fn new(what: &'static str) -> Self {
        let [overlay, ours, plain, looked_up] = std::array::from_fn(|_| Side::default());
        Self { what, overlay, ours, plain, looked_up }
    }

    fn side(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Overlay => &mut self.overlay,
            Way::Ours => &mut self.ours,
            Way::Plain => &mut self.plain,
            Way::LookedUp => &mut self.looked_up,
        }
    }

    fn report(&mut self, way: Way, round: usize) {
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        let side = self.side(way);
        let (seconds, requests) = (last(&side.seconds), last(&side.requests));
        eprintln!("bench: {} {}: {way:?} {seconds:.2} s, {requests} requests", self.what, round + 1);
    }
}

/// Drops what was read ahead of an image, once it has come.
fn forget(image: &Path) -> Result<()> {
    let file = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    // The command has ended, and with it the reading ahead; what the disk was asked for may still be coming.
    std::thread::sleep(Duration::from_millis(500));
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Looks all objects up in the order of their names, as the plugin does where it is told to. They are those of the image.
fn look_up(objects: &Path) -> Result<()> {
    let started = Instant::now();
    let mut named = Vec::new();
    for directory in fs::read_dir(objects)? {
        // Names only: the entries themselves are looked up below.
        for entry in fs::read_dir(directory?.path())? {
            named.push(entry?.path());
        }
    }
    named.sort();
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..LOOKUPS {
            scope.spawn(|| {
                while let Some(path) = named.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = path.symlink_metadata();
                    failed.fetch_add(usize::from(found.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    ensure!(failed.load(Ordering::Relaxed) == 0, "objects of {} are gone", objects.display());
    eprintln!("bench: looked up {} objects in {:.2} s", named.len(), started.elapsed().as_secs_f64());
    Ok(())
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
