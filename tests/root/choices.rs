//! `include` and `exclude` through the whole driver: what is left out is neither fetched nor stored nor shown, and a part of
//! an image is an image of its own over restarts, collections and tenants. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::archive::{archive, noise};
use crate::support::artifacts::Artifact;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Compression, Image, Layer, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";

struct Node {
    machine: Machine,
    plugin: Plugin,
}

impl Node {
    async fn start(arguments: &[&str]) -> Self {
        let layouts = format!("--layout-dir={}", std::env::temp_dir().display());
        let machine = Machine::new(&[&[layouts.as_str()], arguments].concat());
        let plugin = machine.start().await;
        Self { machine, plugin }
    }

    async fn publish(&self, pod: &str, image: &str, attributes: &[(&str, &str)]) -> Result<PathBuf, Status> {
        let mut request = self.machine.publish(pod, image);
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        request.volume_context.extend(attributes);
        self.plugin.node.clone().node_publish_volume(request).await?;
        Ok(self.machine.target(pod))
    }

    async fn unpublish(&self, pod: &str) {
        self.plugin.node.clone().node_unpublish_volume(self.machine.unpublish(pod)).await.unwrap();
    }

    async fn restart(self) -> Self {
        let Self { machine, plugin } = self;
        drop(plugin);
        let plugin = machine.start().await;
        Self { machine, plugin }
    }

    async fn refuses(&self, image: &str, attributes: &[(&str, &str)], code: Code, words: &[&str]) {
        let status = self.publish("refused", image, attributes).await.expect_err(image);
        assert_eq!(status.code(), code, "{}", status.message());
        for word in words {
            assert!(status.message().contains(word), "{:?} does not say {word:?}", status.message());
        }
        self.unpublish("refused").await;
    }
}

/// Every path below a directory.
fn paths(root: &Path) -> BTreeSet<String> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            found.insert(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn model() -> Artifact {
    Artifact::new(MODEL)
        .model_file("fp16/model.safetensors", false, &noise("fp16", 3_000_000))
        .model_file("int4/model.safetensors", false, &noise("int4", 1_000_000))
        .model_file("config.json", false, &noise("config", 2_000))
        .model_file("README.md", false, &noise("readme", 1_000))
}

/// The blob of what is left out is not even there, and few bytes pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_left_out_is_never_fetched() {
    let registry = Registry::start(Options::default());
    let proxy = Proxy::start(&registry.host()).await;
    let mut layout = Layout::new();
    registry.push(&model().add(&mut layout, "m"), "team/model:1", &["--preserve-digests"]);
    fs::remove_file(registry.blob_file(&Digest::of(&noise("fp16", 3_000_000)).hex())).unwrap();
    let host = proxy.address.to_string();
    let image = format!("{host}/team/model:1");
    let node = Node::start(&["--insecure-registry", &host]).await;

    let small = [("include", "int4\n*.json"), ("exclude", "**/*.md")];
    let target = node.publish("one", &image, &small).await.unwrap();
    assert_eq!(paths(&target), set(&["config.json", "int4", "int4/model.safetensors"]));
    assert_eq!(fs::read(target.join("int4/model.safetensors")).unwrap(), noise("int4", 1_000_000));
    let passed = proxy.passed();
    assert!((1_000_000..1_200_000).contains(&passed), "{passed} bytes");

    // Another choice has what both take already.
    let other = [("exclude", "fp16")];
    let target = node.publish("two", &image, &other).await.unwrap();
    assert_eq!(paths(&target), set(&["README.md", "config.json", "int4", "int4/model.safetensors"]));
    assert!(proxy.passed() - passed < 100_000, "{} bytes more", proxy.passed() - passed);
    let listed = node.machine.run(&["ls"]);
    let images = listed["images"].as_array().unwrap();
    // Three files, and two composefs images.
    assert_eq!((images.len(), &listed["objects"]), (2, &json!(5)), "{listed}");
    assert_eq!(images[0]["manifest"], images[1]["manifest"]);
    assert_ne!(images[0]["key"], images[1]["key"]);
    assert_ne!(images[0]["image"], images[1]["image"]);
    let choices: Vec<&Value> = images.iter().map(|image| &image["choice"]).collect();
    assert!(choices.contains(&&json!({"include": ["*.json", "int4"], "exclude": ["**/*.md"]})), "{listed}");

    // Restarts, collections and verification know both; the other order of patterns is the same choice.
    let node = node.restart().await;
    node.machine.run(&["prune"]);
    assert_eq!(node.machine.run(&["verify"])["images"], 2);
    assert!(fs::read(target.join("int4/model.safetensors")).unwrap() == noise("int4", 1_000_000));
    let again = [("include", "/*.json\n./int4/"), ("exclude", "**/*.md")];
    node.publish("again", &image, &again).await.unwrap();
    assert_eq!(node.machine.run(&["ls"])["images"].as_array().unwrap().len(), 2);
    // The whole has a blob that is gone.
    node.refuses(&image, &[], Code::NotFound, &["sha256:"]).await;
    for pod in ["one", "two", "again"] {
        node.unpublish(pod).await;
    }
    node.machine.run(&["prune"]);
    assert_eq!(node.machine.run(&["ls"])["objects"], 0);
}

