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
    let chosen = index.choose(&"linux/arm64".parse().unwrap()).unwrap();
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
    assert_eq!(parse(&json!({"layers": []}), None), Err(ManifestError::SchemaVersion(None)));
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
    assert!(ImageConfig::parse(b"{}", 0).is_err());
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
