//! Manifests that users apply, before the API server that would store them.

use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::support::registry::run;
use crate::{driver, examples};

/// The rendered chart with all its parts, `manifests/` and every example: nothing unknown, nothing malformed.
pub async fn are_valid(cluster: &Cluster) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rendered = directory.path().join("chart.yaml");
    let mut template = cluster.helm("template");
    template.arg(driver::RELEASE).arg(driver::chart()).args(cluster.chart_values());
    // Names of its own: what is installed must not be what is compared with.
    template.args(["--set", "fullnameOverride=dry-run,networkPolicy.enabled=true"]);
    template.arg("--values").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy-values.yaml"));
    std::fs::write(&rendered, run(&mut template)).expect("the rendered chart");
    cluster.dry_run(&rendered);

    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifests: Vec<PathBuf> =
        yaml_files(&repository.join("manifests")).into_iter().chain(examples::manifests()).collect();
    for file in manifests {
        cluster.dry_run(&file);
    }
}

impl Cluster {
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
