//! Finding claims among honest, wrong, hostile and missing things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use serde_json::{Value, json};

use super::*;
use crate::kind::Kind;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, RawManifest};

/// A repository in memory, with the rules of a real one.
#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeMap<Digest, Bytes>,
    tags: BTreeMap<String, Digest>,
    blobs: BTreeMap<Digest, Bytes>,
    referrers: Vec<Referrer>,
    broken: bool,
    /// Refuses everything.
    closed: bool,
    lists_no_referrers: bool,
    opened: Mutex<usize>,
}

fn image() -> Digest {
    Digest::of(b"the image")
}

fn subject() -> Subject {
    let (media_type, digest, annotations) = ("m".to_owned(), image(), BTreeMap::new());
    Subject {
        namespace: None,
        reference: "r.io/a:1".parse().unwrap(),
        digests: vec![digest],
        target: Descriptor { media_type, digest, size: 1, annotations },
        sealed: false,
    }
}

/// Waits for the claims with these texts.
struct Waiting(Vec<&'static str>);

impl Hearing for Waiting {
    fn hear(&mut self, claim: &Claim) -> bool {
        let (Claim::Bundle { json: text } | Claim::Simple { payload: text, .. }) = claim;
        let before = self.0.len();
        self.0.retain(|wanted| wanted != text);
        self.0.len() < before
    }

    fn is_decided(&self) -> bool {
        self.0.is_empty()
    }
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
        collect(self, &subject(), None, &ClaimMemory::default()).await.unwrap().claims
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
        if self.closed {
            let (subject, host) = (version.to_string(), "m.io".to_owned());
            return Err(SourceError::Denied {
                subject,
                host,
                credentials_sent: false,
                detail: String::new(),
            });
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
        if self.broken || self.lists_no_referrers {
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
    let failed = collect(&broken, &subject(), None, &ClaimMemory::default()).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Transient);
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
async fn bundles_come_first_and_many_others_end_the_search() {
    let mut repository = Repository::default();
    for number in 0..2 * ASKED_MAX {
        let manifest = json!({"layers": [], "subject": {"digest": image()}, "number": number});
        repository.refer(&manifest, None);
    }
    let manifest = repository.bundle("hidden by many");
    repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    let hearing = Box::new(Waiting(vec!["hidden by many", "not there"]));
    let memory = ClaimMemory::default();
    let claims = collect(&repository, &subject(), Some(hearing), &memory).await.unwrap();
    assert_eq!((claims.claims.len(), claims.found(), claims.is_cut), (1, 1, true));
    assert!(*repository.opened.lock().unwrap() <= ASKED_MAX);
}

#[tokio::test]
async fn a_search_goes_on_until_it_has_what_is_wanted() {
    let mut repository = Repository::default();
    let layers: Vec<_> = (0..500).map(|number| repository.simple(&number.to_string())).collect();
    repository.sig(&layers);
    for (wanted, found) in
        [(vec!["33"], 34), (vec!["7", "40"], 41), (vec![], ENOUGH), (vec!["499", "0"], 500)]
    {
        let (hearing, memory) = (Box::new(Waiting(wanted.clone())), ClaimMemory::default());
        let claims = collect(&repository, &subject(), Some(hearing), &memory).await.unwrap();
        assert_eq!((claims.found(), claims.is_cut), (found, false), "{wanted:?}");
        for text in wanted {
            let is_wanted = |claim: &Claim| matches!(claim, Claim::Simple { payload, .. } if payload == text);
            assert!(claims.claims.iter().any(is_wanted), "{text}");
        }
        assert!(claims.claims.len() <= ENOUGH + 2, "others are kept in small numbers only");
    }
}

#[tokio::test]
async fn what_is_kept_has_a_limit_and_what_helps_is_kept() {
    let mut repository = Repository::default();
    for letter in 'a'..='z' {
        let manifest = repository.bundle(&letter.to_string().repeat(CLAIM_MAX));
        repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    }
    let manifest = repository.bundle("good");
    repository.refer(&manifest, None);
    let (hearing, memory) = (Box::new(Waiting(vec!["good"])), ClaimMemory::default());
    let claims = collect(&repository, &subject(), Some(hearing), &memory).await.unwrap();
    assert_eq!(claims.claims, [Claim::Bundle { json: "good".into() }]);
    assert_eq!((claims.found(), claims.is_cut), (27, false));
    // It holds one after another: with the manifest around it, not with the other 25.
    assert!(memory.peak() < 12 * CLAIM_MAX, "{}", memory.peak());
    assert_eq!(memory.held(), 0);
}

/// Another text of this length for each number.
fn sized(number: usize, length: usize) -> String {
    format!("{number:03}") + &"0".repeat(length - 3)
}

#[tokio::test]
async fn bytes_end_a_search_and_the_claims_say_so() {
    let mut repository = Repository::default();
    for number in 0..40 {
        let manifest = repository.bundle(&sized(number, CLAIM_MAX));
        repository.refer(&manifest, Some(BUNDLE_MEDIA_TYPE));
    }
    let (hearing, memory) = (Box::new(Waiting(vec!["good"])), ClaimMemory::default());
    let claims = collect(&repository, &subject(), Some(hearing), &memory).await.unwrap();
    assert!(claims.is_cut && (30..=32).contains(&claims.found()), "{}", claims.found());
}

#[tokio::test]
async fn ten_searches_at_once_hold_no_more_than_the_node_has() {
    let mut repository = Repository::default();
    let mut layers = Vec::new();
    for number in 0..8 {
        let mut layer = repository.simple(&sized(number, CLAIM_MAX / 2));
        layer["annotations"]["dev.sigstore.cosign/bundle"] = json!("x".repeat(CLAIM_MAX / 3));
        layers.push(layer);
    }
    repository.sig(&layers);
    let memory = ClaimMemory::default();
    let (wanted, subject) = (|| Some(Box::new(Waiting(vec!["good"])) as Box<dyn Hearing>), subject());
    let searches = (0..10).map(|_| collect(&repository, &subject, wanted(), &memory));
    let all = futures_util::future::try_join_all(searches).await.unwrap();
    assert!(all.iter().all(|claims| claims.found() == 8));
    assert!(memory.peak() > 0 && memory.peak() <= ClaimMemory::MAX, "{}", memory.peak());
    assert_eq!(memory.held(), 0);
}

#[tokio::test]
async fn a_source_that_fails_later_does_not_matter() {
    let mut repository = Repository { lists_no_referrers: true, ..Repository::default() };
    let layer = repository.simple("good");
    repository.sig(&[layer]);
    for (wanted, is_found) in [("good", true), ("other", false)] {
        let (hearing, memory) = (Box::new(Waiting(vec![wanted])), ClaimMemory::default());
        let claims = collect(&repository, &subject(), Some(hearing), &memory).await;
        assert_eq!(claims.is_ok(), is_found, "{claims:?}");
    }
}

/// Several places that may have claims about one image.
#[derive(Debug)]
struct Places(Vec<Arc<Repository>>);

#[async_trait]
impl Source for Places {
    async fn resolve(&self, _: &Version) -> Result<Digest, SourceError> {
        Err(unavailable())
    }

    async fn manifest(&self, _: &Version) -> Result<RawManifest, SourceError> {
        Err(unavailable())
    }

    async fn blob(&self, _: &Descriptor) -> Result<BlobStream, SourceError> {
        Err(unavailable())
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Referrer>, SourceError> {
        Err(unavailable())
    }

    fn places(&self) -> Vec<Arc<dyn Source>> {
        self.0.iter().map(|place| Arc::clone(place) as Arc<dyn Source>).collect()
    }
}

fn signed(payload: &str) -> Arc<Repository> {
    let mut repository = Repository::default();
    let layer = repository.simple(payload);
    repository.sig(&[layer]);
    Arc::new(repository)
}

#[tokio::test]
async fn every_place_is_searched_and_none_hides_another() {
    let lacking = || Arc::new(Repository::default());
    let broken = || Arc::new(Repository { broken: true, ..Repository::default() });
    let closed = || Arc::new(Repository { closed: true, ..Repository::default() });
    let search = async |places: Vec<Arc<Repository>>| {
        let (hearing, memory) = (Box::new(Waiting(vec!["good"])), ClaimMemory::default());
        let found = collect(&Places(places), &subject(), Some(hearing), &memory).await;
        found.map(|claims| claims.claims.iter().any(|claim| *claim == claim_of("good"))).map_err(|e| e.kind())
    };
    for (places, outcome) in [
        (vec![lacking(), signed("good")], Ok(true)),
        (vec![signed("old"), signed("good")], Ok(true)),
        (vec![signed("good"), lacking()], Ok(true)),
        (vec![closed(), signed("good")], Ok(true)),
        (vec![broken(), signed("good")], Ok(true)),
        (vec![signed("good"), broken()], Ok(true)),
        (vec![lacking(), signed("other")], Ok(false)),
        (vec![closed(), signed("other")], Ok(false)),
        // Something may be missing.
        (vec![broken(), signed("other")], Err(Kind::Transient)),
        (vec![signed("other"), broken()], Err(Kind::Transient)),
        (vec![signed("other"), closed()], Err(Kind::Denied)),
    ] {
        let what = format!("{places:?}");
        assert_eq!(search(places).await, outcome, "{what}");
    }
    // Whoever needs nothing needs nothing of a mirror that is away.
    let places = Places(vec![broken(), signed("any")]);
    let found = collect(&places, &subject(), None, &ClaimMemory::default()).await.unwrap();
    assert_eq!(found.claims, [claim_of("any")]);
}

fn claim_of(payload: &str) -> Claim {
    let (certificate, chain, bundle, timestamp) = Default::default();
    Claim::Simple { payload: payload.into(), signature: "c2ln".into(), certificate, chain, bundle, timestamp }
}
