//! Images that another release built, built anew of the layers that are here: nobody is asked, nothing is fetched.
//!
//! An image that a volume shows stays what it is until its last volume has gone or the node has booted: all targets
//! of a volume show the same bytes, and the sweep knows by the record what a mount needs. The window in which a
//! volume is being published and has no record yet is left open; then housekeeping reports an image that is mounted
//! and has no record, and removes nothing until it is unmounted.

use super::PullError;
use super::build::{self, Work};
use super::error::About as _;
use crate::image::store::{ImageRecord, Lease, Store};
use crate::image::tree::Rules;
use crate::kind::Kind;
use crate::oci::limits::Limits;

/// Builds the image of `old` anew, unless that has been done or a volume shows it; returns the record that holds.
/// `image` is for messages. Blocking.
///
/// # Errors
/// The layers cannot be read or make no tree any more. If they are lost, so is the image then: the retry pulls it.
pub(super) fn renew(
    store: &Store,
    lease: &Lease,
    old: ImageRecord,
    rules: Rules,
    limits: Limits,
    image: &str,
) -> Result<ImageRecord, PullError> {
    let manifest = old.manifest;
    let old = store.images().get(&manifest).about(image)?.unwrap_or(old);
    if !old.is_outdated() {
        return Ok(old);
    }
    if store.volumes().may_show(&manifest).about(image)? {
        tracing::info!(builder = old.builder, "a volume shows what another release built; it stays for now");
        return Ok(old);
    }
    let (was, builder) = (old.image, old.builder);
    let (name, layers, platform) = (image.to_owned(), old.layers, old.platform);
    let work = Work { manifest, platform, name, layers, seal: None, rules, limits };
    let built = build::build(store, lease, work).inspect_err(|error| {
        if matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
            && let Err(error) = store.images().forget(&manifest)
        {
            tracing::error!(%error, "the record of an image without layers stays");
        }
    })?;
    tracing::info!(composefs = %built.image, %was, builder, "built anew: another release had built it");
    Ok(built)
}
