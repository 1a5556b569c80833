use serde_json::{Value, json};

use super::*;
use crate::kind::Kind;
use crate::oci::limits::Cap;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": 1,
           "urls": ["https://evil.example/x"]})
}

fn manifest(layers: &[&str]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI, "config": descriptor(CONFIG),
           "layers": layers.iter().map(|l| descriptor(l)).collect::<Vec<_>>()})
}

fn parse(value: &Value, stated: Option<&str>) -> Result<Document, ManifestError> {
    Document::parse(value.to_string().as_bytes(), stated)
}

fn compressions(value: &Value) -> Vec<LayerCompression> {
    match parse(value, None) {
        Ok(Document::Image(m)) => m
            .layers
            .iter()
            .filter_map(|l| match l.form {
                LayerForm::Archive(c) => Some(c),
                _ => None,
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn layers_of_every_builder() {
    use LayerCompression::{Gzip, None, Zstd};
    let found = compressions(&manifest(&[
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ]));
    assert_eq!(found, [None, Gzip, Zstd, Gzip, Gzip, None, Gzip, Zstd]);
    assert!(compressions(&manifest(&[])).is_empty());
}

#[test]
fn odd_layers_are_refused_by_name() {
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let error = parse(&manifest(&[encrypted]), None).unwrap_err();
    assert!(matches!(error, ManifestError::EncryptedLayer { index: 0, .. }), "{error}");
    let squash = "application/vnd.example.squashfs";
    let error = parse(&manifest(&["application/vnd.oci.image.layer.v1.tar", squash]), None);
    let error = error.unwrap_err();
    assert!(error.to_string().contains("layer 1") && error.to_string().contains(squash), "{error}");
    assert_eq!(error.kind(), Kind::Unsupported);
    for erofs in ["application/vnd.erofs.layer.v1", "application/vnd.oci.image.layer.v1.erofs+zstd"] {
        let error = parse(&manifest(&[erofs]), None).unwrap_err();
        assert!(matches!(error, ManifestError::FilesystemLayer { index: 0, .. }), "{error}");
        assert!(error.to_string().contains("never mounted"), "{error}");
        assert_eq!(error.kind(), Kind::Unsupported);
    }
    let other = parse(&manifest(&["application/vnd.example.data"]), None).unwrap_err();
    assert!(matches!(other, ManifestError::UnknownLayer { .. }), "{other}");
}

#[test]
fn docker_documents_are_understood() {
    let mut docker = manifest(&["application/vnd.docker.image.rootfs.diff.tar.gzip"]);
    docker["mediaType"] = DOCKER.into();
    docker["config"] = descriptor("application/vnd.docker.container.image.v1+json");
    assert!(matches!(parse(&docker, Some(DOCKER)), Ok(Document::Image(_))));
    let mut entry = descriptor(DOCKER);
    entry["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]});
    let Ok(Document::Index(index)) = parse(&list, Some(DOCKER_LIST)) else { panic!() };
    let Ok(Choice::Entry(chosen)) = index.choose(&"linux/arm64".parse().unwrap()) else { panic!() };
    assert_eq!(chosen.descriptor.digest, Digest::of(b"x"));
    assert!(index.choose(&"linux/amd64".parse().unwrap()).is_err());
}

#[test]
fn a_media_type_is_not_needed_but_must_not_contradict() {
    let mut silent = manifest(&[]);
    silent.as_object_mut().unwrap().remove("mediaType");
    assert!(parse(&silent, None).is_ok());
    assert!(parse(&silent, Some(OCI)).is_ok());
    let wrong_shape = parse(&silent, Some(OCI_INDEX)).unwrap_err();
    assert!(matches!(wrong_shape, ManifestError::WrongShape { .. }));
    let mismatch = parse(&manifest(&[]), Some(DOCKER)).unwrap_err();
    assert!(matches!(mismatch, ManifestError::MediaTypeMismatch { .. }));
    assert_eq!(mismatch.kind(), Kind::Corrupt);
    let mut lies = manifest(&[]);
    lies["mediaType"] = OCI_INDEX.into();
    assert!(matches!(parse(&lies, None), Err(ManifestError::WrongShape { .. })));
    let page = parse(&silent, Some("text/html")).unwrap_err();
    assert!(matches!(page, ManifestError::UnknownDocument(_)));
}

#[test]
fn a_document_is_one_thing() {
    for extra in ["layers", "config"] {
        let mut both = json!({"schemaVersion": 2, "manifests": []});
        both[extra] = manifest(&[])[extra].clone();
        assert_eq!(parse(&both, None), Err(ManifestError::Ambiguous), "{extra}");
    }
    assert_eq!(parse(&json!({"schemaVersion": 2}), None), Err(ManifestError::Neither));
    let twice = r#"{"schemaVersion":2,"layers":[],"layers":[]}"#;
    assert!(matches!(Document::parse(twice.as_bytes(), None), Err(ManifestError::Syntax(_))));
}

#[test]
fn old_schemas_are_refused_with_the_remedy() {
    let one = json!({"schemaVersion": 1, "fsLayers": [], "history": []});
    assert_eq!(parse(&one, None), Err(ManifestError::SchemaOne));
    let typed = Some("application/vnd.docker.distribution.manifest.v1+prettyjws");
    let mut silent = manifest(&[]);
    silent.as_object_mut().unwrap().remove("mediaType");
    assert_eq!(parse(&silent, typed), Err(ManifestError::SchemaOne));
    assert!(ManifestError::SchemaOne.to_string().contains("skopeo copy"));
    let three = json!({"schemaVersion": 3, "config": descriptor(CONFIG), "layers": []});
    assert_eq!(parse(&three, None), Err(ManifestError::SchemaVersion(3)));
}

#[test]
fn artifacts_are_told_from_images() {
    let mut artifact = manifest(&["application/vnd.example.data"]);
    artifact["config"] = descriptor("application/vnd.oci.empty.v1+json");
    artifact["artifactType"] = "application/vnd.example".into();
    let Ok(Document::Image(parsed)) = parse(&artifact, None) else { panic!() };
    assert_eq!(parsed.artifact, Some(ArtifactKind::Other));
    assert_eq!(parsed.layers[0].form, LayerForm::File);
}

#[test]
fn limits_hold() {
    let limits = ImageLimits::default();
    let many = vec!["application/vnd.oci.image.layer.v1.tar"; limits.layers + 1];
    let error = parse(&manifest(&many), None).unwrap_err();
    assert_eq!(error, ManifestError::Limit(Cap::Layers.exceeded(1001u64, 1000u64)));
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("1001") && error.to_string().contains("--max-layers"), "{error}");
    let entries: Vec<_> = (0..=limits.index_entries).map(|_| descriptor(OCI)).collect();
    let index = json!({"schemaVersion": 2, "manifests": entries});
    let refused = ManifestError::Limit(Cap::IndexEntries.exceeded(1001u64, 1000u64));
    assert_eq!(parse(&index, None), Err(refused));
    // They are settings.
    let (manifest, index) = (manifest(&many).to_string(), index.to_string());
    let wider = ImageLimits { layers: 1001, index_entries: 1001, ..limits };
    assert!(Document::parse_within(&wider, manifest.as_bytes(), None).is_ok());
    assert!(Document::parse_within(&wider, index.as_bytes(), None).is_ok());
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{{\"schemaVersion\":2,\"manifests\":[{{\"x\":{nested}}}]}}");
    assert!(matches!(Document::parse(deep.as_bytes(), None), Err(ManifestError::Syntax(_))));
    for bad in ["", "null", "[]", "{", "\u{feff}{}", "{} trailing"] {
        assert!(Document::parse(bad.as_bytes(), None).is_err(), "{bad:?}");
    }
    let mut negative = self::manifest(&[]);
    negative["config"]["size"] = (-1).into();
    assert!(matches!(parse(&negative, None), Err(ManifestError::Syntax(_))));
}

#[test]
fn configs_claim_one_diff_id_per_layer() {
    let config = |ids: Value| {
        json!({"os": "linux", "architecture": "arm64", "variant": "v8",
        "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}})
    };
    let one = config(json!([Digest::of(b"a").to_string()])).to_string();
    let parsed = ImageConfig::parse(one.as_bytes(), 1).unwrap();
    assert_eq!(parsed.diff_ids, [Digest::of(b"a")]);
    assert_eq!(parsed.platform.to_string(), "linux/arm64");
    assert_eq!(
        ImageConfig::parse(one.as_bytes(), 2),
        Err(ManifestError::DiffIdCount { diff_ids: 1, layers: 2 })
    );
    assert!(ImageConfig::parse(config(Value::Null).to_string().as_bytes(), 0).is_ok());
    let odd = json!({"rootfs": {"type": "ostree", "diff_ids": []}}).to_string();
    assert!(matches!(ImageConfig::parse(odd.as_bytes(), 0), Err(ManifestError::RootfsType(_))));
    for empty in ["{}", r#"{"os":null,"rootfs":null}"#, r#"{"rootfs":{}}"#, r#"{"rootfs":{"type":null}}"#] {
        assert_eq!(ImageConfig::parse(empty.as_bytes(), 0).unwrap().diff_ids, [], "{empty}");
        // An artifact in an image's dress, as some tools push it.
        let error = ImageConfig::parse(empty.as_bytes(), 1).unwrap_err();
        assert_eq!(error, ManifestError::NoDiffIds { layers: 1 });
        assert!(error.to_string().contains("no image"), "{error}");
    }
    for malformed in ["null", "[]", "7", r#"{"rootfs":[]}"#] {
        assert!(ImageConfig::parse(malformed.as_bytes(), 0).is_err(), "{malformed}");
    }
}

#[test]
fn null_is_the_same_as_absent() {
    let nothing = json!({
        "schemaVersion": null, "mediaType": null, "artifactType": null, "config": descriptor(CONFIG),
        "layers": null, "manifests": null, "fsLayers": null, "annotations": null, "subject": null,
    });
    let Ok(Document::Image(manifest)) = parse(&nothing, None) else { panic!() };
    assert!(manifest.layers.is_empty() && manifest.annotations.is_empty());
    let mut without = nothing.clone();
    without.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_eq!(parse(&nothing, None), parse(&without, None));

    let mut layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
    (layer["annotations"], layer["urls"], layer["data"]) = (Value::Null, Value::Null, Value::Null);
    let mut one = nothing.clone();
    one["layers"] = json!([layer]);
    assert_eq!(compressions(&one), [LayerCompression::Gzip]);
    // Neither layer nor config need a media type; their bytes tell.
    one["layers"][0]["mediaType"] = Value::Null;
    one["config"]["mediaType"] = Value::Null;
    assert_eq!(compressions(&one), [LayerCompression::None]);
    for needed in ["digest", "size"] {
        let mut one = one.clone();
        one["layers"][0][needed] = Value::Null;
        assert!(matches!(parse(&one, None), Err(ManifestError::Syntax(_))), "{needed}");
    }

    let entry = |platform: Value| {
        let mut entry = descriptor(OCI);
        (entry["platform"], entry["annotations"], entry["artifactType"]) =
            (platform, Value::Null, Value::Null);
        entry
    };
    let entries =
        [Value::Null, json!({}), json!({"os": null, "architecture": "", "variant": null})].map(entry);
    let index = json!({"mediaType": null, "manifests": entries, "config": null, "layers": null});
    let Ok(Document::Index(index)) = parse(&index, None) else { panic!() };
    assert!(index.entries.iter().all(|entry| entry.platform.is_none() && !entry.is_artifact));
    // An index without entries, as Go writes it.
    let empty = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": null});
    let Ok(Document::Index(index)) = parse(&empty, None) else { panic!() };
    assert!(index.entries.is_empty());
    assert_eq!(parse(&json!({"mediaType": null, "manifests": null}), None), Err(ManifestError::Neither));
    assert_eq!(parse(&json!({"config": null, "layers": []}), None), Err(ManifestError::Missing("config")));
}

#[test]
fn only_annotations_that_mean_something_are_kept() {
    let read = |annotations: Value| {
        let mut one = manifest(&[]);
        one["annotations"] = annotations;
        parse(&one, None).map(|document| match document {
            Document::Image(manifest) => manifest.annotations,
            Document::Index(_) => panic!(),
        })
    };
    let (title, metadata) = ("org.opencontainers.image.title", "org.cncf.model.file.metadata+json");
    let kept = read(json!({"a": "1", "b": 5, "c": {"d": null}, title: "2", metadata: null}));
    assert_eq!(kept, Ok([(title.to_owned(), "2".to_owned())].into()));
    assert!(matches!(read(json!({title: 5})), Err(ManifestError::Syntax(_))));
    assert!(matches!(read(json!([])), Err(ManifestError::Syntax(_))));
    let many: serde_json::Map<_, _> = (0..100_000).map(|i| (format!("a{i}"), json!("x"))).collect();
    assert_eq!(read(many.into()), Ok(BTreeMap::new()));
    let chunked = json!({"io.github.containers.zstd-chunked.manifest-checksum": "sha256:x"});
    let mut layer = descriptor("application/vnd.oci.image.layer.v1.tar+zstd");
    layer["annotations"] = chunked;
    let mut one = manifest(&[]);
    one["layers"] = json!([layer, descriptor("application/vnd.oci.image.layer.v1.tar+zstd")]);
    let Ok(Document::Image(one)) = parse(&one, None) else { panic!() };
    assert_eq!(one.layers.iter().map(|l| l.descriptor.is_zstd_chunked()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn what_describes_others_is_no_candidate() {
    let amd64: Platform = "linux/amd64".parse().unwrap();
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let entry = |name: &[u8], platform: &Value, more: Value| {
        let mut entry = json!({"mediaType": OCI, "digest": Digest::of(name).to_string(), "size": 1, "platform": platform});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let attestation = entry(
        b"att",
        &unknown,
        json!({"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}),
    );
    let artifact = entry(b"art", &Value::Null, json!({"artifactType": "application/vnd.example"}));
    let chosen = |wanted: &Platform, entries: &[&Value]| {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        let Ok(Document::Index(index)) = parse(&index, None) else { panic!() };
        match index.choose(wanted) {
            Ok(Choice::Entry(entry)) => Ok(Some(entry.descriptor.digest)),
            Ok(Choice::Ask { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    };
    let plain = entry(b"plain", &Value::Null, json!({}));
    let image = entry(b"image", &Value::Null, json!({"artifactType": CONFIG}));
    for only in [&plain, &image] {
        let digest = only["digest"].as_str().unwrap().parse().unwrap();
        assert_eq!(chosen(&amd64, &[only, &attestation, &artifact]), Ok(Some(digest)));
    }
    assert_eq!(chosen(&amd64, &[&plain, &image, &attestation]), Ok(None), "their configs tell");
    assert!(chosen(&amd64, &[&attestation]).unwrap_err().contains("no platform at all"));
    assert_eq!(chosen(&amd64, &[&attestation, &artifact]), Ok(Some(Digest::of(b"art"))), "there is no image");
    // An image for an unknown platform is offered, and taken by who asks for it.
    let odd = entry(b"odd", &unknown, json!({}));
    let error = chosen(&amd64, &[&odd, &attestation]).unwrap_err();
    assert!(error.contains("offers unknown/unknown;"), "{error}");
    let wanted = "unknown/unknown".parse().unwrap();
    assert_eq!(chosen(&wanted, &[&attestation, &odd]), Ok(Some(Digest::of(b"odd"))));
}

/// JSON made of the words that the parsers look for, so that random documents get far.
fn documents() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let key = proptest::sample::select(vec![
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "annotations",
        "platform",
        "os",
        "rootfs",
        "diff_ids",
        "type",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(2)),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!(OCI)),
        Just(json!("layers")),
        Just(json!(Digest::of(b"x"))),
        Just(descriptor(CONFIG)),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..8).prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn nothing_panics(document in documents(), cut in 0_usize..200) {
        let text = document.to_string();
        let _ = Document::parse(text.as_bytes(), Some(OCI));
        let _ = ImageConfig::parse(text.as_bytes(), 1);
        let _ = Document::parse(&text.as_bytes()[..cut.min(text.len())], None);
    }
}