fn tree() -> Vec<u8> {
    archive(&[
        ("usr/", b""),
        ("usr/share/", b""),
        ("usr/share/data", &noise("data", 200_000)),
        ("usr/share/other", &noise("other", 300_000)),
        ("usr/bin/tool", &noise("tool", 400_000)),
        ("etc/empty/", b""),
    ])
}

/// Of archives what is left out is not stored; the image is the same whether the whole was here before or not.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_layer_only_what_is_taken_is_stored() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let mut layout = Layout::new();
        let upper =
            Layer::new(archive(&[("usr/share/.wh.other", b""), ("usr/share/more", &noise("more", 5_000))]));
        let layers = vec![Layer::new(tree()).stored(compression), upper.stored(compression)];
        layout.add(&Image { layers, ..Image::new(Vec::new()) }, "image");
        let image = layout.reference("image");
        let share = [("include", "usr/share")];
        let node = Node::start(&[]).await;
        let target = node.publish("part", &image, &share).await.unwrap();
        assert_eq!(paths(&target), set(&["usr", "usr/share", "usr/share/data", "usr/share/more"]));
        assert_eq!(fs::read(target.join("usr/share/data")).unwrap(), noise("data", 200_000));
        let listed = node.machine.run(&["ls"]);
        // `other` is taken by its name and hidden by the upper layer; `tool` is not here.
        assert_eq!(listed["objects"], 4, "{listed}");
        let apart = listed["images"][0]["image"].clone();
        // Two rules: noexec needs no fetch.
        let noexec = [("include", "usr/share"), ("noexec", "true")];
        node.publish("noexec", &image, &noexec).await.unwrap();
        // The same after the whole, whose layers are then used.
        let whole = Node::start(&[]).await;
        whole.publish("whole", &image, &[]).await.unwrap();
        whole.publish("part", &image, &share).await.unwrap();
        let listed = whole.machine.run(&["ls"]);
        let images = listed["images"].as_array().unwrap();
        let part = images.iter().find(|image| !image["choice"].is_null()).unwrap();
        assert_eq!(part["image"], apart);
        assert_eq!(images.len(), 2);
        // `path` is looked for in what is taken.
        let below = [("include", "usr/share/data"), ("path", "usr/share")];
        let target = whole.publish("below", &image, &below).await.unwrap();
        assert_eq!(paths(&target), set(&["data"]));
        whole.refuses(&image, &[("include", "usr/share"), ("path", "etc")], Code::NotFound, &["etc"]).await;
    }
}

