//! The second version of a zstd:chunked image, beside podman: bytes on the wire, requests, time.
//!
//! One layer of some 12,000 files and 308 MB; the second version rewrites 646 files, renames 300, changes 64 KiB inside six
//! of 3.5 MB, puts 14 bytes into one of 4.5 MB and appends 1 MiB to one of 32 MB. skopeo of Debian sid writes both, and podman
//! of sid is the peer, on XFS, where it reuses chunks of files as well. Both pull through a proxy that counts the
//! bodies of answers, and that can be far away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::counting_proxy::{CountingProxy, Passed};
use super::registry::Registry;
use super::report::Report;
use super::stats::median;
use crate::support::layout::{Layer, Layout};
use crate::support::measure::{Cost, cold, run};
use crate::support::mounts::{remove, unmount_below};
use crate::support::tarball::{Kind, Member};

/// Raised when the images change.
const NAME: &str = "chunked-1";
/// Bytes of the loop file that podman's storage is on.
const DISK: u64 = 8 << 30;

/// One pull of the second version.
#[derive(Debug, Clone, Copy)]
struct Pulled {
    cost: Cost,
    passed: Passed,
}

/// A way to pull: twice into the same storage.
trait Way {
    fn name(&self) -> &'static str;
    fn pull(&self, reference: &str) -> Result<Cost>;
    fn clean(&self) -> Result<()>;
}

/// Measures, and adds a section to the report.
pub fn measure(
    program: &Path,
    (work, cache): (&Path, &Path),
    registry: &Registry,
    rounds: usize,
    report: &mut Report<'_>,
) -> Result<()> {
    let tools = tools()?;
    let size = prepare(&tools, cache, registry)?;
    let ours = Ours { program: program.to_owned(), work: work.join("chunked") };
    let podman = Podman::new(&tools, work)?;
    let ways: [&dyn Way; 2] = [&ours, &podman];
    report.add(&format!(
        "\n## The second version of a zstd:chunked image\n\nOne layer of {:.1} MB; the first version is here. Bytes of \
         answers on the wire (without their headers) and requests for the layer; medians of {rounds} rounds in alternating \
         order, cold caches.\n",
        size as f64 / 1e6
    ));
    report.add("| each answer waits | | MB on the wire | requests | seconds | CPU seconds | peak memory |");
    report.add("|---|---|---|---|---|---|---|");
    for delay in [0, 25] {
        let proxy = CountingProxy::start(registry.host(), Duration::from_millis(delay))?;
        let mut all: [Vec<Pulled>; 2] = Default::default();
        for round in 0..rounds {
            // Who comes first alternates: the machine is not always equally busy.
            for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                all[at].push(once(ways[at], &proxy).with_context(|| ways[at].name())?);
            }
        }
        for (way, pulls) in ways.iter().zip(&all) {
            let of = |value: fn(&Pulled) -> f64| median(&pulls.iter().map(value).collect::<Vec<_>>());
            report.add(&format!(
                "| {delay} ms | {} | {:.2} | {:.0} | {:.2} | {:.1} | {:.0} MiB |",
                way.name(),
                of(|pulled| pulled.passed.bytes as f64) / 1e6,
                of(|pulled| pulled.passed.ranged as f64),
                of(|pulled| pulled.cost.wall.as_secs_f64()),
                of(|pulled| pulled.cost.cpu),
                of(|pulled| pulled.cost.peak as f64) / 1_048_576.0,
            ));
        }
    }
    ways.iter().try_for_each(|way| way.clean())
}

fn once(way: &dyn Way, proxy: &CountingProxy) -> Result<Pulled> {
    way.clean()?;
    let reference = |version: u8| format!("{}/{NAME}:{version}", proxy.host());
    way.pull(&reference(1))?;
    cold()?;
    proxy.take();
    let cost = way.pull(&reference(2))?;
    let passed = proxy.take();
    eprintln!(
        "bench: {}: {:.2} MB in {} ranges, {:.2} s, {:.1} s CPU",
        way.name(),
        passed.bytes as f64 / 1e6,
        passed.ranged,
        cost.wall.as_secs_f64(),
        cost.cpu
    );
    Ok(Pulled { cost, passed })
}

/// This project's command.
struct Ours {
    program: PathBuf,
    work: PathBuf,
}

impl Way for Ours {
    fn name(&self) -> &'static str {
        "composefs-csi pull"
    }

    fn pull(&self, reference: &str) -> Result<Cost> {
        fs::create_dir_all(&self.work)?;
        let host = reference.split('/').next().unwrap_or_default();
        let mut pull = Command::new(&self.program);
        pull.arg("--state-dir").arg(self.work.join("state")).args(["--insecure-registry", host]);
        Ok(run(pull.args(["--without-policy", "accept", "pull", reference]))?.0)
    }

    fn clean(&self) -> Result<()> {
        remove(&self.work)
    }
}

/// `podman pull` with partial pulls, in the root directory of its own suite.
struct Podman {
    root: PathBuf,
    /// Where its disk is mounted.
    mounted: PathBuf,
}

impl Podman {
    fn new(tools: &Path, work: &Path) -> Result<Self> {
        let (disk, mounted) = (work.join("podman.xfs"), work.join("podman-chunked"));
        fs::create_dir_all(&mounted)?;
        fs::File::create(&disk)?.set_len(DISK)?;
        run(Command::new("mkfs.xfs").arg("-q").arg(&disk)).context("run: apt-get install xfsprogs")?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&mounted))?;
        let settings = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/bench/root\"\nrunroot = \"/bench/run\"\n\
                        [storage.options]\npull_options = {enable_partial_images = \"true\"}\n";
        fs::write(mounted.join("storage.conf"), settings)?;
        let policy = mounted.join(".config/containers");
        fs::create_dir_all(&policy)?;
        fs::write(policy.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        Ok(Self { root: tools.join("root"), mounted })
    }
}

