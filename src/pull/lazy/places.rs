//! Where the objects of an image are in its layers: what a map is written of, when an image is sealed.
//!
//! A zstd:chunked layer has a table that tells, one that is not compressed is read once more to see, and an artifact's file is
//! a blob. Any other layer is a stream. The table is compared with its digest in the manifest and not with the frames: an
//! object that is not where it says is found where the layer is read whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::fetch::{Chunks, Work, fetch};
use crate::image::chunked::{Doubt, Positions, Toc};
use crate::image::layer::{self, TarLimits};
use crate::image::lazy::{Located, MapLayer, Packing, Place};
use crate::image::store::{Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Descriptor, Layer, LayerForm, Manifest};
use crate::oci::{Source, SourceError};
use crate::pull::error::About as _;
use crate::pull::{PullError, Unbuilt, blocking, recipe};

/// The layers of an image, and where the objects are that are in them; more of them than the image may have.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The layers.
    pub layers: Vec<MapLayer>,
    /// The objects.
    pub objects: BTreeMap<VerityDigest, Located>,
}

/// Finds the objects of a manifest whose layers are in the store. An object that several layers have is where it can be
/// asked for alone, and else in the lowest. The same image gives the same places. `image` is for messages.
///
/// # Errors
/// The source or the store fails, or a layer is not what it was.
pub async fn places(
    store: &Arc<Store>,
    source: &dyn Source,
    manifest: &Manifest,
    unbuilt: &Unbuilt,
    limits: &ImageLimits,
    image: &str,
) -> Result<Places, PullError> {
    let mut places = Places::default();
    for (number, layer) in recipe::layers(manifest).enumerate() {
        let lost = || PullError::Lost { image: image.to_owned(), why: format!("layer {number} is no part") };
        let diff_id = unbuilt.parts.get(number).ok_or_else(lost)?.layer;
        let finder = Finder { store, source, layer: &layer.descriptor, diff_id, limits, image };
        let (packing, found) = finder.find(layer).await?;
        let Descriptor { digest: blob, size, .. } = layer.descriptor;
        places.layers.push(MapLayer { blob, size, packing });
        for (object, size, place) in found {
            let located = Located { object, size, layer: number, place };
            match places.objects.get_mut(&object) {
                Some(known) if known.place == Place::Stream && located.place != Place::Stream => {
                    *known = located
                }
                Some(_) => {}
                None => drop(places.objects.insert(object, located)),
            }
        }
    }
    Ok(places)
}

/// The objects of a layer, with their sizes and places.
type Found = Vec<(VerityDigest, u64, Place)>;

struct Finder<'a> {
    store: &'a Arc<Store>,
    source: &'a dyn Source,
    layer: &'a Descriptor,
    diff_id: Digest,
    limits: &'a ImageLimits,
    image: &'a str,
}

impl Finder<'_> {
    async fn find(&self, layer: &Layer) -> Result<(Packing, Found), PullError> {
        if layer.form == LayerForm::File {
            let whole = Place::Own(0..layer.descriptor.size);
            return Ok((Packing::Raw, self.listed(move |_| Some(whole.clone())).await?));
        }
        if self.diff_id == self.layer.digest {
            return Ok((Packing::Raw, self.in_tar().await?));
        }
        match self.toc().await? {
            Ok(Some(toc)) => Ok((Packing::Zstd, self.in_frames(toc).await?)),
            Ok(None) => Ok((Packing::Stream, self.listed(|_| None).await?)),
            Err(doubt) => {
                tracing::warn!(layer = %self.layer.digest, %doubt, "nodes will need the whole layer for each of its files");
                Ok((Packing::Stream, self.listed(|_| None).await?))
            }
        }
    }

    /// The objects of the layer's record, each where `place` says by its path.
    async fn listed(
        &self,
        place: impl Fn((&[u8], u64)) -> Option<Place> + Send + 'static,
    ) -> Result<Found, PullError> {
        let (store, diff_id) = (Arc::clone(self.store), self.diff_id);
        let read = move || {
            let mut found = Vec::new();
            for entry in store.layers().entries(&diff_id)? {
                let entry = entry?;
                if let Some((object, size)) = entry.kind.object() {
                    found.push((object, size, place((&*entry.path, size)).unwrap_or(Place::Stream)));
                }
            }
            Ok::<_, StoreError>(found)
        };
        blocking(self.image, read).await?.about(self.image)
    }

    async fn in_frames(&self, toc: Toc) -> Result<Found, PullError> {
        let files: HashMap<Vec<u8>, (u64, Place)> = toc
            .files
            .into_iter()
            .map(|file| (clean(&file.name).to_vec(), (file.size, Place::Own(file.frames))))
            .collect();
        let place = move |(path, size): (&[u8], u64)| {
            files.get(path).filter(|(found, _)| *found == size).map(|(_, place)| place.clone())
        };
        self.listed(place).await
    }

    /// The layer's table, if it has one.
    async fn toc(&self) -> Result<Result<Option<Toc>, Doubt>, PullError> {
        let positions = match Positions::of(self.layer) {
            Ok(Some(positions)) => positions,
            Ok(None) => return Ok(Ok(None)),
            Err(doubt) => return Ok(Err(doubt)),
        };
        let packed = self.section(positions.toc.start, positions.toc.length).await.about(self.image)?;
        let entries = self.limits.entries;
        let read = move || Toc::read(&packed, &positions, entries).map(Some);
        blocking(self.image, read).await
    }

    /// Bytes of the blob, of which [`Positions`] bounds the number.
    async fn section(&self, start: u64, length: u64) -> Result<Bytes, SourceError> {
        let mut stream = self.source.blob_from(self.layer, start).await?;
        let (mut bytes, length) = (BytesMut::new(), usize::try_from(length).unwrap_or(usize::MAX));
        while bytes.len() < length {
            let Some(chunk) = stream.try_next().await? else { break };
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(length);
        Ok(bytes.freeze())
    }

    /// Reads a layer that is not compressed once more: its record has the same entries in the same order.
    async fn in_tar(&self) -> Result<Found, PullError> {
        let limits = TarLimits::for_blob(self.limits, self.layer.size);
        let work = || -> Work<Found> {
            let (store, diff_id, image) = (Arc::clone(self.store), self.diff_id, self.image.to_owned());
            Box::new(move |tar: &mut Chunks| {
                let mut entries = store.layers().entries(&diff_id).about(&image)?;
                let (mut found, mut failed) = (Vec::new(), None);
                let visited = layer::content_ranges(tar, limits, |range| match entries.next() {
                    Some(Ok(entry)) => {
                        if let Some((object, size)) = entry.kind.object() {
                            let range = range.filter(|range| range.end - range.start == size);
                            found.push((object, size, range.map_or(Place::Stream, Place::Own)));
                        }
                    }
                    Some(Err(error)) => failed = failed.take().or(Some(error)),
                    None => {}
                });
                failed.map_or(Ok(()), Err).about(&image)?;
                let why = |error| format!("the tar of a layer was readable before: {error}");
                visited.map_err(|error| PullError::Lost { image, why: why(error) })?;
                Ok(found)
            })
        };
        let found = fetch(self.source, self.layer, self.image, work).await?;
        found.map_err(|error| PullError::Lazy {
            image: self.image.to_owned(),
            artifact: self.layer.digest,
            source: Arc::new(error),
        })
    }
}

/// A name of a table as layer records have it.
fn clean(name: &str) -> &[u8] {
    name.trim_start_matches("./").trim_start_matches('/').as_bytes()
}
