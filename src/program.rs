//! Runs programs of the operator that give credentials: with limits on time and output, in a clean environment, and
//! without leaving a process behind.
//!
//! Standard error is discarded, because it may contain secrets that must not reach the log.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// Enough to find other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One run of a program. Without `Debug`, because the input may hold a token.
pub(crate) struct Run<'a, A> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [A],
    /// Variables besides `PATH`; nothing of the driver's own environment is there.
    pub(crate) environment: Vec<(&'a str, &'a str)>,
    /// What it gets on its standard input.
    pub(crate) input: &'a [u8],
    pub(crate) timeout: Duration,
    /// The longest standard output, in bytes.
    pub(crate) output_max: u64,
}

impl<A: AsRef<OsStr>> Run<'_, A> {
    /// Runs it to its end. The answer is how it ended, and its standard output.
    ///
    /// # Errors
    /// A sentence without secrets: it cannot be started, took too long or wrote too much.
    pub(crate) async fn to_its_end(&self) -> Result<(ExitStatus, Vec<u8>), String> {
        let mut child = Command::new(self.program)
            .args(self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.environment.iter().copied())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that the program's children can be killed with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        // Processes that the program has started are killed with it, also if this future is dropped.
        let group = ProcessGroup(child.id());
        let exchanged = tokio::time::timeout(self.timeout, self.exchange(&mut child)).await;
        // Before the child is reaped: its group id cannot belong to another group yet.
        drop(group);
        let late = |_| format!("it has not answered within {} s", self.timeout.as_secs());
        let output = exchanged.map_err(late)??;
        let status = child.wait().await.map_err(unobserved)?;
        Ok((status, output))
    }

    /// Writes the input, reads the output, and waits until the program has ended.
    async fn exchange(&self, child: &mut Child) -> Result<Vec<u8>, String> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err("it has no pipes".to_owned());
        };
        let write = async move {
            // A program may ignore its input; a broken pipe is not a failure.
            let _ = stdin.write_all(self.input).await;
            drop(stdin);
        };
        let mut output = Vec::new();
        // One byte more than the limit shows that the answer exceeds it.
        let mut bounded = stdout.take(self.output_max + 1);
        // At the same time: a program that writes before it has read must not block.
        let ((), read) = tokio::join!(write, bounded.read_to_end(&mut output));
        read.map_err(|error| format!("its answer cannot be read: {error}"))?;
        if output.len() as u64 > self.output_max {
            return Err(format!("its answer is longer than {} bytes", self.output_max));
        }
        ended(child).await.map_err(unobserved)?;
        Ok(output)
    }
}

/// A process group, killed when dropped.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Waits until a program has ended, without reaping it. It ends soon after its output has ended.
async fn ended(child: &Child) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    // Polled, because tokio's wait would reap the child and free its process id.
    while waitid(WaitId::Pid(pid), options)?.is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn unobserved(error: io::Error) -> String {
    format!("its exit cannot be observed: {error}")
}
