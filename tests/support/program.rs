//! Programs that a test writes for others to run.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable script.
///
/// A process of its own writes the file. Tests are threads of one process: while this one had the file open for
/// writing, another could start a process, which holds a copy of the descriptor until its exec. Until then the kernel
/// refuses to run the script (`ETXTBSY`, execve(2)).
pub fn write(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"cat >"$1" && chmod 755 "$1""#, "sh"]).arg(path).stdin(Stdio::piped());
    let mut writing = shell.spawn().expect("a shell");
    writing.stdin.take().expect("its input").write_all(script.as_bytes()).expect("it reads");
    assert!(writing.wait().expect("it ends").success(), "{} was not written", path.display());
}
