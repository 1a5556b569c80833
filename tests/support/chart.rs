//! The chart as the real `helm` renders it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The oldest and the newest Kubernetes that the chart is for.
pub const VERSIONS: [&str; 2] = ["1.20.0", "1.36.0"];

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chart's directory.
pub fn chart() -> PathBuf {
    repository().join("charts/composefs-csi")
}

/// Runs helm, which is found or built by `scripts/helm.sh`.
pub fn helm(arguments: &[&str]) -> Output {
    static HELM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let helm = HELM.get_or_init(super::tools::helm);
    Command::new(helm).current_dir(repository()).args(arguments).output().expect("helm runs")
}

/// `helm template` with these `--set` arguments.
pub fn try_render(kubernetes: &str, sets: &[&str]) -> Output {
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    render_command(kubernetes, &arguments)
}

/// `helm template` with these arguments.
pub fn render_command(kubernetes: &str, arguments: &[&str]) -> Output {
    let common = ["template", "test", "charts/composefs-csi", "--namespace", "somewhere"];
    helm(&[&common[..], &["--kube-version", kubernetes], arguments].concat())
}

/// The objects that this renders; a refusal fails the test.
pub fn render(kubernetes: &str, sets: &[&str]) -> Vec<Value> {
    let output = try_render(kubernetes, sets);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Kubernetes {kubernetes}, {sets:?}: {complaint}");
    documents(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The documents of a YAML stream.
pub fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"))
}

/// What lies at a JSON pointer, as text; empty if nothing does.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of the array at a JSON pointer; none if nothing is there.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `Kind/name`, for messages.
pub fn title(object: &Value) -> String {
    format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// The only object of this kind, if the name ends so.
pub fn only<'a>(objects: &'a [Value], kind: &str, suffix: &str) -> &'a Value {
    let fits =
        |object: &&Value| text(object, "/kind") == kind && text(object, "/metadata/name").ends_with(suffix);
    let found: Vec<_> = objects.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{kind} …{suffix}");
    found[0]
}
