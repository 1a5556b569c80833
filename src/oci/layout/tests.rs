use std::fs;

use futures_util::TryStreamExt as _;
use serde_json::json;

use super::*;
use crate::kind::Kind;
use crate::oci::MANIFEST_MAX;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new(entries: &serde_json::Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        let fixture = Self { directory };
        fixture.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fixture.write("index.json", index.to_string().as_bytes());
        fixture
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).unwrap();
    }

    fn blob(&self, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.write(&format!("blobs/sha256/{}", digest.hex()), bytes);
        Descriptor {
            media_type: MANIFEST.into(),
            digest,
            size: bytes.len() as u64,
            annotations: Default::default(),
        }
    }

    fn source(&self) -> LayoutSource {
        let text = format!("oci:{}", self.directory.path().display());
        match text.parse() {
            Ok(Reference::Layout(layout)) => LayoutSource::new(&layout),
            other => panic!("{other:?}"),
        }
    }
}

fn entry(content: &[u8], tag: Option<&str>) -> serde_json::Value {
    let mut entry = json!({"mediaType": MANIFEST, "digest": Digest::of(content).to_string(),
                           "size": content.len()});
    if let Some(tag) = tag {
        entry["annotations"] = json!({ REF_NAME: tag });
    }
    entry
}

fn tag(name: &str) -> Version {
    Version::Tag(name.into())
}

#[tokio::test]
async fn tags_digests_and_the_sole_image() {
    let fixture = Fixture::new(&json!([entry(b"one", Some("v1")), entry(b"two", Some("v2"))]));
    let (one, inner) = (fixture.blob(b"one"), fixture.blob(b"inner"));
    let source = fixture.source();
    assert_eq!(source.resolve(&tag("v1")).await.unwrap(), one.digest);
    let manifest = source.manifest(&tag("v1")).await.unwrap();
    assert_eq!((&manifest.bytes[..], manifest.media_type.as_deref()), (&b"one"[..], Some(MANIFEST)));
    // A manifest below a nested index is not in index.json, but can be asked for by digest.
    let nested = Version::Digest(inner.digest);
    assert_eq!(source.resolve(&nested).await.unwrap(), inner.digest);
    assert_eq!(source.manifest(&nested).await.unwrap().media_type, None);
    for absent in [tag("v3"), Version::Digest(Digest::of(b"absent"))] {
        assert_eq!(source.resolve(&absent).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(source.manifest(&absent).await.unwrap_err().kind(), Kind::NotFound);
    }
    let several = source.resolve(&Version::Sole).await.unwrap_err();
    assert!(several.to_string().contains(":v1, oci:"), "{several}");
    assert_eq!(source.references().await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_image_needs_no_tag_even_under_two_names() {
    let fixture = Fixture::new(&json!([entry(b"one", None), entry(b"one", Some("v1"))]));
    let one = fixture.blob(b"one");
    assert_eq!(fixture.source().resolve(&Version::Sole).await.unwrap(), one.digest);
    let empty = Fixture::new(&json!([]));
    assert_eq!(empty.source().resolve(&Version::Sole).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn one_tag_on_two_images_is_refused_with_digests() {
    let fixture = Fixture::new(&json!([entry(b"one", Some("v")), entry(b"two", Some("v"))]));
    let error = fixture.source().resolve(&tag("v")).await.unwrap_err();
    assert!(error.to_string().contains("@sha256:"), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn blobs_stream_and_sizes_must_agree() {
    let fixture = Fixture::new(&json!([]));
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut blob = fixture.blob(&content);
    let source = fixture.source();
    let stream = source.blob(&blob).await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(chunks.len() > 3, "a blob is not read whole");
    assert_eq!(chunks.concat(), content);
    let empty = fixture.blob(b"");
    let none: Vec<Bytes> = source.blob(&empty).await.unwrap().try_collect().await.unwrap();
    assert!(none.is_empty());
    blob.size += 1;
    let error = source.blob(&blob).await.err().unwrap();
    assert!(matches!(error, SourceError::WrongSize { .. }), "{error}");
    blob.digest = Digest::of(b"absent");
    assert_eq!(source.blob(&blob).await.err().unwrap().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_blob_that_shrinks_is_an_error() {
    let fixture = Fixture::new(&json!([]));
    let blob = fixture.blob(&vec![7; 2_000_000]);
    let mut stream = fixture.source().blob(&blob).await.unwrap();
    stream.try_next().await.unwrap().unwrap();
    fixture.write(&format!("blobs/sha256/{}", blob.digest.hex()), b"");
    let rest: Result<Vec<Bytes>, _> = stream.try_collect().await;
    assert_eq!(rest.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn damaged_layouts_are_named() {
    let fixture = Fixture::new(&json!([entry(b"one", Some("v1"))]));
    fixture.write(&format!("blobs/sha256/{}", Digest::of(b"one").hex()), b"two");
    let error = fixture.source().manifest(&tag("v1")).await.unwrap_err();
    assert!(matches!(error, SourceError::WrongDigest { .. }), "{error}");
    fixture.write("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    let error = fixture.source().resolve(&tag("v1")).await.unwrap_err();
    assert!(error.to_string().contains("\"2.0.0\""), "{error}");
    fs::remove_file(fixture.directory.path().join("oci-layout")).unwrap();
    let error = fixture.source().resolve(&tag("v1")).await.unwrap_err();
    assert!(error.to_string().contains("no file oci-layout"), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_fifo_does_not_hang() {
    let fixture = Fixture::new(&json!([]));
    let digest = Digest::of(b"fifo");
    let path = fixture.directory.path().join("blobs/sha256").join(digest.hex());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let error = fixture.source().manifest(&Version::Digest(digest)).await.unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn an_index_larger_than_the_limit_is_not_read() {
    let fixture = Fixture::new(&json!([]));
    fixture.write("index.json", &vec![b' '; MANIFEST_MAX + 1]);
    let error = fixture.source().resolve(&Version::Sole).await.unwrap_err();
    assert!(matches!(error, SourceError::Limit { .. }), "{error}");
}

#[tokio::test]
async fn referrers_are_found_by_their_subject_and_by_the_fallback_tag() {
    let subject = Digest::of(b"subject");
    let referring = |to: Digest| json!({"artifactType": "t", "subject": {"digest": to}}).to_string();
    let (ours, others) = (referring(subject), referring(Digest::of(b"other")));
    let listed = json!({"manifests": [{"digest": Digest::of(b"by tag")}]}).to_string();
    let fixture = Fixture::new(&json!([
        entry(ours.as_bytes(), None),
        entry(others.as_bytes(), None),
        entry(b"missing", None),
        entry(b"not json", None),
        entry(listed.as_bytes(), Some(&format!("sha256-{}", subject.hex()))),
    ]));
    for content in [ours.as_bytes(), others.as_bytes(), b"not json", listed.as_bytes()] {
        fixture.blob(content);
    }
    let found = fixture.source().referrers(&subject).await.unwrap();
    let expected = [(Digest::of(ours.as_bytes()), Some("t".to_owned())), (Digest::of(b"by tag"), None)];
    let found: Vec<_> = found.into_iter().map(|referrer| (referrer.digest, referrer.artifact_type)).collect();
    assert_eq!(found, expected);
    assert_eq!(fixture.source().referrers(&Digest::of(b"nobody")).await.unwrap(), []);
}
