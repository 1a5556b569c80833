//! Whatever users apply is known to the newest Kubernetes: each object comes back whole from its types (k8s-openapi's of
//! 1.36, which drop what they do not know), and other projects' kinds have no field that is not documented. So a
//! misspelt field is found without a cluster. On an old release the API server of `tests/kind` is the judge; its values
//! and objects are held against the newest here.

#[path = "../kind/expected.rs"]
mod expected;
#[path = "../kind/objects.rs"]
mod objects;
#[path = "../kind/prefetch_objects.rs"]
mod prefetch_objects;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::chart::{VERSIONS, documents, render, repository, title};
use crate::support::objects::{check, unknown_fields};
use crate::support::own::undefined;

/// Where an object comes from, for messages.
fn assert_known(place: &str, object: &Value) {
    assert_eq!(unknown_fields(object), Vec::<String>::new(), "{place}: {}", title(object));
}

fn files(directory: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(directory)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

#[test]
fn manifests_and_examples_are_known() {
    let mut count = 0;
    for file in files("manifests", ".yaml").into_iter().chain(files("examples", ".yaml")) {
        if file.to_string_lossy().ends_with("-values.yaml") {
            continue;
        }
        for object in documents(&std::fs::read_to_string(&file).unwrap()) {
            assert_known(&file.display().to_string(), &object);
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

/// Objects in the pages: in blocks that are marked as YAML, and what is to be piped into kubectl.
#[test]
fn objects_in_the_pages_are_known() {
    let mut found = Vec::new();
    for page in files("docs", ".md").into_iter().chain([repository().join("README.md")]) {
        let content = std::fs::read_to_string(&page).unwrap();
        for block in content.split("```yaml\n").skip(1) {
            found.push((page.clone(), block.split("```").next().unwrap().to_owned()));
        }
        for block in content.split("<<POD\n").skip(1) {
            found.push((page.clone(), block.split("    POD\n").next().unwrap().to_owned()));
        }
    }
    let mut objects = 0;
    for (page, block) in found {
        // Some blocks are parts of an object, and some have three dots for what is left out.
        if block.lines().any(|line| line.trim_start().starts_with("apiVersion:")) {
            for object in documents(&block) {
                assert_known(&page.display().to_string(), &object);
                objects += 1;
            }
        }
    }
    assert!(objects >= 3, "{objects}");
}

/// What the suite for a cluster installs on the newest release, without one.
#[test]
fn the_suites_installations_are_known() {
    let release = expected::Release::of("36");
    for values in expected::VALUES {
        let sets: Vec<&str> = values.iter().copied().chain(release.values()).collect();
        let objects = render(VERSIONS[1], &sets);
        if !values.iter().any(|value| value.starts_with("updateStrategy")) {
            check(&objects, &format!("{values:?}"));
        }
        for object in &objects {
            assert_known("the chart", object);
        }
    }
    for kind in expected::FOREIGN {
        let object =
            json!({"kind": kind, "apiVersion": version_of(kind), "spec": {"misspelt": 1}, "misspelt": 1});
        assert!(!unknown_fields(&object).is_empty(), "{kind} is judged");
    }
    // What the oldest is not given, and what its runtime keeps.
    let oldest = expected::Release::of("20+");
    assert_eq!(oldest.values().count(), 0);
    assert!(oldest.options_in_container().contains(&"noexec"));
    assert!(!release.options_in_container().contains(&"noexec"));
    for (newest, oldest) in [
        (release.has_recursive_read_only(), oldest.has_recursive_read_only()),
        (release.has_ephemeral_containers(), oldest.has_ephemeral_containers()),
        (release.has_user_namespaces(), oldest.has_user_namespaces()),
    ] {
        assert!(newest && !oldest);
    }
}

fn version_of(kind: &str) -> &'static str {
    if kind == "SecurityContextConstraints" { "security.openshift.io/v1" } else { "monitoring.coreos.com/v1" }
}

/// The objects that the suite creates.
#[test]
fn the_suites_objects_are_known() {
    let command = ["sleep".to_owned()];
    let inline = objects::inline(json!({"image": "registry.example.com/a:1"}));
    let all = [
        ("Namespace", objects::namespace()),
        ("Pod", objects::reader("a", "image:1", &command, Some("node"), &inline)),
        ("Pod", objects::reader("a", "image:1", &command, None, &objects::claim("a"))),
        ("Pod", objects::inspector("a", "image:1", "node")),
        ("Pod", objects::registry("a", "image:1")),
        ("ConfigMap", objects::registry_files("a", json!({"config.yml": "{}"}))),
        ("PersistentVolume", objects::volume("a", "image:1")),
        ("PersistentVolumeClaim", objects::claim_of_volume("a", "a")),
        ("PersistentVolumeClaim", objects::claim_of_class("a", "a")),
        ("StorageClass", objects::class("a", &json!({"image": "a"}))),
        ("Secret", objects::secret("a", "host", "auth")),
        ("ServiceAccount", objects::account("a", "a")),
    ];
    for (kind, mut object) in all {
        // The suite gives them to a client of their kind.
        object["kind"] = json!(kind);
        object["apiVersion"] = json!(if kind == "StorageClass" { "storage.k8s.io/v1" } else { "v1" });
        assert_known("tests/kind", &object);
    }
    let mut places = objects::places("a", "image:1", &inline, true);
    places["kind"] = json!("Pod");
    places["apiVersion"] = json!("v1");
    let mut debugged = places.clone();
    debugged["spec"]["ephemeralContainers"] =
        objects::ephemeral("late", "image:1")["spec"]["ephemeralContainers"].clone();
    let further = [
        prefetch_objects::further_node("b"),
        prefetch_objects::further_plugin("b", "image:1", "c", &["host"]),
    ];
    let rights = prefetch_objects::may_read("a", &[("namespace", "name")])
        .into_iter()
        .chain(prefetch_objects::further_account("c"));
    for object in rights.chain(further).chain([places, debugged]) {
        assert_known("tests/kind", &object);
    }
    assert_eq!(
        undefined(&prefetch_objects::wish("a", &["image:1"], &json!({"backoffLimit": 0}))),
        Vec::<String>::new()
    );
    assert_eq!((objects::DRIVER, objects::LABEL.0), ("csi.composefs.dev", objects::NAMESPACE));
    // Objects elsewhere in the suite would go unseen.
    for file in files("tests/kind", ".rs").iter().filter(|file| !ends(file, "objects.rs")) {
        let source = std::fs::read_to_string(file).unwrap();
        assert!(!source.contains("\"metadata\":"), "{}: objects belong into objects.rs", file.display());
    }
}

fn ends(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file.to_string_lossy().ends_with(name))
}

/// A test that finds nothing wrong in anything would be no test.
#[test]
fn a_misspelt_field_is_found() {
    for (object, lost) in [
        (json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "volumeMount": [1]}]}}), "volumeMount"),
        (
            json!({"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {}, "spec": {"seLinuxMounts": true}}),
            "seLinuxMounts",
        ),
        (
            json!({"kind": "PodMonitor", "apiVersion": "monitoring.coreos.com/v1", "spec": {"podMetricsEndpoint": [{"port": "a"}]}}),
            "podMetricsEndpoint",
        ),
    ] {
        let found = unknown_fields(&object);
        assert!(found.iter().any(|field| field.contains(lost)), "{lost}: {found:?}");
    }
}
