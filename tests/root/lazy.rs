//! What `seal --lazy` publishes and what a node takes of it: formats of layers, registries with and without the API of
//! referrers, signatures, and artifacts that are not what they should be. Nothing is mounted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use composefs_csi::image::lazy::{Artifact, Located, OffsetMap, PackedBlob, Place, pack};
use composefs_csi::image::store::Store;
use composefs_csi::image::verity::{VerityDigest, VerityHasher};
use composefs_csi::kind::Kind;
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::limits::ImageLimits;
use composefs_csi::oci::platform::Platform;
use composefs_csi::oci::reference::Reference;
use composefs_csi::oci::{Credentials, Source, SourceSettings, Sources};
use composefs_csi::pull::{
    Covered, LazyImage, LazyOffer, ManifestPath, PullError, PullLimits, PullPolicy, offers,
};
use composefs_csi::trust::{Admission, TrustSettings};
use serde_json::{Value, json};

use super::admission::{self, key, signed_by, write_policy};
use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::images::{Compression, Image, Layer, Layout};
use crate::support::pulling::{accept_all, puller, request};
use crate::support::registry::{Options, Registry};

const TYPE: &str = "application/vnd.composefs.metadata.v1";
const IMAGE: &str = "application/vnd.composefs.erofs.v1+zstd";
const MAP: &str = "application/vnd.composefs.csi.offset-map.v1+zstd";

/// Files of an image: a large one, a small one, one that is in the image itself, and two of the same content.
fn members() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("usr/", Vec::new()),
        ("usr/large", noise("large", 300_000)),
        ("usr/small", noise("small", 700)),
        ("usr/inline", b"inline".to_vec()),
        ("usr/twice", noise("small", 700)),
    ]
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    archive(&members)
}

/// An image with a layer of each sort that no TOC describes.
fn image() -> Image {
    let own = |name: &str| tar(&[(name, noise(name, 5000))]);
    let layers = vec![
        Layer::new(tar(&members())).stored(Compression::None),
        Layer::new(own("usr/gzip")),
        Layer::new(own("usr/zstd")).stored(Compression::Zstd),
    ];
    Image { layers, ..Image::new(Vec::new()) }
}

/// A machine that writes layouts and reads registries, and admits everything.
fn desk(registry: Option<&Registry>) -> Machine {
    let insecure = registry.map(|registry| format!("--insecure-registry={}", registry.host()));
    let mut arguments = vec!["--without-policy", "accept"];
    arguments.extend(insecure.as_deref());
    Machine::new(&arguments)
}

/// A node, as far as it reads artifacts.
struct Node {
    store: Arc<Store>,
    trust: TrustSettings,
    hosts: Vec<String>,
    directory: tempfile::TempDir,
}

impl Node {
    fn new(hosts: &[String], trust: impl FnOnce(&Path) -> TrustSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trust = trust(directory.path());
        let store =
            Store::open(&directory.path().join("store"), crate::support::csi::store_options()).unwrap();
        Self { store: Arc::new(store), trust, hosts: hosts.to_vec(), directory }
    }

    fn accepting(hosts: &[String]) -> Self {
        Self::new(hosts, |_| accept_all())
    }

    fn objects(&self) -> usize {
        let objects = self.directory.path().join("store/objects");
        let each =
            fs::read_dir(objects).unwrap().map(|entry| fs::read_dir(entry.unwrap().path()).unwrap().count());
        each.sum()
    }

    async fn path(&self, image: &str) -> (Arc<dyn Source>, ManifestPath) {
        let source = source(image, &self.hosts);
        let reference: Reference = image.parse().unwrap();
        let top = source.resolve(&reference.version()).await.unwrap();
        let limits = ImageLimits::default();
        let path =
            ManifestPath::resolve_platform(&*source, top, &limits, &Platform::host(), image).await.unwrap();
        (source, path)
    }

