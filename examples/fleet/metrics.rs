//! What the API server says of itself.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::admin::Admin;

/// Its metrics at some time.
#[derive(Debug)]
pub struct Metrics {
    pub at: Instant,
    text: String,
}

impl Metrics {
    pub fn read(admin: &Admin) -> Result<Self> {
        Ok(Self { text: admin.raw("/metrics")?, at: Instant::now() })
    }

    /// The sum of all series of this name with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).map(|(_, value)| value).sum()
    }

    fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (own, value) = rest.rsplit_once(' ')?;
            let has = |(label, value): &(&str, &str)| {
                own.contains(&format!("{{{label}=\"{value}\""))
                    || own.contains(&format!(",{label}=\"{value}\""))
            };
            labels.iter().all(has).then_some(())?;
            Some((own, value.parse().ok()?))
        })
    }

    /// By the values of a label, how many more there are than before.
    pub fn grown(
        &self,
        before: &Self,
        name: &str,
        labels: &[(&str, &str)],
        by: &str,
    ) -> BTreeMap<String, f64> {
        let mut grown = BTreeMap::new();
        for (metrics, sign) in [(self, 1.0), (before, -1.0)] {
            for (own, value) in metrics.series(name, labels) {
                *grown.entry(label(own, by).to_owned()).or_insert(0.0) += sign * value;
            }
        }
        grown.retain(|_, value| *value > 0.0);
        grown
    }

    /// The upper bound of the bucket that so much of what has come since `before` is below.
    pub fn quantile(&self, before: &Self, name: &str, labels: &[(&str, &str)], part: f64) -> Option<f64> {
        let buckets = self.grown(before, &format!("{name}_bucket"), labels, "le");
        let all = buckets.get("+Inf").copied()?;
        let bound =
            |(bound, count): (&String, &f64)| (*count >= part * all).then(|| bound.parse::<f64>().ok())?;
        buckets.iter().filter_map(bound).min_by(f64::total_cmp)
    }
}

fn label<'a>(series: &'a str, name: &str) -> &'a str {
    let begin = |text: &str| series.find(text).map(|at| at + text.len());
    let start = begin(&format!("{{{name}=\"")).or_else(|| begin(&format!(",{name}=\"")));
    start.and_then(|start| series[start..].split('"').next()).unwrap_or_default()
}
