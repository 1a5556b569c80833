//! Signatures by cosign, whose key is kept with the images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Signs `image` with a P-256 key of `cache` if it is not signed yet. Returns the public key and the repository that
/// the signature names, since an earlier run had another port of the registry.
///
/// The signature is one manifest tagged `sha256-….sig`, as `sigstoreSigned` needs it, and is not in a log.
pub fn sign(cache: &Path, image: &str) -> Result<(PathBuf, String)> {
    let tool = Tool::find(cache)?;
    let (private, public) = (cache.join("signing.key"), cache.join("signing.pub"));
    let named = cache.join("signing.repository");
    if !public.exists() {
        tool.run(&["generate-key-pair", "--output-key-prefix"], &cache.join("signing"), &[])?;
    }
    let old_format = "--new-bundle-format=false";
    let verify = ["verify", old_format, "--insecure-ignore-tlog", "--key"];
    if tool.run(&verify, &public, &[image]).is_err() {
        let unlogged = ["--use-signing-config=false", "--tlog-upload=false"];
        let sign = ["sign", "--yes", old_format, unlogged[0], unlogged[1], "--key"];
        tool.run(&sign, &private, &[image])?;
        tool.run(&verify, &public, &[image])?;
        let (repository, _) = image.rsplit_once(':').context("an image has a tag")?;
        fs::write(&named, repository)?;
    }
    Ok((public, fs::read_to_string(&named)?))
}

struct Tool<'a> {
    program: PathBuf,
    home: &'a Path,
}

impl<'a> Tool<'a> {
    /// Debian's, unpacked once and kept.
    fn find(home: &'a Path) -> Result<Self> {
        let output = Command::new("scripts/debian-tools.sh")
            .arg("cosign")
            .output()
            .context("cannot run scripts/debian-tools.sh")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/debian-tools.sh cosign: {complaint}");
        let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Ok(Self { program: directory.join("bin/cosign"), home })
    }

    fn run(&self, first: &[&str], file: &Path, last: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        // The key is only for measuring, so its password is empty.
        command.env("HOME", self.home).env("COSIGN_PASSWORD", "").env_remove("DOCKER_CONFIG");
        let output = command.args(first).arg(file).args(last).output().context("cannot run cosign")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cosign {} failed: {complaint}", first.join(" "));
        Ok(())
    }
}
