//! Looks for claims about an image at the source of the image, one after another.
//!
//! For each digest, both cosign's `.sig` tag and the sigstore bundles among the referrers are read; neither hides the
//! other. Claims are unverified. Those that are malformed, too large or missing are skipped, so that pushing a bad
//! claim cannot hide a good one. If the source itself fails, that is an error, because an empty result must mean that
//! there are no claims.
//!
//! Each claim is judged as soon as it is there ([`Hearing`]). Those that help are kept, and a few others, so that the
//! image can be judged without its registry when the policy changes. The rest goes at once: what a search holds is
//! counted ([`ClaimMemory`]). It ends when the policy has what it needs, or at a limit, and then the claims say so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::Hearing;
use super::memory::{ClaimMemory, Held, Share, Spent};
use super::signature::{BUNDLE_MEDIA_TYPE, CLAIM_MAX, Claim};
use super::subject::{Claims, SPARE_MAX, Subject};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::reference::{Reference, Version};
use crate::oci::{Referrer, Source, SourceError};
use wrapper::Layer;

mod documents;
mod wrapper;

/// The largest manifest and the largest list of referrers, in bytes.
const DOCUMENT_MAX: usize = 4 << 20;
/// How many documents a search asks for. A bundle takes two, a `.sig` signature one.
const ASKED_MAX: usize = 1024;
/// How long a search goes on; one answer may take longer.
const TIME_MAX: Duration = Duration::from_secs(60);
/// How many claims are looked at although the policy has what it needs.
const ENOUGH: usize = 32;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Looks for claims about `subject`, until `hearing` has what it needs. Without a hearing the first few are enough.
///
/// # Errors
/// The source failed; see [`SourceError`].
pub async fn collect(
    source: &dyn Source,
    subject: &Subject,
    hearing: Option<Box<dyn Hearing>>,
    memory: &ClaimMemory,
) -> Result<Claims, SourceError> {
    let registry = match &subject.reference {
        Reference::Registry(registry) => registry.host(),
        Reference::Layout(_) => "",
    };
    let share = memory.share(registry).await;
    let until = Instant::now() + TIME_MAX;
    let (helpful, others) = (Vec::new(), Vec::new());
    let places = source.places();
    let source = places.first().map_or(source, |first| &**first);
    let mut search = Search { source, share, hearing, asked: 0, until, found: 0, helpful, others };
    let is_cut = match search.everywhere(&places, &subject.digests).await {
        Ok(()) | Err(End::Decided) => false,
        Err(End::Limit) => true,
        // What is needed is here; the rest would only have been kept for later.
        Err(End::Failed(_)) if search.is_decided() && !search.helpful.is_empty() => false,
        Err(End::Failed(error)) => return Err(error),
    };
    if is_cut {
        tracing::warn!(
            image = %subject.reference,
            found = search.found,
            "the search for an image's signatures ended at its limit; some were not looked at"
        );
    }
    let Search { found, helpful, others, .. } = search;
    let claims = helpful.into_iter().chain(others).map(Held::released).collect();
    Ok(Claims { claims, found, is_cut })
}

/// Why a search ends before the source has no more.
#[derive(Debug)]
enum End {
    Decided,
    Limit,
    Failed(SourceError),
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl From<Spent> for End {
    fn from(Spent: Spent) -> Self {
        Self::Limit
    }
}

/// One search.
struct Search<'a> {
    source: &'a dyn Source,
    share: Share,
    /// `None`: the policy needs nothing.
    hearing: Option<Box<dyn Hearing>>,
    asked: usize,
    until: Instant,
    found: usize,
    helpful: Vec<Held<Claim>>,
    others: Vec<Held<Claim>>,
}

impl<'a> Search<'a> {
    /// Searches the places one after another, or else the one that there is. One that fails does not hide what another
    /// has; if that is not enough, its failure is the outcome, because something may be missing.
    async fn everywhere(&mut self, places: &'a [Arc<dyn Source>], digests: &[Digest]) -> Result<(), End> {
        if places.is_empty() {
            return self.all(digests).await;
        }
        let mut failure = None;
        for (at, place) in places.iter().enumerate() {
            let is_last = at + 1 == places.len();
            self.source = &**place;
            match self.all(digests).await {
                // A mirror that gives this node nothing has nothing for it.
                Err(End::Failed(error))
                    if !is_last && matches!(error.kind(), Kind::Denied | Kind::Unsupported) =>
                {
                    tracing::debug!(%error, "a mirror was not searched for an image's signatures");
                }
                Err(End::Failed(error)) => failure = Some((is_last, error)),
                Err(end) => return Err(end),
                Ok(()) => {}
            }
            if !self.helpful.is_empty() && self.is_decided() {
                return Ok(());
            }
        }
        match failure {
            // What a mirror could have had is needed by nobody.
            Some((false, _)) if self.is_decided() => Ok(()),
            Some((_, error)) => Err(End::Failed(error)),
            None => Ok(()),
        }
    }
}

