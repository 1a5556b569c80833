//! The chart, rendered by the real helm for the oldest and the newest Kubernetes, with every switch on and off.

mod choices;
mod commands;
mod objects;
mod refusals;
mod rights;
mod schema;
mod switches;

use std::process::Command;

use serde_json::Value;

use crate::support::chart::{VERSIONS, chart, documents, helm, items, only, render, repository, text, title};
use crate::support::objects::{check, unknown_fields};

#[test]
fn helm_lint_finds_nothing() {
    let output = helm(&["lint", "--strict", "--kube-version", VERSIONS[0], "charts/composefs-csi"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
}

#[test]
fn defaults_render_soundly() {
    for kubernetes in VERSIONS {
        let objects = render(kubernetes, &[]);
        check(&objects, kubernetes);
        for object in &objects {
            assert_eq!(unknown_fields(object), Vec::<String>::new(), "{}", title(object));
        }
    }
}

#[test]
fn the_manifests_are_the_charts() {
    let fresh = tempfile::NamedTempFile::new().unwrap();
    let script = repository().join("scripts/manifests.sh");
    let output = Command::new(script).arg(fresh.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (fresh, kept) = (
        std::fs::read_to_string(fresh.path()).unwrap(),
        std::fs::read_to_string(repository().join("manifests/composefs-csi.yaml")).unwrap(),
    );
    assert!(fresh == kept, "manifests/composefs-csi.yaml is not what the chart renders; run: make manifests");
    check(&documents(&kept), "manifests");
}

#[test]
fn chart_and_program_have_one_version() {
    let chart = documents(&std::fs::read_to_string(chart().join("Chart.yaml")).unwrap()).remove(0);
    assert_eq!(text(&chart, "/version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&chart, "/appVersion"), env!("CARGO_PKG_VERSION"));
}

/// A panel on a metric that is not exported would stay empty and look like calm.
#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let objects = render(VERSIONS[1], &["grafanaDashboard.enabled=true"]);
    let map = only(&objects, "ConfigMap", "-dashboard");
    let dashboard: Value = serde_json::from_str(text(map, "/data/composefs-csi.json")).unwrap();
    let documented = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let name = regex::Regex::new("composefs_csi_[a-z_]+").unwrap();
    let mut used = std::collections::BTreeSet::new();
    for panel in items(&dashboard, "/panels").iter().flat_map(|panel| items(panel, "/targets")) {
        let found = name.find_iter(text(panel, "/expr")).map(|found| found.as_str()).collect::<Vec<_>>();
        assert!(!found.is_empty(), "{panel}");
        used.extend(found.into_iter().map(str::to_owned));
    }
    for metric in used {
        // A histogram's series.
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end));
        let row = |name: &str| documented.contains(&format!("| `{name}` |"));
        assert!(row(&metric) || family.is_some_and(row), "docs/metrics.md has no {metric}");
    }
}
