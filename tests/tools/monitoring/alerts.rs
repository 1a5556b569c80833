//! Each alert fires on what it is about, and on nothing else: promtool, with series by hand, and the hours that the
//! alerts wait pass at once.

use std::process::Command;

use serde_json::{Value, json};

use super::{alerts, rules_file};
use crate::support::chart::repository;
use crate::support::tools::debian;

/// A series of one minute's steps, as promtool writes them: `begin+step x times`, `_` for nothing.
type Series = (&'static str, &'static str);

/// What makes an alert fire, and what is nearest to that and does not.
const CASES: [(&str, &[Series], &[Series]); 9] = [
    (
        "ComposefsCsiDamagedData",
        // The first event begins the series.
        &[("publish_duration_seconds_count{node=\"n\",outcome=\"corrupt\"}", "_x55 1x5")],
        &[("publish_duration_seconds_count{node=\"n\",outcome=\"corrupt\"}", "1x60")],
    ),
    (
        "ComposefsCsiImageInQuarantine",
        &[("store_damaged_objects{node=\"n\"}", "2x60")],
        // Repaired within minutes.
        &[("store_damaged_objects{node=\"n\"}", "0x54 1x5")],
    ),
    (
        "ComposefsCsiPublishesFail",
        &[("publish_duration_seconds_count{node=\"n\",outcome=\"denied\"}", "0+1x60")],
        &[("publish_duration_seconds_count{node=\"n\",outcome=\"pending\"}", "0+1x60")],
    ),
    (
        "ComposefsCsiPublishesSlow",
        &[
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"60\"}", "0+1x60"),
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"120\"}", "0+2x60"),
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"+Inf\"}", "0+2x60"),
        ],
        &[
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"60\"}", "0+2x60"),
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"120\"}", "0+2x60"),
            ("publish_duration_seconds_bucket{node=\"n\",outcome=\"ok\",le=\"+Inf\"}", "0+2x60"),
        ],
    ),
    (
        "ComposefsCsiRegistryFails",
        &[
            ("registry_requests_total{node=\"n\",request=\"blob\",outcome=\"transient\"}", "0+3x60"),
            ("registry_requests_total{node=\"n\",request=\"blob\",outcome=\"ok\"}", "0+2x60"),
        ],
        &[
            ("registry_requests_total{node=\"n\",request=\"blob\",outcome=\"transient\"}", "0+2x60"),
            ("registry_requests_total{node=\"n\",request=\"blob\",outcome=\"ok\"}", "0+3x60"),
        ],
    ),
    (
        "ComposefsCsiPullStuck",
        &[("pull_oldest_seconds{node=\"n\"}", "0+60x60"), ("fetched_bytes_total{node=\"n\"}", "5000000x60")],
        // As old, and bytes come.
        &[("pull_oldest_seconds{node=\"n\"}", "0+60x60"), ("fetched_bytes_total{node=\"n\"}", "0+600000x60")],
    ),
    (
        "ComposefsCsiStoreFull",
        &[
            ("store_filesystem_used_bytes{node=\"n\"}", "96x60"),
            ("store_filesystem_bytes{node=\"n\"}", "100x60"),
        ],
        &[
            ("store_filesystem_used_bytes{node=\"n\"}", "94x60"),
            ("store_filesystem_bytes{node=\"n\"}", "100x60"),
        ],
    ),
    (
        "ComposefsCsiCollectionFails",
        &[("gc_duration_seconds_count{node=\"n\",outcome=\"corrupt\"}", "0+1x60")],
        &[("gc_duration_seconds_count{node=\"n\",outcome=\"ok\"}", "0+1x60")],
    ),
    (
        "ComposefsCsiDefect",
        &[("rpc_duration_seconds_count{node=\"n\",rpc=\"NodePublishVolume\",code=\"Internal\"}", "0+1x60")],
        &[("rpc_duration_seconds_count{node=\"n\",rpc=\"NodePublishVolume\",code=\"Aborted\"}", "0+1x60")],
    ),
];

#[test]
fn promtool_finds_no_fault() {
    let output =
        Command::new(debian("prometheus", "promtool")).args(["check", "rules"]).arg(rules_file()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_alert_fires_on_its_own_case_alone() {
    let mut tested: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    let mut there: Vec<String> = alerts().into_iter().map(|(name, _)| name).collect();
    tested.sort_unstable();
    there.sort_unstable();
    assert_eq!(tested, there, "alerts and cases");
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let undocumented = there.iter().find(|alert| !page.contains(&format!("| `{alert}` |")));
    assert_eq!(undocumented, None, "docs/metrics.md lists the alerts");

    let firing = |series: &[Series], expected: &[&str]| -> Value {
        let samples: Vec<Value> = expected
            .iter()
            .map(|alert| json!({"labels": format!("{{alertname=\"{alert}\"}}"), "value": 1}))
            .collect();
        let input: Vec<Value> = series
            .iter()
            .map(|(name, values)| json!({"series": format!("composefs_csi_{name}"), "values": values}))
            .collect();
        json!({
            "interval": "1m",
            "input_series": input,
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": "60m",
                "exp_samples": samples,
            }],
        })
    };
    let tests: Vec<Value> =
        CASES.iter().flat_map(|(name, fires, calm)| [firing(fires, &[name]), firing(calm, &[])]).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tests.yaml");
    let content = json!({"rule_files": [rules_file()], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(&file, content.to_string()).unwrap();
    let output =
        Command::new(debian("prometheus", "promtool")).args(["test", "rules"]).arg(&file).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}
