//! Artifacts through the whole driver: files and packed directories become one tree, content is stored once whatever it
//! is part of, and what has no tree is refused by name. Needs root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde_json::json;
use tonic::{Code, Status};

use crate::support::artifacts::Artifact;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Compression, Image, Layer, Layout};
use crate::support::registry::{Options, Registry};

const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
const UNPACK: &str = "io.deis.oras.content.unpack";
const TITLE: &str = "org.opencontainers.image.title";

struct Node {
    machine: Machine,
    plugin: Plugin,
}

impl Node {
    async fn start() -> Self {
        let layouts = format!("--layout-dir={}", std::env::temp_dir().display());
        let machine = Machine::new(&[layouts.as_str()]);
        let plugin = machine.start().await;
        Self { machine, plugin }
    }

    async fn publish(&self, pod: &str, image: &str) -> Result<PathBuf, Status> {
        let request = self.machine.publish(pod, image);
        self.plugin.node.clone().node_publish_volume(request).await?;
        Ok(self.machine.target(pod))
    }

    async fn unpublish(&self, pod: &str) {
        self.plugin.node.clone().node_unpublish_volume(self.machine.unpublish(pod)).await.unwrap();
    }

    async fn refuses(&self, image: &str, code: Code, words: &[&str]) {
        let status = self.publish("refused", image).await.expect_err(image);
        assert_eq!(status.code(), code, "{}", status.message());
        for word in words {
            assert!(status.message().contains(word), "{:?} does not say {word:?}", status.message());
        }
        self.unpublish("refused").await;
    }
}

fn noise(seed: u32, size: u32) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16) as u8).collect()
}

/// A tar archive: a directory, a file of mode 6750, and a link.
fn packed(directory: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |kind, mode, path: String, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_size(content.len() as u64);
        match link {
            Some(target) => archive.append_link(&mut header, path, target).unwrap(),
            None => archive.append_data(&mut header, path, content).unwrap(),
        }
    };
    add(tar::EntryType::Directory, 0o700, format!("{directory}/"), b"", None);
    add(tar::EntryType::Regular, 0o6750, format!("{directory}/tool"), &noise(3, 5_000), None);
    add(tar::EntryType::Symlink, 0o777, format!("{directory}/link"), b"", Some("tool"));
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_directories_become_one_tree_that_outlives_the_plugin() {
    let (big, small) = (noise(1, 3_000_000), b"{}".to_vec());
    let archive = packed("sub");
    let mut layout = Layout::new();
    let artifact = Artifact::new(MODEL)
        .model_file("weights/model.safetensors", false, &big)
        .model_file("copy.safetensors", false, &big)
        .model_file("run.sh", true, b"#!/bin/sh\n")
        .model_file("config.json", false, &small)
        .model_file("empty", false, b"")
        .layer("application/vnd.cncf.model.code.v1.tar", json!({}), &archive);
    let image = artifact.add(&mut layout, "model");
    let node = Node::start().await;
    let target = node.publish("pod", &image).await.unwrap();

    let model = target.join("weights/model.safetensors");
    assert!(fs::read(&model).unwrap() == big && fs::read(target.join("copy.safetensors")).unwrap() == big);
    assert_eq!(fs::read(target.join("config.json")).unwrap(), small);
    assert_eq!(fs::metadata(target.join("empty")).unwrap().len(), 0);
    let metadata = fs::metadata(&model).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777), (0, 0, 0o444));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_614_834_367, 123_456_789));
    assert_eq!(fs::metadata(target.join("run.sh")).unwrap().permissions().mode() & 0o7777, 0o555);
    let tool = fs::metadata(target.join("sub/link")).unwrap();
    assert_eq!((tool.uid(), tool.permissions().mode() & 0o7777, tool.len()), (0, 0o555, 5_000));

    // One object for two names; only the tool and the image besides.
    let listed = node.machine.run(&["ls"]);
    assert_eq!(listed["objects"], 3, "{listed}");
    let Node { machine, plugin } = node;
    drop(plugin);
    let plugin = machine.start().await;
    let node = Node { machine, plugin };
    node.unpublish("pod").await;
    let again = node.publish("again", &image).await.unwrap();
    assert!(fs::read(again.join("copy.safetensors")).unwrap() == big);
    node.machine.run(&["prune"]);
    assert!(fs::read(again.join("weights/model.safetensors")).unwrap() == big, "pruned under a pod");
    node.unpublish("again").await;
    node.machine.run(&["prune"]);
    assert_eq!(node.machine.run(&["ls"])["objects"], 0);
}

