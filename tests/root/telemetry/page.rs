//! A page of metrics, read as Prometheus does.

use std::collections::{BTreeMap, BTreeSet};

/// Where the page is.
pub struct Watch {
    pub address: String,
}

/// One scrape.
pub struct Page {
    pub text: String,
}

impl Watch {
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn scrape(&self) -> Page {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200);
        Page { text }
    }
}

impl Page {
    fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series, value.parse().unwrap())
        })
    }

    /// The value of a series, written as it is exported but for the namespace; 0 where there is none.
    pub fn value(&self, series: &str) -> f64 {
        let series = format!("composefs_csi_{series}");
        self.samples().find(|(name, _)| *name == series).map_or(0.0, |(_, value)| value)
    }

    pub fn sum(&self, name: &str) -> f64 {
        let name = format!("composefs_csi_{name}{{");
        self.samples().filter(|(series, _)| series.starts_with(&name)).map(|(_, value)| value).sum()
    }

    /// Markdown rows: name, type, labels, meaning.
    pub fn table(&self) -> String {
        let mut help = BTreeMap::new();
        let mut rows = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for line in self.text.lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, text] => {
                    help.insert(name.to_owned(), text.to_owned());
                }
                ["#", "TYPE", name, kind] => {
                    let labels: Vec<_> = self.labels(name).iter().map(|l| format!("`{l}`")).collect();
                    let (labels, help) = (labels.join(", "), &help[name]);
                    rows += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
                }
                _ => {}
            }
        }
        rows
    }

    fn labels(&self, name: &str) -> BTreeSet<String> {
        let of_family = |series: &&str| {
            let base = series.split('{').next().unwrap();
            base == name || ["_bucket", "_sum", "_count"].iter().any(|end| base == format!("{name}{end}"))
        };
        let series = self.samples().map(|(series, _)| series).filter(of_family);
        let inside = series.filter_map(|series| series.split_once('{').map(|(_, rest)| rest));
        let pairs = inside.flat_map(|labels| labels.trim_end_matches('}').split(','));
        pairs
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, _)| name.to_owned())
            .filter(|l| l != "le")
            .collect()
    }
}
