//! A push from beginning to end. The tag is written last: whatever ends before, nobody sees.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::describe::{Blob, Form, Plan};
use super::error::PushError;
use super::item::Item;
use super::manifest::{self, Documents, Shape};
use super::progress::{BlobProgress, BlobState, Progress, Watch};
use super::scan::{self, ScanRules};
use super::seal::{self, Sealed};
use super::sign::{self, Signing};
use super::{send, split};
use crate::image::tree::Rules;
use crate::oci::destination::{NewManifest, NewName, Repository};
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::OCI_MANIFEST;

/// What is pushed, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the directory becomes.
    pub shape: Shape,
    /// What is kept of its files' metadata.
    pub scan: ScanRules,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The rules to seal by, if it is to be sealed.
    pub seal: Option<Rules>,
    /// How it is signed, if it is to be.
    pub sign: Option<Signing>,
    /// Another repository of the registry, which may have blobs.
    pub mount_from: Option<String>,
    /// Blobs that are read or sent at the same time.
    pub parallel: usize,
    /// What nodes take.
    pub limits: ImageLimits,
}

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The manifest's digest.
    pub manifest: Digest,
    /// Layers or files, in the order of the manifest.
    pub blobs: Vec<PushedBlob>,
    /// The seal.
    pub sealed: Option<Sealed>,
    /// The digest of the manifest of its signatures, if it was signed.
    pub signature: Option<Digest>,
}

/// A layer or a file.
#[derive(Debug, Clone, Serialize)]
pub struct PushedBlob {
    /// The file, or which layer it is.
    pub name: String,
    /// The blob's digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether it was sent.
    pub sent: bool,
}

/// Pushes the content of `root` to a repository under `tag`. The runtime must allow blocking threads.
///
/// # Errors
/// See [`PushError`]. The tag is where it was; blobs that were sent stay in the registry, and are not sent again.
pub async fn push(
    root: &Path,
    tag: &str,
    to: &Arc<dyn Repository>,
    options: &Options,
    watch: &Watch,
) -> Result<Pushed, PushError> {
    let plans = {
        let (root, options) = (root.to_owned(), options.clone());
        blocking(move || plans(&root, &options)).await?
    };
    let progress = plans.iter().map(|plan| Arc::new(BlobProgress::new(plan.name.clone(), plan.bytes())));
    let progress = Arc::new(Progress { blobs: progress.collect() });
    watch.set(&progress);
    let claimed = Claimed::default();
    let work =
        plans.iter().zip(&progress.blobs).map(|(plan, progress)| one(plan, progress, to, options, &claimed));
    let done: Vec<(Blob, bool)> =
        futures_util::stream::iter(work).buffered(options.parallel.max(1)).try_collect().await?;
    let (blobs, sent): (Vec<Blob>, Vec<bool>) = done.into_iter().unzip();
    let pushed = plans.iter().zip(&blobs).zip(sent).map(|((plan, blob), sent)| PushedBlob {
        name: plan.name.clone(),
        digest: blob.new.digest,
        size: blob.new.size,
        sent,
    });
    let pushed = pushed.collect();
    let (documents, sealed) = {
        let options = options.clone();
        blocking(move || documents(&plans, &blobs, &options)).await?
    };
    send::put(&**to, &documents.config).await?;
    let manifest = NewManifest { media_type: OCI_MANIFEST.to_owned(), bytes: documents.manifest.into() };
    // A tag that moves before its image is signed would lead pods to what their policy refuses.
    let signature = match &options.sign {
        Some(signing) => {
            to.put(&manifest).await?;
            Some(sign::sign(&**to, signing, &manifest.digest()).await?)
        }
        None => None,
    };
    to.put_as(&manifest, &NewName::Tag(tag.to_owned())).await?;
    Ok(Pushed { manifest: manifest.digest(), blobs: pushed, sealed, signature })
}

/// Digests that somebody sends already: one content may have several names.
type Claimed = Mutex<HashSet<Digest>>;

/// Reads and sends one blob. Returns it, and whether it was sent.
async fn one(
    plan: &Plan,
    progress: &Arc<BlobProgress>,
    to: &Arc<dyn Repository>,
    options: &Options,
    claimed: &Claimed,
) -> Result<(Blob, bool), PushError> {
    progress.enter(BlobState::Reading, None);
    let (reading, seen) = (plan.clone(), Arc::clone(progress));
    let blob = blocking(move || reading.describe(&|bytes| seen.add(bytes))).await?;
    let is_first = claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.new.digest);
    let state = match is_first {
        true => send::send(&**to, plan, &blob.new, options.mount_from.as_deref(), progress).await?,
        false => BlobState::Present,
    };
    progress.enter(state, Some(blob.new.size));
    progress.add(blob.new.size);
    Ok((blob, state == BlobState::Sent))
}

/// Looks through the directory, and decides which blobs there will be.
fn plans(root: &Path, options: &Options) -> Result<Vec<Plan>, PushError> {
    let items = Arc::new(scan::scan(root, &options.scan)?);
    let for_seal = options.seal.is_some();
    let plan = |chosen, form, name| Plan::new(&items, chosen, form, for_seal, name);
    let plans: Vec<Plan> = match &options.shape {
        Shape::Image { compression, .. } => {
            let layers = split::split(&items).into_iter().enumerate();
            let name = |number| format!("layer {}", number + 1);
            layers.map(|(n, chosen)| plan(chosen, Form::Layer(*compression), name(n))).collect()
        }
        Shape::ModelPack | Shape::Files(_) => {
            items.iter().enumerate().map(|(n, item)| plan(vec![n], Form::File, item.shown())).collect()
        }
    };
    let (found, limit) = (plans.len() as u64, options.limits.layers as u64);
    if found > limit {
        return Err(PushError::TooMany {
            found,
            what: "files, each of which is a blob of an artifact",
            limit,
        });
    }
    Ok(plans)
}

fn documents(
    plans: &[Plan],
    blobs: &[Blob],
    options: &Options,
) -> Result<(Documents, Option<Sealed>), PushError> {
    let mut documents = match &options.shape {
        Shape::Image { compression, platform } => {
            manifest::image(blobs, *compression, platform, &options.annotations)
        }
        shape => {
            let items: Vec<&Item> = plans.iter().filter_map(|plan| plan.items().next()).collect();
            manifest::artifact(blobs, &items, shape, &options.annotations)?
        }
    };
    let sealed = seal::seal(plans, blobs, &mut documents, options.seal, &options.limits)?;
    Ok((documents, sealed))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PushError::Thread(error.to_string()))?
}