/// The same bytes are an archive in an image, a file in an artifact, and a packed directory in another one.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_may_be_a_layer_and_a_file() {
    let archive = packed("sub");
    let mut layout = Layout::new();
    let whole = Layer::new(archive.clone()).stored(Compression::None);
    layout.add(&Image { layers: vec![whole], ..Image::new(Vec::new()) }, "image");
    let file = Artifact::new("application/vnd.example").file("sub.tar", &archive).add(&mut layout, "file");
    let unpack = json!({TITLE: "sub", UNPACK: "true"});
    let directory = Artifact::new("application/vnd.example")
        .layer("application/vnd.oci.image.layer.v1.tar", unpack, &archive)
        .add(&mut layout, "directory");
    let node = Node::start().await;
    for round in 0..2 {
        let image = node.publish(&format!("image-{round}"), &layout.reference("image")).await.unwrap();
        let file = node.publish(&format!("file-{round}"), &file).await.unwrap();
        let directory = node.publish(&format!("directory-{round}"), &directory).await.unwrap();
        assert_eq!(fs::read(image.join("sub/tool")).unwrap(), noise(3, 5_000));
        assert_eq!(fs::metadata(image.join("sub/tool")).unwrap().uid(), 1000);
        assert_eq!(fs::read(file.join("sub.tar")).unwrap(), archive);
        assert!(!file.join("sub").exists());
        assert_eq!(fs::read(directory.join("sub/tool")).unwrap(), noise(3, 5_000));
        assert_eq!(fs::metadata(directory.join("sub/tool")).unwrap().uid(), 0);
    }
}

const KIT: &str = "application/vnd.kitops.modelkit.config.v1+json";

