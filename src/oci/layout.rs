//! OCI image layouts: a directory with `oci-layout`, `index.json` and `blobs/` (OCI image-spec
//! 1.1, image-layout.md).
//!
//! Paths are made from validated digests only. Files are opened without blocking and must be
//! regular, so that a FIFO in a hostile directory cannot hang a pull. The size of a file is compared
//! with its descriptor before it is read.

use std::collections::HashSet;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::{BlobStream, RawManifest, Referrer, Source, SourceError, referrers};
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Descriptor, Document, IndexEntry};
use crate::oci::reference::{LayoutReference, Version};

mod file;
mod write;

/// The annotation that names an entry of `index.json`.
const REF_NAME: &str = oci_client::annotations::ORG_OPENCONTAINERS_IMAGE_REF_NAME;

/// The images of one layout directory.
#[derive(Debug)]
pub(super) struct LayoutSource {
    directory: PathBuf,
    limits: ImageLimits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// The members of a manifest that make it a referrer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerManifest {
    subject: Option<Subject>,
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

impl LayoutSource {
    /// A source for a layout. Does no I/O.
    pub(super) fn new(reference: &LayoutReference) -> Self {
        Self { directory: reference.directory().to_owned(), limits: ImageLimits::DEFAULT }
    }

    /// The same with other caps.
    #[must_use]
    pub(super) fn with_limits(self, limits: ImageLimits) -> Self {
        Self { limits, ..self }
    }

    fn name(&self) -> String {
        format!("oci:{}", self.directory.display())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn not_a_layout(&self, detail: impl Into<String>) -> SourceError {
        SourceError::NotALayout { directory: self.directory.clone(), detail: detail.into() }
    }

    /// The entries of `index.json`, after checking the version of the layout.
    async fn entries(&self) -> Result<Vec<IndexEntry>, SourceError> {
        let marker = self.part("oci-layout").await?;
        let marker: LayoutFile = serde_json::from_slice(&marker)
            .map_err(|e| self.not_a_layout(format!("its file oci-layout is not valid: {e}")))?;
        // Minor versions add to a layout without changing what is there.
        if !marker.image_layout_version.starts_with("1.") {
            let version = marker.image_layout_version.chars().take(40).collect::<String>();
            return Err(self.not_a_layout(format!("its version is {version:?}, expected 1.0.0")));
        }
        let bytes = self.part("index.json").await?;
        let subject = || format!("index.json of {}", self.name());
        match Document::parse_within(&self.limits, &bytes, None) {
            Ok(Document::Index(index)) => Ok(index.entries),
            Ok(Document::Image(_)) => Err(self.not_a_layout("its index.json is not an index")),
            Err(source) => Err(SourceError::Manifest { subject: subject(), source }),
        }
    }

    async fn part(&self, name: &'static str) -> Result<Bytes, SourceError> {
        let path = self.directory.join(name);
        match file::read_whole(&path, self.limits.manifest_bytes).await {
            Err(SourceError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(self.not_a_layout(format!("there is no file {name}")))
            }
            other => other,
        }
    }

    /// The descriptor that `version` names; `None` for a digest that `index.json` does not list.
    async fn find(&self, version: &Version) -> Result<Option<Descriptor>, SourceError> {
        let mut entries = self.entries().await?;
        match version {
            Version::Digest(digest) => entries.retain(|e| e.descriptor.digest == *digest),
            Version::Tag(tag) => {
                entries.retain(|e| e.descriptor.annotations.get(REF_NAME) == Some(tag));
                // The message names the tag; the one below names only the layout.
                if entries.is_empty() {
                    return Err(SourceError::NotFound { subject: format!("{}:{tag}", self.name()) });
                }
            }
            // What is about an image is not meant where one is.
            Version::Sole if entries.iter().any(|entry| !entry.is_artifact) => {
                entries.retain(|entry| !entry.is_artifact);
            }
            Version::Sole => {}
        }
        // The same image may be listed under several names.
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(entry.descriptor.digest));
        match (entries.len(), version) {
            // Manifests that an index lists are blobs without an entry of their own.
            (0, Version::Digest(_)) => Ok(None),
            (0, _) => Err(SourceError::NotFound { subject: format!("an image in {}", self.name()) }),
            (1, _) => Ok(entries.pop().map(|entry| entry.descriptor)),
            _ => Err(self.several(version, &entries)),
        }
    }

