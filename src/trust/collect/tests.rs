//! Finding claims among honest, wrong, hostile and missing things.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use serde_json::{Value, json};

use super::*;
use crate::kind::Kind;
use crate::oci::{BlobStream, RawManifest};

/// A repository in memory, with the rules of a real one.
#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeMap<Digest, Bytes>,
    tags: BTreeMap<String, Digest>,
    blobs: BTreeMap<Digest, Bytes>,
    referrers: Vec<Referrer>,
    broken: bool,
    opened: Mutex<usize>,
}

fn image() -> Digest {
    Digest::of(b"the image")
}

impl Repository {
    fn stored(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.insert(Digest::of(bytes), Bytes::copy_from_slice(bytes));
        json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
    }

    fn manifest(&mut self, manifest: &Value) -> Digest {
        let bytes = manifest.to_string();
        let digest = Digest::of(bytes.as_bytes());
        self.manifests.insert(digest, bytes.into());
        digest
    }

    fn refer(&mut self, manifest: &Value, artifact_type: Option<&str>) {
        let digest = self.manifest(manifest);
        self.referrers.push(Referrer { digest, artifact_type: artifact_type.map(str::to_owned) });
    }

    /// A referrer manifest as cosign 3 writes it.
    fn bundle(&mut self, json: &str) -> Value {
        let layer = self.stored(BUNDLE_MEDIA_TYPE, json.as_bytes());
        json!({"schemaVersion": 2, "artifactType": BUNDLE_MEDIA_TYPE, "layers": [layer],
               "subject": {"mediaType": "m", "digest": image(), "size": 1}})
    }

    fn sig(&mut self, layers: &[Value]) {
        let digest = self.manifest(&json!({"schemaVersion": 2, "layers": layers}));
        self.tags.insert(format!("sha256-{}.sig", image().hex()), digest);
    }

    fn simple(&mut self, payload: &str) -> Value {
        let mut layer = self.stored(SIMPLE_SIGNING, payload.as_bytes());
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": "c2ln"});
        layer
    }

    async fn found(&self) -> Vec<Claim> {
        collect(self, &[image()]).await.unwrap().claims
    }
}

#[async_trait]
impl Source for Repository {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        Ok(self.manifest(version).await?.digest)
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        *self.opened.lock().unwrap() += 1;
        if self.broken {
            return Err(unavailable());
        }
        let digest = match version {
            Version::Tag(tag) => self.tags.get(tag).copied(),
            Version::Digest(digest) => Some(*digest),
            Version::Sole => None,
        };
        let bytes = digest.and_then(|digest| self.manifests.get(&digest));
        let bytes = bytes.ok_or_else(|| SourceError::NotFound { subject: version.to_string() })?;
        Ok(RawManifest { digest: Digest::of(bytes), media_type: None, bytes: bytes.clone() })
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        let bytes = self.blobs.get(&descriptor.digest);
        let bytes = bytes.ok_or_else(|| SourceError::NotFound { subject: "blob".into() })?.clone();
        Ok(futures_util::stream::iter([Ok(bytes)]).boxed())
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        if self.broken {
            return Err(unavailable());
        }
        Ok(if *subject == image() { self.referrers.clone() } else { Vec::new() })
    }
}

fn unavailable() -> SourceError {
    let (subject, host) = ("x".into(), "h".into());
    SourceError::Unavailable { subject, host, status: 503, retry_after: None, detail: String::new() }
}

#[tokio::test]
async fn nothing_found_is_no_error_and_a_broken_source_is() {
    assert_eq!(Repository::default().found().await, []);
    let broken = Repository { broken: true, ..Repository::default() };
    assert_eq!(collect(&broken, &[image()]).await.unwrap_err().kind(), Kind::Transient);
}

