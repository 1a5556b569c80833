//! From layer records to a committed image. Blocking, and the one place that holds a whole tree.

use std::time::{SystemTime, UNIX_EPOCH};

use super::PullError;
use super::error::About as _;
use crate::image::composefs;
use crate::image::digest::Digest;
use crate::image::store::{ImageRecord, Lease, Store};
use crate::image::tree::{self, CheckedTree, Rules};

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
}

/// Folds the layers, writes the image and commits it.
pub(super) fn build(store: &Store, lease: &Lease, work: Work) -> Result<ImageRecord, PullError> {
    let tree = fold(store, &work.layers, Rules::Faithful, &work.name)?;
    let image = composefs::write_image(tree).about(&work.name)?;
    let (digest, _) = store.objects(lease).about(&work.name)?.put(&image.bytes).about(&work.name)?;
    let record = ImageRecord {
        manifest: work.manifest,
        image: digest,
        image_size: image.bytes.len() as u64,
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

/// Folds the layers with these DiffIDs, lowest first, into one tree. `image` is for messages.
pub fn fold(store: &Store, layers: &[Digest], rules: Rules, image: &str) -> Result<CheckedTree, PullError> {
    let mut builder = tree::Builder::new(rules);
    for diff_id in layers {
        let mut layer = builder.layer();
        for entry in store.layer(diff_id).about(image)? {
            layer.apply(entry.about(image)?).about(image)?;
        }
        layer.end().about(image)?;
    }
    builder.finish().about(image)
}
