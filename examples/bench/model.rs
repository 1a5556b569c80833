//! A model as raw layers: one large file from the registry to a mount beside curl and oras, and a second version of four
//! shards of which one has changed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::line::Line;
use super::registry::Registry;
use super::report::Report;
use super::stats::median;
use super::transfer::Noise;
use crate::support::measure::{Cost, cold, run};
use crate::support::mounts::remove;

const SHARDS: u64 = 4;

/// What was measured.
#[derive(Debug)]
pub struct Model {
    /// Bytes of the file.
    size: u64,
    push: Cost,
    /// Our mount, curl beside sha256sum, oras, and writing as many bytes to the disk.
    rows: [Row; 4],
    /// Bytes on the disk, of our store with the file.
    stored: u64,
    second: Second,
}

#[derive(Debug, Default)]
struct Row {
    seconds: Vec<f64>,
    peak: u64,
}

/// The second version of four shards.
#[derive(Debug)]
struct Second {
    /// Bytes of a version; of the changed shard.
    size: u64,
    sent: u64,
    fetched: u64,
    stored: u64,
}

/// Measures all of it with a file of `size` bytes.
pub fn measure(
    program: &Path,
    registry: &Registry,
    (cache, work): (&Path, &Path),
    (size, rounds): (u64, usize),
) -> Result<Model> {
    let ours = Ours { program: program.to_owned(), state: work.join("model") };
    let oras = oras()?;
    let file = cache.join(format!("model-{size}"));
    write(&file.join("model.safetensors"), size, 1)?;
    cold()?;
    let (push, pushed) = run(&ours.command(
        registry.host(),
        &["push", text(&file)?, &name(registry.host(), "model"), "--artifact=files"],
    ))?;
    let digest = field(&pushed, &["blobs", "0", "digest"])?;
    let mut rows: [Row; 4] = Default::default();
    let mut stored = 0;
    for round in 0..rounds {
        // In another order each time: the disk's state is the one before's.
        for turn in 0..4 {
            let at = (turn + round) % 4;
            let cost = match at {
                0 => {
                    let (cost, bytes) = ours.mount(registry.host(), work)?;
                    stored = bytes;
                    cost
                }
                1 => curl(registry.host(), &digest, work)?,
                2 => fetch_by_oras(&oras, registry.host(), work)?,
                _ => disk(size, work)?,
            };
            rows[at].seconds.push(cost.wall.as_secs_f64());
            rows[at].peak = rows[at].peak.max(cost.peak);
        }
        eprintln!("bench: model, round {}/{rounds}: {rows:.1?}", round + 1);
    }
    let second = second(&ours, registry, cache, size / SHARDS)?;
    Ok(Model { size, push, rows, stored, second })
}

impl Report<'_> {
    /// A model.
    pub fn model(&mut self, measured: &Model) {
        let Model { size, push, rows, stored, second } = measured;
        let [ours, curl, oras, disk] = rows.each_ref().map(|row| median(&row.seconds));
        self.add(&format!(
            "\n## A model\n\nOne file of {:.2} GB as a raw layer, from the registry on loopback to a mount or a file, caches \
             dropped before; medians. curl writes the blob to a file, with sha256sum reading along; `disk` writes as many \
             zeros and waits for the disk.\n",
            *size as f64 / 1e9
        ));
        self.add("| | seconds | MB/s | peak memory |");
        self.add("|---|---|---|---|");
        for (name, row) in ["composefs-csi mount", "curl and sha256sum", "oras pull", "disk"].iter().zip(rows)
        {
            let seconds = median(&row.seconds);
            self.add(&format!(
                "| {name} | {seconds:.1} | {:.0} | {} MiB |",
                *size as f64 / 1e6 / seconds,
                row.peak >> 20
            ));
        }
        self.add(&format!(
            "\n{:.2} of the slower of curl and disk (wanted: 0.9); {:.2} of oras' time. The store takes {:.3} of the file's \
             bytes. Pushing it took {:.1} s and {} MiB.",
            curl.max(disk) / ours,
            ours / oras,
            *stored as f64 / *size as f64,
            push.wall.as_secs_f64(),
            push.peak >> 20,
        ));
        self.add(&format!(
            "\nA second version, in which one of {SHARDS} shards ({:.2} GB in all) has changed: {:.3} of its bytes are sent by \
             `push`, {:.3} come over the wire of a node that has the first, and its store grows by {:.3}.",
            second.size as f64 / 1e9,
            second.sent as f64 / second.size as f64,
            second.fetched as f64 / second.size as f64,
            second.stored as f64 / second.size as f64,
        ));
    }
}

/// The driver's command line on a state directory of its own.
struct Ours {
    program: PathBuf,
    state: PathBuf,
}

