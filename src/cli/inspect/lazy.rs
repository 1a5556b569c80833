//! Whether an image in a registry can start before its content is there.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::app::engine::EngineSettings;
use crate::image::lazy::{LazyError, OffsetMap, Place};
use crate::image::seal::Seal;
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::pull::{
    Covered, LazyOffer, ManifestPath, artifact_subject, by_seal, by_signature, fetch_map, is_about, offers,
};
use crate::trust::collect::collect;
use crate::trust::{ClaimMemory, PolicyEngine as _, SignaturePolicyEngine};

/// What a node would find.
#[derive(Debug, Serialize)]
pub struct Lazy {
    /// Whether it could start so, as far as the documents say.
    possible: bool,
    /// The artifact that would be used, or that is no good.
    artifact: Option<Digest>,
    /// Why the digest of its composefs image counts: `seal` or `signature`.
    covered: Option<&'static str>,
    /// Files that can be fetched alone, and those for which a layer must be read from its beginning.
    by_range: usize,
    by_stream: usize,
    /// Whether there is a list of what is read first.
    first: bool,
    /// Why it could not.
    because: Option<String>,
}

impl Lazy {
    fn not(artifact: Option<Digest>, because: impl fmt::Display) -> Self {
        let because = Some(because.to_string());
        Self { possible: false, artifact, covered: None, by_range: 0, by_stream: 0, first: false, because }
    }
}

impl fmt::Display for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(because) = &self.because {
            return write!(f, "no: {because}");
        }
        let Self { by_range, by_stream, .. } = self;
        write!(f, "{by_range} files by range, {by_stream} by stream")?;
        if self.first {
            f.write_str(", with a list of first uses")?;
        }
        match (self.artifact, self.covered) {
            (Some(artifact), Some("seal")) => write!(f, "\n             {artifact}, covered by the seal"),
            (Some(artifact), _) => write!(f, "\n             {artifact}, which is signed"),
            _ => Ok(()),
        }
    }
}

/// Looks for artifacts, and at the map of the first that the policy lets count. The composefs image is not fetched, so what is
/// said of it is what the artifact says.
/// A registry that does not tell is no reason to say nothing of the image.
pub async fn look(
    settings: &EngineSettings,
    source: &Arc<dyn Source>,
    path: &ManifestPath,
    reference: &Reference,
) -> Lazy {
    let looked = best(settings, source, path, reference).await;
    looked.unwrap_or_else(|error| Lazy::not(None, format!("it cannot be looked for: {error:#}")))
}

async fn best(
    settings: &EngineSettings,
    source: &Arc<dyn Source>,
    path: &ManifestPath,
    reference: &Reference,
) -> anyhow::Result<Lazy> {
    let found = offers(source, &path.digest).await?;
    let mut refused = found.bad.into_iter().next().map(|(digest, error)| Lazy::not(Some(digest), error));
    for offer in &found.good {
        match examine(settings, source, path, (reference, offer)).await? {
            Ok((covered, map)) => return Ok(offered(offer, covered, &map)),
            Err(error) => refused = refused.or_else(|| Some(Lazy::not(Some(offer.digest), error))),
        }
    }
    let nothing = || Lazy::not(None, "nothing is published for that (`seal --lazy`)");
    Ok(refused.unwrap_or_else(nothing))
}

fn offered(offer: &LazyOffer, covered: Covered, map: &OffsetMap) -> Lazy {
    let by_stream = map.objects().filter(|located| located.place == Place::Stream).count();
    Lazy {
        possible: true,
        artifact: Some(offer.digest),
        covered: Some(match covered {
            Covered::Seal => "seal",
            Covered::Signature => "signature",
        }),
        by_range: map.len() - by_stream,
        by_stream,
        first: offer.artifact.first.is_some(),
        because: None,
    }
}

async fn examine(
    settings: &EngineSettings,
    source: &Arc<dyn Source>,
    path: &ManifestPath,
    (reference, offer): (&Reference, &LazyOffer),
) -> anyhow::Result<Result<(Covered, OffsetMap), LazyError>> {
    let artifact = &offer.artifact;
    let covered = match by_seal(Seal::of(&path.manifest)?, artifact) {
        Some(covered) => covered,
        None => {
            let subject = artifact_subject(offer, reference, None);
            let engine = SignaturePolicyEngine::new(&settings.trust, settings.trust_metrics.clone());
            let hearing = engine.hearing(&subject);
            let claims = collect(&**source, &subject, hearing, &ClaimMemory::default()).await?;
            by_signature(tokio::task::spawn_blocking(move || engine.admit(&subject, &claims)).await?)
        }
    };
    let covered = match covered {
        Ok(covered) => covered,
        Err(error) => return Ok(Err(error)),
    };
    let map = fetch_map(&**source, artifact, &settings.limits.image, &reference.to_string()).await?;
    Ok(map.and_then(|map| is_about(&map, artifact, &path.manifest).map(|()| (covered, map))))
}
