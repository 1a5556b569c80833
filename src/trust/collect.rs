//! Finding what claims to be a signature of an image, at the source that the image comes from.
//!
//! Cosign's `.sig` tags and sigstore bundles among the referrers are both looked for, on each digest; neither hides the
//! other. Everything found is a claim and no more: what is malformed, too large or missing is passed over, so that
//! whoever can push a bad claim cannot hide a good one. Only when the source itself fails is that an error, because
//! "nothing found" must mean that nothing is there.

use futures_util::future::{try_join, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::Claims;
use super::signature::{BUNDLE_MEDIA_TYPE, CLAIM_MAX, Claim};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::{Referrer, Source, SourceError, read_blob};

/// Referrers of one digest beyond this number are not opened.
const OPENED_MAX: usize = 100;

/// Claims of one kind about one digest beyond this number are not read.
const CLAIMS_MAX: usize = 32;

/// All claims about an image are together not larger than this, in bytes.
const EVIDENCE_MAX: usize = 8 << 20;

/// Requests under way at a time, for one digest and one kind.
const PARALLEL: usize = 4;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// As much of a manifest as says whether it holds claims.
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

/// Looks for claims about any of `digests`.
///
/// # Errors
/// The source cannot be asked; see [`SourceError`].
pub async fn collect(source: &dyn Source, digests: &[Digest]) -> Result<Claims, SourceError> {
    let each = digests.iter().map(|digest| try_join(simple(source, digest), bundles(source, digest)));
    let mut claims = Claims::default();
    let mut room = EVIDENCE_MAX;
    for claim in
        try_join_all(each).await?.into_iter().flat_map(|(simple, bundles)| [simple, bundles]).flatten()
    {
        if claims.claims.contains(&claim) {
            continue;
        }
        let Some(left) = room.checked_sub(claim.size()) else {
            tracing::warn!(
                limit = EVIDENCE_MAX,
                "the signatures of an image are larger than the limit; the rest is left out"
            );
            break;
        };
        room = left;
        claims.claims.push(claim);
    }
    Ok(claims)
}

/// The layers of cosign's tag `sha256-<hex>.sig`.
async fn simple(source: &dyn Source, digest: &Digest) -> Result<Vec<Claim>, SourceError> {
    let tag = format!("sha256-{}.sig", digest.hex());
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
    Ok(Some(claim).filter(|claim| claim.size() <= CLAIM_MAX))
}

/// The bundles among what refers to `digest`.
async fn bundles(source: &dyn Source, digest: &Digest) -> Result<Vec<Claim>, SourceError> {
    let mut referrers = source.referrers(digest).await?;
    // The list's type is often wrong, so all are opened; but those that are called bundles first, should there be many.
    referrers.sort_by_key(|referrer| referrer.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE));
    if referrers.len() > OPENED_MAX {
        tracing::warn!(image = %digest, found = referrers.len(), opened = OPENED_MAX, "too many things refer to an image");
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
    let refers = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *digest);
    let [layer] = &manifest.layers[..] else { return Ok(None) };
    if !refers
        || manifest.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE)
        || layer.media_type != BUNDLE_MEDIA_TYPE
    {
        return Ok(None);
    }
    Ok(text(source, layer).await?.map(|json| Claim::Bundle { json }))
}

/// A manifest, if it is there and is one.
async fn wrapper(source: &dyn Source, version: &Version) -> Result<Option<Wrapper>, SourceError> {
    let Some(raw) = there(source.manifest(version).await, &version.to_string())? else { return Ok(None) };
    let parsed = serde_json::from_slice(&raw.bytes);
    Ok(parsed.inspect_err(|error| tracing::debug!(%version, %error, "not the manifest of a signature")).ok())
}

/// A small blob that is text, its digest checked.
async fn text(source: &dyn Source, layer: &Descriptor) -> Result<Option<String>, SourceError> {
    let read = there(read_blob(source, layer, CLAIM_MAX).await, &layer.digest.to_string())?;
    Ok(read.and_then(|bytes| String::from_utf8(bytes.into()).ok()))
}

/// Tells what the pusher of a claim can cause, which is passed over, from a source that fails.
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
            tracing::debug!(what, %error, "passed over what claims to be a signature");
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests;