impl Ours {
    fn command(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state-dir").arg(&self.state).args(["--insecure-registry", host]);
        command.args(["--without-policy", "accept", "--output", "json"]).args(arguments);
        command
    }

    /// From nothing to a mount; also what the store then takes of the disk.
    fn mount(&self, host: &str, work: &Path) -> Result<(Cost, u64)> {
        let target = work.join("model-mount");
        fs::create_dir_all(&target)?;
        remove(&self.state)?;
        cold()?;
        let (cost, _) = run(&self.command(host, &["mount", &name(host, "model"), text(&target)?]))?;
        let bytes = used(&self.state)?;
        run(&self.command(host, &["unmount", text(&target)?]))?;
        remove(&self.state)?;
        Ok((cost, bytes))
    }
}

fn second(ours: &Ours, registry: &Registry, cache: &Path, shard: u64) -> Result<Second> {
    let at = cache.join(format!("shards-{shard}"));
    remove(&ours.state)?;
    for number in 0..SHARDS {
        write(&at.join(format!("model-{number}.safetensors")), shard, 100 + number)?;
    }
    let line = Line::start(registry.host(), Duration::ZERO, 0)?;
    let host = line.address.to_string();
    let image = name(&host, "shards");
    let push = ["push", text(&at)?, &image, "--artifact=modelpack"];
    run(&ours.command(&host, &push))?;
    run(&ours.command(&host, &["pull", &image]))?;
    let (passed, stored) = (line.passed(), used(&ours.state)?);
    let changed = at.join("model-1.safetensors");
    fs::remove_file(&changed)?;
    // Another one in every run: the registry has the last one's.
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    write(&changed, shard, seed)?;
    let (_, pushed) = run(&ours.command(&host, &push))?;
    let sent = field(&pushed, &["sent_bytes"])?.parse()?;
    run(&ours.command(&host, &["pull", &image]))?;
    let fetched = line.passed() - passed;
    let stored = used(&ours.state)? - stored;
    fs::remove_dir_all(&at)?;
    remove(&ours.state)?;
    Ok(Second { size: shard * SHARDS, sent, fetched, stored })
}

fn name(host: &str, tag: &str) -> String {
    format!("{host}/bench-model:{tag}")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Writes a file that no compression shrinks, if it is not there.
fn write(path: &Path, size: u64, seed: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|stat| stat.len() == size) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a path without a directory")?)?;
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    io::copy(&mut Noise(seed).take(size), &mut file)?;
    Ok(file.flush()?)
}

/// A field of a JSON document, by its path.
fn field(json: &str, path: &[&str]) -> Result<String> {
    let document: serde_json::Value = serde_json::from_str(json)?;
    let found = document.pointer(&format!("/{}", path.join("/"))).context("another document")?;
    Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

/// Bytes that a directory takes of the disk.
fn used(directory: &Path) -> Result<u64> {
    let (_, printed) =
        run(Command::new("du").args(["--summarize", "--one-file-system", "--block-size=1"]).arg(directory))?;
    printed.split_whitespace().next().context("du says nothing")?.parse().context("du says something else")
}

fn oras() -> Result<PathBuf> {
    let output = Command::new("scripts/debian-tools.sh")
        .arg("oras")
        .output()
        .context("cannot run scripts/debian-tools.sh")?;
    ensure!(output.status.success(), "scripts/debian-tools.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("bin/oras"))
}

fn curl(host: &str, digest: &str, work: &Path) -> Result<Cost> {
    let file = work.join("curl");
    cold()?;
    let url = format!("http://{host}/v2/bench-model/blobs/{digest}");
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"curl --silent --fail "$0" | tee "$1" | sha256sum"#, &url]).arg(&file);
    let (cost, printed) = run(&shell)?;
    fs::remove_file(&file)?;
    ensure!(printed.starts_with(digest.trim_start_matches("sha256:")), "curl fetched other bytes: {printed}");
    Ok(cost)
}

fn fetch_by_oras(oras: &Path, host: &str, work: &Path) -> Result<Cost> {
    let to = work.join("oras");
    cold()?;
    let (cost, _) =
        run(Command::new(oras).args(["pull", "--plain-http", &name(host, "model"), "--output"]).arg(&to))?;
    fs::remove_dir_all(&to)?;
    Ok(cost)
}

fn disk(size: u64, work: &Path) -> Result<Cost> {
    let file = work.join("disk");
    cold()?;
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=1M", "conv=fdatasync", "status=none", &format!("count={}", size >> 20)]);
    let (cost, _) = run(dd.arg(format!("of={}", file.display())))?;
    fs::remove_file(&file)?;
    Ok(cost)
}
