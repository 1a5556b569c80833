//! Content codings that nobody asked for.

use std::io::Write as _;

use futures_util::TryStreamExt as _;

use super::script::{Ending, Reply, Script};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::Descriptor;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.config.v1+json".into(),
        digest: Digest::of(content),
        size: content.len() as u64,
        annotations: Default::default(),
    }
}

async fn blob(host: &str, content: &[u8]) -> Result<Vec<u8>, SourceError> {
    let stream = anonymous(host).blob(&descriptor(content)).await?;
    let chunks: Vec<bytes::Bytes> = stream.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn none_is_asked_for() {
    let server = Script::start(|_, _| Reply::new(200, MANIFEST)).await;
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_coded_manifest_is_decoded() {
    for name in ["gzip", "x-gzip", "deflate", "zstd"] {
        let code: fn(&[u8]) -> Vec<u8> = match name {
            "deflate" => deflate,
            "zstd" => zstd,
            _ => gzip,
        };
        for ending in [Ending::Whole, Ending::Unannounced] {
            let server = Script::start(move |request, _| {
                let digest = Digest::of(MANIFEST).to_string();
                let reply =
                    Reply::new(200, code(MANIFEST)).ending(ending).header("Docker-Content-Digest", digest);
                assert_eq!(request.header("range"), None);
                reply.header("Content-Encoding", name)
            })
            .await;
            let raw = anonymous(&server.host).manifest(&v1()).await.unwrap();
            assert_eq!(raw.bytes, MANIFEST, "{name}");
        }
        // Some name a coding that they have not applied.
        let server =
            Script::start(move |_, _| Reply::new(200, MANIFEST).header("Content-Encoding", name)).await;
        assert_eq!(anonymous(&server.host).manifest(&v1()).await.unwrap().bytes, MANIFEST, "{name}");
    }
}

#[tokio::test]
async fn what_a_manifest_expands_to_is_bounded() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < ImageLimits::DEFAULT.manifest_bytes);
    let server =
        Script::start(move |_, _| Reply::new(200, bomb.clone()).header("Content-Encoding", "gzip")).await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    assert!(matches!(error, SourceError::Limit { .. }), "{error}");
}

#[tokio::test]
async fn a_coding_that_is_not_understood_is_named() {
    for named in ["br", "compress", "gzip, br"] {
        let server =
            Script::start(move |_, _| Reply::new(200, MANIFEST).header("Content-Encoding", named)).await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("encoded as {named:?}")), "{error}");
        assert_eq!(error.kind(), Kind::Unsupported);
    }
    let server = Script::start(|_, _| {
        Reply::new(200, b"\x1f\x8bnonsense".to_vec()).header("Content-Encoding", "gzip")
    })
    .await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    assert!(error.to_string().contains("content coding is damaged"), "{error}");
}

#[tokio::test]
async fn a_blob_that_is_gzip_is_not_decoded_though_it_is_called_so() {
    // Object storage has the coding as metadata of the file; `br` is as wrong.
    for named in ["gzip", "x-gzip", "br"] {
        let layer = gzip(&[7; 100_000]);
        let body = layer.clone();
        let server =
            Script::start(move |_, _| Reply::new(200, body.clone()).header("Content-Encoding", named)).await;
        assert!(blob(&server.host, &layer).await.unwrap() == layer, "{named}");
    }
}

#[tokio::test]
async fn a_coded_blob_is_decoded_and_started_over_where_it_breaks() {
    let content: Vec<u8> = (0..400_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for ending in [Ending::Whole, Ending::Unannounced] {
        let coded = zstd(&content);
        let server = Script::start(move |request, before| {
            assert_eq!(request.header("range"), None);
            let reply = Reply::new(200, coded.clone()).header("Content-Encoding", "zstd");
            if before == 0 { reply.ending(Ending::Cut(200_000)) } else { reply.ending(ending) }
        })
        .await;
        assert!(blob(&server.host, &content).await.unwrap() == content);
        assert_eq!(server.seen().len(), 2);
    }
    // It yields no more than its size.
    let bomb = gzip(&vec![0; 64 << 20]);
    let server =
        Script::start(move |_, _| Reply::new(200, bomb.clone()).header("Content-Encoding", "gzip")).await;
    let error = blob(&server.host, &content).await.unwrap_err();
    assert!(matches!(error, SourceError::WrongSize { .. }), "{error}");
}

#[tokio::test]
async fn a_page_in_the_place_of_a_blob_is_named() {
    let page = "<html><title>Portal</title></html>";
    let server = Script::start(move |_, _| Reply::new(200, page).header("Content-Type", "text/html")).await;
    let error = blob(&server.host, b"{}").await.unwrap_err();
    assert!(error.to_string().contains("a web page came instead"), "{error}");
}
