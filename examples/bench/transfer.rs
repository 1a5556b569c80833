//! One large layer: over a line that is slow for each connection, on loopback beside curl, and killed again and again.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::line::Line;
use super::registry::Registry;
use super::report::Report;
use super::stats::median;
use crate::support::layout::Layout;
use crate::support::measure::{cold, run};
use crate::support::mounts::remove;
use crate::support::tarball::{Kind, Member};

const TAG: &str = "transfer";
const FILE: u64 = 64 << 20;
const FILES: u64 = 32;
/// 50 ms and 200 Mbit/s for each connection.
const ROUND_TRIP: Duration = Duration::from_millis(50);
const RATE: u64 = 25_000_000;
const KILLS: u64 = 20;

/// What was measured: medians in seconds.
#[derive(Debug)]
pub struct Transfer {
    /// Bytes of the layer.
    size: u64,
    /// Over the line: all ranges at once, one connection, curl.
    line: [f64; 3],
    /// On loopback: the whole pull, the same without keeping what comes, and curl to a file beside sha256sum.
    loopback: [f64; 3],
    /// Bytes on the wire of a pull that was killed twenty times.
    killed: u64,
}

/// Measures all of it; `rounds` for what takes seconds, one for what takes minutes.
pub fn measure(
    program: &Path,
    registry: &Registry,
    cache: &Path,
    work: &Path,
    rounds: usize,
) -> Result<Transfer> {
    let (digest, size) = fixture(registry, cache)?;
    let ours = Ours { program: program.to_owned(), state: work.join("transfer") };
    let line = Line::start(registry.host(), ROUND_TRIP, RATE)?;
    let host = line.address.to_string();
    let far = [ours.pull(&host, &[])?, ours.pull(&host, &["--keep-partial=0"])?, curl(&host, &digest, work)?];
    eprintln!("bench: over the line {far:.1?} s");
    let mut near = [const { Vec::new() }; 3];
    for round in 0..rounds {
        // In another order each time: the disk's state is the one before's.
        for turn in 0..3 {
            match (turn + round) % 3 {
                0 => near[0].push(ours.pull(registry.host(), &[])?),
                1 => near[1].push(ours.pull(registry.host(), &["--keep-partial=0"])?),
                _ => near[2].push(curl(registry.host(), &digest, work)?),
            }
        }
        eprintln!("bench: on loopback, round {}/{rounds}: {near:.1?} s", round + 1);
    }
    // Not on loopback, where the kernel holds what a registry has sent faster than it is taken: up to tcp_rmem's last
    // number (32 MiB) for each connection.
    let line = Line::start(registry.host(), ROUND_TRIP, RATE)?;
    let killed = ours.killed(&line, size)?;
    eprintln!("bench: killed {KILLS} times: {killed} of {size} bytes");
    remove(&ours.state)?;
    Ok(Transfer { size, line: far, loopback: near.map(|seconds| median(&seconds)), killed })
}

impl Report<'_> {
    /// One large layer.
    pub fn transfer(&mut self, measured: &Transfer) {
        let Transfer { size, line, loopback, killed } = measured;
        self.add(&format!(
            "\n## One large layer\n\n{:.2} GB that no compression shrinks, from the registry to a committed image; curl \
             writes the blob to a file, with sha256sum reading along.\n",
            *size as f64 / 1e9
        ));
        self.add("| line | composefs-csi pull | the same by one connection | curl and sha256sum |");
        self.add("|---|---|---|---|");
        for (name, row) in [("50 ms and 200 Mbit/s for each connection", line), ("loopback", loopback)] {
            self.add(&format!("| {name} | {:.1} s | {:.1} s | {:.1} s |", row[0], row[1], row[2]));
        }
        self.add(&format!(
            "\nOver the line {:.1} times as fast as by one connection (wanted: 3). On loopback {:.2} of curl's speed, \
             unpacking included (wanted: 0.9). Killed {KILLS} times over the line: {:.3} of its bytes on the wire (wanted: at \
             most 1.1).",
            line[1] / line[0],
            loopback[2] / loopback[0],
            *killed as f64 / *size as f64,
        ));
    }
}

/// The driver's command line on a state directory of its own.
struct Ours {
    program: PathBuf,
    state: PathBuf,
}

impl Ours {
    fn command(&self, host: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state-dir").arg(&self.state).args(["--insecure-registry", host]);
        command.args(["--without-policy", "accept"]).args(more);
        command.args(["--output", "json", "pull", &format!("{host}/bench:{TAG}")]);
        command
    }

    /// Seconds of a pull from nothing.
    fn pull(&self, host: &str, more: &[&str]) -> Result<f64> {
        remove(&self.state)?;
        cold()?;
        let seconds = run(&self.command(host, more))?.0.wall.as_secs_f64();
        remove(&self.state)?;
        Ok(seconds)
    }

    /// Bytes on the wire of a pull that is killed again and again, each time after the next part of it has come.
    fn killed(&self, line: &Line, size: u64) -> Result<u64> {
        remove(&self.state)?;
        let host = line.address.to_string();
        for kill in 1..=KILLS {
            let mut child = self.command(&host, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            let killed = wait_for(&mut child, line, size / (KILLS + 1) * kill);
            child.kill()?;
            child.wait()?;
            killed?;
        }
        run(&self.command(&host, &[]))?;
        remove(&self.state)?;
        Ok(line.passed())
    }
}

/// Waits until so many bytes have come.
fn wait_for(child: &mut Child, line: &Line, bytes: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(600);
    while line.passed() < bytes {
        ensure!(child.try_wait()?.is_none(), "the pull ended before it could be killed");
        ensure!(Instant::now() < deadline, "the pull does not get on");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Seconds in which curl writes the blob to a file while sha256sum reads it.
fn curl(host: &str, digest: &str, work: &Path) -> Result<f64> {
    let file = work.join("curl");
    cold()?;
    let url = format!("http://{host}/v2/bench/blobs/{digest}");
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"curl --silent --fail "$0" | tee "$1" | sha256sum"#, &url]).arg(&file);
    let (cost, printed) = run(&shell)?;
    std::fs::remove_file(&file)?;
    let hex = digest.trim_start_matches("sha256:");
    ensure!(printed.starts_with(hex), "curl fetched other bytes: {printed}");
    Ok(cost.wall.as_secs_f64())
}

/// Digest and size of the layer, which is made once, kept in `cache` and pushed.
fn fixture(registry: &Registry, cache: &Path) -> Result<(String, u64)> {
    let root = cache.join("transfer");
    if !root.join("index.json").exists() {
        eprintln!("bench: writing image {TAG}");
        let mut layout = Layout::create(&root)?;
        let mut layer = layout.layer()?;
        for number in 0..FILES {
            let path = format!("file-{number}").into_bytes();
            let member = Member {
                path,
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: 1_700_000_000,
                size: FILE,
            };
            layer.append(&member, Noise(number + 1))?;
        }
        let layer = layer.finish()?;
        layout.image(TAG, &[layer])?;
    }
    registry.push(&root, TAG)?;
    let blobs = std::fs::read_dir(root.join("blobs/sha256"))?;
    let sizes = blobs.map(|blob| {
        let blob = blob?;
        Ok((format!("sha256:{}", blob.file_name().to_string_lossy()), blob.metadata()?.len()))
    });
    let sizes: Vec<(String, u64)> = sizes.collect::<io::Result<_>>()?;
    sizes.into_iter().max_by_key(|(_, size)| *size).context("the layout has no blobs")
}

/// An endless stream of bytes that differs for each seed and that nothing compresses.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for chunk in buffer.chunks_mut(8) {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(buffer.len())
    }
}
