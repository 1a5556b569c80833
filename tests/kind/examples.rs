//! The manifests in examples/ are applied as they are, but for the registry, which is the suite's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, NAMESPACE, program};
use crate::images::Files;
use crate::support::registry::run;

/// The registry in the examples.
const REGISTRY: &str = "registry.example.com";
/// The others of the example with several images.
const MORE_REGISTRIES: [&str; 3] = ["models.example.com", "adapters.example.org", "tokenizers.example.net"];
/// That example, and what is in the directory of its volume.
const MANY: (&str, &str) = ("many-images.yaml", "model\nvenv");

/// Every example's pod starts and lists the image's files.
pub async fn work(cluster: &Cluster) {
    let content = Files::default().with("example-content", "an example\n");
    cluster.registries.open.push(&content, "team/content:1.0");
    cluster.registries.private.push(&content, "private/content:1.0");
    for (image, path) in [
        ("llm/base:1.0", "model.safetensors"),
        ("llm/law:3", "adapter.safetensors"),
        ("llm/tokenizer:1.0", "tokenizer.json"),
        ("python/venv:3.12", "opt/venv/pyvenv.cfg"),
    ] {
        cluster.registries.open.push(&Files::default().with(path, image), image);
    }
    let files = manifests();
    assert!(!files.is_empty(), "there are no examples");
    let minor = cluster.minor().await;
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let manifest = known_to(minor, &std::fs::read_to_string(&file).expect("an example"));
        let manifest = rewritten(cluster, &manifest, &name);
        let objects = apply(cluster, "apply", &manifest, &["--output", "name"]);
        let pods = objects.lines().filter_map(|object| object.strip_prefix("pod/"));
        for pod in pods {
            cluster.running(pod).await;
            let listed = cluster.sh(pod, "ls /content");
            let (many, of_many) = MANY;
            assert_eq!(listed, if name == many { of_many } else { "example-content" }, "{name}");
        }
        apply(cluster, "delete", &manifest, &["--grace-period=0", "--force"]);
    }
}

/// The example without the lines that a server of this minor version does not know, as the examples say.
pub fn known_to(minor: u32, manifest: &str) -> String {
    let is_known = |line: &&str| minor >= 30 || !line.trim_start().starts_with("recursiveReadOnly:");
    manifest.lines().filter(is_known).map(|line| format!("{line}\n")).collect()
}

/// The example with the suite's images and in its namespace.
fn rewritten(cluster: &Cluster, manifest: &str, name: &str) -> String {
    let registries = &cluster.registries;
    let registry = if name.contains("private") { &registries.private } else { &registries.open };
    let manifest = manifest.replace(&format!("{REGISTRY}/tools/busybox:1.36"), &cluster.settings.tools_image);
    let of_suite = |manifest: String, host: &&str| manifest.replace(*host, &registry.host);
    [REGISTRY]
        .iter()
        .chain(&MORE_REGISTRIES)
        .fold(manifest, of_suite)
        .replace("namespace: default", &format!("namespace: {NAMESPACE}"))
}

/// Runs kubectl with a manifest, in the suite's namespace where it names none; returns what it printed.
pub fn apply(cluster: &Cluster, verb: &str, manifest: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program("kubectl"));
    command.arg("--kubeconfig").arg(&cluster.settings.kubeconfig).args(["--namespace", NAMESPACE, verb]);
    let file = tempfile::tempfile().expect("a temporary file");
    std::os::unix::fs::FileExt::write_all_at(&file, manifest.as_bytes(), 0).expect("the manifest");
    command.args(["-f", "-"]).args(arguments).stdin(Stdio::from(file));
    String::from_utf8(run(&mut command)).expect("text")
}

/// Files of examples/ that are manifests; those that end with `-values.yaml` are for helm.
pub fn manifests() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries =
        std::fs::read_dir(directory).expect("examples/").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.retain(|path| !path.to_string_lossy().ends_with("-values.yaml"));
    files.sort();
    files
}
