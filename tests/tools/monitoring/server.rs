//! A Prometheus that scrapes one plugin.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::registry::{Running, free_port};
use crate::support::tools::debian;

/// A running Prometheus; its process goes before its directory.
pub struct Prometheus {
    address: String,
    _process: Running,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that looks at `target` every second, as a node called `node-1`, with the alerts in `rules`.
    pub async fn start(target: &str, rules: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = format!("127.0.0.1:{}", free_port());
        std::fs::write(directory.path().join("rules.yaml"), rules).expect("the rules");
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "composefs-csi",
                "static_configs": [{"targets": [target], "labels": {"node": "node-1", "namespace": "composefs-csi"}}],
            }],
        });
        // JSON is YAML.
        std::fs::write(directory.path().join("prometheus.yml"), config.to_string())
            .expect("the configuration");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let process = Command::new(debian("prometheus", "prometheus"))
            .current_dir(directory.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let server = Self { address, _process: Running(process), directory };
        server.until("Prometheus", async || server.get("/-/ready").await.is_some().then_some(())).await;
        server
    }

    /// Asks until there is an answer.
    pub async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            let log = || std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what} is not there in time; Prometheus says: {}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The result of a query: a list of series, each with its labels (`metric`) and its `value`.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let url = format!("http://{}/api/v1/query", self.address);
        let url = reqwest::Url::parse_with_params(&url, [("query", expression)]).expect("a URL");
        let answer = reqwest::get(url).await.expect("an answer").text().await.expect("a text");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("a list").clone()
    }

    /// Whether an alert fires.
    pub async fn fires(&self, alert: &str) -> bool {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        !self.query(&firing).await.is_empty()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}