impl Search<'_> {
    async fn all(&mut self, digests: &[Digest]) -> Result<(), End> {
        for digest in digests {
            self.simple(digest).await?;
            self.bundles(digest).await?;
        }
        Ok(())
    }

    /// The claims in the layers of cosign's tag `sha256-<hex>.sig`.
    async fn simple(&mut self, digest: &Digest) -> Result<(), End> {
        let tag = format!("sha256-{}.sig", digest.hex());
        // Most images have no such tag.
        let Some(manifest) = self.wrapper(&Version::Tag(tag)).await? else { return Ok(()) };
        let layers = &manifest.value().layers;
        for layer in layers.first.iter().filter(|layer| layer.media_type == SIMPLE_SIGNING) {
            let Some(payload) = self.text(layer).await? else { continue };
            let Some(claim) = self.simple_claim(payload, layer)? else { continue };
            self.consider(claim).await?;
        }
        if layers.count > layers.first.len() { Err(End::Limit) } else { Ok(()) }
    }

    fn simple_claim(&self, payload: Held<String>, layer: &Layer) -> Result<Option<Held<Claim>>, End> {
        let Some(annotations) = &layer.annotations else { return Ok(None) };
        let Some(signature) = &annotations.signature else { return Ok(None) };
        // `text` bounds only the payload; the annotations count as well.
        let size = annotations.size() + payload.value().len();
        if size > CLAIM_MAX {
            return Ok(None);
        }
        let room = self.share.reserve(size)?;
        let claim = Claim::Simple {
            payload: payload.released(),
            signature: signature.clone(),
            certificate: annotations.certificate.clone(),
            chain: annotations.chain.clone(),
            bundle: annotations.bundle.clone(),
            timestamp: annotations.timestamp.clone(),
        };
        Ok(Some(room.mapped(|()| claim, size)))
    }

    /// The bundles among the referrers of `digest`.
    async fn bundles(&mut self, digest: &Digest) -> Result<(), End> {
        let room = self.ask(DOCUMENT_MAX)?;
        let mut referrers = self.source.referrers(digest).await?;
        // The artifact type in the list is often wrong, so all referrers are opened. Those with the right type come
        // first, and a limit cuts off the others.
        referrers.sort_by_key(|referrer| referrer.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE));
        let size = referrers.iter().map(Referrer::size).sum();
        let referrers = room.mapped(|()| referrers, size);
        for referrer in referrers.value() {
            if let Some(claim) = self.bundle(digest, &referrer.digest).await? {
                self.consider(claim).await?;
            }
        }
        Ok(())
    }

    async fn bundle(&mut self, digest: &Digest, referrer: &Digest) -> Result<Option<Held<Claim>>, End> {
        let Some(manifest) = self.wrapper(&Version::Digest(*referrer)).await? else { return Ok(None) };
        let manifest = manifest.value();
        // The list of referrers is unverified; the manifest has to name the digest itself.
        let refers = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *digest);
        // A bundle has one layer. Other artifacts among the referrers (SBOMs, reports) are common.
        let [layer] = &manifest.layers.first[..] else { return Ok(None) };
        if !refers
            || manifest.artifact_type.as_deref() != Some(BUNDLE_MEDIA_TYPE)
            || layer.media_type != BUNDLE_MEDIA_TYPE
        {
            return Ok(None);
        }
        let Some(text) = self.text(layer).await? else { return Ok(None) };
        let size = text.value().len();
        Ok(Some(text.mapped(|json| Claim::Bundle { json }, size)))
    }

    /// Judges a claim, and keeps it if it helps, or else while there is room.
    async fn consider(&mut self, claim: Held<Claim>) -> Result<(), End> {
        // The same claim may be found as a tag and through several digests.
        if self.helpful.iter().chain(&self.others).any(|kept| kept.value() == claim.value()) {
            return Ok(());
        }
        self.found += 1;
        let (claim, helps) = self.hear(claim).await?;
        if helps {
            self.helpful.push(claim);
        } else if self.others.len() < ENOUGH
            && self.others.iter().map(|kept| kept.value().size()).sum::<usize>() + claim.value().size()
                <= SPARE_MAX
        {
            self.others.push(claim);
        }
        if self.is_decided() && self.found >= ENOUGH { Err(End::Decided) } else { Ok(()) }
    }

    /// Verifying is work for a blocking thread.
    async fn hear(&mut self, claim: Held<Claim>) -> Result<(Held<Claim>, bool), End> {
        let Some(mut hearing) = self.hearing.take() else { return Ok((claim, false)) };
        let heard = tokio::task::spawn_blocking(move || {
            let helps = hearing.hear(claim.value());
            (hearing, claim, helps)
        });
        match heard.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok((hearing, claim, helps)) => {
                self.hearing = Some(hearing);
                Ok((claim, helps))
            }
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(Err(_)) => Err(End::Limit),
        }
    }

    fn is_decided(&self) -> bool {
        self.hearing.as_ref().is_none_or(|hearing| hearing.is_decided())
    }
}

#[cfg(test)]
mod tests;
