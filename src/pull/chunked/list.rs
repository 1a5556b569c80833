//! Lists what later versions of a layer may use of it.

use crate::image::chunked::Toc;
use crate::image::store::Store;
use crate::oci::digest::Digest;

/// Lists the files of a layer that is here, for the pulls of later versions: under the bytes that came, the blob or the
/// layer itself. They fetch more without the list, so its failure is none of the pull's. Blocking.
pub(in crate::pull) fn list_contents(store: &Store, (fetched, diff_id): (&Digest, &Digest), toc: &Toc) {
    if let Err(error) = store.layers().list_contents(fetched, diff_id, toc) {
        tracing::warn!(%error, layer = %diff_id, "the files of a layer could not be listed");
    }
}
