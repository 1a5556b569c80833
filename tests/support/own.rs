//! Our own kinds, by the schema that the chart gives to the API server.

use serde_json::Value;

use super::chart::{VERSIONS, only, render, text};

/// Fields of an object that its CRD does not define; such as the API server would drop.
pub fn undefined(object: &Value) -> Vec<String> {
    let objects = render(VERSIONS[1], &["prefetch.enabled=true"]);
    let definition = only(&objects, "CustomResourceDefinition", "imageprefetches.csi.composefs.dev");
    let version = &definition["spec"]["versions"][0];
    let api_version = format!("{}/{}", text(&definition["spec"], "/group"), text(version, "/name"));
    assert_eq!(text(object, "/apiVersion"), api_version);
    let mut found = Vec::new();
    let Value::Object(fields) = object else { panic!("{object} is no object") };
    for (name, value) in fields {
        if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            field(&version["schema"]["openAPIV3Schema"], name, value, "", &mut found);
        }
    }
    found
}

fn field(parent: &Value, name: &str, value: &Value, path: &str, found: &mut Vec<String>) {
    let path = format!("{path}/{name}");
    match parent["properties"].get(name).or_else(|| parent.get("additionalProperties")) {
        Some(schema) => inside(schema, value, &path, found),
        None => found.push(path),
    }
}

fn inside(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                field(schema, name, value, path, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                inside(&schema["items"], item, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}
