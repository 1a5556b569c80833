//! What the run modes `node` and `controller` are told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Level, PARALLEL_LAYERS};

/// Settings of the node plugin.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The Unix socket to listen on, as `unix:///path`.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///csi/csi.sock")]
    pub endpoint: String,
    /// The name of this node in Kubernetes.
    #[arg(long, env = "NODE_ID")]
    pub node_id: String,
    /// The driver's name, as in the CSIDriver object.
    #[arg(long, env = "COMPOSEFS_CSI_DRIVER_NAME", default_value = "csi.composefs.dev")]
    pub driver_name: String,
    /// Kubelet's directory; target paths must lie below it.
    #[arg(long, env = "KUBELET_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Layers fetched at the same time, in all pulls together. One registry and credential has at most one less, so
    /// that there is room for another.
    #[arg(long, default_value_t = PARALLEL_LAYERS)]
    pub parallel_layers: usize,
    /// Seconds that a publish waits for a pull before it answers "still pulling".
    #[arg(long, default_value_t = 110)]
    pub pull_wait: u64,
    /// Seconds that a pull goes on after the last call that waited for it. A pinned image is pulled to its end.
    #[arg(long, default_value_t = 600)]
    pub pull_grace: u64,
    /// A directory below which volumes may name OCI layouts (`image: oci:DIR`); may be repeated. Without
    /// it they may name none, because pod authors must not be able to read the node's disk.
    #[arg(long = "layout-dir", value_name = "DIR")]
    pub layout_dirs: Vec<PathBuf>,
    /// The lowest accepted integrity level of every mount. `mount` checks image and objects before the first mount
    /// of an image unless the kernel checks every read; `read` needs a filesystem with fs-verity.
    #[arg(long, env = "COMPOSEFS_CSI_INTEGRITY", value_enum, default_value_t = Level::Fetch)]
    pub integrity: Level,
    /// The most that a pod may write to one volume, into memory (`writable`, `upperSizeLimit`). 0: no volume is writable.
    #[arg(long, env = "COMPOSEFS_CSI_WRITABLE_MAX_SIZE", value_name = "MIB", default_value_t = 0)]
    pub writable_max_size: u64,
    /// The same of what goes to the disk of the state directory (`upperMedium: Disk`), whose room a volume takes at once.
    #[arg(long, env = "COMPOSEFS_CSI_WRITABLE_MAX_DISK_SIZE", value_name = "MIB", default_value_t = 0)]
    pub writable_max_disk_size: u64,
    /// Refuse images whose manifest does not carry their composefs digest (see `composefs-csi seal`).
    #[arg(long, env = "COMPOSEFS_CSI_REQUIRE_DIGEST")]
    pub require_composefs_digest: bool,
    /// Seconds after which the tag of a volume with `follow: "true"` is asked for again, at least 30; with 0, no volume may
    /// follow a tag. The CSIDriver needs requiresRepublish, so that volumes are followed again after a restart.
    #[arg(long, env = "COMPOSEFS_CSI_FOLLOW_INTERVAL", value_name = "SECONDS", default_value_t = 0)]
    pub follow_interval: u64,
    /// Objects of an image that are looked up in the background when it is first mounted, so that pods open files on a
    /// cold node sooner: 1 KiB or more of the kernel's memory for each, until it needs it for others. 0 looks up none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stat_ahead: usize,
    /// Serve the Controller service on the same socket, for clusters of one node.
    #[arg(long)]
    pub with_controller: bool,
    /// Seconds between two rounds of housekeeping; a pull also starts one.
    #[arg(long, default_value_t = 300)]
    pub gc_interval: u64,
    /// Seconds for which an image stays after its last use, however full the filesystem is: a pod that waits for it tries
    /// again.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub gc_min_age: u64,
    /// When images go to make room.
    #[command(flatten)]
    pub watermarks: WatermarkArgs,
    /// When all objects are read again.
    #[command(flatten)]
    pub scrub: ScrubArgs,
    /// Where credentials come from.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// Write Events on pods: that an image is pulled, how large it is, why it is refused. The plugin needs
    /// permission to create and patch events.
    #[arg(long)]
    pub kubernetes_events: bool,
    /// Remove the taint `<driver>/agent-not-ready` from this node once the driver is registered. The plugin needs
    /// permission to get and patch its node, and to get csinodes.
    #[arg(long)]
    pub startup_taint: bool,
    /// Bring images to this node before pods ask for them, as ImagePrefetches say. The plugin needs permission to watch
    /// imageprefetches, to write nodeimagecaches, and to get its node.
    #[arg(long, env = "COMPOSEFS_CSI_IMAGE_PREFETCH")]
    pub image_prefetch: bool,
    /// How the API server is reached.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
    /// How operators monitor it.
    #[command(flatten)]
    pub monitoring: MonitoringArgs,
}

