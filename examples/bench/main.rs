//! Measures the driver beside its peers; `make bench` runs it and docs/benchmarks.md has the result.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(missing_docs, reason = "not a library")]

mod chunked;
mod containerd;
mod cosign;
mod counting_proxy;
mod disk;
mod fixtures;
mod line;
mod machine;
mod many;
mod model;
mod packages;
mod peers;
mod plot;
mod policy;
mod publish;
mod pull;
mod reads;
mod registry;
mod report;
mod sharing;
mod stats;
#[path = "../support/mod.rs"]
mod support;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use containerd::Containerd;
use disk::Disk;
use fixtures::Fixtures;
use peers::{Cfsctl, Ours, Peer, Podman, Umoci};
use registry::Registry;
use report::Report;
use support::mounts::{remove, unmount_below};

/// Measures composefs-csi beside containerd, podman, umoci and cfsctl, and writes docs/benchmarks.md.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each peer, taken in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Publishes of a stored image.
    #[arg(long, default_value_t = 1000)]
    publishes: u32,
    /// Pods that read the same files.
    #[arg(long, default_value_t = 50)]
    pods: u32,
    /// Images on one base that are mounted at the same time.
    #[arg(long, default_value_t = 150)]
    images: usize,
    /// Files of that base.
    #[arg(long, default_value_t = 6000)]
    base_files: usize,
    /// Sections to measure.
    #[arg(long, value_delimiter = ',', default_values_t = ["pull", "chunked", "memory", "publish", "policy", "sharing", "many", "reads", "transfer", "model"].map(str::to_owned))]
    only: Vec<String>,
    /// Bytes of the file of a model.
    #[arg(long, default_value_t = 4 << 30)]
    model_bytes: u64,
    /// Where images are made and kept (about 16 GB); ~/.cache/composefs-csi/bench by default.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Where the disk of a run is mounted, whose file lies beside it; both are removed before and after.
    #[arg(long, default_value = "/var/tmp/composefs-csi-bench")]
    work: PathBuf,
    /// Where to write the report.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String> {
    ensure!(rustix::process::geteuid().is_root(), "mounting needs root; run: make bench");
    let cache = match &arguments.cache {
        Some(cache) => cache.clone(),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/composefs-csi/bench"),
    };
    let fixtures = Fixtures::prepare(&cache)?;
    let registry = Registry::start(&cache)?;
    fs::create_dir_all(&arguments.docs)?;
    let mut report = Report::new(&arguments.docs, &machine::introduction());
    let disk = Disk::mount(&arguments.work)?;
    let bench = Bench { arguments, cache, fixtures, registry, disk, program: program()? };
    for section in &arguments.only {
        match section.as_str() {
            "pull" => bench.pull(&mut report)?,
            "chunked" => {
                let (places, rounds) = ((bench.work(), bench.cache.as_path()), arguments.rounds);
                chunked::measure(&bench.program, places, &bench.registry, rounds, &mut report)?;
            }
            "memory" => bench.memory(&mut report)?,
            "publish" => bench.publish(&mut report)?,
            "policy" => bench.policy(&mut report)?,
            "sharing" => bench.sharing(&mut report)?,
            "many" => bench.many(&mut report)?,
            "reads" => bench.reads(&mut report)?,
            "transfer" => bench.transfer(&mut report)?,
            "model" => {
                let places = (bench.cache.as_path(), bench.work());
                let much = (arguments.model_bytes, arguments.rounds);
                report.model(&model::measure(&bench.program, &bench.registry, places, much)?);
            }
            other => anyhow::bail!("there is no section {other:?}"),
        }
    }
    report.finish()
}

/// The driver's program is in the directory above the examples.
fn program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.ancestors().nth(2).map(|target| target.join("composefs-csi"));
    program
        .filter(|program| program.exists())
        .context("the program composefs-csi is not built; run: make bench")
}

