//! `seal --lazy`: publishes beside a manifest what nodes need to start its image before the content is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::first::FirstUses;
use crate::image::composefs::{ImageBytes, list_objects};
use crate::image::lazy::{ARTIFACT_TYPE, Artifact, FirstList, OffsetMap, PackedBlob, Place, pack};
use crate::image::seal::Seal;
use crate::oci::Source;
use crate::oci::destination::{Destination, NewManifest, Referring};
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Descriptor, OCI_MANIFEST};
use crate::pull::{LazyOffer, Places, offers};

/// What was published.
#[derive(Debug, Serialize)]
pub struct Published {
    /// The digest of the artifact.
    pub artifact: Digest,
    /// Whether it was not there before.
    pub changed: bool,
    /// Files whose content can be fetched alone, equal content counted once.
    pub by_range: usize,
    /// Files for which the layer must be read from its beginning.
    pub by_stream: usize,
    /// Whether there is a list of first uses.
    pub first: bool,
}

/// What is published.
pub struct Publication {
    /// The image's manifest.
    pub subject: Descriptor,
    /// Its seal.
    pub seal: Seal,
    /// The composefs image that the seal is about.
    pub image: ImageBytes,
    /// Where its objects are.
    pub places: Places,
    /// What is read first, if somebody wrote it down.
    pub first: Option<Arc<FirstUses>>,
    /// What nodes take.
    pub limits: ImageLimits,
}

/// A blob to be stored.
struct NewBlob(Vec<u8>);

impl NewBlob {
    fn described(&self, unpacked: usize) -> PackedBlob {
        PackedBlob::new(&self.0, unpacked)
    }
}

impl Publication {
    /// Publishes it, unless the same is there. A list of first uses that was published before stays where no other is given.
    ///
    /// # Errors
    /// An object is in no layer, or source or destination fail.
    pub async fn publish(
        self,
        source: &Arc<dyn Source>,
        destination: &dyn Destination,
    ) -> anyhow::Result<Published> {
        let before = offers(source, &self.subject.digest).await?.good;
        let newest = before.first().map(|offer| offer.artifact.revision);
        let made = tokio::task::spawn_blocking(move || self.make()).await??;
        let Made { mut artifact, blobs, by_range, by_stream } = made;
        if artifact.first.is_none() {
            artifact.first = before.first().and_then(|offer| offer.artifact.first);
        }
        let first = artifact.first.is_some();
        let is_same =
            |offer: &&LazyOffer| offer.artifact.is_like(&artifact) && offer.artifact.first == artifact.first;
        // Only the newest counts: an older one that is the same would not be found.
        if let Some(LazyOffer { digest, .. }) = before.first().filter(is_same) {
            return Ok(Published { artifact: *digest, changed: false, by_range, by_stream, first });
        }
        artifact.revision = newest.map_or(0, |newest| newest.saturating_add(1));
        for NewBlob(bytes) in blobs {
            destination.put_blob(bytes.into()).await?;
        }
        destination.put_blob(Artifact::CONFIG.into()).await?;
        let manifest = NewManifest { media_type: OCI_MANIFEST.to_owned(), bytes: artifact.manifest().into() };
        let of = Referring { subject: &artifact.subject.digest, artifact_type: ARTIFACT_TYPE };
        destination.put_referrer(&manifest, &of).await?;
        Ok(Published { artifact: manifest.digest(), changed: true, by_range, by_stream, first })
    }

    /// Makes the documents. Blocking.
    fn make(self) -> anyhow::Result<Made> {
        let Self { subject, seal, image, mut places, first, limits } = self;
        let mut objects = BTreeMap::new();
        for object in list_objects(&image.bytes)? {
            let Some(located) = places.objects.remove(&object) else {
                anyhow::bail!(
                    "object {object} of {} is in none of its layers, as files that are made of an artifact's config; the image \
                     cannot start lazily: seal it without --lazy",
                    subject.digest
                );
            };
            objects.insert(object, located);
        }
        let (by_range, by_stream) = {
            let streamed = objects.values().filter(|located| located.place == Place::Stream).count();
            (objects.len() - streamed, streamed)
        };
        let map = OffsetMap::write(&seal.digest, &places.layers, &objects);
        // Nodes read it by the same rules, with the same limits if nobody has set others.
        OffsetMap::read(map.clone().into(), &limits)?;
        let first = first.map(|first| first.of_image(&image.bytes, |object| objects.contains_key(object)));
        let first: Option<FirstList> = first.transpose()?;
        let packed = |bytes: &[u8]| Ok::<_, anyhow::Error>(NewBlob(pack(bytes)?));
        let (packed_image, packed_map) = (packed(&image.bytes)?, packed(&map)?);
        let mut artifact = Artifact {
            subject,
            seal,
            image: packed_image.described(image.bytes.len()),
            map: packed_map.described(map.len()),
            first: None,
            revision: 0,
        };
        let mut blobs = vec![packed_image, packed_map];
        if let Some(first) = first {
            let text = first.write();
            let list = packed(text.as_bytes())?;
            artifact.first = Some(list.described(text.len()));
            blobs.push(list);
        }
        Ok(Made { artifact, blobs, by_range, by_stream })
    }
}

struct Made {
    artifact: Artifact,
    blobs: Vec<NewBlob>,
    by_range: usize,
    by_stream: usize,
}