/// A hard link that is taken has its content, wherever that lies.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_what_is_left_out_is_whole() {
    let mut packed = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(90_000);
    header.set_mode(0o644);
    packed.append_data(&mut header, "out/file", &noise("linked", 90_000)[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    packed.append_link(&mut header, "in/link", "out/file").unwrap();
    let layout = Layout::of(&Image::new(vec![packed.into_inner().unwrap()]));
    let node = Node::start(&[]).await;
    let target = node.publish("pod", &layout.reference("latest"), &[("include", "in")]).await.unwrap();
    assert_eq!(paths(&target), set(&["in", "in/link"]));
    assert!(fs::read(target.join("in/link")).unwrap() == noise("linked", 90_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_takes_nothing_is_refused_by_its_pattern() {
    let mut layout = Layout::new();
    let files = model().add(&mut layout, "files");
    layout.add(&Image::new(vec![tree()]), "image");
    let image = layout.reference("image");
    let node = Node::start(&[]).await;
    let bad = Code::InvalidArgument;
    for image in [&files, &image] {
        node.refuses(image, &[("include", "*.gguf")], bad, &["*.gguf", "`include`", "nothing", "inspect"])
            .await;
        node.refuses(image, &[("exclude", "*")], bad, &["exclude \"*\"", "nothing"]).await;
        node.refuses(image, &[("include", "a[")], bad, &["\"a[\"", "`include`"]).await;
        node.refuses(image, &[("exclude", "../x")], bad, &["\"../x\"", "`exclude`"]).await;
        node.refuses(image, &[("include", "")], bad, &["`include`", "no pattern"]).await;
    }
    node.machine.assert_nothing_published();
    assert_eq!(node.machine.run(&["ls"])["images"], json!([]));
}

/// A composefs digest in a manifest is that of the whole.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_sealed_image_is_demanded_a_part_of_one_is_refused() {
    let layout = Layout::of(&Image::new(vec![tree()]));
    let image = layout.reference("latest");
    Machine::new(&[]).run(&["seal", "--rules", "noexec", &image]);
    let part = [("include", "usr/share")];
    let node = Node::start(&[]).await;
    node.publish("part", &image, &part).await.unwrap();
    let listed = node.machine.run(&["ls"]);
    assert_eq!(listed["images"][0]["sealed"], false, "{listed}");

    let strict = Node::start(&["--require-composefs-digest"]).await;
    strict.publish("whole", &image, &[]).await.unwrap();
    let words = ["whole image", "`include` and `exclude`", "`path`"];
    strict.refuses(&image, &part, Code::PermissionDenied, &words).await;
    // Also if it is here already.
    strict.machine.run(&["pull", "--include", "usr/share", &image]);
    strict.refuses(&image, &part, Code::PermissionDenied, &words).await;
}

/// What one tenant has fetched of an image is no proof for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_part_is_not_given_to_a_stranger() {
    let registry = Registry::start(Options { user: Some(("owner", "secret")), ..Options::default() });
    let mut layout = Layout::new();
    registry.push(&model().add(&mut layout, "m"), "private/model:1", &["--preserve-digests"]);
    let node = Node::start(&["--insecure-registry", &registry.host()]).await;
    let reference = format!("{}/private/model:1", registry.host());
    for (pod, choice) in [("whole", None), ("part", Some("int4"))] {
        let mut owner = node.machine.publish(pod, &reference);
        owner.volume_context.extend(choice.map(|choice| ("include".to_owned(), choice.to_owned())));
        let config = String::from_utf8(registry.docker_config("secret")).unwrap();
        owner.secrets.insert(".dockerconfigjson".to_owned(), config);
        node.plugin.node.clone().node_publish_volume(owner).await.unwrap();
    }
    for choice in ["int4", "int4/*"] {
        node.refuses(&reference, &[("include", choice)], Code::PermissionDenied, &[]).await;
        let never = [("include", choice), ("pullPolicy", "Never")];
        node.refuses(&reference, &never, Code::PermissionDenied, &[]).await;
    }
}

#[test]
fn commands_take_and_name_choices() {
    let mut layout = Layout::new();
    let image = model().add(&mut layout, "m");
    let machine = Machine::new(&[]);
    let remote = machine.run(&["inspect", "--remote", "--include", "int4", &image]);
    let parts = remote["parts"].as_array().unwrap();
    assert_eq!((&remote["kind"], parts.len()), (&json!("ModelPack artifact"), 4));
    assert_eq!((&remote["total_bytes"], &remote["wanted_bytes"]), (&json!(4_003_000), &json!(1_000_000)));
    let wanted: Vec<_> =
        parts.iter().filter(|part| part["wanted"] == true).map(|part| &part["path"]).collect();
    assert_eq!(wanted, ["int4/model.safetensors"]);
    assert_eq!((&parts[0]["size"], &parts[0]["mode"]), (&json!(3_000_000), &json!(0o444)));
    let text = machine.command(&["--output", "text", "inspect", "--remote", &image]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("fp16/model.safetensors") && text.contains("0444"), "{text}");
    assert!(
        text.lines()
            .all(|line| line.chars().count() <= 80 || line.contains("oci:") || line.contains("sha256:")),
        "{text}"
    );
    assert!(!machine.state().join("store/images").exists(), "nothing is kept");

    let pulled = machine.run(&["pull", "--include", "int4", "--exclude", "**/*.md", &image]);
    let key = pulled["key"].as_str().unwrap().to_owned();
    assert_ne!(pulled["key"], pulled["manifest"]);
    machine.run(&["pull", &image]);
    for name in [&key[..], &key[7..19]] {
        assert_eq!(machine.run(&["inspect", name])["choice"], pulled["choice"]);
        assert_eq!(machine.run(&["pin", name])["manifest"], *key);
    }
    assert_eq!(machine.run(&["inspect", &pulled["manifest"].as_str().unwrap()[..20]])["choice"], Value::Null);
    let named = ["inspect", "--include", "int4", "--exclude", "**/*.md", &image];
    assert_eq!(machine.run(&named)["choice"], pulled["choice"]);
    machine.run(&["prune"]);
    let listed = machine.run(&["ls"]);
    assert_eq!((listed["images"].as_array().unwrap().len(), &listed["images"][0]["key"]), (1, &json!(key)));
    let text = machine.command(&["--output", "text", "ls"]).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("include \"int4\""));

    let target = tempfile::tempdir().unwrap();
    let at = target.path().to_str().unwrap();
    machine.run(&["mount", "--include", "int4", "--exclude", "**/*.md", &image, at]);
    assert_eq!(paths(target.path()), set(&["int4", "int4/model.safetensors"]));
    machine.run(&["unmount", at]);
    let refused = machine.command(&["pull", "--include", "nothing/*", &image]).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("nothing/*"));
}
