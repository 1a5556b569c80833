//! Collects claims about an image from the source of the image.
//!
//! For each digest, both cosign's `.sig` tag and the sigstore bundles among the referrers are read; neither hides the
//! other. Claims are unverified. Those that are malformed, too large or missing are skipped, so that pushing a bad
//! claim cannot hide a good one. If the source itself fails, that is an error, because an empty result must mean that
//! there are no claims.

use futures_util::future::{try_join, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::signature::{BUNDLE_MEDIA_TYPE, CLAIM_MAX, Claim};
use super::subject::Claims;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::{Referrer, Source, SourceError, read_blob};

/// How many referrers of one digest are opened.
const OPENED_MAX: usize = 100;

/// How many claims of one kind about one digest are read.
const CLAIMS_MAX: usize = 32;

/// The size of all claims about an image together, in bytes.
const TOTAL_MAX: usize = 8 << 20;

/// Concurrent requests for one digest and one kind.
const PARALLEL: usize = 4;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The parts of a manifest that show whether it holds claims.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wrapper {
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    subject: Option<Pointer>,
}

#[derive(Debug, Deserialize)]
struct Pointer {
    digest: Digest,
}

/// Collects the claims about all of `digests`.
///
/// # Errors
/// The source failed; see [`SourceError`].
pub async fn collect(source: &dyn Source, digests: &[Digest]) -> Result<Claims, SourceError> {
    let each = digests.iter().map(|digest| try_join(simple(source, digest), bundles(source, digest)));
    let mut claims = Claims::default();
    let mut room = TOTAL_MAX;
    for claim in
        try_join_all(each).await?.into_iter().flat_map(|(simple, bundles)| [simple, bundles]).flatten()
    {
        // The same claim may be found as a tag and through several digests.
        if claims.claims.contains(&claim) {
            continue;
        }
        let Some(left) = room.checked_sub(claim.size()) else {
            tracing::warn!(
                limit = TOTAL_MAX,
                "the signatures of an image are larger than the limit; the rest is ignored"
            );
            break;
        };
        room = left;
        claims.claims.push(claim);
    }
    Ok(claims)
}

/// The claims in the layers of cosign's tag `sha256-<hex>.sig`.
async fn simple(source: &dyn Source, digest: &Digest) -> Result<Vec<Claim>, SourceError> {
    let tag = format!("sha256-{}.sig", digest.hex());
    // Most images have no such tag.
    let Some(manifest) = wrapper(source, &Version::Tag(tag)).await? else { return Ok(Vec::new()) };
    let layers =
        manifest.layers.into_iter().filter(|layer| layer.media_type == SIMPLE_SIGNING).take(CLAIMS_MAX);
    let claims = stream::iter(layers).map(|layer| simple_claim(source, layer)).buffered(PARALLEL);
    claims.try_filter_map(async |claim| Ok(claim)).try_collect().await
}

async fn simple_claim(source: &dyn Source, layer: Descriptor) -> Result<Option<Claim>, SourceError> {
    let Some(payload) = text(source, &layer).await? else { return Ok(None) };
    let mut annotations = layer.annotations;
    let mut take = |name: &str| annotations.remove(name);
    let Some(signature) = take("dev.cosignproject.cosign/signature") else { return Ok(None) };
    let claim = Claim::Simple {
        payload,
        signature,
        certificate: take("dev.sigstore.cosign/certificate"),
        chain: take("dev.sigstore.cosign/chain"),
        bundle: take("dev.sigstore.cosign/bundle"),
        timestamp: take("dev.sigstore.cosign/rfc3161timestamp"),
    };
    // `text` bounds only the payload; the annotations count as well.
    Ok(Some(claim).filter(|claim| claim.size() <= CLAIM_MAX))
}

/// The bundles among the referrers of `digest`.
async fn bundles(source: &dyn Source, digest: &Digest) -> Result<Vec<Claim>, SourceError> {
    let mut referrers = source.referrers(digest).await?;
    // The artifact type in the list is often wrong, so all referrers are opened. If there are too many, those with
    // the right type come first.
    referrers.sort_by_key(|referrer| referrer.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE));
    if referrers.len() > OPENED_MAX {
        tracing::warn!(image = %digest, found = referrers.len(), opened = OPENED_MAX, "an image has too many referrers; some are ignored");
    }
    let opened = stream::iter(referrers.into_iter().take(OPENED_MAX))
        .map(|referrer| bundle_claim(source, digest, referrer))
        .buffered(PARALLEL);
    let claims = opened.try_filter_map(async |claim| Ok(claim)).take(CLAIMS_MAX);
    claims.try_collect().await
}

async fn bundle_claim(
    source: &dyn Source,
    digest: &Digest,
    referrer: Referrer,
) -> Result<Option<Claim>, SourceError> {
    let Some(manifest) = wrapper(source, &Version::Digest(referrer.digest)).await? else { return Ok(None) };
    // The list of referrers is unverified; the manifest has to name the digest itself.
    let refers = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *digest);
    // A bundle has one layer. Other artifacts among the referrers (SBOMs, reports) are common.
    let [layer] = &manifest.layers[..] else { return Ok(None) };
    if !refers
        || manifest.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE)
        || layer.media_type != BUNDLE_MEDIA_TYPE
    {
        return Ok(None);
    }
    Ok(text(source, layer).await?.map(|json| Claim::Bundle { json }))
}

/// A manifest, if it exists and can be parsed.
async fn wrapper(source: &dyn Source, version: &Version) -> Result<Option<Wrapper>, SourceError> {
    let Some(raw) = there(source.manifest(version).await, &version.to_string())? else { return Ok(None) };
    let parsed = serde_json::from_slice(&raw.bytes);
    Ok(parsed.inspect_err(|error| tracing::debug!(%version, %error, "not the manifest of a signature")).ok())
}

/// A small blob of text, its digest checked.
async fn text(source: &dyn Source, layer: &Descriptor) -> Result<Option<String>, SourceError> {
    let read = there(read_blob(source, layer, CLAIM_MAX).await, &layer.digest.to_string())?;
    Ok(read.and_then(|bytes| String::from_utf8(bytes.into()).ok()))
}

/// Separates failures that the pusher of a claim can cause, which skip the claim, from failures of the source.
fn there<T>(result: Result<T, SourceError>, what: &str) -> Result<Option<T>, SourceError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(SourceError::NotFound { .. }) => Ok(None),
        Err(
            error @ (SourceError::TooLarge { .. }
            | SourceError::Limit { .. }
            | SourceError::WrongDigest { .. }
            | SourceError::WrongSize { .. }
            | SourceError::Manifest { .. }
            | SourceError::SeveralImages { .. }),
        ) => {
            tracing::debug!(what, %error, "skipped a claim to be a signature");
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests;