    /// What the image starts lazily by.
    async fn take(&self, image: &str) -> Result<Option<LazyImage>, PullError> {
        let (source, path) = self.path(image).await;
        let puller = puller(&self.store, &self.hosts, &self.trust, PullLimits::default());
        let admission = Admission {
            policy: Digest::of(b""),
            by: "a test".to_owned(),
            integrity: None,
            signed: false,
            keep_privileges: false,
        };
        puller.lazy_image(&request(image, PullPolicy::Always), &source, &path, &admission).await
    }

    async fn refused(&self, image: &str) -> (Kind, String) {
        let before = self.objects();
        let error = self.take(image).await.unwrap_err();
        assert!(matches!(error, PullError::Lazy { .. }), "{error}");
        // The image whose digest counts may be there, whatever its map is.
        let stays = usize::from(error.kind() == Kind::Invalid);
        assert!(self.objects() <= before + stays, "no other image was stored: {error}");
        (error.kind(), error.to_string())
    }
}

fn source(image: &str, hosts: &[String]) -> Arc<dyn Source> {
    let insecure_registries = hosts.iter().cloned().collect();
    let settings =
        SourceSettings { insecure_registries, proxy_from_environment: false, ..SourceSettings::default() };
    Sources::new(&settings).unwrap().open(&image.parse().unwrap(), &Credentials::none()).unwrap()
}

/// Reads every object that has a range, as a node does that needs it, and compares it with its digest. Returns the others.
async fn read_ranges(image: &LazyImage, source: &dyn Source) -> Vec<Located> {
    use futures_util::TryStreamExt as _;
    use std::io::Read as _;

    let mut streams = Vec::new();
    for located in image.map.objects() {
        let Some(range) = located.range() else {
            streams.push(located);
            continue;
        };
        let layer = image.map.layers()[located.layer];
        let descriptor = PackedBlob { digest: layer.blob, size: layer.size, unpacked: 0 }.to_fetch();
        let chunks: Vec<_> = source.blob(&descriptor).await.unwrap().try_collect().await.unwrap();
        let blob = chunks.concat();
        let (mut content, mut hasher) = (Vec::new(), VerityHasher::default());
        let bytes = &blob[range.start as usize..range.end as usize];
        located.content(layer.packing, bytes).unwrap().read_to_end(&mut content).unwrap();
        hasher.update(&content);
        assert_eq!((hasher.finish(), content.len() as u64), (located.object, located.size));
    }
    streams
}

