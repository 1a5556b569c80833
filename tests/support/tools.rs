//! The foreign programs that tests hold us against. A missing one fails the test, and says what to do.

use std::path::PathBuf;
use std::process::Command;

/// A program of a private tool set, see `scripts/debian-tools.sh`.
pub fn debian(set: &str, program: &str) -> PathBuf {
    debian_set(set).join("bin").join(program)
}

/// The directory of a private tool set.
pub fn debian_set(set: &str) -> PathBuf {
    script("debian-tools.sh", &[set])
}

/// composefs-rs's command, see `scripts/cfsctl.sh`.
pub fn cfsctl() -> PathBuf {
    script("cfsctl.sh", &["any"])
}

/// The machine's helm, or one of our own, see `scripts/helm.sh`.
pub fn helm() -> PathBuf {
    script("helm.sh", &[])
}

/// KServe's definitions of its kinds, see `scripts/kserve-crds.sh`.
pub fn kserve_definitions() -> PathBuf {
    script("kserve-crds.sh", &[])
}

/// The sigstore for tests, see `scripts/sigstore.sh`.
pub fn sigstore() -> PathBuf {
    script("sigstore.sh", &[])
}

/// The clients in Python, see `scripts/python-tools.sh`: `modelpack`, and `python3` with oras-py.
pub fn python(program: &str) -> PathBuf {
    script("python-tools.sh", &[]).join("bin").join(program)
}

/// The path that a script of ours prints.
fn script(name: &str, arguments: &[&str]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let output = Command::new(&path).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", path.display()));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/{name} {arguments:?} failed; run `make setup`:\n{complaint}");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
}

/// A program that `make setup` installs.
pub fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed; run `make setup`"))
}
