//! Making an image whole again whose objects were found damaged: a pull of it fetches the layers again that name them
//! ([`super::layers`]), what is made here of layers is made again, and then the marks of the damage are taken away.

use super::PullError;
use super::build;
use super::error::About as _;
use super::recipe::StoredPart;
use crate::image::store::{Hold, ImageRecord, Store};
use crate::image::tree::Stop;
use crate::oci::limits::ImageLimits;

/// Whether one of the record's own composefs images is damaged. Blocking.
pub(super) fn lacks_image(store: &Store, record: &ImageRecord, image: &str) -> Result<bool, PullError> {
    let damaged = store.damaged().about(image)?;
    Ok(record.images().any(|own| damaged.iter().any(|mark| mark.object == own.image)))
}

/// Makes the record's composefs images again that are damaged. One that another release built stays as it is, if this one
/// builds another. Blocking.
///
/// # Errors
/// The layers cannot be read or make no tree, or `stop` says so.
pub(super) fn rebuild(
    store: &Store,
    hold: &Hold,
    record: &ImageRecord,
    (limits, stop): (&ImageLimits, &Stop),
    image: &str,
) -> Result<(), PullError> {
    let (damaged, parts) = (store.damaged().about(image)?, StoredPart::of(record));
    for own in record.images().filter(|own| damaged.iter().any(|mark| mark.object == own.image)) {
        let built = build::write(store, (&parts, &record.choice), own.rules, (limits, stop), image)?;
        if built.digest() == own.image {
            build::put(store, hold, &built, image)?;
        }
    }
    crate::sys::release_free_memory();
    Ok(())
}

/// Makes durable what was written anew under `hold`, and takes the marks of what is whole again away, if the image had any.
/// Blocking.
///
/// # Errors
/// [`PullError::StillDamaged`] if the image has some still; those of reading and of the sync.
pub(super) fn settle(store: &Store, hold: &Hold, record: &ImageRecord, image: &str) -> Result<(), PullError> {
    let key = &record.key();
    if store.quarantine_of(key).about(image)?.is_none() {
        return Ok(());
    }
    store.commit_repair(hold, record).about(image)?;
    store.recheck_damaged().about(image)?;
    match store.quarantine_of(key).about(image)? {
        None => Ok(()),
        Some(mark) => {
            Err(PullError::StillDamaged { image: image.to_owned(), object: mark.object, damage: mark.damage })
        }
    }
}
