//! Another composefs image of the layers that are here, by other rules: for a volume that is `noexec`, or for which
//! the policy keeps what the node takes out. No registry is asked, and no object but the image is written.

use super::PullError;
use super::build;
use super::error::About as _;
use super::recipe::StoredPart;
use crate::image::store::{Held, Hold, ImageRecord, Store, Variant};
use crate::image::tree::{Rules, Stop};
use crate::oci::limits::ImageLimits;

/// Builds the image of `record` by `rules` unless that has been done. Returns the record that is in force afterwards,
/// which lists it. `name` is for messages. Blocking.
///
/// # Errors
/// The layers cannot be read or make no tree, or `stop` says so. If the layers are lost, the image's record is removed,
/// so that the next attempt pulls the image.
pub(super) fn vary(
    store: &Store,
    hold: &Hold,
    record: &ImageRecord,
    rules: Rules,
    (limits, stop): (&ImageLimits, &Stop),
    name: &str,
) -> Result<ImageRecord, PullError> {
    let key = record.key();
    let layers = record.layers.iter().copied().map(Held::Layer);
    hold.keep_blocking(&Held::of(record).into_iter().chain(layers).collect::<Vec<_>>()).about(name)?;
    // Another caller may have built it while this one waited.
    if let Some(now) = store.images().get(&key).about(name)?
        && now.image_by(rules).is_some()
    {
        hold.keep_blocking(&Held::of(&now)).about(name)?;
        return Ok(now);
    }
    let parts = StoredPart::of(record);
    let built = build::write(store, (&parts, &record.choice), rules, (limits, stop), name)
        .inspect_err(|error| build::set_bad_parts_aside(store, &parts, error))
        .inspect_err(|error| build::forget_without_layers(store, &key, error))?;
    build::put(store, hold, &built, name)?;
    let (image, image_size) = (built.digest(), built.size());
    // The commit syncs, which may take long.
    drop(built);
    let variant = Variant { rules, builder: ImageRecord::BUILDER, image, image_size };
    let record = store.commit_variant(hold, &key, variant).about(name)?;
    crate::sys::release_free_memory();
    tracing::info!(composefs = %image, %rules, "built another image of the same layers");
    Ok(record)
}
