//! The composefs digest of what is pushed, from what was found while it was read: nothing is fetched for it. Pure.

use super::describe::{Blob, Plan};
use super::error::PushError;
use super::item::{Item, ItemKind};
use super::manifest::Documents;
use crate::image::composefs::Image;
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::image::seal::Seal;
use crate::image::seal::document::{EditError, Edited, seal_manifest};
use crate::image::tree::{Builder, CheckedTree, Powers, Rules};
use crate::image::verity::VerityDigest;
use crate::oci::artifact;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Document, Manifest};

/// An image that was sealed.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its composefs digest.
    pub digest: VerityDigest,
    /// What in it gives rights.
    pub powers: Powers,
}

/// Checks that nodes can show what is pushed, and seals it by `rules` if there are any: the documents then have the seal.
///
/// # Errors
/// The tree cannot be one of an image.
pub(super) fn seal(
    plans: &[Plan],
    blobs: &[Blob],
    documents: &mut Documents,
    rules: Option<Rules>,
    limits: &ImageLimits,
) -> Result<Option<Sealed>, PushError> {
    let Document::Image(manifest) = Document::parse(&documents.manifest, None)? else {
        return Err(EditError::Shape("document").into());
    };
    let Some(rules) = rules else {
        if let Some(kind) = manifest.artifact {
            artifact::parts(kind, &manifest, &documents.config)?;
        }
        return Ok(None);
    };
    let tree = tree(plans, blobs, &manifest, &documents.config, (rules, limits))?;
    let powers = tree.powers();
    let digest = Image::of(tree)?.digest();
    let seal = Seal { annotation: Seal::annotation_for(rules), digest };
    if let Edited::Changed(sealed) = seal_manifest(&documents.manifest, seal, &[], false)? {
        documents.manifest = sealed;
    }
    Ok(Some(Sealed { digest, powers }))
}

fn tree(
    plans: &[Plan],
    blobs: &[Blob],
    manifest: &Manifest,
    config: &[u8],
    (rules, limits): (Rules, &ImageLimits),
) -> Result<CheckedTree, PushError> {
    let mut builder = Builder::with_limits(rules, *limits);
    if let Some(kind) = manifest.artifact {
        for (part, blob) in artifact::parts(kind, manifest, config)?.iter().zip(blobs) {
            let mut layer = builder.layer();
            for kind in blob.facts.contents.iter().cloned() {
                let entry = LayerEntry { path: b"content".as_slice().into(), meta: Meta::default(), kind };
                layer.place(entry, &part.place)?;
            }
            layer.end()?;
        }
        return Ok(builder.finish()?);
    }
    for (plan, blob) in plans.iter().zip(blobs) {
        let mut layer = builder.layer();
        let mut contents = blob.facts.contents.iter().cloned();
        for item in plan.items() {
            if let Some(entry) = entry(item, &mut contents) {
                layer.apply(entry)?;
            }
        }
        layer.end()?;
    }
    Ok(builder.finish()?)
}

/// What a reader of the layer finds. `contents` are those of its files, in order.
fn entry(item: &Item, contents: &mut impl Iterator<Item = EntryKind>) -> Option<LayerEntry> {
    let kind = match &item.kind {
        ItemKind::Directory => EntryKind::Directory,
        ItemKind::File(_) => contents.next()?,
        ItemKind::Symlink(target) => EntryKind::Symlink(target.clone()),
        ItemKind::Hardlink(first) => EntryKind::Hardlink(first.clone()),
    };
    Some(LayerEntry { path: item.path.clone(), meta: item.meta.clone(), kind })
}
