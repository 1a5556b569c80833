//! From layer records to a committed image. Blocking, and the one step that holds a whole tree.

use std::time::{SystemTime, UNIX_EPOCH};

use super::PullError;
use super::error::About as _;
use crate::image::composefs::{self, ImageBytes};
use crate::image::seal::Seal;
use crate::image::store::{ImageRecord, Lease, Store};
use crate::image::tree::{self, CheckedTree, Rules};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, Limits};

/// An image whose layers are all in the store.
pub(super) struct Work {
    /// The platform's manifest.
    pub manifest: Digest,
    /// The platform that the index or the config states.
    pub platform: Option<String>,
    /// The reference, for messages and for the record.
    pub name: String,
    /// DiffIDs computed here, lowest first.
    pub layers: Vec<Digest>,
    /// What the manifest demands of the image.
    pub seal: Option<Seal>,
    /// What becomes of the layers where it demands nothing.
    pub rules: Rules,
    /// Caps on the image.
    pub limits: Limits,
}

/// Folds the layers, writes the image and commits it.
pub(super) fn build(store: &Store, lease: &Lease, work: Work) -> Result<ImageRecord, PullError> {
    let (rules, image) =
        make(store, &work).inspect_err(|error| set_bad_layers_aside(store, &work.layers, error))?;
    let (digest, _) = store.objects().under(lease).about(&work.name)?.put(&image.bytes).about(&work.name)?;
    let record = ImageRecord {
        manifest: work.manifest,
        image: digest,
        image_size: image.bytes.len() as u64,
        rules,
        builder: ImageRecord::BUILDER,
        sealed: work.seal.is_some(),
        layers: work.layers,
        platform: work.platform,
        names: vec![work.name.clone()],
        inodes: image.inodes,
        bytes: image.file_bytes,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
    };
    drop(image);
    store.commit_image(lease, &record).about(&work.name)?;
    // The tree and the image were tens of MiB; a daemon should not keep them.
    crate::sys::release_free_memory();
    Ok(record)
}

/// Makes the image: what the layers say, or what the seal demands, by whichever of its rules.
fn make(store: &Store, work: &Work) -> Result<(Rules, ImageBytes), PullError> {
    let Some(seal) = work.seal else {
        let image = write(store, &work.layers, work.rules, &work.limits, &work.name)?;
        return Ok((work.rules, image));
    };
    let mut built = Vec::new();
    for rules in seal.rules() {
        let image = write(store, &work.layers, *rules, &work.limits, &work.name)?;
        let digest = image.digest();
        if digest == seal.digest {
            return Ok((*rules, image));
        }
        built.push((*rules, digest));
    }
    Err(PullError::NotAsSealed { image: work.name.clone(), seal, built })
}

/// The composefs image of layers that are in the store, by these rules. `image` is for messages.
///
/// # Errors
/// A layer is not there or cannot be trusted, or the layers make no tree by these rules and within `limits`.
pub fn write(
    store: &Store,
    layers: &[Digest],
    rules: Rules,
    limits: &Limits,
    image: &str,
) -> Result<ImageBytes, PullError> {
    let tree = fold(store, layers, rules, limits, image)?;
    if tree.left_out() > 0 {
        let names = tree.left_out();
        tracing::info!(names, "device nodes and named pipes left out; --keep-special-files keeps them");
    }
    composefs::write_image(tree).about(image)
}

/// Sees to it that the next pull fetches anew what cannot be believed: this one must fail, since its layers were taken
/// for present.
fn set_bad_layers_aside(store: &Store, layers: &[Digest], error: &PullError) {
    if !matches!(error, PullError::Store { source, .. } if source.kind() == Kind::Corrupt) {
        return;
    }
    for layer in layers {
        if let Err(error) = store.layers().set_aside_if_bad(layer) {
            tracing::error!(%layer, %error, "a layer's record that is no good stays");
        }
    }
}

/// Folds the layers with these DiffIDs, lowest first, into one tree. `image` is for messages.
///
/// # Errors
/// A layer's record cannot be read, or the layers make no tree within `limits`.
pub fn fold(
    store: &Store,
    layers: &[Digest],
    rules: Rules,
    limits: &Limits,
    image: &str,
) -> Result<CheckedTree, PullError> {
    let mut builder = tree::Builder::with_limits(rules, *limits);
    for diff_id in layers {
        let mut layer = builder.layer();
        for entry in store.layers().entries(diff_id).about(image)? {
            layer.apply(entry.about(image)?).about(image)?;
        }
        layer.end().about(image)?;
    }
    let tree = builder.finish().about(image)?;
    // Layers that were here already were not counted when they were fetched.
    let (found, limit) = (tree.file_bytes(), limits.image_bytes);
    if found > limit {
        let exceeded = Cap::ImageBytes.exceeded(found, limit);
        return Err(PullError::Limit { image: image.to_owned(), exceeded });
    }
    Ok(tree)
}
