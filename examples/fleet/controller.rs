//! The controller: the program, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::admin::Admin;

/// It runs until this is dropped.
pub struct Controller {
    process: Child,
    directory: TempDir,
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub async fn start(admin: &Admin, program: Option<&Path>) -> Result<Controller> {
    let directory = tempfile::tempdir()?;
    let kubeconfig = admin.account("controller", None, directory.path()).await?;
    let own = std::env::current_exe()?;
    let beside = own.parent().and_then(Path::parent).context("where is this program?")?.join("composefs-csi");
    let program = program.unwrap_or(&beside);
    let at = |name: &str| directory.path().join(name);
    let mut command = Command::new(program);
    command.args(["controller", "--image-prefetch"]).arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.arg(format!("--endpoint=unix://{}", at("csi.sock").display()));
    command.arg(format!("--state-dir={}", at("state").display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(at("log"))?);
    let process = command.spawn().with_context(|| format!("{} does not run", program.display()))?;
    Ok(Controller { process, directory })
}

impl Controller {
    /// Its memory and processor time, while it still runs.
    pub fn used(&self) -> Result<String> {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.process.id()));
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        ensure!(of("cmdline").is_ok_and(|line| !line.is_empty()), "the controller has ended: {log}");
        let warnings = log.lines().filter(|line| line.contains("WARN")).count();
        let status = of("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("its peak")?;
        let stat = of("stat")?;
        // After the name, which may hold anything: user and system time are the 12th and 13th, in hundredths.
        let times: Vec<&str> = stat.rsplit_once(')').context("its times")?.1.split_whitespace().collect();
        let time = |index: usize| times.get(index).and_then(|time| time.parse::<u64>().ok());
        let ticks = time(11).zip(time(12)).map(|(user, system)| user + system).context("its times")?;
        let seconds = ticks / 100;
        Ok(format!("{} at its peak, {seconds} s of a processor, {warnings} warnings", peak.trim()))
    }
}
