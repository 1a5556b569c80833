//! `seal`: computes an image's composefs digest and writes it into the image's manifest, so that a signature of the
//! manifest covers every file.

mod first;
mod lazy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;

use super::args::Output;
use super::{output, progress};
use first::FirstUses;
use lazy::{Publication, Published};

use crate::app::engine::{Engine, EngineSettings, sources};
use crate::image::composefs::{self, ImageBytes};
use crate::image::seal::Seal;
use crate::image::seal::document::{Edited, replace_manifests, seal_manifest};
use crate::image::tree::{Powers, Rules, Stop};
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;
use crate::oci::destination::{Destination, NewManifest, NewName};
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, Document, Index, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::oci::platform::Platform;
use crate::oci::reference::{Reference, Version};
use crate::oci::{Credentials, RawManifest, Source};
use crate::pull::{self, Caller, ImageRequest, PullError, PullPolicy, Unbuilt, Watch};

/// The deepest nesting of indexes, as in a pull.
const INDEX_DEPTH_MAX: usize = 4;

/// How to seal.
pub struct Options {
    /// The rules to build the image by.
    pub rules: Rules,
    /// A tag to use instead of the image's own.
    pub tag: Option<String>,
    /// Replace a wrong seal.
    pub force: bool,
    /// Publish what the image needs to start lazily.
    pub lazy: bool,
    /// What is read first then.
    pub first: Option<PathBuf>,
}

#[derive(Serialize)]
struct Sealed {
    /// The image to sign, by digest.
    image: String,
    manifest: Digest,
    changed: bool,
    platforms: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    manifest: Digest,
    composefs: VerityDigest,
    changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lazy: Option<Published>,
}

/// `seal IMAGE`.
pub async fn seal(
    engine: &Engine,
    settings: &EngineSettings,
    image: &str,
    options: Options,
    output: Output,
) -> anyhow::Result<()> {
    let reference: Reference = image.parse()?;
    let (sources, credentials) = (sources(settings)?, Credentials::none());
    let name = new_name(&reference, &options)?;
    let first = match options.first.clone() {
        Some(file) => Some(Arc::new(tokio::task::spawn_blocking(move || FirstUses::read(&file)).await??)),
        None => None,
    };
    sources.ask_helpers(&reference, &credentials).await;
    let mut sealer = Sealer {
        engine,
        source: sources.open(&reference, &credentials)?,
        destination: sources.destination(&reference, &credentials)?,
        reference,
        options,
        first,
        output,
        rows: Vec::new(),
    };
    let top = sealer.source.resolve_to_read(&sealer.reference.version()).await?;
    let raw = sealer.source.manifest(&Version::Digest(top)).await?;
    let (manifest, changed) = match sealer.document(&raw, 0).await? {
        Some(new) => (new, true),
        None => (unchanged(raw), false),
    };
    // A new tag is written even for an image that was sealed before.
    if changed || sealer.options.tag.is_some() {
        let name = name.unwrap_or(NewName::PlaceOf(top));
        sealer.destination.put_as(&manifest, &name).await?;
    }
    let digest = manifest.digest();
    let image = sealer.reference.pinned(digest).to_string();
    let sealed = Sealed { image, manifest: digest, changed, platforms: sealer.rows };
    output::show(output, &sealed, |sealed| {
        let verb = if sealed.changed { "sealed" } else { "is sealed already" };
        let rows = sealed.platforms.iter();
        let rows: String = rows.map(Row::text).collect();
        format!("{} {verb}\n  manifest   {}\n{rows}Sign that manifest now.", sealed.image, sealed.manifest)
    })
}

impl Row {
    fn text(&self) -> String {
        let mut text = format!("  composefs  {} in {}\n", self.composefs, self.manifest);
        if let Some(Published { artifact, changed, by_range, by_stream, first }) = &self.lazy {
            let verb = if *changed { "published" } else { "there already" };
            let list = if *first { ", with a list of first uses" } else { "" };
            text += &format!(
                "  lazy       {artifact} {verb}: {by_range} files by range, {by_stream} by stream{list}\n"
            );
        }
        text
    }
}