async fn offered(image: &str, node: &Node) -> Vec<LazyOffer> {
    let (source, path) = node.path(image).await;
    let found = offers(&source, &path.digest).await.unwrap();
    assert!(found.bad.is_empty(), "{:?}", found.bad);
    found.good
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_in_a_registry_is_what_a_node_takes() {
    let registry = Registry::start(Options::default());
    let desk = desk(Some(&registry));
    let layout = Layout::of(&image());
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &["--preserve-digests"]);
    let hosts = [registry.host()];
    let node = Node::accepting(&hosts);
    assert!(node.take(&reference).await.unwrap().is_none(), "nothing is published");
    assert!(
        desk.run(&["inspect", "--remote", &reference])["lazy"]["because"]
            .as_str()
            .unwrap()
            .contains("nothing")
    );

    let sealed = desk.run(&["seal", "--lazy", &reference]);
    let row = &sealed["platforms"][0];
    assert_eq!((&row["lazy"]["changed"], &row["lazy"]["first"]), (&json!(true), &json!(false)));
    assert_eq!((&row["lazy"]["by_range"], &row["lazy"]["by_stream"]), (&json!(2), &json!(2)), "{row}");
    let lazy = node.take(&reference).await.unwrap().unwrap();
    assert_eq!(lazy.seal.digest.hex(), row["composefs"].as_str().unwrap());
    assert_eq!(
        (lazy.covered, lazy.artifact.to_string()),
        (Covered::Seal, row["lazy"]["artifact"].as_str().unwrap().to_owned())
    );
    assert_eq!((lazy.map.len(), lazy.first.objects().len()), (4, 0));
    assert_eq!(lazy.object_bytes, 300_000 + 700 + 5000 + 5000);
    assert_eq!(lazy.file_bytes, lazy.object_bytes + 700 + 6);
    let stored = node.store.objects().read_whole(&lazy.seal.digest).unwrap();
    assert_eq!((VerityDigest::of(&stored), stored.len() as u64), (lazy.seal.digest, lazy.image_size));
    let streams = read_ranges(&lazy, &*source(&reference, &hosts)).await;
    assert_eq!(streams.iter().map(|one| one.layer).collect::<std::collections::BTreeSet<_>>(), [1, 2].into());

    // The same image pulled whole is the very same.
    assert_eq!(desk.run(&["digest", &reference])["composefs"], row["composefs"]);
    // And published again, also from another machine, it stays as it is.
    for other in [&desk, &self::desk(Some(&registry))] {
        let again = other.run(&["seal", "--lazy", &reference]);
        assert_eq!((&again["manifest"], &again["changed"]), (&sealed["manifest"], &json!(false)));
        let row = &again["platforms"][0]["lazy"];
        assert_eq!((&row["artifact"], &row["changed"]), (&json!(lazy.artifact), &json!(false)));
    }
    let seen = &desk.run(&["inspect", "--remote", &reference])["lazy"];
    assert_eq!((&seen["possible"], &seen["covered"]), (&json!(true), &json!("seal")), "{seen}");
    assert_eq!((&seen["by_range"], &seen["by_stream"]), (&json!(2), &json!(2)));
    // Another registry gets the same artifact of the same image.
    let elsewhere = Registry::start(Options::default());
    let copied = elsewhere.push(&layout.reference("latest"), "team/app:1", &["--preserve-digests"]);
    let there = self::desk(Some(&elsewhere)).run(&["seal", "--lazy", &copied]);
    assert_eq!(there["platforms"][0]["lazy"]["artifact"], row["lazy"]["artifact"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_zstd_chunked_layers_have_ranges() {
    let registry = Registry::start(Options::default());
    let desk = desk(Some(&registry));
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in members() {
        match name.strip_suffix('/') {
            Some(directory) => fs::create_dir(root.path().join(directory)).unwrap(),
            None => fs::write(root.path().join(name), bytes).unwrap(),
        }
    }
    fs::write(root.path().join("usr/cut"), noise("cut", 3 << 20)).unwrap();
    fs::write(root.path().join("usr/holes"), [noise("1", 5000), vec![0; 2 << 20]].concat()).unwrap();
    let reference = format!("{}/team/data:1", registry.host());
    desk.run(&["push", root.path().to_str().unwrap(), &reference, "--seal", "--rules=faithful"]);
    let sealed = desk.run(&["seal", "--lazy", "--rules=faithful", &reference]);
    assert_eq!(sealed["changed"], false, "push has sealed it");
    let row = &sealed["platforms"][0]["lazy"];
    assert_eq!((&row["by_range"], &row["by_stream"]), (&json!(4), &json!(0)), "{row}");
    let hosts = [registry.host()];
    let lazy = Node::accepting(&hosts).take(&reference).await.unwrap().unwrap();
    assert_eq!(read_ranges(&lazy, &*source(&reference, &hosts)).await, []);

    // An artifact's files are blobs.
    let reference = format!("{}/team/files:1", registry.host());
    desk.run(&["push", root.path().to_str().unwrap(), &reference, "--artifact=files", "--seal"]);
    let sealed = desk.run(&["seal", "--lazy", "--rules=faithful", &reference]);
    assert_eq!(sealed["platforms"][0]["lazy"]["by_stream"], 0, "{sealed}");
    let lazy = Node::accepting(&hosts).take(&reference).await.unwrap().unwrap();
    assert_eq!((read_ranges(&lazy, &*source(&reference, &hosts)).await, lazy.map.len()), (vec![], 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_artifact_counts_and_its_list_is_of_its_image() {
    let layout = Layout::of(&image());
    let (desk, reference, node) = (desk(None), layout.reference("latest"), Node::accepting(&[]));
    let plain = desk.run(&["seal", "--lazy", &reference]);
    let large = VerityDigest::of(&noise("large", 300_000));
    let file = layout.path().join("first");
    fs::write(&file, format!("# by hand\n/usr/gzip\n/usr/inline\n/usr/absent\n{large}\n/usr/twice\n"))
        .unwrap();
    let first = file.to_str().unwrap();
    let listed = desk.run(&["seal", "--lazy", "--first", first, &reference]);
    assert_ne!(listed["platforms"][0]["lazy"]["artifact"], plain["platforms"][0]["lazy"]["artifact"]);
    let expected = [&noise("usr/gzip", 5000)[..], &noise("large", 300_000), &noise("small", 700)];
    let expected = expected.map(VerityDigest::of);
    let lazy = node.take(&reference).await.unwrap().unwrap();
    assert_eq!(lazy.first.objects(), expected);
    // Without another list it stays, and the older artifact is not listed any more.
    let again = desk.run(&["seal", "--lazy", &reference]);
    assert_eq!(again["platforms"][0]["lazy"]["artifact"], json!(lazy.artifact));
    let offers = offered(&reference, &node).await;
    assert_eq!((offers.len(), offers[0].artifact.revision, offers[0].digest), (1, 1, lazy.artifact));
    // The layout has one image still, named or not.
    let whole = format!("oci:{}", layout.path().display());
    assert!(desk.run(&["pull", &whole])["image"].is_string());

    fs::write(&file, "/usr/absent\n").unwrap();
    let output = desk.command(&["seal", "--lazy", "--first", first, &reference]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("is it of another image?"), "{output:?}");
}

/// Replaces the artifact of a layout's image by what `change` makes of it.
async fn forge(layout: &Layout, change: impl FnOnce(&mut Forged)) {
    let reference = layout.reference("latest");
    let node = Node::accepting(&[]);
    let (source, path) = node.path(&reference).await;
    let artifact = offered(&reference, &node).await.remove(0).artifact;
    let map = composefs_csi::pull::fetch_map(&*source, &artifact, &ImageLimits::default(), "")
        .await
        .unwrap()
        .unwrap();
    let objects = map.objects().map(|located| (located.object, located)).collect();
    let image = map.image();
    let layers = map.layers().to_vec();
    let mut forged = Forged { artifact, image, layers, objects, map: None, manifest: None };
    change(&mut forged);
    let bytes =
        forged.map.unwrap_or_else(|| OffsetMap::write(&forged.image, &forged.layers, &forged.objects));
    let packed = pack(&bytes).unwrap();
    layout.blob(MAP, &packed);
    forged.artifact.map = PackedBlob::new(&packed, bytes.len());
    let manifest = forged
        .manifest
        .map_or_else(|| forged.artifact.manifest(), |change| change(forged.artifact.manifest()));
    let described = layout.blob("application/vnd.oci.image.manifest.v1+json", &manifest);
    let file = layout.path().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    entries.retain(|entry| entry["artifactType"] != TYPE);
    let mut entry = json!(described);
    entry["artifactType"] = TYPE.into();
    entries.push(entry);
    fs::write(&file, index.to_string()).unwrap();
    assert_eq!(path.manifest.layers.len(), 3);
}

struct Forged {
    artifact: Artifact,
    image: VerityDigest,
    layers: Vec<composefs_csi::image::lazy::MapLayer>,
    objects: BTreeMap<VerityDigest, Located>,
    map: Option<Vec<u8>>,
    manifest: Option<fn(Vec<u8>) -> Vec<u8>>,
}

/// A layout with a sealed image and its artifact.
fn published() -> Layout {
    let layout = Layout::of(&image());
    desk(None).run(&["seal", "--lazy", &layout.reference("latest")]);
    layout
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let other = published();
    let elsewhere =
        Layout::of(&Image::new(vec![tar(&[("usr/", vec![]), ("usr/else", noise("else", 9000))])]));
    desk(None).run(&["seal", "--lazy", &elsewhere.reference("latest")]);
    let node = Node::accepting(&[]);
    let foreign = offered(&elsewhere.reference("latest"), &node).await.remove(0).artifact;
    let foreign_image =
        fs::read(elsewhere.path().join("blobs/sha256").join(foreign.image.digest.hex())).unwrap();
    let refused = async |change: &dyn Fn(&mut Forged), kind: Kind, why: &str| {
        let layout = published();
        layout.blob(IMAGE, &foreign_image);
        forge(&layout, change).await;
        let (found, error) = node.refused(&layout.reference("latest")).await;
        assert!(error.contains(why) && error.contains("cannot start lazily by artifact"), "{why}: {error}");
        assert_eq!(found, kind, "{error}");
        // The operator sees the same, as far as the image itself need not be read for it.
        let seen = &desk(None).run(&["inspect", "--remote", &layout.reference("latest")])["lazy"];
        if seen["possible"] == false {
            assert!(seen["because"].as_str().unwrap().contains(why), "{seen}");
        }
    };
    // Maps: of other objects, sizes, layers, or another image; cut, and malformed.
    let gone = |forged: &mut Forged| assert!(forged.objects.pop_first().is_some());
    refused(&gone, Kind::Invalid, "has other objects than the image").await;
    let longer = |forged: &mut Forged| forged.objects.values_mut().last().unwrap().size += 1;
    let stream = |forged: &mut Forged| forged.objects.values_mut().for_each(|one| one.place = Place::Stream);
    refused(
        &|forged: &mut Forged| {
            stream(forged);
            longer(forged)
        },
        Kind::Invalid,
        "bytes, and the image",
    )
    .await;
    let layers = |forged: &mut Forged| forged.layers[1].blob = Digest::of(b"other");
    refused(&layers, Kind::Invalid, "is of other layers").await;
    let image = |forged: &mut Forged| forged.image = VerityDigest::of(b"other");
    refused(&image, Kind::Corrupt, "what counts is").await;
    let cut = |forged: &mut Forged| {
        let bytes = OffsetMap::write(&forged.image, &forged.layers, &forged.objects);
        forged.map = Some(bytes[..bytes.len() - 1].to_vec());
    };
    refused(&cut, Kind::Invalid, "bytes instead of").await;
    refused(&|forged| forged.map = Some(b"nonsense".to_vec()), Kind::Invalid, "ends within its header").await;
    // Images: another one under the right digest, another one that says so, one that is longer than it says.
    refused(&|forged| forged.artifact.image = foreign.image, Kind::Corrupt, "what counts is").await;
    let all_of_it = |forged: &mut Forged| {
        forged.artifact.image = foreign.image;
        forged.artifact.seal = foreign.seal;
        forged.image = foreign.seal.digest;
    };
    refused(&all_of_it, Kind::Corrupt, "what counts is").await;
    refused(&|forged| forged.artifact.image.unpacked -= 4096, Kind::Invalid, "that are stated").await;
    refused(&|forged| forged.artifact.image.unpacked = u64::MAX, Kind::Exhausted, "larger than the").await;
    // Its manifest.
    let malformed = |forged: &mut Forged| {
        forged.manifest = Some(|bytes| String::from_utf8(bytes).unwrap().replace(MAP, "a/b").into_bytes());
    };
    refused(&malformed, Kind::Invalid, "at most a list").await;
    assert!(node.take(&other.reference("latest")).await.unwrap().is_some(), "the sound one is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_artifact_hides_no_good_one() {
    let layout = published();
    let (reference, node) = (layout.reference("latest"), Node::accepting(&[]));
    let good = offered(&reference, &node).await.remove(0).digest;
    let file = layout.path().join("index.json");
    let before: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    forge(&layout, |forged| {
        forged.artifact.revision = 9;
        forged.layers[0].blob = Digest::of(b"other");
    })
    .await;
    let bad = offered(&reference, &node).await.remove(0).digest;
    // Both are listed.
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let listed = before["manifests"].as_array().unwrap();
    entries.extend(listed.iter().filter(|entry| entry["artifactType"] == TYPE).cloned());
    fs::write(&file, index.to_string()).unwrap();
    let offers: Vec<Digest> = offered(&reference, &node).await.iter().map(|offer| offer.digest).collect();
    assert_eq!(offers, [bad, good], "the highest revision first");
    assert_eq!(node.take(&reference).await.unwrap().unwrap().artifact, good);
    let seen = &desk(None).run(&["inspect", "--remote", &reference])["lazy"];
    assert_eq!((&seen["artifact"], &seen["possible"]), (&json!(good), &json!(true)));
    // Publishing again does not leave the bad one in front.
    desk(None).run(&["seal", "--lazy", &reference]);
    let offers = offered(&reference, &node).await;
    assert_eq!((offers.len(), offers[0].artifact.revision), (1, 10));
    assert!(node.take(&reference).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_platform_of_an_index_has_its_own() {
    let host = Platform::host().to_string();
    let other = if host.starts_with("linux/arm64") { "linux/amd64" } else { "linux/arm64" };
    let images = [&host, other].map(|platform| {
        let mut members = members();
        members.push(("usr/platform", platform.repeat(100).into_bytes()));
        Image { platform: platform.to_owned(), ..Image::new(vec![tar(&members)]) }
    });
    let mut layout = Layout::new();
    layout.add_index(&images, "latest");
    let reference = layout.reference("latest");
    let sealed = desk(None).run(&["seal", "--lazy", &reference]);
    let rows = sealed["platforms"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_ne!(rows[0]["lazy"]["artifact"], rows[1]["lazy"]["artifact"]);
    let lazy = Node::accepting(&[]).take(&reference).await.unwrap().unwrap();
    assert_eq!(json!(lazy.artifact), rows[0]["lazy"]["artifact"]);
    assert_eq!(json!(lazy.seal.digest), rows[0]["composefs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_lies_about_places_is_no_more_than_a_hint() {
    let layout = published();
    // Within the layer, and not where the object is.
    forge(&layout, |forged| {
        for located in forged.objects.values_mut() {
            if let Place::Own(range) = &mut located.place {
                *range = 0..range.end - range.start;
            }
        }
    })
    .await;
    let lazy = Node::accepting(&[]).take(&layout.reference("latest")).await.unwrap().unwrap();
    assert_eq!(lazy.map.len(), 4, "what is read there is compared with its digest before it is stored");
}

/// An image that is not sealed: its digest counts only if the artifact is signed.
#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_an_unsealed_image_must_be_signed() {
    let unsealed = Layout::of(&Image::new(vec![tar(&members())]));
    let sealed = Layout::of(&Image::new(vec![tar(&members())]));
    desk(None).run(&["seal", "--lazy", &sealed.reference("latest")]);
    let node = Node::accepting(&[]);
    let mut artifact = offered(&sealed.reference("latest"), &node).await.remove(0).artifact;
    let (_, path) = node.path(&unsealed.reference("latest")).await;
    artifact.subject = path.target;

    let (registry, _, manifest) = admission::Registry::with(Image::new(vec![tar(&members())])).await;
    assert_eq!(manifest, artifact.subject.digest, "the same image");
    let bytes = artifact.manifest();
    let digest = Digest::of(&bytes);
    for blob in [artifact.image, artifact.map] {
        let file = sealed.path().join("blobs/sha256").join(blob.digest.hex());
        registry.put(&blob.digest.to_string(), "application/octet-stream", &fs::read(file).unwrap());
    }
    registry.put(&digest.to_string(), "application/vnd.oci.image.manifest.v1+json", &bytes);
    // The list has a wrong type, as some registries and clients write it.
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": bytes.len(),
        "artifactType": "application/vnd.oci.empty.v1+json",
    }]});
    let tag = format!("sha256-{}", manifest.hex());
    registry.put(&tag, "application/vnd.oci.image.index.v1+json", list.to_string().as_bytes());

    let hosts = [registry.host()];
    let (kind, error) = Node::accepting(&hosts).refused(&registry.image()).await;
    assert!(error.contains("nothing vouches") && error.contains("verifies no signature"), "{error}");
    assert_eq!(kind, Kind::Denied);
    let (ours, theirs) = (key(), key());
    let signed = |requirement: Value, directory: &Path| TrustSettings {
        policy: Some(write_policy(directory, &requirement)),
        ..TrustSettings::default()
    };
    let node = Node::new(&hosts, |directory| signed(signed_by(directory, &ours), directory));
    registry.sign(&manifest, &ours);
    let (_, error) = node.refused(&registry.image()).await;
    assert!(
        error.contains("of the artifact the policy says"),
        "a signature of the image is none of the artifact: {error}"
    );
    registry.sign(&digest, &theirs);
    assert!(node.refused(&registry.image()).await.1.contains("nothing vouches"));
    registry.sign(&digest, &ours);
    let lazy = node.take(&registry.image()).await.unwrap().unwrap();
    assert_eq!((lazy.covered, lazy.artifact), (Covered::Signature, digest));
}

/// What a seal alone does not allow is not given lazily either.
#[tokio::test(flavor = "multi_thread")]
async fn rights_of_programs_need_a_signature() {
    let mut entry = tar(&[("usr/", vec![]), ("usr/sudo", noise("sudo", 700))]);
    // The mode of the second header, and its checksum, which is the sum of the block's bytes.
    let (at, field) = (512, 100..108);
    let header = &mut entry[at..at + 512];
    header[field].copy_from_slice(b"0004755\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let layout = Layout::of(&Image::new(vec![entry]));
    desk(None).run(&["seal", "--lazy", &layout.reference("latest")]);
    let error = Node::accepting(&[]).take(&layout.reference("latest")).await.unwrap_err();
    assert!(matches!(error, PullError::Excess { .. }), "{error}");
    assert!(error.to_string().contains("usr/sudo"), "{error}");
}

/// A registry with the API of referrers, which no list under a tag stands for.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_the_api_is_asked_for_referrers() {
    use crate::support::impostor::{Answer, Impostor};

    let layout = published();
    let node = Node::accepting(&[]);
    let reference = layout.reference("latest");
    let (_, path) = node.path(&reference).await;
    let artifact = offered(&reference, &node).await.remove(0).digest;
    let (blobs, subject) = (layout.path().join("blobs/sha256"), path.digest);
    let server = Impostor::start(move |asked| {
        let name = asked.path.rsplit('/').next().unwrap_or_default().to_owned();
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        if asked.path.contains("/referrers/") {
            assert_eq!(name, subject.to_string());
            // Somebody else's referrers first, a manifest that is gone, and one of the type about another image.
            let entry = |digest: String, kind: &str| json!({"mediaType": manifest, "digest": digest, "size": 1, "artifactType": kind});
            let entries = [
                entry(subject.to_string(), TYPE),
                entry(Digest::of(b"gone").to_string(), TYPE),
                entry(artifact.to_string(), TYPE),
                entry(subject.to_string(), "application/x"),
            ];
            let list = json!({"schemaVersion": 2, "manifests": entries}).to_string();
            return Answer::body("application/vnd.oci.image.index.v1+json", list.as_bytes());
        }
        let digest = if name == "1" { subject.to_string() } else { name };
        match fs::read(blobs.join(digest.strip_prefix("sha256:").unwrap_or("none"))) {
            Ok(bytes) if asked.path.contains("/manifests/") => Answer::body(manifest, &bytes),
            Ok(bytes) => Answer::body("application/octet-stream", &bytes),
            Err(_) => Answer::status(404),
        }
    })
    .await;
    let hosts = [server.address.to_string()];
    let lazy = Node::accepting(&hosts).take(&format!("{}/team/app:1", hosts[0])).await.unwrap().unwrap();
    assert_eq!(lazy.artifact, artifact);
}