impl Way for Podman {
    fn name(&self) -> &'static str {
        "podman pull (partial, XFS)"
    }

    fn pull(&self, reference: &str) -> Result<Cost> {
        // It starts itself again by /proc/self/exe, so it must be a program and no argument of a loader.
        let script = "for dir in proc sys dev; do mkdir -p $1/$dir; mount --rbind /$dir $1/$dir; done; \
                      mkdir -p $1/bench $1/tmp $1/var/tmp $1/run; mount --bind $2 $1/bench; \
                      for dir in tmp var/tmp run; do mount -t tmpfs none $1/$dir; done; \
                      root=$1; shift 2; exec chroot $root /usr/bin/podman \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
        command.arg(&self.root).arg(&self.mounted);
        command.env("CONTAINERS_STORAGE_CONF", "/bench/storage.conf").env("HOME", "/bench");
        command.args(["--events-backend", "none", "pull", "--quiet", "--tls-verify=false", reference]);
        Ok(run(&command)?.0)
    }

    fn clean(&self) -> Result<()> {
        unmount_below(&self.mounted.join("root"))?;
        remove(&self.mounted.join("root"))?;
        remove(&self.mounted.join("run"))
    }
}

fn tools() -> Result<PathBuf> {
    let output = Command::new("scripts/debian-tools.sh").arg("containers").output()?;
    ensure!(output.status.success(), "scripts/debian-tools.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Makes both versions, once, and pushes them. Returns the bytes of the second one's layer.
fn prepare(tools: &Path, cache: &Path, registry: &Registry) -> Result<u64> {
    let directory = cache.join(NAME);
    if !directory.join("index.json").exists() {
        eprintln!("bench: writing two versions of a chunked image");
        let mut layout = Layout::create(&directory)?;
        for version in [1, 2] {
            let layer = layer(&layout, version)?;
            layout.image(&version.to_string(), &[layer])?;
        }
    }
    for version in [1, 2] {
        let reference = format!("docker://{}/{NAME}:{version}", registry.host());
        let mut copy = Command::new(tools.join("bin/skopeo"));
        copy.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        copy.args(["--dest-compress-format", "zstd:chunked"]);
        let there = Command::new(tools.join("bin/skopeo"))
            .args(["inspect", "--raw", "--tls-verify=false", &reference])
            .output()?;
        if !there.status.success() {
            run(copy.arg(format!("oci:{}:{version}", directory.display())).arg(&reference))?;
        }
    }
    let reference = format!("docker://{}/{NAME}:2", registry.host());
    let manifest = run(Command::new(tools.join("bin/skopeo")).args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &reference,
    ]))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest.1)?;
    manifest["layers"][0]["size"].as_u64().context("the manifest has no layer")
}

fn layer(layout: &Layout, version: u8) -> io::Result<Layer> {
    let mut layer = layout.layer()?;
    let mut add = |path: String, kind, content: &[u8]| {
        let (mode, size) = (if kind == Kind::Directory { 0o755 } else { 0o644 }, content.len() as u64);
        let member =
            Member { path: path.into_bytes(), kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, size };
        layer.append(&member, content)
    };
    add("usr".to_owned(), Kind::Directory, b"")?;
    for (number, mut content) in larger_files().enumerate() {
        if version == 2 {
            match number {
                0..6 => {
                    content[1 << 20..][..64 << 10].copy_from_slice(&noise(900_000 + number as u64, 64 << 10))
                }
                6 => drop(content.splice(2 << 20..2 << 20, *b"fourteen bytes")),
                _ => content.extend(noise(900_007, 1 << 20)),
            }
        }
        add(format!("usr/large-{number}"), Kind::File, &content)?;
    }
    for number in 0..12_000_u64 {
        let directory = format!("usr/d{:04}", number / 2);
        if number % 2 == 0 {
            add(directory.clone(), Kind::Directory, b"")?;
        }
        // Most files are small, some are not; 250 MB together.
        let size = (number * number % 97) * 13 * (1 + number % 32) + number % 60;
        // Spread over all sizes, in tens of neighbours: packages change, not files.
        let (rewritten, renamed) = (number / 10 % 19 == 3, number / 10 % 40 == 7);
        let seed = if version == 2 && rewritten { number + 1_000_000 } else { number };
        let suffix = if version == 2 && renamed && !rewritten { "-renamed" } else { "" };
        add(format!("{directory}/file-{number:05}{suffix}"), Kind::File, &noise(seed, size as usize))?;
    }
    layer.finish()
}

/// Six of 3.5 MB, one of 4.5 MB, one of 32 MB.
fn larger_files() -> impl Iterator<Item = Vec<u8>> {
    let sizes = [3_500_000; 6].into_iter().chain([4_500_000, 32_000_000]);
    sizes.enumerate().map(|(number, size)| noise(800_000 + number as u64, size))
}

/// Bytes that follow from a seed, and that compress to some two fifths, as programs do.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut content = Vec::with_capacity(size + 32);
    while content.len() < size {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(format!("{state:016x} call rip").as_bytes());
    }
    content.truncate(size);
    content
}
