//! A real plugin, a real Prometheus: whatever an operator asks is answered from series that there are.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::server::Prometheus;
use super::{alerts, rules_file};
use crate::support::archive::{archive, noise};
use crate::support::chart::{chart, items, repository, text};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry, free_port};

/// The queries of the dashboard's panels, with what Grafana puts in the places of its variables.
fn panels() -> Vec<String> {
    let dashboard = std::fs::read_to_string(chart().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let targets = items(&dashboard, "/panels").iter().flat_map(|panel| items(panel, "/targets"));
    let filled = targets.map(|target| {
        let filled = text(target, "/expr").replace("$__rate_interval", "4s");
        filled.replace("$namespace", ".*").replace("$node", "node-1|node-2")
    });
    filled.collect()
}

/// The expressions of the table in docs/metrics.md.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let (_, table) = page.split_once("## What to watch").expect("the table");
    let rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = rows.skip(2).map(|row| {
        let (_, expression) = row.rsplit_once(" | `").expect("an expression");
        expression.trim_end_matches("` |").replace("\\|", "|")
    });
    rows.collect()
}

async fn publish(machine: &Machine, plugin: &Plugin, pod: &str, image: &str) -> bool {
    plugin.node.clone().node_publish_volume(machine.publish(pod, image)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_answered_and_alerts_fire() {
    let registry = Registry::start(Options::default());
    let push = |name: &str, seed: &str| {
        let layer = archive(&[("file", &noise(seed, 100_000))]);
        let layout = Layout::of(&Image::new(vec![layer]));
        (registry.push(&layout.reference("latest"), name, &[]), layout)
    };
    let (good, _) = push("team/good:1", "1");
    let (bad, layout) = push("team/bad:1", "2");
    // Of the layer, other bytes than the manifest names.
    let manifest: Value = serde_json::from_slice(&manifest_of(&layout)).unwrap();
    let hex = text(&manifest, "/layers/0/digest").strip_prefix("sha256:").unwrap();
    let file = registry.blob_file(hex);
    let mut blob = std::fs::read(&file).unwrap();
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    std::fs::write(&file, blob).unwrap();
    let dead = format!("127.0.0.1:{}", free_port());
    let metrics = format!("127.0.0.1:{}", free_port());
    let machine = Machine::new(&[
        &format!("--insecure-registry={},{dead}", registry.host()),
        &format!("--metrics-listen={metrics}"),
        "--gc-interval=1",
        "--pull-wait=10",
    ]);
    let plugin = machine.start().await;
    // Alerts as they are, but for the minutes for which they must hold.
    let rules = std::fs::read_to_string(rules_file()).unwrap();
    let impatient = Regex::new(r"(?m)^ *for: .*\n").unwrap().replace_all(&rules, "");
    let prometheus = Prometheus::start(&metrics, &impatient).await;
    prometheus
        .until("the first scrape", async || {
            let found = prometheus.query("composefs_csi_build_info").await;
            (!found.is_empty()).then_some(())
        })
        .await;
    assert!(!prometheus.fires("ComposefsCsiDamagedData").await, "nothing has happened yet");

    assert!(publish(&machine, &plugin, "good", &good).await);
    assert!(!publish(&machine, &plugin, "bad", &bad).await, "a damaged layer");
    // Kubelet tries again and again.
    let absent = format!("{}/team/absent:1", registry.host());
    prometheus
        .until("ComposefsCsiPublishesFail", async || {
            assert!(!publish(&machine, &plugin, "absent", &absent).await);
            prometheus.fires("ComposefsCsiPublishesFail").await.then_some(())
        })
        .await;
    // One event is enough.
    prometheus
        .until("ComposefsCsiDamagedData", async || {
            prometheus.fires("ComposefsCsiDamagedData").await.then_some(())
        })
        .await;
    let lost = format!("{dead}/team/app:1");
    prometheus
        .until("ComposefsCsiRegistryFails", async || {
            assert!(!publish(&machine, &plugin, "lost", &lost).await);
            prometheus.fires("ComposefsCsiRegistryFails").await.then_some(())
        })
        .await;
    for quiet in ["ComposefsCsiDefect", "ComposefsCsiCollectionFails", "ComposefsCsiPublishesSlow"] {
        assert!(!prometheus.fires(quiet).await, "{quiet}");
    }

    let queries: BTreeSet<String> =
        alerts().into_iter().map(|(_, query)| query).chain(panels()).chain(documented()).collect();
    assert!(queries.len() > 25, "{queries:?}");
    for query in &queries {
        // It is understood, and asks for what there is.
        prometheus.query(query).await;
        for (metric, labels) in selectors(query) {
            let series = prometheus.query(&metric).await;
            assert!(!series.is_empty(), "{metric}, of {query}, is not exported");
            for label in labels {
                let has = series.iter().any(|one| one["metric"].get(&label).is_some());
                assert!(has, "{metric} has no label {label}: {query}");
            }
        }
    }
    for query in panels() {
        let answer = prometheus.query(&query).await;
        // Garbage collection did not fail.
        assert!(query.contains("gc_duration") || !answer.is_empty(), "an empty panel: {query}");
    }
    let damaged = panels().into_iter().find(|query| query.contains("corrupt")).expect("the panel of damage");
    let [answer] = &prometheus.query(&damaged).await[..] else { panic!("one number") };
    assert_eq!(answer["value"][1], "1", "{damaged}");

    plugin.node.clone().node_unpublish_volume(machine.unpublish("good")).await.unwrap();
    drop(plugin);
    machine.assert_nothing_published();
}

/// The manifest of a layout's only image.
fn manifest_of(layout: &Layout) -> Vec<u8> {
    let index = std::fs::read(layout.path().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let hex = text(&index, "/manifests/0/digest").strip_prefix("sha256:").unwrap();
    std::fs::read(layout.path().join("blobs/sha256").join(hex)).unwrap()
}

/// The metrics of an expression, each with the labels by which it is selected.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let metric = Regex::new(r"(composefs_csi_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let label = Regex::new(r"([a-z_]+) *(?:=~|!~|!=|=)").unwrap();
    let found = metric.captures_iter(query).map(|found| {
        let labels = found.get(2).map_or("", |labels| labels.as_str());
        let labels = label.captures_iter(labels).map(|found| found[1].to_owned());
        (found[1].to_owned(), labels.collect())
    });
    found.collect()
}

#[test]
fn selectors_are_found() {
    let query = "sum by (le) (rate(composefs_csi_a_total{node=~\"$node\",outcome!~\"ok|busy\"}[5m])) / composefs_csi_b";
    let labels = vec!["node".to_owned(), "outcome".to_owned()];
    assert_eq!(
        selectors(query),
        [("composefs_csi_a_total".to_owned(), labels), ("composefs_csi_b".to_owned(), vec![])]
    );
}
