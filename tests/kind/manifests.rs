//! Manifests that users apply, before the API server that would store them.

use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::expected::{FOREIGN, VALUES};
use crate::support::registry::run;
use crate::{driver, examples};

/// The rendered chart in several forms, `manifests/` and every example: nothing unknown, nothing malformed.
pub async fn are_valid(cluster: &Cluster) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let version = cluster.client.apiserver_version().await.expect("the API server's version");
    let minor = cluster.minor().await;
    for (number, values) in VALUES.iter().enumerate() {
        let rendered = directory.path().join(format!("chart-{number}.yaml"));
        let mut template = cluster.helm("template");
        template.arg(driver::RELEASE).arg(driver::chart()).args(cluster.chart_values());
        template.args(["--kube-version", &version.git_version]);
        // Names of its own: what is installed must not be what is compared with.
        template.args(["--set", "fullnameOverride=dry-run"]);
        for value in values.iter().copied().chain(cluster.release.values()) {
            template.args(["--set", value]);
        }
        if number == 0 {
            template.arg("--values").arg(repository.join("examples/policy-values.yaml"));
        }
        let objects = String::from_utf8(run(&mut template)).expect("text");
        let ours: Vec<&str> =
            objects.split("\n---\n").filter(|object| !object.lines().any(foreign)).collect();
        std::fs::write(&rendered, ours.join("\n---\n")).expect("the rendered chart");
        cluster.dry_run(&rendered);
    }
    for file in yaml_files(&repository.join("manifests")) {
        cluster.dry_run(&file);
    }
    for file in examples::manifests() {
        let example = directory.path().join(file.file_name().expect("a name"));
        let text = std::fs::read_to_string(&file).expect("an example");
        std::fs::write(&example, examples::known_to(minor, &text)).expect("the example");
        cluster.dry_run(&example);
    }
}

/// Whether a line of a manifest names a kind that the cluster need not have.
fn foreign(line: &str) -> bool {
    line.strip_prefix("kind: ").is_some_and(|kind| FOREIGN.contains(&kind))
}

impl Cluster {
    /// The API server's minor version.
    pub async fn minor(&self) -> u32 {
        let version = self.client.apiserver_version().await.expect("the API server's version");
        let digits = version.minor.trim_end_matches(|digit: char| !digit.is_ascii_digit());
        digits.parse().expect("a minor version")
    }

    /// Sends every object of a file to the API server, which validates and forgets it. Fields that it does not
    /// know fail, by kubectl's check against the server's schema before 1.25 and the server's own since.
    fn dry_run(&self, file: &Path) {
        let file = file.to_string_lossy();
        let arguments = ["apply", "--dry-run=server", "--validate=true", "-f", &*file];
        let outcome = self.try_kubectl_anywhere(&arguments);
        let said = outcome.unwrap_or_else(|said| panic!("{file} is refused: {said}"));
        assert!(said.contains("dry run"), "{file}: {said}");
    }
}

/// YAML files in a directory.
fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect()
}