#[tokio::test]
async fn both_kinds_are_found_whatever_the_list_calls_them() {
    let mut repository = Repository::default();
    let layer = repository.simple("payload");
    repository.sig(&[layer]);
    for (json, artifact_type) in
        [("1", None), ("2", Some("application/vnd.oci.empty.v1+json")), ("3", Some(BUNDLE_MEDIA_TYPE))]
    {
        let manifest = repository.bundle(json);
        repository.refer(&manifest, artifact_type);
    }
    let claims = repository.found().await;
    assert!(matches!(&claims[0], Claim::Simple { payload, .. } if payload == "payload"));
    let texts = claims[1..].iter().map(|claim| match claim {
        Claim::Bundle { json } => json.as_str(),
        Claim::Simple { .. } => panic!("{claim:?}"),
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["3", "1", "2"]);
}

#[tokio::test]
async fn a_bad_claim_hides_no_good_one() {
    let mut repository = Repository::default();
    let good = repository.simple("good");
    let mut missing = good.clone();
    missing["digest"] = json!(Digest::of(b"not there"));
    let mut unsigned = repository.simple("unsigned");
    unsigned["annotations"] = json!({});
    let mut large = good.clone();
    large["size"] = json!(CLAIM_MAX + 1);
    let other = repository.stored("application/octet-stream", b"other");
    repository.sig(&[missing, unsigned, large, other, good]);

    let mut of_another = repository.bundle("of another image");
    of_another["subject"]["digest"] = json!(Digest::of(b"another"));
    let mut without_subject = repository.bundle("without subject");
    without_subject.as_object_mut().unwrap().remove("subject");
    let mut of_another_type = repository.bundle("of another type");
    of_another_type["artifactType"] = "application/spdx+json".into();
    let mut of_two = repository.bundle("of two layers");
    let layer = of_two["layers"][0].clone();
    of_two["layers"].as_array_mut().unwrap().push(layer);
    for manifest in [of_another, without_subject, of_another_type, of_two, json!([]), json!({"layers": 7})] {
        repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    }
    let nowhere = Referrer { digest: Digest::of(b"nowhere"), artifact_type: None };
    repository.referrers.push(nowhere);
    let manifest = repository.bundle("good");
    repository.refer(&manifest, None);

    let claims = repository.found().await;
    assert_eq!(claims.len(), 2, "{claims:?}");
    assert!(matches!(&claims[0], Claim::Simple { payload, .. } if payload == "good"));
    assert_eq!(claims[1], Claim::Bundle { json: "good".into() });
}

#[tokio::test]
async fn blobs_other_than_described_are_passed_over() {
    let mut repository = Repository::default();
    let manifest = repository.bundle("true");
    repository.refer(&manifest, None);
    repository.blobs.insert(Digest::of(b"true"), Bytes::from_static(b"lies"));
    assert_eq!(repository.found().await, []);
}

#[tokio::test]
async fn numbers_are_bounded_and_bundles_come_first() {
    let mut repository = Repository::default();
    for number in 0..3 * OPENED_MAX {
        let manifest = json!({"layers": [], "subject": {"digest": image()}, "number": number});
        repository.refer(&manifest, None);
    }
    let manifest = repository.bundle("hidden by many");
    repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    assert_eq!(repository.found().await.len(), 1);
    assert!(*repository.opened.lock().unwrap() <= OPENED_MAX + 1);

    let mut repository = Repository::default();
    let layers: Vec<_> = (0..2 * CLAIMS_MAX).map(|number| repository.simple(&number.to_string())).collect();
    repository.sig(&layers);
    assert_eq!(repository.found().await.len(), CLAIMS_MAX);
}

#[tokio::test]
async fn all_together_have_a_limit() {
    let mut repository = Repository::default();
    for letter in 'a'..='z' {
        let manifest = repository.bundle(&letter.to_string().repeat(CLAIM_MAX));
        repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    }
    let claims = repository.found().await;
    assert_eq!(claims.iter().map(Claim::size).sum::<usize>(), EVIDENCE_MAX);
}
