//! A [`View`] as a source: each document and blob is asked for in order, until one place has it.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::stream;
use super::view::{Place, View, needed};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::referrers::REFERRERS_MAX;
use crate::oci::{BlobStream, Ranged, RawManifest, Referrer, Source, SourceError, Wait};

#[async_trait]
impl Source for View {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        self.first(needed(version), None, |place| place.source.resolve(version)).await
    }

    async fn resolve_to_read(&self, version: &Version) -> Result<Digest, SourceError> {
        self.first(needed(version), None, |place| place.source.resolve_to_read(version)).await
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        self.first(needed(version), None, |place| place.source.manifest(version)).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        stream::open(self.clone(), descriptor.clone(), 0).await
    }

    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
        stream::open(self.clone(), descriptor.clone(), offset).await
    }

    fn has_ranges(&self) -> bool {
        let able = |at: &usize| self.places.all[*at].host.capabilities.pull;
        self.of.iter().filter(|at| able(at)).any(|at| self.places.all[*at].source.has_ranges())
    }

    async fn blob_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        stream::open_range(self.clone(), descriptor.clone(), range).await
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        let ask = async |place: &Place| {
            let bytes = place.source.small_blob(descriptor).await?;
            let actual = Digest::of(&bytes);
            if actual == descriptor.digest {
                return Ok(bytes);
            }
            let subject = format!("blob {} of {}", descriptor.digest, place.name);
            Err(SourceError::WrongDigest { subject, expected: descriptor.digest, actual })
        };
        self.first(|able| able.pull, Some(&descriptor.digest), ask).await
    }

    /// Those of all places together. A mirror that fails hides none of the others'.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        let (mut found, mut failure): (Vec<Referrer>, _) = (Vec::new(), None);
        for at in self.order(|able| able.referrers, None) {
            match self.places.all[at].source.referrers(subject).await {
                Ok(listed) => {
                    for referrer in listed {
                        if found.len() < REFERRERS_MAX
                            && found.iter().all(|known| known.digest != referrer.digest)
                        {
                            found.push(referrer);
                        }
                    }
                }
                Err(error) => failure = Some(self.failed(at, error, failure)),
            }
        }
        match failure {
            Some((true, error)) => Err(error),
            Some((false, error)) if self.of.len() == 1 => Err(error),
            _ => Ok(found),
        }
    }

    fn waits(&self) -> Option<Wait> {
        self.of.iter().find_map(|at| self.places.all[*at].source.waits())
    }

    fn try_elsewhere(&self, blob: &Digest) -> bool {
        self.accuse(blob)
    }
}
