use serde_json::{Value, json};

use super::*;

fn kitfile_of(config: &Value) -> Result<String, ArtifactError> {
    kitfile(config.to_string().as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Configs that `kit pack` wrote, and what `kit unpack` wrote of them: 401 and 88 bytes (kit at a041892).
#[test]
fn the_kitfile_is_the_one_that_kit_writes() {
    let digests = json!({"digest": "sha256:91", "diffId": "sha256:91"});
    let with = |mut value: Value| {
        value.as_object_mut().unwrap().extend(digests.as_object().unwrap().clone());
        value
    };
    let demo = json!({
        "manifestVersion": "1.0.0",
        "package": {"name": "demo", "version": "1", "description": "demo kit", "authors": ["me"]},
        "model": with(json!({
            "name": "demo", "path": "model-00001-of-00002.safetensors", "framework": "pytorch",
            "parts": [
                with(json!({"path": "model-00002-of-00002.safetensors", "type": "shard"})),
                with(json!({"path": "config.json"})),
            ],
        })),
        "code": [with(json!({"path": "run.sh"})), with(json!({"path": "sub"}))],
        "datasets": [with(json!({"name": "d", "path": "日本語"}))],
        "docs": [with(json!({"path": "README.md"})), with(json!({"path": "LICENSE"}))],
    });
    let text = kitfile_of(&demo).unwrap();
    assert_eq!(
        text,
        r#"manifestVersion: 1.0.0
package:
  name: demo
  version: "1"
  description: demo kit
  authors: [me]
model:
  name: demo
  path: model-00001-of-00002.safetensors
  framework: pytorch
  parts:
    - path: model-00002-of-00002.safetensors
      type: shard
    - path: config.json
code:
  - path: run.sh
  - path: sub
datasets:
  - name: d
    path: 日本語
docs:
  - path: README.md
  - path: LICENSE
"#
    );
    assert_eq!(text.len(), 401);
    let all = json!({
        "manifestVersion": "1.0.0",
        "package": {"name": "all", "version": "1"},
        "model": with(json!({"name": "all", "path": "."})),
    });
    assert_eq!(kitfile_of(&all).unwrap().len(), 88);
}

#[test]
fn what_nobody_has_said_is_left_out() {
    let bare = json!({"package": {"authors": []}, "model": null, "code": [], "docs": [{}], "unheard": 1});
    assert_eq!(kitfile_of(&bare).unwrap(), "manifestVersion: \"\"\ndocs:\n  - path: \"\"\n");
    assert_eq!(
        kitfile_of(&json!({"model": {}, "code": [{}]})).unwrap(),
        "manifestVersion: \"\"\nmodel: {}\ncode:\n  - {}\n"
    );
}

#[test]
fn neither_a_large_config_nor_one_that_grows_is_taken() {
    let refused = |config: &Value, words: &str| {
        let error = kitfile_of(config).unwrap_err().to_string();
        assert!(error.contains("KitOps ModelKit") && error.contains(words), "{error}");
    };
    refused(&json!({"model": {"description": "x".repeat(KITFILE_MAX)}}), "at most 1048576 are taken");
    // Deep inside, each number has a line of some two hundred bytes, and so has each line of a text.
    let deep = |inner: Value| (0..100).fold(inner, |inner, _| json!({ "k": inner }));
    for inner in [json!(vec![0; 100_000]), json!("a\n".repeat(100_000))] {
        refused(&json!({"model": {"parameters": deep(inner)}}), "would exceed 1048576 bytes");
    }
    refused(&json!({"package": {"name": 1}}), "invalid type");
}