/// The name of the sealed image; `None` keeps the image's place in its layout.
fn new_name(reference: &Reference, options: &Options) -> anyhow::Result<Option<NewName>> {
    let tag = match (&options.tag, reference.version()) {
        (Some(tag), _) => {
            // The grammar of references decides what a tag is.
            let text = format!("registry.example/x:{tag}");
            text.parse::<Reference>().with_context(|| format!("--tag {tag:?} is not a tag"))?;
            Some(tag.clone())
        }
        (None, Version::Tag(tag)) => Some(tag),
        (None, Version::Digest(_) | Version::Sole) => None,
    };
    anyhow::ensure!(
        tag.is_some() || matches!(reference, Reference::Layout(_)),
        "{reference} names no tag, and the sealed image has another digest; give it a tag with --tag"
    );
    Ok(tag.map(NewName::Tag))
}

fn unchanged(raw: RawManifest) -> NewManifest {
    NewManifest { media_type: raw.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned()), bytes: raw.bytes }
}

struct Sealer<'a> {
    engine: &'a Engine,
    source: Arc<dyn Source>,
    destination: Arc<dyn Destination>,
    reference: Reference,
    options: Options,
    first: Option<Arc<FirstUses>>,
    output: Output,
    rows: Vec<Row>,
}

impl Sealer<'_> {
    /// Seals a manifest, or all images of an index, and writes what the index leads to. Returns the new document;
    /// `None` if it was sealed already.
    async fn document(&mut self, raw: &RawManifest, depth: usize) -> anyhow::Result<Option<NewManifest>> {
        anyhow::ensure!(depth < INDEX_DEPTH_MAX, "{}: indexes are nested too deeply", self.reference);
        let subject = || format!("manifest {} of {}", raw.digest, self.reference);
        let parsed = Document::parse(&raw.bytes, raw.media_type.as_deref()).with_context(subject)?;
        let (edited, default) = match parsed {
            Document::Image(Manifest { artifact: Some(kind), .. }) if depth > 0 => {
                tracing::warn!(manifest = %raw.digest, "kept unchanged: it is no image of the index but a {kind}");
                return Ok(None);
            }
            Document::Image(manifest) => (self.manifest(raw, &manifest).await?, OCI_MANIFEST),
            Document::Index(index) => {
                let replacements = Box::pin(self.entries(&index, depth)).await?;
                (replace_manifests(&raw.bytes, &replacements)?, OCI_INDEX)
            }
        };
        let Edited::Changed(bytes) = edited else { return Ok(None) };
        let media_type = raw.media_type.clone().unwrap_or_else(|| default.to_owned());
        Ok(Some(NewManifest { media_type, bytes: bytes.into() }))
    }

    /// Seals the images of an index. Attestations and other artifacts are kept unchanged.
    async fn entries(
        &mut self,
        index: &Index,
        depth: usize,
    ) -> anyhow::Result<BTreeMap<Digest, (Digest, u64)>> {
        let mut replacements = BTreeMap::new();
        for entry in &index.entries {
            let described = &entry.descriptor;
            if entry.is_attestation {
                tracing::warn!(manifest = %described.digest, "kept unchanged: it describes the unsealed image");
                continue;
            }
            let mut raw = self.source.manifest(&Version::Digest(described.digest)).await?;
            // The index decides: a layout stores no media type with its blobs.
            raw.media_type = described.stated_type().map(str::to_owned).or(raw.media_type);
            let sealed = Box::pin(self.document(&raw, depth + 1)).await?;
            // Children first: a registry refuses an index whose manifests it does not have.
            if let Some(new) = sealed {
                self.destination.put(&new).await?;
                replacements.insert(described.digest, (new.digest(), new.bytes.len() as u64));
            }
        }
        Ok(replacements)
    }

    async fn manifest(&mut self, raw: &RawManifest, manifest: &Manifest) -> anyhow::Result<Edited> {
        let unbuilt = self.layers(raw, manifest).await?;
        let built = |rules: Rules| -> Result<ImageBytes, PullError> {
            let name = self.reference.to_string();
            tokio::task::block_in_place(|| {
                let limits = (&self.engine.limits.image, &Stop::default());
                let tree = pull::fold(
                    &self.engine.store,
                    (&unbuilt.parts, &Choice::default()),
                    rules,
                    limits,
                    &name,
                )?;
                if rules == self.options.rules {
                    warn_of_powers(&tree.powers());
                }
                let written = composefs::write_image(tree);
                written.map_err(|source| PullError::Image { image: name, source: Arc::new(source) })
            })
        };
        let (rules, force) = (self.options.rules, self.options.force);
        let image = built(rules).map_err(|error| match error {
            PullError::Tree { .. } if matches!(rules, Rules::Canonical { .. }) => anyhow::Error::new(error)
                .context(
                    "this image has no canonical form; `--rules faithful` seals it for this driver alone",
                ),
            other => other.into(),
        })?;
        let digest = image.digest();
        // It is large, and wanted again only to be published.
        let mut images = Vec::new();
        if self.options.lazy {
            images.push(image);
        } else {
            drop(image);
        }
        let seal = Seal { annotation: Seal::annotation_for(rules), digest };
        // A malformed seal counts as none here; `seal_manifest` reports it.
        let found = Seal::of(manifest).ok().flatten();
        // A digest by other rules may be right too: only one that no known rules give is wrong.
        let mut good = Vec::new();
        if let Some(found) =
            found.filter(|found| found.annotation == seal.annotation && found.digest != digest && !force)
        {
            let is_like = |other: &&Rules| **other != rules && other.reduction() == rules.reduction();
            let others = found.rules().iter().filter(is_like);
            for rules in others {
                let other = built(*rules)?;
                good.push(other.digest());
                if self.options.lazy {
                    images.push(other);
                }
            }
        }
        let subject = || format!("manifest {} of {}", raw.digest, self.reference);
        let edited = seal_manifest(&raw.bytes, seal, &good, force).with_context(subject)?;
        let (bytes, seal, changed) = match (&edited, found) {
            (Edited::Changed(bytes), _) => (&bytes[..], seal, true),
            (Edited::Unchanged, found) => (&raw.bytes[..], found.unwrap_or(seal), false),
        };
        let subject = Descriptor {
            media_type: raw.media_type.clone().unwrap_or_else(|| OCI_MANIFEST.to_owned()),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        let (sealed, composefs) = (subject.digest, seal.digest);
        let lazy = match self.options.lazy {
            true => Some(self.publish(images, (subject, seal), (manifest, &unbuilt)).await?),
            false => None,
        };
        self.rows.push(Row { manifest: sealed, composefs, changed, lazy });
        Ok(edited)
    }

    /// Publishes what an image needs to start lazily, before anybody is led to its manifest. One of `images` is the sealed one.
    async fn publish(
        &self,
        images: Vec<ImageBytes>,
        (subject, seal): (Descriptor, Seal),
        (manifest, unbuilt): (&Manifest, &Unbuilt),
    ) -> anyhow::Result<Published> {
        let image = images.into_iter().find(|image| image.digest() == seal.digest);
        let image = image.with_context(|| format!("no rules of the seal give {} again", seal.digest))?;
        let (store, limits, name) =
            (&self.engine.store, self.engine.limits.image, self.reference.to_string());
        let places = pull::places(store, &*self.source, manifest, unbuilt, &limits, &name).await?;
        let first = self.first.clone();
        let publication = Publication { subject, seal, image, places, first, limits };
        publication.publish(&self.source, &*self.destination).await
    }

    /// Fetches the layers of one manifest. The store keeps them while the returned value lives.
    async fn layers(&self, raw: &RawManifest, manifest: &Manifest) -> anyhow::Result<Unbuilt> {
        let watch = Watch::default();
        let request = ImageRequest {
            reference: self.reference.clone(),
            choice: Choice::default(),
            policy: PullPolicy::Always,
            platform: Platform::host(),
            caller: Caller::Operator,
            pinned: None,
            noexec: false,
            credentials: Credentials::none(),
            watch: watch.clone(),
        };
        tokio::select! {
            biased;
            unbuilt = self.engine.images.layers(&request, &self.source, raw.digest, manifest, &self.engine.limits.image) => Ok(unbuilt?),
            () = progress::show(watch, self.output) => anyhow::bail!("progress ended before the layers were fetched"),
        }
    }
}

/// Says what nodes will want a verified signature for, before the image is signed.
pub(super) fn warn_of_powers(powers: &Powers) {
    let Powers { special_file, privileged_file, .. } = powers;
    for (path, what) in [
        (special_file, "device nodes or named pipes"),
        (privileged_file, "set-user-ID or set-group-ID bits or file capabilities"),
    ] {
        if let Some(path) = path {
            tracing::warn!(
                path,
                "the sealed image has {what}; nodes mount it only if their policy verifies its signature, or if they \
                 keep these; `--rules unprivileged` seals without them"
            );
        }
    }
}
