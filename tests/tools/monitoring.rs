//! What operators watch, before Debian's Prometheus: the alerts of the chart, the panels of the dashboard and the
//! expressions of docs/metrics.md are valid, ask for series that a real plugin exports, and fire when they should.

mod alerts;
mod queries;
mod server;

use std::path::PathBuf;

use serde_json::Value;

use crate::support::chart::{chart, documents, items, text};

/// The chart's alerts.
fn rules_file() -> PathBuf {
    chart().join("files/alerts.yaml")
}

/// Every alert with its expression.
fn alerts() -> Vec<(String, String)> {
    let rules = documents(&std::fs::read_to_string(rules_file()).unwrap()).remove(0);
    let rules = items(&rules, "/groups").iter().flat_map(|group| items(group, "/rules"));
    rules.map(|rule: &Value| (text(rule, "/alert").to_owned(), text(rule, "/expr").to_owned())).collect()
}
