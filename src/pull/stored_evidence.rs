//! Evidence as the store keeps it: with an image, for each origin.

use super::PullError;
use super::error::About as _;
use super::evidence::Evidence;
use crate::image::store::{Hold, Store};
use crate::oci::digest::Digest;

/// Reads what is kept with an image, by its key, about its manifest, for an origin. An image without evidence, or with evidence that cannot be read,
/// is judged too: a policy may admit it as it is. `image` is for messages.
///
/// # Errors
/// Those of reading a file.
pub(super) fn read(
    store: &Store,
    (key, manifest): (Digest, Digest),
    origin: &str,
    image: &str,
) -> Result<Evidence, PullError> {
    let kept = store.evidence().get(&key, origin).about(image)?;
    let parsed = kept.and_then(|bytes| Evidence::parse(&bytes, manifest));
    Ok(parsed.unwrap_or_else(|| Evidence::empty(manifest)))
}

/// Keeps evidence with its image, by its key, for an origin, instead of what is kept already. `image` is for messages.
///
/// # Errors
/// Those of writing a file.
pub(super) fn keep(
    store: &Store,
    hold: &Hold,
    evidence: &Evidence,
    (key, origin): (Digest, &str),
    image: &str,
) -> Result<(), PullError> {
    let bytes = evidence.render();
    let bytes = bytes.map_err(|error| PullError::Lost { image: image.to_owned(), why: error.to_string() })?;
    store.evidence().put(hold, &key, origin, &bytes).about(image)
}
