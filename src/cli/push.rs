//! `push`: from a directory to an image or artifact in a registry.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::num::NonZero;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar};
use serde::Serialize;

use super::args::{ArtifactArg, CompressionArg, Output, PushArgs};
use super::seal::warn_of_powers;
use super::{output, progress};
use crate::app::engine::{EngineSettings, sources};
use crate::image::verity::VerityDigest;
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::platform::Platform;
use crate::oci::reference::{Reference, RegistryReference, Version};
use crate::push::{
    self, BlobState, Compression, Options, Progress, PushError, Pushed, PushedBlob, ScanRules, Shape,
    Signing, SigningKey, Times, Watch,
};

/// Blobs that are read or sent at the same time, at most: each has up to 12 MiB in memory.
const PARALLEL_MAX: usize = 2;
/// How often a terminal is redrawn, and how often a line is written without one.
const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Report {
    /// What was pushed, by digest.
    image: String,
    /// The same by its tag.
    reference: String,
    manifest: Digest,
    composefs: Option<VerityDigest>,
    /// The manifest of its signatures.
    signature: Option<Digest>,
    blobs: Vec<PushedBlob>,
    /// Bytes of the blobs, and of those that were sent.
    bytes: u64,
    sent_bytes: u64,
    seconds: f64,
}

/// `push DIR REF`.
pub async fn push(settings: &EngineSettings, arguments: &PushArgs, output: Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let reference: Reference = arguments.reference.parse()?;
    let (registry, tag) = place(&reference)?;
    let mut options = options(arguments, settings.limits.image)?;
    // Before anything is sent: a key that is none is nobody's surprise at the end.
    if let Some(path) = &arguments.key {
        let password = std::env::var_os("COSIGN_PASSWORD").map(OsStringExt::into_vec);
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || SigningKey::read(&path, password.as_deref())).await?;
        options.sign = Some(Signing { key: Arc::new(read?), name: registry.name() });
    }
    let (sources, credentials) = (sources(settings)?, Credentials::none());
    sources.ask_helpers(&reference, &credentials).await;
    let repository = sources.repository(registry, &credentials)?;
    let watch = Watch::default();
    let pushed = tokio::select! {
        biased;
        pushed = push::push(&arguments.directory, &tag, &repository, &options, &watch) => pushed?,
        () = show(&watch, output) => anyhow::bail!("progress ended before the push"),
    };
    if let Some(sealed) = &pushed.sealed {
        warn_of_powers(&sealed.powers);
    }
    let report = report(&reference, pushed, started);
    tracing::info!(
        target: "composefs_csi::progress",
        "pushed {}: {} of {} sent in {:.1} s",
        report.reference,
        output::bytes(report.sent_bytes),
        output::bytes(report.bytes),
        report.seconds,
    );
    // One line, for scripts: what to sign and to mount.
    output::show(output, &report, |report| report.image.clone())
}

/// The repository and the tag.
fn place(reference: &Reference) -> Result<(&RegistryReference, String), PushError> {
    match (reference, reference.version()) {
        (Reference::Layout(_), _) => Err(PushError::Layout { reference: reference.to_string() }),
        (Reference::Registry(registry), Version::Tag(tag)) => Ok((registry, tag)),
        (Reference::Registry(_), _) => Err(PushError::NoTag { reference: reference.to_string() }),
    }
}

