//! containerd: what a node does without us. Pull and unpack as for kubelet's image volumes, then a read-only mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::peers::Peer;
use crate::support::measure::{Cost, run};
use crate::support::mounts::{remove, unmount_below};

/// Unpacked programs, and a daemon of its own for each fetch.
#[derive(Debug)]
pub struct Containerd {
    programs: PathBuf,
    work: PathBuf,
}

impl Containerd {
    /// `work` is where root, state and mounts of the daemon are.
    pub fn new(work: &Path) -> Result<Self> {
        Ok(Self { programs: programs()?, work: work.join("containerd") })
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        command
    }

    fn socket(&self) -> PathBuf {
        self.work.join("containerd.sock")
    }

    fn start(&self) -> Result<Daemon> {
        fs::create_dir_all(&self.work)?;
        let at = |name: &str| self.work.join(name);
        let config = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            self.socket(),
            at("ttrpc.sock"),
        );
        fs::write(at("config.toml"), config)?;
        let log = fs::File::create(at("log"))?;
        let mut command = Command::new(self.programs.join("containerd"));
        command.arg("--config").arg(at("config.toml")).args(["--log-level", "warn"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut daemon = Daemon(child.context("cannot start containerd")?);
        let deadline = Instant::now() + Duration::from_secs(60);
        // `version` answers once the services do.
        while !self.ctr(&["version"]).output()?.status.success() {
            if let Some(status) = daemon.0.try_wait()? {
                bail!("containerd ended with {status}: {}", fs::read_to_string(at("log"))?);
            }
            ensure!(
                Instant::now() < deadline,
                "containerd does not answer: {}",
                fs::read_to_string(at("log"))?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }
}

/// Debian sid's, see `scripts/debian-tools.sh`.
fn programs() -> Result<PathBuf> {
    let output = Command::new("scripts/debian-tools.sh").arg("containerd").output()?;
    ensure!(output.status.success(), "debian-tools.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("bin"))
}

/// Its version, for the report.
pub fn version() -> String {
    let output =
        programs().and_then(|programs| Ok(Command::new(programs.join("ctr")).arg("--version").output()?));
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    format!("containerd {}", text.split_whitespace().nth(2).unwrap_or("unknown"))
}

impl Peer for Containerd {
    fn name(&self) -> &'static str {
        "containerd pull + mount"
    }

    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)> {
        let daemon = self.start()?;
        let mounted = self.work.join("mounted");
        fs::create_dir_all(&mounted)?;
        let before = daemon.cpu()?;
        let (pull, _) = run(&self.ctr(&["images", "pull", "--plain-http", reference]))?;
        let mut mount = self.ctr(&["images", "mount", reference]);
        mount.arg(&mounted);
        let cost = pull.then(run(&mount)?.0);
        // The work is the daemon's; the commands only ask for it.
        let (cpu, peak) = (cost.cpu + daemon.cpu()? - before, cost.peak.max(daemon.peak()?));
        Ok((Cost { cpu, peak, ..cost }, mounted))
    }

    fn clean(&self) -> Result<()> {
        unmount_below(&self.work)?;
        remove(&self.work)
    }
}

/// A running daemon; it ends with this value, and mounts stay.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    /// Seconds of processor time so far.
    fn cpu(&self) -> Result<f64> {
        // proc_pid_stat(5): behind the name in parentheses, fields 14 and 15 in ticks.
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
        let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
        Ok(ticks.context("/proc/PID/stat has no times")? / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Bytes resident at the peak.
    fn peak(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kibibytes.context("/proc/PID/status has no peak")? * 1024)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // All that it has is thrown away.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
