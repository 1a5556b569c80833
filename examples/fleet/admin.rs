//! The cluster as its administrator uses it: the chart's kinds and rights, tokens, and how large objects are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

/// The release's namespace, and the beginning of its objects' names.
const RELEASE: &str = "composefs-csi";
const KINDS: &str = "/apis/csi.composefs.dev/v1alpha1";

/// A client with all rights.
pub struct Admin {
    pub client: Client,
    /// Which Kubernetes it is.
    pub version: String,
    minor: u32,
    kubeconfig: PathBuf,
    /// Where the API server is, as a kubeconfig says it.
    cluster: Value,
}

impl Admin {
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig).context("the kubeconfig cannot be read")?;
        let cluster = file.clusters.first().and_then(|named| named.cluster.clone());
        let cluster = serde_json::to_value(cluster.context("the kubeconfig names no cluster")?)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let version = client.apiserver_version().await.context("the API server does not answer")?;
        let digits = version.minor.trim_end_matches(|digit: char| !digit.is_ascii_digit());
        let minor = digits.parse().context("the API server's version")?;
        Ok(Self { client, version: version.git_version, minor, kubeconfig: kubeconfig.to_owned(), cluster })
    }

    /// Kinds, accounts and rights as the chart makes them, and nothing that runs.
    pub fn apply_chart(&self) -> Result<()> {
        let mut helm = Command::new("helm");
        helm.args(["template", RELEASE])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/composefs-csi"));
        helm.args([
            "--namespace",
            RELEASE,
            "--set",
            "prefetch.enabled=true",
            "--set",
            "events.enabled=false",
        ]);
        helm.arg(format!("--kube-version=1.{}", self.minor));
        let mut parts = vec!["prefetch-crds", "serviceaccounts", "node-rbac", "controller-rbac"];
        // Before, the API server has no such policies.
        parts.extend((self.minor >= 30).then_some("prefetch-policy"));
        for part in parts {
            helm.arg(format!("--show-only=templates/{part}.yaml"));
        }
        let rendered = output(&mut helm)?;
        let mut namespace = self.kubectl(&["create", "namespace", RELEASE]);
        // It may be there.
        let _ = namespace.stderr(Stdio::null()).status()?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), rendered)?;
        output(
            self.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename"]).arg(file.path()),
        )?;
        let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        output(&mut self.kubectl(&established)).map(drop)
    }

    /// A kubeconfig of one of the chart's accounts, `node` or `controller`, in `directory`. The token is bound to a node, as
    /// that of a pod is by its pod, if the API server can do that.
    pub async fn account(
        &self,
        component: &str,
        node: Option<(&str, &str)>,
        directory: &Path,
    ) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), RELEASE);
        let bound = node
            .filter(|_| self.minor >= 31)
            .map(|(name, uid)| json!({"kind": "Node", "apiVersion": "v1", "name": name, "uid": uid}));
        let spec = json!({"audiences": [], "expirationSeconds": 7200, "boundObjectRef": bound});
        let request: TokenRequest = serde_json::from_value(json!({ "spec": spec }))?;
        let name = format!("{RELEASE}-{component}");
        let request = accounts.create_token_request(&name, &PostParams::default(), &request).await?;
        let token = request.status.context("the API server gives no token")?.token;
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fleet", "cluster": self.cluster}],
            "users": [{"name": "fleet", "user": {"token": token}}],
            "contexts": [{"name": "fleet", "context": {"cluster": "fleet", "user": "fleet"}}],
            "current-context": "fleet",
        });
        let path = directory.join(node.map_or(component, |(name, _)| name));
        std::fs::write(&path, file.to_string())?;
        Ok(path)
    }

    /// What kubectl says to `get --raw`.
    pub fn raw(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(output(&mut self.kubectl(&["get", "--raw", path]))?)?)
    }

    /// How large our objects are in etcd, which has them as the API server gives them: as JSON.
    pub async fn print_sizes(&self) -> Result<()> {
        for plural in ["imageprefetches", "nodeimagecaches"] {
            let list: Value = serde_json::from_str(&self.raw(&format!("{KINDS}/{plural}"))?)?;
            let items = list["items"].as_array().context("a list")?;
            let bytes: usize = items.iter().map(|item| item.to_string().len()).sum();
            let mean = bytes / items.len().max(1);
            println!("{plural}: {} objects, {} kB, {mean} bytes each", items.len(), bytes / 1000);
        }
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let done =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?} does not run"))?;
    ensure!(done.status.success(), "{command:?} has failed");
    Ok(done.stdout)
}