/// The composefs project's tool, built once and kept.
fn cfsctl() -> Result<PathBuf> {
    let output = Command::new("scripts/cfsctl.sh").output().context("cannot run scripts/cfsctl.sh")?;
    ensure!(output.status.success(), "scripts/cfsctl.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

struct Bench<'a> {
    arguments: &'a Arguments,
    cache: PathBuf,
    fixtures: Fixtures,
    registry: Registry,
    /// Where stores and mounts are.
    disk: Disk,
    program: PathBuf,
}

impl Bench<'_> {
    fn work(&self) -> &Path {
        &self.arguments.work
    }

    fn pull(&self, report: &mut Report<'_>) -> Result<()> {
        let peers: [Box<dyn Peer>; 5] = [
            Box::new(Ours::new(self.program.clone(), self.work())),
            Box::new(Containerd::new(self.work())?),
            Box::new(Podman::new(self.work())?),
            Box::new(Umoci::new(self.work())),
            Box::new(Cfsctl::new(cfsctl()?, self.work(), &self.registry.home)),
        ];
        let fixture = self.fixtures.get("v1")?;
        let rounds = pull::rounds(&peers, &self.registry, fixture, self.arguments.rounds)?;
        report.pull(fixture, &rounds, &[("podman", 0.45), ("cfsctl", 0.75)])?;
        self.beside_containerd(report)
    }

    /// A smaller image, and more rounds: what a node does without us.
    fn beside_containerd(&self, report: &mut Report<'_>) -> Result<()> {
        let pair: [Box<dyn Peer>; 2] =
            [Box::new(Ours::new(self.program.clone(), self.work())), Box::new(Containerd::new(self.work())?)];
        let fixture = self.fixtures.get("middle")?;
        let rounds = pull::rounds(&pair, &self.registry, fixture, self.arguments.rounds)?;
        report.beside_containerd(fixture, &rounds);
        Ok(())
    }

    fn transfer(&self, report: &mut Report<'_>) -> Result<()> {
        let (rounds, registry) = (self.arguments.rounds, &self.registry);
        let measured = transfer::measure(&self.program, registry, &self.cache, self.work(), rounds)?;
        report.transfer(&measured);
        Ok(())
    }

    fn memory(&self, report: &mut Report<'_>) -> Result<()> {
        let ours: [Box<dyn Peer>; 1] = [Box::new(Ours::new(self.program.clone(), self.work()))];
        let mut measured = Vec::new();
        for tag in ["v1", "half", "whole", "tiny"] {
            let fixture = self.fixtures.get(tag)?;
            let mut rounds = pull::rounds(&ours, &self.registry, fixture, self.arguments.rounds.min(3))?;
            measured.push((fixture, rounds.pop().context("one peer, one result")?));
        }
        let borrowed: Vec<_> = measured.iter().map(|(fixture, rounds)| (*fixture, rounds)).collect();
        report.memory(&borrowed);
        Ok(())
    }

    fn publish(&self, report: &mut Report<'_>) -> Result<()> {
        let base = self.fresh("publish")?;
        let image = self.registry.reference("v1");
        let count = self.arguments.publishes;
        let latency = publish::measure(&self.program, &base, self.registry.host(), &image, count)?;
        self.drop(&base)?;
        report.publish(&latency)
    }

    fn policy(&self, report: &mut Report<'_>) -> Result<()> {
        let base = self.fresh("policy")?;
        let image = self.registry.reference("v1");
        let (key, repository) = cosign::sign(&self.cache, &image)?;
        let (host, count) = (self.registry.host(), self.arguments.publishes);
        report.policy(&policy::measure(&self.program, &base, host, &image, (&key, &repository), count)?);
        self.drop(&base)
    }

    fn sharing(&self, report: &mut Report<'_>) -> Result<()> {
        let mut all = Vec::new();
        for tags in [&["v1"][..], &["v1", "v2"]] {
            let base = self.fresh("sharing")?;
            support::measure::cold()?;
            let images: Vec<String> = tags.iter().map(|tag| self.registry.reference(tag)).collect();
            let (host, pods) = (self.registry.host(), self.arguments.pods);
            all.push(sharing::measure(&self.program, &base, host, &images, pods)?);
            self.drop(&base)?;
        }
        report.sharing(&all)
    }

    fn many(&self, report: &mut Report<'_>) -> Result<()> {
        let base = self.fresh("many")?;
        let (images, files) = (self.arguments.images, self.arguments.base_files);
        report.many(&many::measure(&self.program, &base, images, files)?, images, files);
        self.drop(&base)
    }

    fn reads(&self, report: &mut Report<'_>) -> Result<()> {
        let ours = Ours::new(self.program.clone(), self.work());
        let podman = Podman::new(self.work())?;
        let reference = self.registry.reference("v1");
        report.reads(&reads::measure(&ours, &podman, &reference, self.arguments.rounds, &self.disk)?)
    }

    /// An empty directory for one node plugin.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let base = self.work().join(name);
        self.drop(&base)?;
        fs::create_dir_all(&base)?;
        Ok(base)
    }

    fn drop(&self, base: &Path) -> Result<()> {
        unmount_below(base)?;
        remove(base)
    }
}
