//! Commands that mount: `mount`, `unmount`, `probe`.
//!
//! Such a mount has no volume record. Only its entry in the mount table protects its image from removal, and neither
//! survives a reboot.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::args::{Level, Output};
use super::images::Wanted;
use super::output;
use crate::app::engine::Engine;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::{MountSpec, Mounter as _};
use crate::oci::digest::Digest;
use crate::pull::{Caller, PullPolicy};

/// What to mount of an image, and how.
pub struct Options {
    /// A sub-directory instead of the root.
    pub path: Option<PathBuf>,
    /// Refuse to execute programs.
    pub noexec: bool,
    /// The lowest accepted integrity level.
    pub least: Integrity,
}

impl From<Level> for Integrity {
    fn from(level: Level) -> Self {
        match level {
            Level::Fetch => Self::Fetch,
            Level::Mount => Self::Mount,
            Level::Read => Self::Read,
        }
    }
}

/// `mount IMAGE TARGET`.
pub async fn mount(
    engine: &Engine,
    wanted: Wanted,
    policy: PullPolicy,
    target: &Path,
    options: Options,
    output: Output,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Mounted<'a> {
        target: &'a Path,
        manifest: Digest,
        composefs: VerityDigest,
        integrity: Integrity,
        milliseconds: f64,
    }
    let wanted = Wanted { noexec: options.noexec, ..wanted };
    let ready = wanted.ensure_for(Caller::Mount, engine, policy, output).await?;
    let mounter = engine.mounter()?;
    let spec = MountSpec {
        image: ready.image,
        path: options.path.unwrap_or_default(),
        noexec: options.noexec,
        upper: None,
    };
    // The policy may need a higher level than the command asks for.
    let demanded = ready.admission.as_ref().and_then(|admission| admission.integrity);
    let least = options.least.max(demanded.unwrap_or_default());
    let started = Instant::now();
    // `ready` holds the image until the mount table keeps it.
    let integrity = tokio::task::block_in_place(|| mounter.mount_at_least(&spec, least, target))?;
    let mounted = Mounted {
        target,
        manifest: ready.record.manifest,
        composefs: ready.image,
        integrity,
        milliseconds: started.elapsed().as_secs_f64() * 1e3,
    };
    output::show(output, &mounted, |m| {
        let integrity = match m.integrity {
            Integrity::Read => "verified at every read (fs-verity)",
            Integrity::Mount => "verified before the mount",
            Integrity::Fetch => "verified when it was pulled",
        };
        format!(
            "{} shows {}\n  {integrity}, mounted in {:.1} ms",
            m.target.display(),
            m.manifest,
            m.milliseconds
        )
    })
}

/// `unmount TARGET`.
pub fn unmount(engine: &Engine, target: &Path, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Unmounted<'a> {
        target: &'a Path,
        composefs: VerityDigest,
    }
    let mounter = engine.mounter()?;
    let spec = mounter.mounted(target)?.with_context(|| {
        format!("no image is mounted on {}; `findmnt -t overlay` lists them", target.display())
    })?;
    mounter.unmount(target)?;
    // After its last mount, the private mount of the image goes too.
    mounter.release(&spec.image)?;
    let unmounted = Unmounted { target, composefs: spec.image };
    output::show(output, &unmounted, |u| format!("{} is unmounted", u.target.display()))
}

/// `probe`.
pub fn probe(engine: &Engine, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Probed {
        store: PathBuf,
        filesystem: String,
        integrity: Integrity,
        /// Why the kernel cannot check every read, if so.
        verity_missing: Option<String>,
        mount: String,
    }
    let mounter = engine.mounter()?;
    let filesystem = engine.store.filesystem();
    let probed = Probed {
        store: engine.store.root().to_owned(),
        filesystem: filesystem.name.clone(),
        integrity: mounter.capabilities().integrity(),
        verity_missing: filesystem.verity.clone().err(),
        mount: mounter.capabilities().to_string(),
    };
    output::show(output, &probed, |p| {
        let why = p.verity_missing.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!(
            "store       {} on {}\nintegrity   {}{why}\nmounting    {}",
            p.store.display(),
            p.filesystem,
            p.integrity,
            p.mount
        )
    })
}