fn options(arguments: &PushArgs, limits: ImageLimits) -> anyhow::Result<Options> {
    let compression = match arguments.compression {
        CompressionArg::ZstdChunked => Compression::Chunked,
        CompressionArg::Zstd => Compression::Zstd,
        CompressionArg::Gzip => Compression::Gzip,
    };
    let shape = match arguments.artifact {
        None => Shape::Image { compression, platform: platform(arguments.platform.as_deref())? },
        Some(ArtifactArg::Modelpack) => Shape::ModelPack,
        Some(ArtifactArg::Files) => {
            let kind = &arguments.artifact_type;
            anyhow::ensure!(
                is_media_type(kind),
                "--artifact-type {kind:?} is not a media type, as text/plain is"
            );
            Shape::Files(kind.clone())
        }
    };
    let mut annotations = BTreeMap::new();
    for text in &arguments.annotations {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = pair.with_context(|| format!("--annotation {text:?} is not name=value"))?;
        annotations.insert(name.to_owned(), value.to_owned());
    }
    if let Some(from) = &arguments.mount_from {
        // The grammar of references decides what a repository is.
        let text = format!("registry.example/{from}:x");
        text.parse::<Reference>().with_context(|| format!("--mount-from {from:?} is not a repository"))?;
    }
    let times = match (arguments.keep_times, arguments.source_date_epoch) {
        (true, latest) => Times::Kept(latest),
        (false, all) => Times::All(all.unwrap_or(0)),
    };
    let scan = ScanRules {
        times,
        owners: arguments.keep_owners,
        follow_links: arguments.follow_links,
        files_only: arguments.artifact.is_some(),
        entries_max: limits.inodes as u64,
    };
    let parallel = std::thread::available_parallelism().map_or(1, NonZero::get).min(PARALLEL_MAX);
    let seal = arguments.seal.then(|| arguments.rules.into());
    let mount_from = arguments.mount_from.clone();
    Ok(Options { shape, scan, annotations, seal, sign: None, mount_from, parallel, limits })
}

/// Whether a text is a type and a subtype (RFC 6838, section 4.2).
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

/// The platform of an image: the machine's without its variant, so that machines of one architecture push the same.
fn platform(stated: Option<&str>) -> anyhow::Result<Platform> {
    if let Some(stated) = stated {
        return Ok(stated.parse()?);
    }
    let host = Platform::host().to_string();
    let plain: Vec<&str> = host.splitn(3, '/').take(2).collect();
    Ok(plain.join("/").parse()?)
}

fn report(reference: &Reference, pushed: Pushed, started: Instant) -> Report {
    let bytes = |blobs: &[PushedBlob], sent_only: bool| {
        blobs.iter().filter(|blob| blob.sent || !sent_only).map(|blob| blob.size).sum()
    };
    Report {
        image: reference.clone().pinned(pushed.manifest).to_string(),
        reference: reference.to_string(),
        manifest: pushed.manifest,
        composefs: pushed.sealed.map(|sealed| sealed.digest),
        signature: pushed.signature,
        bytes: bytes(&pushed.blobs, false),
        sent_bytes: bytes(&pushed.blobs, true),
        blobs: pushed.blobs,
        seconds: started.elapsed().as_secs_f64(),
    }
}

/// Shows how far the push is, until the returned future is dropped: on a terminal a bar for each blob that is worked on,
/// elsewhere lines.
async fn show(watch: &Watch, output: Output) {
    let progress = loop {
        if let Some(progress) = watch.get() {
            break progress;
        }
        tokio::time::sleep(REDRAW).await;
    };
    if output == Output::Text && std::io::stderr().is_terminal() {
        return bars(progress).await;
    }
    loop {
        tokio::time::sleep(LINE).await;
        tracing::info!(target: "composefs_csi::progress", "pushing: {progress}");
    }
}

async fn bars(progress: &Progress) {
    let all = MultiProgress::new();
    let words = all.add(progress::spinner());
    // An artifact may have more files than a terminal has lines.
    let mut bars: BTreeMap<usize, ProgressBar> = BTreeMap::new();
    loop {
        for (number, blob) in progress.blobs.iter().enumerate() {
            let doing = match blob.state() {
                BlobState::Reading => "reading",
                BlobState::Sending => "sending",
                _ => {
                    if let Some(bar) = bars.remove(&number) {
                        all.remove(&bar);
                    }
                    continue;
                }
            };
            let bar = bars.entry(number).or_insert_with(|| {
                let bar = all.add(ProgressBar::no_length().with_style(progress::style()));
                bar.set_prefix(blob.name.clone());
                bar
            });
            let (total, done) = blob.step();
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(doing);
        }
        words.set_message(progress.to_string());
        words.tick();
        tokio::time::sleep(REDRAW).await;
    }
}
