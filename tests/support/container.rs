//! A container's view of a volume: a process in a mount namespace of its own, with the volume bound into it with or without
//! propagation, as runtimes do it. It keeps a file open, and says what it sees when it is asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

/// kubelet's `mountPropagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `None`, the default.
    None,
    /// `HostToContainer`.
    HostToContainer,
}

/// A running container. It ends with the value.
#[derive(Debug)]
pub struct InContainer {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// In the container: the volume is at `$1`, and `$2` is the file of it that is held open.
const SCRIPT: &str = r#"
set -e
mount --rbind "$0" "$1"
mount --make-r"$3" "$1"
exec 3< "$1/$2"
echo ready
while read -r word path; do
  case $word in
    held) head -c 1 <&3 | tr -d '\n'; echo ;;
    read) head -c 1 "$1/$path" 2>&1 | tr '\n' ' '; echo ;;
  esac
done
"#;

impl InContainer {
    /// Starts one with the volume on `target`. It opens `file` in the volume.
    pub fn start(target: &Path, propagation: Propagation, file: &str) -> Self {
        let inside = target.join("../..").canonicalize().expect("the volume's directory").join("inside");
        std::fs::create_dir_all(&inside).expect("a mount point");
        let kind = if propagation == Propagation::None { "private" } else { "slave" };
        let mut process = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sh", "-c", SCRIPT])
            .args([target, &inside])
            .args([file, kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let questions = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut container = Self { process, questions, answers };
        assert_eq!(container.answer(), "ready");
        container
    }

    /// The next byte of the file that it has opened at the start.
    pub fn held(&mut self) -> String {
        self.ask("held")
    }

    /// The first byte of a file, opened now; or why it cannot be read.
    pub fn read(&mut self, path: &str) -> String {
        self.ask(&format!("read {path}"))
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.questions, "{question}").expect("the container listens");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the container answers");
        line.trim().to_owned()
    }
}

impl Drop for InContainer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets mounts in a directory be passed on, as a node's are that systemd has started.
pub fn share(directory: &Path) {
    mount_bind(directory, directory).expect("a bind mount");
    mount_change(directory, MountPropagationFlags::SHARED).expect("it is shared");
}
