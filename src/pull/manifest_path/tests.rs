//! The way through indexes that do not say everything.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::*;
use crate::oci::{BlobStream, RawManifest, Referrer, SourceError};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Documents and configs by digest, and how many were read.
#[derive(Debug, Default)]
struct Shelf {
    content: HashMap<Digest, Bytes>,
    read: Mutex<usize>,
}

impl Shelf {
    fn put(&mut self, media_type: &str, content: &Value) -> Value {
        let bytes = Bytes::from(content.to_string());
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        self.content.insert(digest, bytes);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// A manifest whose config states a platform, and has a name that tells it from others.
    fn image(&mut self, platform: &str, name: &str) -> Value {
        let parts: Vec<&str> = platform.split('/').collect();
        let config = match parts[..] {
            [os, architecture] => json!({"os": os, "architecture": architecture, "name": name}),
            _ => json!({"name": name}),
        };
        let config = self.put(CONFIG, &config);
        self.put(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": null}),
        )
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        self.put(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    }

    /// Where the way from `top` leads, and how much was read on it.
    async fn follow(&self, top: &Value, platform: &str) -> (Result<ManifestPath, PullError>, usize) {
        *self.read.lock().unwrap() = 0;
        let (platform, limits) = (platform.parse().unwrap(), ImageLimits::DEFAULT);
        let path = ManifestPath::resolve_platform(self, digest(top), &limits, &platform, "r.io/x:v1").await;
        (path, *self.read.lock().unwrap())
    }

    async fn leads_to(&self, top: &Value, platform: &str) -> Digest {
        self.follow(top, platform).await.0.unwrap_or_else(|error| panic!("{error}")).digest
    }
}

#[async_trait]
impl Source for Shelf {
    async fn resolve(&self, _: &Version) -> Result<Digest, SourceError> {
        unreachable!("digests only")
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        let Version::Digest(digest) = *version else { unreachable!("digests only") };
        *self.read.lock().unwrap() += 1;
        let missing = || SourceError::NotFound { subject: digest.to_string() };
        let bytes = self.content.get(&digest).cloned().ok_or_else(missing)?;
        Ok(RawManifest { digest, media_type: None, bytes })
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        let raw = self.manifest(&Version::Digest(descriptor.digest)).await?;
        Ok(stream::iter([Ok(raw.bytes)]).boxed())
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Referrer>, SourceError> {
        Ok(Vec::new())
    }
}

fn digest(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

fn on(platform: &str, mut descriptor: Value) -> Value {
    let (os, architecture) = platform.split_once('/').unwrap();
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

#[tokio::test]
async fn configs_are_read_only_where_the_index_does_not_tell() {
    let mut shelf = Shelf::default();
    let (arm, amd, odd) =
        (shelf.image("linux/arm64", "a"), shelf.image("linux/amd64", "b"), shelf.image("", "c"));
    let stated = shelf.index(&[on("linux/arm64", arm.clone()), amd.clone(), on("linux/amd64", odd.clone())]);
    let (path, read) = shelf.follow(&stated, "linux/amd64").await;
    assert_eq!((path.unwrap().digest, read), (digest(&odd), 2), "an index is believed");
    let unstated = shelf.index(&[odd.clone(), arm.clone(), amd.clone()]);
    assert_eq!(shelf.leads_to(&unstated, "linux/amd64").await, digest(&amd));
    assert_eq!(shelf.leads_to(&unstated, "linux/arm64").await, digest(&arm));
    let error = shelf.follow(&unstated, "linux/s390x").await.0.unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm64, linux/amd64"), "{error}");
    // The only one needs no platform at all.
    let only = shelf.index(std::slice::from_ref(&odd));
    let (path, read) = shelf.follow(&only, "linux/amd64").await;
    let path = path.unwrap();
    assert_eq!((path.digest, read), (digest(&odd), 2));
    assert_eq!(path.indexes, [digest(&only)]);
}

#[tokio::test]
async fn what_is_32_bit_comes_last() {
    let mut shelf = Shelf::default();
    let (small, own) = (shelf.image("linux/386", "a"), shelf.image("linux/amd64", "b"));
    let index = shelf.index(&[on("linux/386", small.clone()), own.clone()]);
    assert_eq!(shelf.leads_to(&index, "linux/amd64").await, digest(&own));
    let other = shelf.image("linux/arm64", "c");
    let index = shelf.index(&[on("linux/386", small.clone()), other]);
    assert_eq!(shelf.leads_to(&index, "linux/amd64").await, digest(&small));
    let index = shelf.index(&[small.clone(), own.clone()]);
    assert_eq!(shelf.leads_to(&index, "linux/amd64").await, digest(&own), "by configs as well");
}

#[tokio::test]
async fn indexes_in_indexes_are_looked_into() {
    let mut shelf = Shelf::default();
    let (arm, amd) = (shelf.image("linux/arm64", "a"), shelf.image("linux/amd64", "b"));
    let arms = shelf.index(&[on("linux/arm64", arm.clone())]);
    let amds = shelf.index(&[on("linux/amd64", amd.clone())]);
    let artifact = shelf.put(
        MANIFEST,
        &json!({"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": Digest::of(b"x"), "size": 1}}),
    );
    let top = shelf.index(&[artifact, arms.clone(), amds.clone()]);
    for (platform, image, within) in [("linux/amd64", &amd, &amds), ("linux/arm64", &arm, &arms)] {
        let (path, _) = shelf.follow(&top, platform).await;
        let path = path.unwrap();
        assert_eq!(path.digest, digest(image));
        assert_eq!(path.indexes, [digest(within), digest(&top)], "a signature of either covers it");
        assert_eq!(path.target.digest, digest(&top));
        let kept: Vec<_> = path.documents.iter().map(|raw| Digest::of(raw.text.as_bytes())).collect();
        assert_eq!(kept, [digest(&top), digest(within), digest(image)]);
    }
    let error = shelf.follow(&top, "linux/s390x").await.0.unwrap_err().to_string();
    assert!(error.contains("linux/arm64") && error.contains("linux/amd64"), "{error}");
    // What cannot be read is not left out: it might have been the better one.
    let missing = json!({"mediaType": MANIFEST, "digest": Digest::of(b"missing"), "size": 1});
    let top = shelf.index(&[missing, amds]);
    let error = shelf.follow(&top, "linux/amd64").await.0.unwrap_err();
    assert!(matches!(error, PullError::Source { .. }), "{error}");
}

#[tokio::test]
async fn depth_and_number_are_bounded() {
    let mut shelf = Shelf::default();
    let image = shelf.image("linux/amd64", "a");
    let mut nested = image.clone();
    for depth in 1..6 {
        nested = shelf.index(&[nested]);
        let found = shelf.follow(&nested, "linux/amd64").await.0;
        match depth {
            ..4 => assert_eq!(found.unwrap().digest, digest(&image)),
            _ => assert!(matches!(found, Err(PullError::Nested(_))), "{found:?}"),
        }
    }
    // A tree of indexes with more leaves than anybody would read.
    let mut level: Vec<Value> = (0..27).map(|i| shelf.image("linux/arm64", &i.to_string())).collect();
    while level.len() > 1 {
        level = level.chunks(3).map(|three| shelf.index(three)).collect();
    }
    let (found, read) = shelf.follow(&level[0], "linux/amd64").await;
    assert!(matches!(found, Err(PullError::Nested(_))), "{found:?}");
    assert!(read <= READ_MAX, "{read}");
}
