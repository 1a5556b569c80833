//! Registries and images that keep to the specifications only in part, from the first request to the mounted file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use composefs_csi::oci::digest::Digest;
use serde_json::json;
use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Asked, Impostor};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What an honest registry with the blobs of a layout answers; `tag` names a manifest.
fn honest(blobs: &Path, asked: &Asked, tag: Digest) -> Answer {
    let name = asked.path.rsplit('/').next().unwrap_or_default();
    let digest = if name == "1" { tag.to_string() } else { name.to_owned() };
    let bytes = digest.strip_prefix("sha256:").map(|hex| std::fs::read(blobs.join(hex)));
    let Some(Ok(bytes)) = bytes else { return Answer::status(404) };
    let kind = if asked.path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    Answer::body(kind, &bytes).with("docker-content-digest", &digest)
}

/// A layout with one image of one layer, the manifest's digest and the layer's.
fn image(seed: &str) -> (Layout, Digest, String) {
    let mut layout = Layout::new();
    let tar = archive(&[("name", seed.as_bytes()), ("noise", &noise(seed, 300_000))]);
    let manifest = layout.add(&Image::new(vec![tar]), "1").digest;
    let bytes = std::fs::read(layout.path().join("blobs/sha256").join(manifest.hex())).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layer = document["layers"][0]["digest"].as_str().unwrap().to_owned();
    (layout, manifest, layer)
}

async fn node(registry: &Impostor, more: &[&str]) -> (Machine, Plugin) {
    let host = registry.address.to_string();
    let machine = Machine::new(&[&["--insecure-registry", &host], more].concat());
    let plugin = machine.start().await;
    (machine, plugin)
}

