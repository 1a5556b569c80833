//! Running one program: bounded time, bounded output, a clean environment, and nothing of it left afterwards.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Bytes kept of what a program prints, on each of its two outputs; what follows is read and dropped.
const OUTPUT_MAX: usize = 16 << 10;
/// Bytes of input, which a pipe takes at once, so that a program that does not read cannot block us.
const INPUT_MAX: usize = 4096;
/// The environment: enough to find other programs. Wrap a verifier that needs more in a script.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// How a program ended. With neither code nor signal its time was up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The beginning of its standard output.
    pub output: Vec<u8>,
}

/// Runs `program` with `input` on its standard input until it ends or `timeout` has passed. Then everything of
/// its process group is killed.
pub(super) fn run(program: &Path, arguments: &[&str], input: &[u8], timeout: Duration) -> io::Result<Ended> {
    if input.len() > INPUT_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the image's descriptor is too long to be passed on",
        ));
    }
    let deadline = Instant::now() + timeout;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let followed = follow(&mut child, input, deadline);
    // Not reaped yet, so that the number is still this group's and nobody else's.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait()?;
    let (in_time, output, complaint) = followed?;
    if !complaint.is_empty() {
        let complaint = String::from_utf8_lossy(&complaint);
        tracing::debug!(program = %program.display(), "a verifier says: {}", complaint.escape_debug());
    }
    let of_its_own = |value: Option<i32>| value.filter(|_| in_time);
    Ok(Ended { code: of_its_own(status.code()), signal: of_its_own(status.signal()), output })
}

/// Feeds and reads the program until it ends (`true`) or the deadline has passed (`false`).
fn follow(child: &mut Child, input: &[u8], deadline: Instant) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Nobody has to read it.
        match stdin.write_all(input) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut output = Collected::of(child.stdout.take().map(OwnedFd::from))?;
    let mut complaint = Collected::of(child.stderr.take().map(OwnedFd::from))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((false, output.kept, complaint.kept));
        }
        let mut waited = vec![PollFd::new(&process, PollFlags::IN)];
        let pipes = [&output.pipe, &complaint.pipe];
        waited.extend(pipes.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !waited[0].revents().is_empty();
        drop(waited);
        output.drain()?;
        complaint.drain()?;
        if ended {
            // Whatever still holds the pipes is not the program that was asked.
            return Ok((true, output.kept, complaint.kept));
        }
    }
}

/// What has come through a pipe.
struct Collected {
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Collected {
    fn of(pipe: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe.as_fd(), true)?;
        }
        Ok(Self { pipe: pipe.map(File::from), kept: Vec::new() })
    }

    /// Reads what is there.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        // A program that prints without end must not keep us here past its deadline.
        for _ in 0..64 {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = OUTPUT_MAX - self.kept.len();
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
