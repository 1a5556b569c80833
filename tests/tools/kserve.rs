//! The examples for KServe, held against the schemas of KServe's own definitions: no field is misspelt, missing or of
//! another type.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::support::chart::{documents, repository};
use crate::support::objects::unknown_fields;
use crate::support::tools::kserve_definitions;

/// The schema of a kind, of the version that the object names.
fn schema(kind: &str, version: &str) -> Value {
    for entry in std::fs::read_dir(kserve_definitions()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".yaml") {
            continue;
        }
        for definition in documents(&std::fs::read_to_string(&path).unwrap()) {
            if definition["spec"]["names"]["kind"] == kind {
                let versions = definition["spec"]["versions"].as_array().unwrap();
                let found = versions
                    .iter()
                    .find(|one| version.ends_with(&format!("/{}", one["name"].as_str().unwrap())));
                return found.expect("the version")["schema"]["openAPIV3Schema"].clone();
            }
        }
    }
    panic!("KServe has no {kind}");
}

/// What is wrong with a value by a structural schema: OpenAPI v3 as the API server takes it.
fn faults(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_string() && !value.is_i64() {
            found.push(format!("{at} is no number and no text"));
        }
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !fits {
        found.push(format!("{at} is no {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{at} is not allowed"));
    }
    if let Some(items) = value.as_array() {
        items
            .iter()
            .enumerate()
            .for_each(|(index, item)| faults(&schema["items"], item, &format!("{at}[{index}]"), found));
    }
    let Some(fields) = value.as_object() else { return };
    let none = Map::new();
    let known = schema["properties"].as_object().unwrap_or(&none);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, field) in fields {
        let at = format!("{at}.{name}");
        match (known.get(name), &schema["additionalProperties"]) {
            // Every object has them, and the API server knows them.
            _ if matches!(at.as_str(), ".apiVersion" | ".kind" | ".metadata") => {}
            (Some(schema), _) => faults(schema, field, &at, found),
            (None, schema) if schema.is_object() => faults(schema, field, &at, found),
            (None, _) if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            (None, _) => found.push(format!("{at} is unknown")),
        }
    }
}

fn faults_of(object: &Value) -> Vec<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let mut found = Vec::new();
    faults(&schema(&text("/kind"), &text("/apiVersion")), object, "", &mut found);
    found
}

#[test]
fn the_examples_are_what_kserve_takes() {
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(repository().join("examples/kserve")).unwrap() {
        let path = entry.unwrap().path();
        for object in documents(&std::fs::read_to_string(&path).unwrap()) {
            let of_kserve = object["apiVersion"].as_str().unwrap().starts_with("serving.kserve.io/");
            let faults = if of_kserve { faults_of(&object) } else { unknown_fields(&object) };
            assert_eq!(faults, Vec::<String>::new(), "{}", path.display());
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(json!(kinds), json!(["InferenceService", "PersistentVolumeClaim", "StorageClass"]));
}

/// A judge that finds nothing is none.
#[test]
fn mistakes_are_found() {
    let predictor = |predictor: Value| json!({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "spec": {"predictor": predictor}});
    let model = |extra: (&str, Value)| {
        let mut model = json!({"modelFormat": {"name": "huggingface"}});
        model[extra.0] = extra.1;
        predictor(json!({ "model": model }))
    };
    assert_eq!(faults_of(&model(("storageUri", json!("pvc://a")))), Vec::<String>::new());
    for (object, word) in [
        (model(("storageURI", json!("pvc://a"))), "storageURI is unknown"),
        (model(("args", json!("--a"))), "args is no"),
        (predictor(json!({"model": {"modelFormat": {}}})), "modelFormat.name is missing"),
        (predictor(json!({"volumes": [{"name": "a", "csi": {"readOnly": true}}]})), "csi.driver is missing"),
    ] {
        let found = faults_of(&object);
        assert!(found.iter().any(|fault| fault.contains(word)), "{word} is not in {found:?}");
    }
}
