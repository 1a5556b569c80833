use serde_json::{Value, json};

use super::*;

/// For each text what `yaml.v3` 3.0.1 writes at an indentation of two: behind a key, in a row, as a key, in a list.
const GOLDEN: &str = include_str!("golden.json");

/// What is not written as there, on purpose: `yaml.v3` loses a line feed at the beginning, so that its own reader finds
/// another text; dates that are none have quotes here; signs that hardly any program shows are escaped.
fn differs_on_purpose(text: &str) -> bool {
    text.starts_with('\n')
        || text == "2024-01-02 03:04"
        || text.contains(['\u{2028}', '\u{2029}', '\u{feff}'])
}

fn written(node: &Node<'_>) -> String {
    String::from_utf8(node.write(1 << 20).unwrap()).unwrap()
}

fn of(key: &str, node: Node<'_>) -> String {
    let mut map = Map::default();
    map.push(key, node);
    written(&Node::Map(map))
}

#[test]
fn texts_are_written_as_go_writes_them() {
    let golden: Vec<[String; 5]> = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.len() > 200);
    let mut differs = Vec::new();
    for [text, block, row, key, list] in &golden {
        let value = json!(text);
        let ours = [
            of("k", Node::Text(text)),
            of("k", Node::Row(std::slice::from_ref(text))),
            of(text, Node::Value(&json!(1))),
            written(&Node::List(vec![Node::Value(&value)])),
        ];
        // One that differs on purpose may do so in some places only.
        if ours.each_ref() == [block, row, key, list] && differs_on_purpose(text) {
            differs.push(format!("{text:?}: as it should be, and it is said to differ"));
        }
        for (ours, theirs) in ours.iter().zip([block, row, key, list]) {
            if ours != theirs && !differs_on_purpose(text) {
                differs.push(format!("{text:?}: {ours:?} and not {theirs:?}"));
            }
        }
    }
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

/// What it writes of values that were read from JSON.
#[test]
fn values_are_written_as_go_writes_them() {
    let values = json!({"k": {
        "a": [1, 2.5, 1_000_000, 123_456, 1e21, 0.0001, 0.00001, -0.5, 1e-7, 12_345_678.9, 100_000, 999_999, 0, -0.0, 1e100],
        "b": [[1, [2, []]], {}, {"x": {"y": [{"z": null, "q": true}]}}],
        "z": "a\nb\n",
        "l": ["a\nb", "c\n\n", {"m": "x\n y"}],
        "long": "x",
    }});
    assert_eq!(written(&Node::Value(&values)), include_str!("values.yaml"));
}

#[test]
fn nothing_grows_without_a_bound() {
    let deep = |inner: Value| (0..100).fold(inner, |inner, _| json!({ "k": inner }));
    for value in [json!(vec![0; 1000]), json!("a\n".repeat(1000)), json!({ "a\n".repeat(1000): 1 })] {
        let value = deep(value);
        assert_eq!(Node::Value(&value).write(100_000), None);
        assert!(Node::Value(&value).write(1_000_000).is_some());
    }
}
