//! The foreign programs that tests hold us against. A missing one fails the test, and says what to do.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::path::PathBuf;
use std::process::Command;

/// A program of a private tool set, see `scripts/debian-tools.sh`.
pub fn debian(set: &str, program: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/debian-tools.sh");
    let output = Command::new(script).arg(set).output().expect("cannot run scripts/debian-tools.sh");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/debian-tools.sh {set} failed; run `make setup`:\n{complaint}");
    let dir = String::from_utf8(output.stdout).expect("a path");
    PathBuf::from(dir.trim_end()).join("bin").join(program)
}

/// A program that `make setup` installs.
pub fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed; run `make setup`"))
}