    fn several(&self, version: &Version, entries: &[IndexEntry]) -> SourceError {
        let name = self.name();
        let choice = |entry: &IndexEntry| match (entry.descriptor.annotations.get(REF_NAME), version) {
            (Some(tag), Version::Sole) => format!("{name}:{tag}"),
            _ => format!("{name}@{}", entry.descriptor.digest),
        };
        SourceError::SeveralImages {
            subject: format!("{name} ({version})"),
            choices: entries.iter().take(20).map(choice).collect(),
        }
    }
}

#[async_trait]
impl Source for LayoutSource {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        match (self.find(version).await?, version) {
            (Some(descriptor), _) => Ok(descriptor.digest),
            (None, Version::Digest(digest)) => {
                let subject = format!("{}@{digest}", self.name());
                file::length(&self.blob_path(digest)).await.map_err(|e| missing(e, subject))?;
                Ok(*digest)
            }
            (None, _) => Err(SourceError::NotFound { subject: self.name() }),
        }
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        let descriptor = self.find(version).await?;
        let digest = match (&descriptor, version) {
            (Some(descriptor), _) => descriptor.digest,
            (None, Version::Digest(digest)) => *digest,
            (None, _) => return Err(SourceError::NotFound { subject: self.name() }),
        };
        let subject = format!("manifest {}@{digest}", self.name());
        let bytes = file::read_whole(&self.blob_path(&digest), self.limits.manifest_bytes).await;
        let bytes = bytes.map_err(|e| missing(e, subject.clone()))?;
        let actual = Digest::of(&bytes);
        if actual != digest {
            return Err(SourceError::WrongDigest { subject, expected: digest, actual });
        }
        let media_type = descriptor.and_then(|d| d.stated_type().map(str::to_owned));
        Ok(RawManifest { digest, media_type, bytes })
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        let subject = format!("blob {} of {}", descriptor.digest, self.name());
        let path = self.blob_path(&descriptor.digest);
        file::stream(path, subject.clone(), descriptor.size).await.map_err(|e| missing(e, subject))
    }

    /// Lists the entries of `index.json` whose manifests name `subject`, and those that the fallback tag lists. Copies
    /// of whole repositories bring that tag along.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        let (mut found, mut tagged) = (Vec::new(), None);
        let tag = referrers::fallback_tag(subject);
        for entry in self.entries().await? {
            if entry.descriptor.annotations.get(REF_NAME) == Some(&tag) {
                tagged = Some(entry.descriptor.digest);
            }
            let digest = entry.descriptor.digest;
            let read = file::read_whole(&self.blob_path(&digest), self.limits.manifest_bytes).await;
            // An unreadable entry must not hide the others. A caller that wants that image gets the error.
            let Ok(manifest) = read.map(|bytes| serde_json::from_slice::<ReferrerManifest>(&bytes)) else {
                continue;
            };
            if let Ok(ReferrerManifest { subject: Some(Subject { digest: of }), artifact_type }) = manifest
                && of == *subject
            {
                found.push(Referrer { digest, artifact_type });
            }
        }
        // The tag may also name another kind of document, which then lists nothing.
        if let Some(index) = tagged {
            let index = self.manifest(&Version::Digest(index)).await?;
            found.extend(referrers::parse(&index.bytes).unwrap_or_default());
        }
        found.truncate(referrers::REFERRERS_MAX);
        Ok(found)
    }
}

/// A missing file means that the layout does not have the blob.
fn missing(error: SourceError, subject: String) -> SourceError {
    match error {
        SourceError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            SourceError::NotFound { subject }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
