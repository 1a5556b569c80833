use serde_json::{Value, json};

use super::*;
use crate::oci::manifest::{Document, LayerCompression, OCI_MANIFEST};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const FILE: &str = "application/octet-stream";
const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";

/// A layer: media type and annotations. Its digest depends on `seed`.
fn layer(seed: &str, media_type: &str, annotations: Value) -> Value {
    let digest = Digest::of(seed.as_bytes()).to_string();
    json!({"mediaType": media_type, "digest": digest, "size": 9, "annotations": annotations})
}

fn titled(title: &str) -> Value {
    json!({ TITLE: title })
}

fn manifest(config_type: &str, artifact_type: Option<&str>, layers: &[Value]) -> Manifest {
    let config = layer("config", config_type, json!({}));
    let mut document =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
    if let Some(named) = artifact_type {
        document["artifactType"] = named.into();
    }
    match Document::parse(document.to_string().as_bytes(), None) {
        Ok(Document::Image(manifest)) => manifest,
        other => panic!("{other:?}"),
    }
}

fn parts_of(manifest: &Manifest, config: &str) -> Result<Vec<(String, bool)>, ArtifactError> {
    let kind = manifest.artifact.expect("an artifact");
    let shown = |part: ArtifactPart<'_>| match part.place {
        Place::File { path, executable, .. } => (path, executable),
        Place::Archive { within } => (format!("{}/", within.unwrap_or_default()), false),
    };
    Ok(parts(kind, manifest, config.as_bytes())?.into_iter().map(shown).collect())
}

/// The paths of an artifact of files and archives; an archive is its directory with a slash.
fn paths(manifest: &Manifest, config: &str) -> Vec<String> {
    parts_of(manifest, config).unwrap().into_iter().map(|(path, _)| path).collect()
}

#[test]
fn files_pushed_by_oras_are_files_whatever_their_media_type_says() {
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let pushed = manifest(
        EMPTY,
        Some("application/vnd.example"),
        &[
            layer("a", tar, titled("./README.md")),
            layer("b", tar, titled("日本語/ファイル é.txt")),
            layer("b", FILE, titled("copy")),
            layer("c", FILE, json!({})),
            layer("d", EMPTY, json!({})),
        ],
    );
    assert_eq!(pushed.artifact, Some(ArtifactKind::Other));
    let unnamed = format!("sha256-{}", Digest::of(b"c").hex());
    assert_eq!(paths(&pushed, "{}"), ["README.md", "日本語/ファイル é.txt", "copy", &unnamed]);
}

#[test]
fn directories_packed_by_oras_lie_below_their_title() {
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let digest = Digest::of(b"uncompressed");
    let packed = |title: &str| {
        let mut annotations = titled(title);
        annotations["io.deis.oras.content.unpack"] = "true".into();
        annotations["io.deis.oras.content.digest"] = digest.to_string().into();
        layer(title, gzip, annotations)
    };
    let pushed = manifest(EMPTY, None, &[packed("sub/"), packed("."), layer("x", gzip, titled("file.tgz"))]);
    assert_eq!(paths(&pushed, "{}"), ["sub/", "/", "file.tgz"]);
    let parts = parts(ArtifactKind::Other, &pushed, b"{}").unwrap();
    assert_eq!(parts[0].form, LayerForm::Archive(LayerCompression::Gzip));
    assert_eq!((parts[0].diff_id, parts[2].diff_id), (Some(digest), None));
}

#[test]
fn models_have_paths_modes_and_times() {
    let metadata =
        r#"{"name":"x","mode":493,"uid":7,"gid":7,"size":9,"mtime":"1969-12-31T23:59:59.25Z","typeflag":0}"#;
    for prefix in ["org.cncf", "org.cnai"] {
        let pushed = manifest(
            "application/vnd.cncf.model.config.v1+json",
            Some(MODEL),
            &[
                layer(
                    "a",
                    "application/vnd.cncf.model.weight.v1.raw",
                    json!({
                        format!("{prefix}.model.filepath"): "w/run.sh",
                        format!("{prefix}.model.file.metadata+json"): metadata,
                        TITLE: "another",
                    }),
                ),
                layer("b", "application/vnd.cncf.model.doc.v1.tar+zstd", json!({})),
                layer("c", "application/vnd.cncf.model.weight.v1.gguf", titled("m.gguf")),
            ],
        );
        assert_eq!(pushed.artifact, Some(ArtifactKind::ModelPack));
        assert_eq!(paths(&pushed, "{}"), ["w/run.sh", "/", "m.gguf"]);
        let first = parts(ArtifactKind::ModelPack, &pushed, b"{}").unwrap().remove(0).place;
        let place =
            Place::File { path: "w/run.sh".to_owned(), executable: true, seconds: -1, nanos: 250_000_000 };
        assert_eq!(first, place);
    }
    let old = manifest("application/vnd.cnai.model.config.v1+json", None, &[]);
    assert_eq!(old.artifact, Some(ArtifactKind::ModelPack));
    let nameless = manifest(EMPTY, Some(MODEL), &[layer("a", "application/vnd.x.raw", json!({}))]);
    let error = parts_of(&nameless, "{}").unwrap_err().to_string();
    assert!(error.contains("layer 0") && error.contains("filepath"), "{error}");
}