/// What a pod sees as the image's name.
async fn published(
    machine: &Machine,
    plugin: &Plugin,
    pod: &str,
    image: &str,
    attributes: &[(&str, &str)],
) -> Result<String, tonic::Status> {
    let mut request = machine.publish(pod, image);
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    request.volume_context.extend(attributes);
    plugin.node.clone().node_publish_volume(request).await?;
    Ok(std::fs::read_to_string(machine.target(pod).join("name")).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_pulled_though_head_and_digests_are_refused() {
    for head in [401, 403, 404, 405, 500] {
        let (old, new) = (image("old"), image("new"));
        let tag = Arc::new(Mutex::new((old.0.path().join("blobs/sha256"), old.1)));
        let named = Arc::clone(&tag);
        let registry = Impostor::start(move |asked| {
            let (blobs, tag) = named.lock().unwrap().clone();
            match (asked.method.as_str(), asked.path.contains("/manifests/sha256:")) {
                ("HEAD", _) => Answer::status(head),
                (_, true) => Answer::status(404),
                _ => honest(&blobs, asked, tag),
            }
        })
        .await;
        let (machine, plugin) = node(&registry, &[]).await;
        let image = format!("{}/app:1", registry.address);
        let always = [("pullPolicy", "Always")];
        assert_eq!(published(&machine, &plugin, "a", &image, &always).await.unwrap(), "old", "{head}");
        *tag.lock().unwrap() = (new.0.path().join("blobs/sha256"), new.1);
        assert_eq!(published(&machine, &plugin, "b", &image, &always).await.unwrap(), "new", "{head}");
        // By the digest, with the tag beside it.
        let pinned = format!("{image}@{}", new.1);
        assert_eq!(published(&machine, &plugin, "c", &pinned, &[]).await.unwrap(), "new", "{head}");
        let moved = format!("{image}@{}", old.1);
        let (other, plugin) = node(&registry, &[]).await;
        let error = published(&other, &plugin, "d", &moved, &[]).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        assert!(error.message().contains(&new.1.to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_comes_damaged_once_is_fetched_once_more() {
    for damaged in [1, 2] {
        let (layout, manifest, layer) = image("x");
        let (blobs, name, count) = (layout.path().join("blobs/sha256"), layer.clone(), Mutex::new(0));
        let registry = Impostor::start(move |asked| {
            let mut answer = honest(&blobs, asked, manifest);
            if asked.path.ends_with(&name) {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count <= damaged {
                    let middle = answer.body.len() / 2;
                    answer.body[middle] ^= 1;
                }
            }
            answer
        })
        .await;
        // The image fills its cap: what the first attempt took must not count.
        let unpacked = 320_000.to_string();
        let (machine, plugin) = node(&registry, &["--max-image-bytes", &unpacked]).await;
        let image = format!("{}/app:1", registry.address);
        let outcome = published(&machine, &plugin, "a", &image, &[]).await;
        match damaged {
            1 => assert_eq!(outcome.unwrap(), "x"),
            _ => {
                let error = outcome.unwrap_err();
                assert_eq!(error.code(), Code::DataLoss, "{error}");
                assert!(error.message().contains("altered them"), "{error}");
                machine.assert_nothing_published();
            }
        }
        assert_eq!(registry.asked(&layer), 2);
        if damaged == 2 {
            assert_eq!(published(&machine, &plugin, "a", &image, &[]).await.unwrap(), "x", "and again later");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_say_for_what_its_images_are() {
    let layout = Layout::new();
    let platform = composefs_csi::oci::platform::Platform::host().to_string();
    let other = if platform.contains("s390x") { "linux/ppc64le" } else { "linux/s390x" };
    let add = |name: &str, platform: &str| {
        let mut image = Image::new(vec![archive(&[("name", name.as_bytes())])]);
        image.platform = platform.to_owned();
        layout.add_manifest(&image)
    };
    let (foreign, own) = (add("foreign", other), add("own", &platform));
    let odd = add("odd", "unknown/unknown");
    let unstated = json!({"manifests": [foreign, own, odd], "annotations": null});
    let nested = layout.blob(INDEX, unstated.to_string().as_bytes());
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let mut odd = json!(odd);
    odd["platform"] = unknown;
    let top = json!({"schemaVersion": 2, "manifests": [foreign, nested, odd]});
    let top = layout.blob(INDEX, top.to_string().as_bytes());
    let blobs = layout.path().join("blobs/sha256");
    let indexes = [top.digest.to_string(), nested.digest.to_string()];
    let registry = Impostor::start(move |asked| {
        let mut answer = honest(&blobs, asked, top.digest);
        if asked.path.ends_with("/1") || indexes.iter().any(|index| asked.path.ends_with(index)) {
            answer.headers[0].1 = INDEX.to_owned();
        }
        answer
    })
    .await;
    let (machine, plugin) = node(&registry, &[]).await;
    let image = format!("{}/app:1", registry.address);
    assert_eq!(published(&machine, &plugin, "a", &image, &[]).await.unwrap(), "own");
    let unknown = [("platform", "unknown/unknown")];
    assert_eq!(published(&machine, &plugin, "b", &image, &unknown).await.unwrap(), "odd");
    let asked = registry.asked("");
    assert_eq!(published(&machine, &plugin, "c", &image, &[]).await.unwrap(), "own");
    assert_eq!(registry.asked(""), asked, "what was found is remembered for each platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_in_the_documents_of_a_layout() {
    let mut layout = Layout::new();
    let config = json!({"os": null, "config": null, "rootfs": {"type": null, "diff_ids": null}});
    let config = layout.blob(CONFIG, config.to_string().as_bytes());
    let empty =
        json!({"schemaVersion": 2, "mediaType": null, "config": config, "layers": null, "annotations": null});
    let empty = layout.blob(MANIFEST, empty.to_string().as_bytes());
    layout.tag(&empty, "empty");
    let dressed = layout.blob(CONFIG, b"{}");
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", &archive(&[("a", b"b")]));
    let artifact = json!({"schemaVersion": 2, "config": dressed, "layers": [layer]});
    let artifact = layout.blob(MANIFEST, artifact.to_string().as_bytes());
    layout.tag(&artifact, "artifact");
    let path = layout.path().join("index.json");
    let mut index: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    index.remove("schemaVersion");
    std::fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();

    let machine = Machine::new(&[]);
    let target = machine.path().join("mounted");
    std::fs::create_dir(&target).unwrap();
    let mount = |tag: &str, more: &[&str]| {
        let output = machine.command(&["mount", &layout.reference(tag), target.to_str().unwrap()]);
        let output = { output }.args(more).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_mounted, complaint) = mount("empty", &[]);
    assert!(is_mounted, "{complaint}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    assert!(machine.command(&["unmount", target.to_str().unwrap()]).status().unwrap().success());
    let (is_mounted, complaint) = mount("artifact", &[]);
    assert!(!is_mounted && complaint.contains("names no DiffIDs for 1 layers"), "{complaint}");
    // At a terminal there are no volumes.
    let (is_mounted, complaint) = mount("empty", &["--path", "nowhere"]);
    assert!(!is_mounted && complaint.contains("nowhere"), "{complaint}");
    assert!(!complaint.contains("volume"), "{complaint}");
}
