//! The measured programs: this driver and its peers.
//!
//! Each one starts from nothing, fetches an image from the registry and ends with its files readable
//! below a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::support::measure::{Cost, run};
use crate::support::mounts::{remove, unmount_below};

/// One way from a registry to readable files.
pub trait Peer {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Fetches `reference` and makes its files readable; gives the cost and the directory.
    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)>;

    /// Unmounts and removes everything, as on a node that has never seen an image.
    fn clean(&self) -> Result<()>;
}

/// `podman pull`, then `podman image mount`: overlayfs of extracted layers.
#[derive(Debug)]
pub struct Podman {
    work: PathBuf,
}

impl Podman {
    pub fn new(work: &Path) -> Result<Self> {
        let work = work.join("podman");
        fs::create_dir_all(&work)?;
        // The kernel's overlayfs without options, independent of this machine's configuration.
        let (root, run) = (work.join("root"), work.join("run"));
        let settings = format!("[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run:?}\n");
        fs::write(work.join("storage.conf"), settings)?;
        Ok(Self { work })
    }

    /// Makes the mount of an image that is there anew; returns where it is.
    pub fn remount(&self, reference: &str) -> Result<PathBuf> {
        run(&self.command(&["image", "unmount", reference]))?;
        Ok(PathBuf::from(run(&self.command(&["image", "mount", reference]))?.1.trim()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_STORAGE_CONF", self.work.join("storage.conf"));
        command.args(["--events-backend", "none"]).args(arguments);
        command
    }
}

impl Peer for Podman {
    fn name(&self) -> &'static str {
        "podman pull + image mount"
    }

    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)> {
        let (pull, _) = run(&self.command(&["pull", "--quiet", "--tls-verify=false", reference]))?;
        let (mount, output) = run(&self.command(&["image", "mount", reference]))?;
        let directory = PathBuf::from(output.trim());
        ensure!(directory.is_absolute(), "podman image mount answered {output:?}");
        Ok((pull.then(mount), directory))
    }

    fn clean(&self) -> Result<()> {
        unmount_below(&self.work)?;
        remove(&self.work.join("root"))?;
        remove(&self.work.join("run"))
    }
}

/// `skopeo copy` into a layout, then `umoci unpack`: a plain directory.
#[derive(Debug)]
pub struct Umoci {
    work: PathBuf,
}

impl Umoci {
    pub fn new(work: &Path) -> Self {
        Self { work: work.join("umoci") }
    }
}

impl Peer for Umoci {
    fn name(&self) -> &'static str {
        "skopeo copy + umoci unpack"
    }

    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)> {
        fs::create_dir_all(&self.work)?;
        let (layout, bundle) = (self.work.join("layout"), self.work.join("bundle"));
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        copy.arg(format!("docker://{reference}")).arg(format!("oci:{}:image", layout.display()));
        let mut unpack = Command::new("umoci");
        unpack.arg("unpack").arg("--image").arg(format!("{}:image", layout.display())).arg(&bundle);
        let cost = run(&copy)?.0.then(run(&unpack)?.0);
        Ok((cost, bundle.join("rootfs")))
    }

    fn clean(&self) -> Result<()> {
        remove(&self.work)
    }
}

/// The composefs project's own tool; its skopeo does the fetching.
#[derive(Debug)]
pub struct Cfsctl {
    program: PathBuf,
    work: PathBuf,
    home: PathBuf,
}

impl Cfsctl {
    pub fn new(program: PathBuf, work: &Path, home: &Path) -> Self {
        Self { program, work: work.join("cfsctl"), home: home.to_owned() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // It cannot tell skopeo that a registry has no TLS.
        command.env("HOME", &self.home);
        command.arg("--repo").arg(self.work.join("repository"));
        command
    }
}

impl Peer for Cfsctl {
    fn name(&self) -> &'static str {
        "cfsctl oci pull + mount"
    }

    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)> {
        let mounted = self.work.join("mounted");
        fs::create_dir_all(&mounted)?;
        let (mut init, mut pull, mut mount) = (self.command(), self.command(), self.command());
        // The filesystem here has no fs-verity; ours measures without it as well.
        init.args(["init", "--insecure", "--algorithm", "fsverity-sha256-12"]);
        pull.args(["oci", "pull", &format!("docker://{reference}"), "image"]);
        mount.args(["oci", "mount", "image"]).arg(&mounted);
        let cost = run(&init)?.0.then(run(&pull)?.0).then(run(&mount)?.0);
        Ok((cost, mounted))
    }

    fn clean(&self) -> Result<()> {
        unmount_below(&self.work)?;
        remove(&self.work)
    }
}

/// This project's command line, which does what a publish does.
#[derive(Debug)]
pub struct Ours {
    program: PathBuf,
    work: PathBuf,
}

impl Ours {
    pub fn new(program: PathBuf, work: &Path) -> Self {
        Self { program, work: work.join("ours") }
    }

    /// Makes the mount of an image that is there anew; returns where it is.
    pub fn remount(&self, reference: &str) -> Result<PathBuf> {
        Ok(self.remount_image(reference)?.0)
    }

    /// The same, with the file that holds the image's metadata.
    pub fn remount_image(&self, reference: &str) -> Result<(PathBuf, PathBuf)> {
        let mounted = self.work.join("mounted");
        unmount_below(&self.work)?;
        let answer: serde_json::Value = serde_json::from_str(&run(&self.mount(reference, &mounted))?.1)?;
        let hex = answer["composefs"].as_str().context("`mount` names no image")?;
        let (directory, rest) = hex.split_at_checked(2).context("`mount` names no image")?;
        Ok((mounted, self.objects().join(directory).join(rest)))
    }

    /// Where the contents of files are.
    pub fn objects(&self) -> PathBuf {
        self.work.join("state/store/objects")
    }

    fn mount(&self, reference: &str, target: &Path) -> Command {
        let registry = reference.split('/').next().unwrap_or_default();
        let mut mount = Command::new(&self.program);
        mount.arg("--state-dir").arg(self.work.join("state")).args(["--insecure-registry", registry]);
        mount.args(["--without-policy", "accept"]);
        mount.args(["--output", "json", "mount", reference]).arg(target);
        mount
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "composefs-csi mount"
    }

    fn fetch(&self, reference: &str) -> Result<(Cost, PathBuf)> {
        let mounted = self.work.join("mounted");
        fs::create_dir_all(&mounted)?;
        Ok((run(&self.mount(reference, &mounted))?.0, mounted))
    }

    fn clean(&self) -> Result<()> {
        unmount_below(&self.work)?;
        remove(&self.work)
    }
}
