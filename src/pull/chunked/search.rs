//! Looks for the files of a layer in the store. Blocking.

use super::settings::ReuseFrom;
use crate::image::chunked::{Found, Toc, Wanted};
use crate::image::store::{Held, Hold, Store};
use crate::oci::digest::Digest;
use crate::pull::error::{About as _, PullError};
use crate::pull::rights::Rights;

/// Lists that are read for a layer, the newest first.
const LISTS_MAX: usize = 256;
/// Bytes of them.
const BYTES_MAX: u64 = 256 << 20;

/// A layer whose files are listed: by what it is listed, and its DiffID.
pub(super) type ListedLayer = (Digest, Digest);

/// The layers whose files the caller may use.
///
/// # Errors
/// Those of reading records.
pub(super) fn lists(store: &Store, rights: &Rights, from: ReuseFrom) -> Result<Vec<ListedLayer>, PullError> {
    let mut found = Vec::new();
    for fetched in store.layers().contents().about(rights.image())? {
        let layer = match from {
            ReuseFrom::Nothing => None,
            ReuseFrom::Own => rights.layer(&fetched)?,
            ReuseFrom::All => store.layers().of_blob(&fetched).about(rights.image())?,
        };
        found.extend(layer.map(|diff_id| (fetched, diff_id)));
        if found.len() == LISTS_MAX {
            break;
        }
    }
    Ok(found)
}

/// What of a layer is in these others. It was read and compared, and stays as long as the hold.
///
/// # Errors
/// Those of reading and writing the store.
pub(super) fn find(
    store: &Store,
    hold: &Hold,
    lists: Vec<ListedLayer>,
    toc: &Toc,
    image: &str,
) -> Result<Found, PullError> {
    let (wanted, mut found, mut read) = (Wanted::of(toc), Found::default(), 0_u64);
    for (fetched, diff_id) in lists {
        if found.has_all_files(&wanted) || read > BYTES_MAX {
            break;
        }
        let mut here = Found::default();
        let take = |entry| wanted.take(&entry, &mut here);
        let Some(bytes) = store.layers().read_contents(&fetched, take).about(image)? else { continue };
        read += bytes;
        if here.is_empty() {
            continue;
        }
        hold.keep_blocking(&[Held::Layer(diff_id)]).about(image)?;
        // A collection may have been faster.
        if store.layers().of_blob(&fetched).about(image)? == Some(diff_id) {
            found.merge(here);
        }
    }
    let objects = store.objects().under(hold).about(image)?;
    Ok(found.verified(toc, &objects))
}
