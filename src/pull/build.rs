//! From stored parts to a committed image. Blocking, and the one step that holds a whole tree.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::About as _;
use super::recipe::StoredPart;
use super::{Phase, PullError};
use crate::image::composefs::Image;
use crate::image::seal::Seal;
use crate::image::store::{Hold, ImageRecord, Store};
use crate::image::tree::{self, CheckedTree, Powers, Rules, Stop};
use crate::kind::Kind;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, ImageLimits};

/// An image whose parts are all in the store.
pub(super) struct Work {
    /// The platform's manifest.
    pub manifest: Digest,
    /// What of the tree the image has.
    pub choice: Choice,
    /// The platform that the index or the config states.
    pub platform: Option<String>,
    /// The reference, for messages and for the record.
    pub name: String,
    /// What it is made of; later parts lie on top of earlier ones.
    pub parts: Vec<StoredPart>,
    /// What the manifest demands of the image.
    pub seal: Option<Seal>,
    /// How the tree is made where the manifest demands nothing.
    pub rules: Rules,
    /// Caps on the image.
    pub limits: ImageLimits,
}

/// Folds the parts, writes the image and commits it. `enter` hears what is done.
pub(super) fn build(
    store: &Store,
    hold: &Hold,
    work: Work,
    stop: &Stop,
    enter: &dyn Fn(Phase),
) -> Result<ImageRecord, PullError> {
    // What the layers' threads have freed would otherwise count beside what this one takes.
    crate::sys::release_free_memory();
    enter(Phase::Building);
    let Made { rules, image, powers } =
        make(store, &work, stop).inspect_err(|error| set_bad_parts_aside(store, &work.parts, error))?;
    enter(Phase::Syncing);
    let (layers, places) = StoredPart::listed(&work.parts);
    // The image is an object before the record names it.
    put(store, hold, &image, &work.name)?;
    let record = ImageRecord {
        manifest: work.manifest,
        choice: work.choice,
        image: image.digest(),
        image_size: image.size(),
        rules,
        builder: ImageRecord::BUILDER,
        sealed: work.seal.is_some(),
        layers,
        places,
        platform: work.platform,
        names: vec![work.name.clone()],
        inodes: image.inodes(),
        bytes: image.file_bytes(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
        powers,
        variants: Vec::new(),
        members: Vec::new(),
    };
    // The commit syncs, which may take long.
    drop(image);
    store.commit_image(hold, &record).about(&work.name)?;
    // The tree was tens of MiB; a daemon should not keep them.
    crate::sys::release_free_memory();
    Ok(record)
}

/// Stores an image as an object. `name` is for messages.
///
/// # Errors
/// Those of storing it.
pub(super) fn put(store: &Store, hold: &Hold, image: &Image, name: &str) -> Result<(), PullError> {
    let objects = store.objects().under(hold).about(name)?;
    objects.put_image(&image.digest(), image.size(), |take| image.each_piece(take)).about(name)?;
    Ok(())
}

/// An image and how it was made.
struct Made {
    rules: Rules,
    image: Image,
    /// Of a sealed image only: others are built without what they may not have.
    powers: Option<Powers>,
}

/// Makes the image by the node's rules, or else by whichever rules give the digest that the seal demands.
fn make(store: &Store, work: &Work, stop: &Stop) -> Result<Made, PullError> {
    let Some(seal) = work.seal else {
        let image = write(store, (&work.parts, &work.choice), work.rules, (&work.limits, stop), &work.name)?;
        return Ok(Made { rules: work.rules, image, powers: None });
    };
    let mut built = Vec::new();
    // The seal does not say which of its rules the sealer followed.
    for rules in seal.rules() {
        let tree = fold(store, (&work.parts, &work.choice), *rules, (&work.limits, stop), &work.name)?;
        let powers = Some(tree.powers());
        let image = Image::of(tree).about(&work.name)?;
        let digest = image.digest();
        if digest == seal.digest {
            return Ok(Made { rules: *rules, image, powers });
        }
        built.push((*rules, digest));
    }
    Err(PullError::NotAsSealed { image: work.name.clone(), seal, built })
}

/// Makes the composefs image of what the choice takes of stored parts, by these rules. `image` is for messages.
///
/// # Errors
/// A part is missing or cannot be trusted, the parts make no tree by these rules and within `limits`, or `stop` says so.
pub fn write(
    store: &Store,
    (parts, choice): (&[StoredPart], &Choice),
    rules: Rules,
    (limits, stop): (&ImageLimits, &Stop),
    image: &str,
) -> Result<Image, PullError> {
    let tree = fold(store, (parts, choice), rules, (limits, stop), image)?;
    if tree.left_out() > 0 {
        let names = tree.left_out();
        tracing::info!(names, "device nodes and named pipes left out; --keep-special-files keeps them");
    }
    if tree.reduced() > 0 {
        let files = tree.reduced();
        tracing::info!(
            files,
            "set-user-ID and set-group-ID bits and file capabilities left out; --keep-privileges keeps them"
        );
    }
    Image::of(tree).about(image)
}

/// Makes the next pull fetch again what cannot be believed. This pull must fail, since it took its parts for present.
pub(super) fn set_bad_parts_aside(store: &Store, parts: &[StoredPart], error: &PullError) {
    // A failure of the disk or of the seal says nothing against the parts.
    if !matches!(error, PullError::Store { source, .. } if source.kind() == Kind::Corrupt) {
        return;
    }
    for StoredPart { layer, .. } in parts {
        if let Err(error) = store.layers().set_aside_if_bad(layer) {
            // The next pull fails in the same way, and says so.
            tracing::error!(%layer, %error, "a layer's record that is no good stays");
        }
    }
}

/// Removes the record of an image whose layers are lost, so that the next attempt pulls the image.
pub(super) fn forget_without_layers(store: &Store, image: &Digest, error: &PullError) {
    // Any other failure may pass, and leaves an image that could be mounted.
    if matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
        && let Err(error) = store.images().forget(image)
    {
        tracing::error!(%error, "the record of an image without layers stays");
    }
}

/// Folds stored parts into one tree, in their order, and takes of it what the choice takes. `image` is for messages.
///
/// # Errors
/// A part's record cannot be read, the parts make no tree within `limits`, or `stop` says so.
pub fn fold(
    store: &Store,
    (parts, choice): (&[StoredPart], &Choice),
    rules: Rules,
    (limits, stop): (&ImageLimits, &Stop),
    image: &str,
) -> Result<CheckedTree, PullError> {
    let mut builder = tree::Builder::with_limits(rules, *limits).until(stop).choosing(choice);
    for part in parts {
        let mut layer = builder.layer();
        for entry in store.layers().entries(&part.layer).about(image)? {
            let entry = entry.about(image)?;
            match &part.place {
                None => layer.apply(entry),
                Some(place) => layer.place(entry, place),
            }
            .about(image)?;
        }
        layer.end().about(image)?;
    }
    let tree = builder.finish().about(image)?;
    // Parts that were here already were not counted when they were fetched.
    let (found, limit) = (tree.file_bytes(), limits.image_bytes);
    if found > limit {
        let exceeded = Cap::ImageBytes.exceeded(found, limit);
        return Err(PullError::Limit { image: image.to_owned(), exceeded });
    }
    Ok(tree)
}
