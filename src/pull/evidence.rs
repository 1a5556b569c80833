//! What an image is judged by: the documents that lead to it, and what claims to be its signatures.
//!
//! It is kept with the image and judged again at every mount, and nothing in it is believed: documents are hashed
//! again, those that do not lead to the manifest are dropped, and the policy engine verifies the claims. So it needs no
//! authentication: a process that could change it could at most have the image refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ImageRequest;
use super::manifest_path::{ManifestPath, RawDocument};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::trust::{Claims, Subject};

const FORMAT: u32 = 1;

/// Documents kept: as many as two references lead through at most. The oldest are dropped.
const DOCUMENTS_MAX: usize = 8;

/// What an image is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    manifest: Digest,
    /// Those that lead to the manifest: the newest reference's first, each from the top down to the manifest. Shared: they are large, and copied from step to step.
    documents: Vec<(Digest, Arc<RawDocument>)>,
    /// What claims to be a signature of one of them, unverified.
    pub signatures: Claims,
}

/// The file.
#[derive(Deserialize)]
struct WrittenEvidence {
    format: u32,
    documents: Vec<RawDocument>,
    signatures: Claims,
}

/// The same, to be written.
#[derive(Serialize)]
struct EvidenceToWrite<'a> {
    format: u32,
    documents: Vec<&'a RawDocument>,
    signatures: &'a Claims,
}

/// As much of an index as says what it leads to.
#[derive(Deserialize)]
struct ListedManifests {
    manifests: Vec<ListedManifest>,
}

#[derive(Deserialize)]
struct ListedManifest {
    digest: String,
}

impl Evidence {
    /// Evidence that says only which image it is about.
    pub(super) fn empty(manifest: Digest) -> Self {
        Self { manifest, documents: Vec::new(), signatures: Claims::default() }
    }

    /// The documents of a reference, without claims.
    pub(super) fn of(path: &ManifestPath) -> Self {
        let mut evidence = Self::empty(path.digest);
        evidence.add(path);
        evidence
    }

    /// Adds the documents of another reference that leads to the manifest, in front of the others.
    pub(super) fn add(&mut self, path: &ManifestPath) {
        let old = std::mem::take(&mut self.documents).into_iter().map(|(_, document)| document);
        let mut all = path.documents.clone();
        all.extend(old);
        self.documents = leading(all, &self.manifest);
    }

    /// Reads what [`Evidence::render`] wrote of evidence about `manifest`; `None` for anything else.
    pub(super) fn parse(bytes: &[u8], manifest: Digest) -> Option<Self> {
        let written: WrittenEvidence = serde_json::from_slice(bytes).ok()?;
        let documents = written.documents.into_iter().map(Arc::new).collect();
        let documents = (written.format == FORMAT).then(|| leading(documents, &manifest))?;
        Some(Self { manifest, documents, signatures: written.signatures })
    }

    /// The evidence as it is kept.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(super) fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let documents = self.documents.iter().map(|(_, document)| &**document).collect();
        serde_json::to_vec(&EvidenceToWrite { format: FORMAT, documents, signatures: &self.signatures })
    }

    /// The manifest that it is about.
    pub(super) fn manifest(&self) -> Digest {
        self.manifest
    }

    /// Whether the manifest itself is in it.
    pub(super) fn is_complete(&self) -> bool {
        self.documents.iter().any(|(digest, _)| *digest == self.manifest)
    }

    /// The digests that a signature may be over: the manifest's, then those of indexes that lead to it.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let indexes = self.documents.iter().map(|(digest, _)| *digest).filter(|d| *d != self.manifest);
        std::iter::once(self.manifest).chain(indexes).collect()
    }

    /// The image as it is judged for a request.
    pub(super) fn subject(&self, request: &ImageRequest, sealed: bool) -> Subject {
        Subject {
            namespace: request.caller.namespace().map(str::to_owned),
            reference: request.reference.clone(),
            digests: self.digests(),
            target: self.target(request.reference.digest()),
            sealed,
        }
    }

    /// What the reference resolved to: what it names, or else where the newest reference began.
    fn target(&self, named: Option<Digest>) -> Descriptor {
        // A reference by digest resolves to that document, even if a tag has led through a newer index since.
        let is_named = |(digest, _): &&(Digest, Arc<RawDocument>)| Some(*digest) == named;
        let found = self.documents.iter().find(is_named).or_else(|| self.documents.first());
        let (digest, media_type, size) = match found {
            Some((digest, document)) => (*digest, document.media_type.clone(), document.text.len() as u64),
            // The bytes are lost. They are fetched again where the registry may be asked.
            None => (self.manifest, "application/vnd.oci.image.manifest.v1+json".to_owned(), 0),
        };
        Descriptor { media_type, digest, size, annotations: BTreeMap::new() }
    }
}

/// Those of `documents` that lead to `manifest` by their own bytes, each once, in their order, with their digests.
fn leading(documents: Vec<Arc<RawDocument>>, manifest: &Digest) -> Vec<(Digest, Arc<RawDocument>)> {
    // Duplicates go first, so that the bound counts distinct documents.
    let mut rest: Vec<_> = Vec::new();
    for document in documents {
        let digest = Digest::of(document.text.as_bytes());
        if !rest.iter().any(|(known, _)| *known == digest) {
            rest.push((digest, document));
        }
    }
    rest.truncate(DOCUMENTS_MAX);
    let mut reached = vec![*manifest];
    // An index may come before another through which it leads, so one pass does not find all.
    for _ in 0..rest.len() {
        for (digest, document) in &rest {
            if !reached.contains(digest) && lists(&document.text, &reached) {
                reached.push(*digest);
            }
        }
    }
    rest.retain(|(digest, _)| reached.contains(digest));
    rest
}

fn lists(text: &str, any_of: &[Digest]) -> bool {
    let Ok(index) = serde_json::from_str::<ListedManifests>(text) else { return false };
    index.manifests.iter().any(|entry| entry.digest.parse().is_ok_and(|digest| any_of.contains(&digest)))
}

#[cfg(test)]
mod tests;
