//! What the suite gives to, and expects of, a release of Kubernetes. Nothing here needs a cluster:
//! `tests/tools/manifests.rs` renders the same values for the newest release.

/// Values that change which objects there are, or what is in them. The switches of `tests/tools/chart` are all rendered
/// there; here the API server judges what they make.
pub const VALUES: [&[&str]; 5] = [
    &["networkPolicy.enabled=true"],
    &["controller.enabled=false", "events.enabled=false", "metrics.enabled=false"],
    &[
        "controller.replicas=3",
        "controller.secrets.allNamespaces=true",
        "pullSecrets.enabled=true",
        "startupTaint.enabled=true",
        "grafanaDashboard.enabled=true",
        "openshift.enabled=true",
        "metrics.podMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "node.hostNetwork=true",
        "networkPolicy.enabled=true",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
        "networkPolicy.egress[0].ports[0].port=443",
    ],
    &[
        "pullSecrets.enabled=true",
        "pullSecrets.namespaces={default}",
        "imagePullSecrets[0].name=pull",
        "registries.authSecret=credentials",
        "registries.certificateAuthorities.own\\.pem=-----BEGIN CERTIFICATE-----",
        "credentialProviders.configFile=/etc/kubernetes/credential-providers.yaml",
        "credentialProviders.binDir=/opt/credential-providers",
        "node.layoutDirs={/srv/images}",
        "node.keyDir=/var/lib/composefs-csi-key",
        "node.extraVolumes[0].name=azure",
        "node.extraVolumes[0].hostPath.path=/etc/kubernetes/azure",
        "node.extraVolumeMounts[0].name=azure",
        "node.extraVolumeMounts[0].mountPath=/etc/kubernetes/azure",
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://proxy:3128",
        "policy.verifierDir=/opt/verifiers",
        "sidecars.seLinuxType=spc_t",
        "updateStrategy.type=OnDelete",
    ],
    &[
        "commonLabels.team=storage",
        "annotations.a=b",
        "controller.annotations.a=b",
        "metrics.serviceMonitor.enabled=true",
        "storageClasses[0].name=dry-run",
        "storageClasses[0].parameters.image=registry.example.com/models:1",
        "sidecars.externalProvisioner.extraEnv[0].name=HTTPS_PROXY",
        "sidecars.externalProvisioner.extraArgs={--worker-threads=9}",
    ],
];

/// Values for what older servers do not know, with the first minor version that does.
const NEWER: [(u32, &str); 2] =
    [(35, "tokenRequests[0].audience=a"), (35, "tokenRequests[0].expirationSeconds=600")];

/// Kinds of other projects, which the cluster need not have.
pub const FOREIGN: [&str; 4] =
    ["SecurityContextConstraints", "PodMonitor", "ServiceMonitor", "PrometheusRule"];

/// A release of Kubernetes 1.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    minor: u32,
}

impl Release {
    /// Of the API server's `minor`, which may have a suffix: `20`, `27+`.
    pub fn of(minor: &str) -> Self {
        let digits = minor.trim_end_matches(|digit: char| !digit.is_ascii_digit());
        Self { minor: digits.parse().expect("a minor version") }
    }

    /// Values that can be given to every rendering.
    pub fn values(self) -> impl Iterator<Item = &'static str> {
        NEWER.iter().filter(move |(since, _)| self.minor >= *since).map(|(_, value)| *value)
    }

    /// Whether a volume's mount can be asked to be read-only with all mounts below it (on by default since 1.31).
    pub fn has_recursive_read_only(self) -> bool {
        self.minor >= 31
    }

    /// Whether containers can be put into a running pod (on by default since 1.23).
    pub fn has_ephemeral_containers(self) -> bool {
        self.minor >= 23
    }

    /// Whether pods can have users of their own (on by default since 1.33; the node's runtime must be able to).
    pub fn has_user_namespaces(self) -> bool {
        self.minor >= 33
    }

    /// Options of a volume's mount inside a container that did not ask for a read-only one.
    ///
    /// The driver mounts with all four, and the node's own mount table has them whatever the release. In the container
    /// the runtime mounts once more. That of nodes before 1.31 (runc 1.1) keeps options that nobody asked it to change;
    /// later ones (runc 1.2) clear those that the pod did not ask for. Read-only stays: it is the filesystem's own.
    pub fn options_in_container(self) -> &'static [&'static str] {
        if self.minor < 31 { &["ro", "nosuid", "nodev", "noexec"] } else { &[] }
    }
}