/// A ModelKit of one archive, and its Kitfile.
fn model_kit(name: &str) -> (Artifact, String) {
    let config = json!({"manifestVersion": "1.0.0", "package": {"name": name}, "model": {"path": "."}});
    let mut kit = Artifact::new("");
    (kit.artifact_type, kit.config) = (None, (KIT.to_owned(), config.to_string().into_bytes()));
    let kit = kit.layer("application/vnd.kitops.modelkit.model.v1.tar", json!({}), &packed("dir"));
    (kit, format!("manifestVersion: 1.0.0\npackage:\n  name: {name}\nmodel:\n  path: .\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_kit_has_its_kitfile_which_no_blob_holds() {
    let mut layout = Layout::new();
    // One that is kept in its record, and one that is an object.
    let long = "k".repeat(9_000);
    let ((short, text), (large, large_text)) = (model_kit("demo"), model_kit(&long));
    let (reference, large) = (short.add(&mut layout, "kit"), large.add(&mut layout, "large"));
    let node = Node::start().await;
    let at = node.publish("a", &reference).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("Kitfile")).unwrap(), text);
    let metadata = fs::metadata(at.join("Kitfile")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.mtime()), (0o444, 0, 0));
    assert_eq!(fs::read(at.join("dir/tool")).unwrap(), noise(3, 5_000));
    let at = node.publish("b", &large).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("Kitfile")).unwrap(), large_text);

    // A choice may leave it out, or take nothing else.
    let choosing = async |pod: &str, list: &str, pattern: &str| {
        let mut request = node.machine.publish(pod, &large);
        request.volume_context.insert(list.to_owned(), pattern.to_owned());
        node.plugin.node.clone().node_publish_volume(request).await.unwrap();
        let names = fs::read_dir(node.machine.target(pod)).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(choosing("c", "exclude", "Kitfile").await, ["dir"]);
    assert_eq!(choosing("d", "include", "Kitfile").await, ["Kitfile"]);
    for pod in ["a", "b", "c", "d"] {
        node.unpublish(pod).await;
    }

    // What is lost of it comes back, and collections take what nobody wants.
    let listed = node.machine.run(&["ls"]).to_string();
    assert!(listed.contains(":large"), "{listed}");
    let damaged = fs::read_dir(node.machine.state().join("store/objects"))
        .unwrap()
        .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|object| object.unwrap().path())
        .find(|path| fs::read(path).unwrap() == large_text.as_bytes())
        .expect("the Kitfile is an object");
    fs::remove_file(damaged).unwrap();
    let repaired = node.machine.command(&["verify", "--repair"]).output().unwrap();
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("pull again"), "{repaired:?}");
    let at = node.publish("e", &large).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("Kitfile")).unwrap(), large_text);
    node.unpublish("e").await;

    // An archive may have the same file, and no other of its name.
    let kitfile = |content: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, "Kitfile", content.as_bytes()).unwrap();
        archive.into_inner().unwrap()
    };
    let docs = "application/vnd.kitops.modelkit.docs.v1.tar";
    let same = model_kit("demo").0.layer(docs, json!({}), &kitfile(&text)).add(&mut layout, "same");
    let other = model_kit("demo").0.layer(docs, json!({}), &kitfile("other")).add(&mut layout, "other");
    let at = node.publish("f", &same).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("Kitfile")).unwrap(), text);
    node.unpublish("f").await;
    node.refuses(&other, Code::InvalidArgument, &["Kitfile"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_tree_is_refused_by_name() {
    let mut layout = Layout::new();
    let other = || Artifact::new("application/vnd.example");
    let unpack = |title: &str| json!({TITLE: title, UNPACK: "true"});
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let whiteout = {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        archive.append_data(&mut header, "sub/.wh.tool", &b""[..]).unwrap();
        archive.into_inner().unwrap()
    };
    let cases: Vec<(Artifact, Code, Vec<&str>)> = vec![
        (other(), Code::InvalidArgument, vec!["holds no file"]),
        (other().file("/etc/passwd", b"x"), Code::InvalidArgument, vec!["/etc/passwd", "absolute"]),
        (other().file("a/../../b", b"x"), Code::InvalidArgument, vec!["layer 0", ".."]),
        (other().file("a", b"x").file("a", b"y"), Code::InvalidArgument, vec!["\"/a\"", "claim"]),
        (other().file("a", b"x").file("a/b", b"y"), Code::InvalidArgument, vec!["\"/a/b\"", "claim"]),
        (other().file("a/b", b"x").file("a", b"y"), Code::InvalidArgument, vec!["\"/a\"", "claim"]),
        (Artifact::new(MODEL).layer("x/y", json!({}), b"z"), Code::InvalidArgument, vec!["has no name"]),
        (
            other().layer(tar, unpack("elsewhere"), &packed("sub")),
            Code::InvalidArgument,
            vec!["sub", "outside of \"/elsewhere\""],
        ),
        (other().layer(tar, unpack("sub"), &whiteout), Code::InvalidArgument, vec!["sub/tool", "whiteout"]),
        (
            other().layer(tar, unpack("sub"), b"no archive at all"),
            Code::InvalidArgument,
            vec!["layer sha256:", "archive"],
        ),
    ];
    let node = Node::start().await;
    for (number, (artifact, code, words)) in cases.into_iter().enumerate() {
        let image = artifact.add(&mut layout, &format!("case-{number}"));
        node.refuses(&image, code, &words).await;
    }
    node.machine.assert_nothing_published();
    // The same twice is no contradiction.
    let twice = other().file("a", b"x").file("a", b"x").add(&mut layout, "twice");
    let target = node.publish("pod", &twice).await.unwrap();
    assert_eq!(fs::read(target.join("a")).unwrap(), b"x");
}

/// What one tenant has fetched is no proof for another, as with the layers of images.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_artifact_is_not_given_to_a_stranger() {
    let registry = Registry::start(Options { user: Some(("owner", "secret")), ..Options::default() });
    let mut layout = Layout::new();
    let image = Artifact::new(MODEL).model_file("model", false, &noise(9, 100_000)).add(&mut layout, "m");
    registry.push(&image, "private/model:1", &["--preserve-digests"]);
    let machine = Machine::new(&[&format!("--insecure-registry={}", registry.host())]);
    let plugin = machine.start().await;
    let reference = format!("{}/private/model:1", registry.host());
    let mut owner = machine.publish("owner", &reference);
    let config = String::from_utf8(registry.docker_config("secret")).unwrap();
    owner.secrets.insert(".dockerconfigjson".to_owned(), config);
    plugin.node.clone().node_publish_volume(owner).await.unwrap();
    assert!(fs::read(machine.target("owner").join("model")).unwrap() == noise(9, 100_000));
    let stranger = machine.publish("stranger", &reference);
    let status = plugin.node.clone().node_publish_volume(stranger).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{}", status.message());
}