#[test]
fn what_metadata_cannot_mean_is_refused() {
    for (metadata, says) in [
        ("{", "EOF"),
        (r#"{"typeflag":2}"#, "typeflag 2"),
        (r#"{"mtime":"yesterday"}"#, "mtime"),
        (r#"{"mode":"0644"}"#, "invalid type"),
    ] {
        let annotations = json!({TITLE: "a", "org.cncf.model.file.metadata+json": metadata});
        let pushed = manifest(EMPTY, Some(MODEL), &[layer("a", "x/y", annotations)]);
        let error = parts_of(&pushed, "{}").unwrap_err().to_string();
        assert!(error.contains("file.metadata+json") && error.contains(says), "{error}");
    }
}

#[test]
fn names_that_cannot_lie_in_a_tree_are_refused() {
    let long = "x".repeat(256);
    let deep = "d/".repeat(2_100) + "x";
    for name in ["/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", ".", "nul\0", &long, &deep] {
        let pushed = manifest(EMPTY, None, &[layer("a", FILE, titled(name))]);
        let error = parts_of(&pushed, "{}").unwrap_err();
        assert!(matches!(error, ArtifactError::Name { layer: 0, .. }), "{name}: {error}");
        assert!(error.to_string().contains(TITLE) && error.to_string().len() < 500, "{error}");
    }
}

#[test]
fn nothing_to_show_is_an_error() {
    for layers in [vec![], vec![layer("e", EMPTY, json!({}))]] {
        let error =
            parts_of(&manifest(EMPTY, Some("application/vnd.example.sig"), &layers), "{}").unwrap_err();
        assert_eq!(error, ArtifactError::Empty { kind: ArtifactKind::Other });
    }
}

#[test]
fn charts_are_called_by_their_config() {
    let content = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let chart = manifest(
        "application/vnd.cncf.helm.config.v1+json",
        None,
        &[
            layer("a", content, json!({})),
            layer("b", "application/vnd.cncf.helm.chart.provenance.v1.prov", json!({})),
        ],
    );
    assert_eq!(chart.artifact, Some(ArtifactKind::Helm));
    let config = r#"{"name":"demo","version":"0.1.0+build.5"}"#;
    assert_eq!(paths(&chart, config), ["demo-0.1.0+build.5.tgz", "demo-0.1.0+build.5.tgz.prov"]);
    assert!(matches!(parts_of(&chart, "{}"), Err(ArtifactError::Config { .. })));
    let climbing = r#"{"name":"../../demo","version":"1"}"#;
    assert!(matches!(parts_of(&chart, climbing), Err(ArtifactError::Name { .. })));
}

#[test]
fn model_kits_are_unpacked_at_the_root() {
    let config = "application/vnd.kitops.modelkit.config.v1+json";
    let part =
        |class: &str| layer(class, &format!("application/vnd.kitops.modelkit.{class}.v1.tar"), json!({}));
    let kit = manifest(config, None, &[part("model"), part("docs")]);
    assert_eq!(kit.artifact, Some(ArtifactKind::KitOps));
    assert_eq!(paths(&kit, r#"{"model":{"path":"m.gguf"}}"#), ["/", "/"]);
    let child = manifest(config, None, &[part("docs")]);
    let error = parts_of(&child, r#"{"model":{"path":"r.example/kit:1"}}"#).unwrap_err();
    assert_eq!(error, ArtifactError::OtherKit { reference: "r.example/kit:1".to_owned() });
    assert_eq!(paths(&child, r#"{"docs":[]}"#), ["/"]);
}

#[test]
fn models_of_docker_get_the_names_that_its_runner_gives() {
    let config = "application/vnd.docker.ai.model.config.v0.1+json";
    let of = |classes: &[&str]| {
        let class = |class: &&str| layer(class, &format!("application/vnd.docker.ai.{class}"), json!({}));
        manifest(config, None, &classes.iter().map(class).collect::<Vec<_>>())
    };
    let single = of(&["gguf.v3", "license", "mmproj", "chat.template.jinja"]);
    assert_eq!(single.artifact, Some(ArtifactKind::Docker));
    assert_eq!(paths(&single, "{}"), ["model.gguf", "LICENSE", "model.mmproj", "template.jinja"]);
    let shards = of(&["safetensors", "safetensors"]);
    assert_eq!(
        paths(&shards, "{}"),
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    );
    assert!(matches!(parts_of(&of(&["model.file"]), "{}"), Err(ArtifactError::NoName { .. })));
    assert_eq!(paths(&of(&["vllm.config.tar"]), "{}"), ["/"]);
}

#[test]
fn ollama_is_told_from_an_image_by_its_layers() {
    let config = "application/vnd.docker.container.image.v1+json";
    let of = |class: &str| layer(class, &format!("application/vnd.ollama.image.{class}"), json!({}));
    let model = manifest(config, None, &[of("model"), of("license"), of("license"), of("params")]);
    assert_eq!(model.artifact, Some(ArtifactKind::Ollama));
    assert_eq!(paths(&model, "{}"), ["model.gguf", "LICENSE", "LICENSE-2", "params.json"]);
    let image =
        manifest(config, None, &[layer("a", "application/vnd.docker.image.rootfs.diff.tar", json!({}))]);
    assert_eq!(image.artifact, None);
}

#[test]
fn a_component_has_a_name_by_default() {
    let config = "application/vnd.wasm.config.v0+json";
    let unnamed = manifest(config, None, &[layer("a", "application/wasm", json!({}))]);
    assert_eq!(unnamed.artifact, Some(ArtifactKind::Wasm));
    assert_eq!(paths(&unnamed, "{}"), ["module.wasm"]);
    let named = manifest(config, None, &[layer("a", "application/wasm", titled("hello.wasm"))]);
    assert_eq!(paths(&named, "{}"), ["hello.wasm"]);
}

/// A place is part of an image's record, whose code covers it.
#[test]
fn places_are_written_as_they_are_read() {
    let file = Place::File { path: "a/b".to_owned(), executable: true, seconds: -7, nanos: 9 };
    for place in [file, Place::Archive { within: Some("sub".to_owned()) }, Place::Archive { within: None }] {
        let text = serde_json::to_string(&place).unwrap();
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place, "{text}");
    }
}
