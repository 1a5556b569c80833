//! Which artifacts there are for an image, the best first.

use std::sync::Arc;

use crate::image::lazy::{ARTIFACT_TYPE, Artifact, LazyError};
use crate::oci::digest::Digest;
use crate::oci::reference::Version;
use crate::oci::{Referrer, Source, SourceError};

/// Referrers of an image that are looked at. An artifact behind so many others is not found.
const LOOKED_AT_MAX: usize = 32;

/// The artifacts of an image.
#[derive(Debug, Default)]
pub struct Offers {
    /// Those that can be read: the highest revision first, of equal ones those with a list of first uses, and of those the one
    /// with the lowest digest.
    pub good: Vec<LazyOffer>,
    /// Those that cannot, and why.
    pub bad: Vec<(Digest, LazyError)>,
}

/// An artifact that was found. It proves nothing: anybody who can push may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LazyOffer {
    /// Its manifest's digest.
    pub digest: Digest,
    /// Bytes of it.
    pub size: u64,
    /// What it says.
    pub artifact: Artifact,
}

/// Looks for artifacts about the manifest `subject`. Lists of referrers may state a wrong type, so others are looked at if
/// none with the right one is good, up to a limit.
///
/// # Errors
/// The source fails. That there are none is no failure.
pub async fn offers(source: &Arc<dyn Source>, subject: &Digest) -> Result<Offers, SourceError> {
    let mut listed: Vec<(u8, Digest)> =
        list(source, subject).await?.iter().map(|referrer| (rank(referrer), referrer.digest)).collect();
    // Several places, or one of them twice, may list the same.
    listed.sort_unstable();
    listed.dedup_by_key(|(_, digest)| *digest);
    let (mut offers, mut last) = (Offers::default(), 0);
    for (rank, digest) in listed.into_iter().take(LOOKED_AT_MAX) {
        if rank > last && !offers.good.is_empty() {
            break;
        }
        last = rank;
        let raw = match source.manifest(&Version::Digest(digest)).await {
            Ok(raw) => raw,
            // A list outlives what it names.
            Err(SourceError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        match Artifact::parse(&raw.bytes, subject) {
            Ok(Some(artifact)) => {
                offers.good.push(LazyOffer { digest, size: raw.bytes.len() as u64, artifact });
            }
            Ok(None) => {}
            Err(error) => offers.bad.push((digest, error)),
        }
    }
    offers.good.sort_by_key(|LazyOffer { digest, artifact, .. }| {
        (std::cmp::Reverse((artifact.revision, artifact.first.is_some())), *digest)
    });
    Ok(offers)
}

/// The likelier ones first.
fn rank(referrer: &Referrer) -> u8 {
    match referrer.artifact_type.as_deref() {
        Some(ARTIFACT_TYPE) => 0,
        // As clients write it that take the config's type for the artifact's.
        None | Some("application/vnd.oci.empty.v1+json") => 1,
        Some(_) => 2,
    }
}

/// The referrers at all places: none of them hides what another has, and one that fails hides nothing of what was found.
async fn list(source: &Arc<dyn Source>, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
    let places = source.places();
    if places.is_empty() {
        return source.referrers(subject).await;
    }
    let (mut found, mut failure) = (Vec::new(), None);
    for place in places {
        match place.referrers(subject).await {
            Ok(referrers) => found.extend(referrers),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}
