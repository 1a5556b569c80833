//! Runs programs and measures their cost.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The cost of one or several commands that ran one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub wall: Duration,
    /// Seconds of processor time in user and kernel mode, children included.
    pub cpu: f64,
    /// Bytes resident in the largest process, at its peak (`ru_maxrss`).
    pub peak: u64,
}

impl Cost {
    /// The cost of both, one after the other.
    pub fn then(self, next: Self) -> Self {
        Self { wall: self.wall + next.wall, cpu: self.cpu + next.cpu, peak: self.peak.max(next.peak) }
    }
}

/// Runs `command` to its end under time(1); also returns its standard output.
///
/// # Errors
/// It failed; the message contains its standard error.
pub fn run(command: &Command) -> Result<(Cost, String)> {
    let report = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new("time");
    timed.args(["--format=%U %S %M", "--output"]).arg(report.path()).arg("--");
    timed.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        timed.current_dir(directory);
    }
    let started = Instant::now();
    let output = timed.stdin(Stdio::null()).output().context("cannot run time(1); run: make setup")?;
    let wall = started.elapsed();
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(report.path())?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, system, kibibytes] = numbers[..] else {
        anyhow::bail!("time(1) wrote {text:?} instead of three numbers")
    };
    let cost = Cost { wall, cpu: user + system, peak: kibibytes as u64 * 1024 };
    Ok((cost, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Writes everything to disk and drops the kernel's caches: pages, dentries and inodes.
pub fn cold() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches; run as root")
}