/// When images go to make room, in the node plugin and by `prune --watermark`.
#[derive(Debug, Clone, Copy, Args)]
pub struct WatermarkArgs {
    /// Percent of the filesystem in use at which the removal of images starts that nothing needs; at the latest where
    /// --min-free ends pulls.
    #[arg(long, env = "COMPOSEFS_CSI_GC_HIGH", value_name = "PERCENT", default_value_t = 85)]
    pub gc_high: u8,
    /// Percent of the filesystem in use at which removal stops.
    #[arg(long, env = "COMPOSEFS_CSI_GC_LOW", value_name = "PERCENT", default_value_t = 80)]
    pub gc_low: u8,
    /// The most MiB that all images together may take which nothing needs, whatever room there is: what they share with
    /// images in use does not count. 0 for no limit.
    #[arg(long, env = "COMPOSEFS_CSI_GC_IDLE_SIZE", value_name = "MIB", default_value_t = 0)]
    pub gc_idle_size: u64,
}

impl WatermarkArgs {
    /// The most bytes of what nothing needs; no limit without.
    pub fn idle_bytes(&self) -> Option<u64> {
        (self.gc_idle_size > 0).then(|| self.gc_idle_size.saturating_mul(1 << 20))
    }

    /// The high mark and the low one, in percent, where pulls leave `min_free` percent to others.
    ///
    /// # Errors
    /// The low mark is above the high one, or one is above 100.
    pub fn percents(&self, min_free: u8) -> anyhow::Result<(u8, u8)> {
        let (high, low) = (self.gc_high, self.gc_low);
        anyhow::ensure!(
            low <= high && high <= 100,
            "--gc-low {low} and --gc-high {high} are inconsistent; both are percentages, and the low one must not be above the high one"
        );
        // Where pulls are refused, room must be made.
        let high = high.min(100u8.saturating_sub(min_free));
        Ok((high, low.min(high)))
    }
}

/// When and how fast the node plugin reads all objects again.
#[derive(Debug, Clone, Copy, Args)]
pub struct ScrubArgs {
    /// Days from the end of a round of scrubbing to the next: every object is read again in the background, so that a disk
    /// that rots is known before a pod reads it. 0 for never.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub scrub_days: u32,
    /// The most MiB a second that scrubbing reads.
    #[arg(long, value_name = "MIB", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub scrub_rate: u64,
}

/// Settings of the controller.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// The Unix socket to listen on, as `unix:///path`.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///csi/csi.sock")]
    pub endpoint: String,
    /// The driver's name, as in the CSIDriver object.
    #[arg(long, env = "COMPOSEFS_CSI_DRIVER_NAME", default_value = "csi.composefs.dev")]
    pub driver_name: String,
    /// A directory below which volumes may name OCI layouts (`image: oci:DIR`); may be repeated.
    #[arg(long = "layout-dir", value_name = "DIR")]
    pub layout_dirs: Vec<PathBuf>,
    /// Also take attributes from annotations `<driver>/<attribute>` of the claim, such as `csi.composefs.dev/image`.
    /// The controller needs permission to get persistentvolumeclaims, and the provisioner must run with
    /// --extra-create-metadata.
    #[arg(long)]
    pub pvc_annotations: bool,
    /// Let nodes begin with ImagePrefetches in waves, and write what they report. The controller needs permission to watch
    /// imageprefetches, nodeimagecaches and nodes, and to write and delete imageprefetches.
    #[arg(long, env = "COMPOSEFS_CSI_IMAGE_PREFETCH")]
    pub image_prefetch: bool,
    /// How the API server is reached.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
    /// How operators monitor it.
    #[command(flatten)]
    pub monitoring: MonitoringArgs,
}

/// Where credentials come from, in addition to the volume's own Secret and --auth-file.
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// Use the pull secrets of pods and their ServiceAccounts, as their containers do. The plugin needs permission to
    /// read pods, serviceaccounts and secrets.
    #[arg(long)]
    pub pull_secrets: bool,
    /// Only for pods of this namespace; may be repeated. Pods of others have no pull secrets. By default those of all
    /// namespaces are used.
    #[arg(long = "pull-secrets-namespace", value_name = "NAMESPACE", requires = "pull_secrets")]
    pub pull_secrets_namespaces: Vec<String>,
    /// kubelet's configuration of credential providers (its --image-credential-provider-config).
    #[arg(long, value_name = "FILE", requires = "credential_provider_bin_dir")]
    pub credential_provider_config: Option<PathBuf>,
    /// The directory of their programs (kubelet's --image-credential-provider-bin-dir).
    #[arg(long, value_name = "DIR", requires = "credential_provider_config")]
    pub credential_provider_bin_dir: Option<PathBuf>,
}

/// How the API server is reached.
#[derive(Debug, Args)]
pub struct KubernetesArgs {
    /// The kubeconfig for running outside a pod.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// How operators monitor a run mode.
#[derive(Debug, Args)]
pub struct MonitoringArgs {
    /// Serve /metrics, /healthz and /readyz on this address, as `ADDRESS:PORT`; off by default.
    #[arg(long, env = "METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// A file with the log level or filter, for example from a mounted ConfigMap. It is read again every few seconds;
    /// --log-level applies while it is missing or empty.
    #[arg(long, env = "LOG_LEVEL_FILE", value_name = "FILE")]
    pub log_level_file: Option<PathBuf>,
    /// Send spans by OTLP over HTTP to the collector with this base URL, such as `http://collector:4318`.
    #[arg(long, env = "COMPOSEFS_CSI_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}
