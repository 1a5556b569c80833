//! Images that another release built are built again from the layers that are here. No registry is asked, and nothing
//! is fetched.
//!
//! An image that a volume shows stays as it is until its last volume is gone or the node has booted: all targets of a
//! volume show the same bytes. One window is left open: a volume that is being published has no record yet. Its mount
//! then shows an image that no record names, and the sweep keeps what that image lists.

use super::PullError;
use super::build::{self, Work};
use super::error::About as _;
use super::recipe::StoredPart;
use crate::image::seal::Seal;
use crate::image::store::{Held, Hold, ImageRecord, Store};
use crate::image::tree::{Rules, Stop};
use crate::oci::limits::ImageLimits;

/// Builds the image of `old` again, unless that has been done or a volume shows it. Returns the record that is in
/// force afterwards. `image` is for messages. Blocking.
///
/// # Errors
/// The layers cannot be read or make no tree any more. If they are lost, the image's record is removed, so that the
/// next attempt pulls the image.
pub(super) fn renew(
    store: &Store,
    hold: &Hold,
    old: ImageRecord,
    (rules, limits): (Rules, ImageLimits),
    stop: &Stop,
    image: &str,
) -> Result<ImageRecord, PullError> {
    let key = old.key();
    let layers = old.layers.iter().copied().map(Held::Layer);
    hold.keep_blocking(&Held::of(&old).into_iter().chain(layers).collect::<Vec<_>>()).about(image)?;
    // Another caller may have built it while this one waited.
    let old = store.images().get(&key).about(image)?.unwrap_or(old);
    hold.keep_blocking(&Held::of(&old)).about(image)?;
    if !old.is_outdated() {
        return Ok(old);
    }
    // A sealed image stays the same.
    let seal = old.sealed.then(|| Seal { annotation: Seal::annotation_for(old.rules), digest: old.image });
    if seal.is_none() && store.volumes().may_show(&key).about(image)? {
        tracing::info!(builder = old.builder, "a volume shows what another release built; it stays for now");
        return Ok(old);
    }
    let (was, builder) = (old.image, old.builder);
    let (name, parts, platform) = (image.to_owned(), StoredPart::of(&old), old.platform);
    let work =
        Work { manifest: old.manifest, choice: old.choice, platform, name, parts, seal, rules, limits };
    let built = build::build(store, hold, work, stop, &|_| ())
        .inspect_err(|error| build::forget_without_layers(store, &key, error))?;
    tracing::info!(composefs = %built.image, %was, builder, "built anew: another release had built it");
    Ok(built)
}
