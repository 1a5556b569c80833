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
use super::{output, progress};
use crate::app::engine::Engine;
use crate::app::lazy::{Coming, End};
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::{KernelMounter, MountSpec, Mounter as _};
use crate::oci::digest::Digest;
use crate::pull::{Caller, ImageRequest, Images as _, PullPolicy, Ready, Start, Started, Watch};

/// What to mount of an image, and how.
pub struct Options {
    /// A sub-directory instead of the root.
    pub path: Option<PathBuf>,
    /// Refuse to execute programs.
    pub noexec: bool,
    /// The lowest accepted integrity level.
    pub least: Integrity,
    /// Mount before the content is here.
    pub lazy: bool,
}

/// A mount, as it is reported.
#[derive(Serialize)]
struct Mounted<'a> {
    target: &'a Path,
    manifest: Digest,
    composefs: VerityDigest,
    integrity: Integrity,
    milliseconds: f64,
    /// Bytes of its content, some of which are yet to come; `None` if all is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    coming_bytes: Option<u64>,
}

impl Mounted<'_> {
    fn show(&self, output: Output) -> anyhow::Result<()> {
        output::show(output, self, |m| {
            let integrity = match m.integrity {
                Integrity::Read => "verified at every read (fs-verity)",
                Integrity::Mount => "verified before the mount",
                Integrity::Fetch => "verified when it was pulled",
            };
            let coming = m.coming_bytes.map_or_else(String::new, |bytes| {
                format!(
                    "\n  {} of content are coming, and files that are missing wait for theirs: let this command go on",
                    output::bytes(bytes)
                )
            });
            format!(
                "{} shows {}\n  {integrity}, mounted in {:.1} ms{coming}",
                m.target.display(),
                m.manifest,
                m.milliseconds
            )
        })
    }
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
    let wanted = Wanted { noexec: options.noexec, ..wanted };
    let mounter = engine.mounter()?;
    let ready = if options.lazy {
        match start(engine, &mounter, wanted, policy, output).await? {
            Found::Here(ready) => *ready,
            Found::Coming(request, started) => {
                return lazily(engine, &mounter, (*request, *started), target, options, output).await;
            }
        }
    } else {
        wanted.ensure_for(Caller::Mount, engine, policy, output).await?
    };
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
        coming_bytes: None,
    };
    mounted.show(output)
}

/// What there is of an image that is wanted at once.
enum Found {
    Here(Box<Ready>),
    Coming(Box<ImageRequest>, Box<Started>),
}

/// Looks for what can be mounted before the content is here. An image that was not published for that is pulled whole.
async fn start(
    engine: &Engine,
    mounter: &KernelMounter,
    wanted: Wanted,
    policy: PullPolicy,
    output: Output,
) -> anyhow::Result<Found> {
    // Never something weaker in silence, and nothing is fetched for what cannot be.
    tokio::task::block_in_place(|| mounter.can_be_lazy()).map_err(|why| {
        anyhow::anyhow!("nothing can be mounted lazily here, because {why}; leave --lazy out")
    })?;
    let request = wanted.request(Caller::Mount, policy, Watch::default());
    let why = match engine.images.start(&request).await? {
        Start::Here(ready) => return Ok(Found::Here(ready)),
        Start::Lazily(started) => return Ok(Found::Coming(Box::new(request), started)),
        Start::Whole(why) => why,
    };
    tracing::warn!(image.reference = %request.reference, why, "the image cannot start lazily; it is pulled first");
    let pulled = tokio::select! {
        biased;
        ready = engine.images.ensure(&request) => ready?,
        () = progress::show(request.watch.clone(), output) => anyhow::bail!("progress ended before the pull"),
    };
    Ok(Found::Here(Box::new(pulled)))
}

/// Mounts an image whose content is not here, and brings that.
async fn lazily(
    engine: &Engine,
    mounter: &KernelMounter,
    (request, started): (ImageRequest, Started),
    target: &Path,
    options: Options,
    output: Output,
) -> anyhow::Result<()> {
    let spec = MountSpec {
        image: started.image.seal.digest,
        path: options.path.unwrap_or_default(),
        noexec: options.noexec,
        upper: None,
    };
    let (manifest, bytes) = (started.manifest, started.image.object_bytes);
    let begun = Instant::now();
    let place = (&spec, target);
    let coming = tokio::task::block_in_place(|| {
        Coming::mount(&engine.images, mounter, &engine.store, request, started, place)
    })?;
    let mounted = Mounted {
        target,
        manifest,
        composefs: spec.image,
        integrity: mounter.level(&spec.image),
        milliseconds: begun.elapsed().as_secs_f64() * 1e3,
        coming_bytes: Some(bytes),
    };
    mounted.show(output)?;
    let watch = coming.watch();
    let end = tokio::select! {
        biased;
        end = coming.complete(&engine.images) => end?,
        () = progress::show(watch, output) => anyhow::bail!("progress ended before the pull"),
    };
    match end {
        End::Complete => tracing::info!(target: "composefs_csi::progress", "all of its content is here"),
        End::Unmounted => {
            tracing::info!(target: "composefs_csi::progress", "nothing shows the image any more")
        }
    }
    Ok(())
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
        /// Why images cannot be mounted lazily, if so.
        lazy_missing: Option<String>,
    }
    let mounter = engine.mounter()?;
    let filesystem = engine.store.filesystem();
    let probed = Probed {
        store: engine.store.root().to_owned(),
        filesystem: filesystem.name.clone(),
        integrity: mounter.capabilities().integrity(),
        verity_missing: filesystem.verity.clone().err(),
        mount: mounter.capabilities().to_string(),
        lazy_missing: mounter.can_be_lazy().err().map(str::to_owned),
    };
    output::show(output, &probed, |p| {
        let why = p.verity_missing.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!(
            "store       {} on {}\nintegrity   {}{why}\nmounting    {}\nlazily      {}",
            p.store.display(),
            p.filesystem,
            p.integrity,
            p.mount,
            p.lazy_missing.as_deref().map_or("yes".to_owned(), |why| format!("no: {why}"))
        )
    })
}
