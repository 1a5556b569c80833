//! What the suite is told by its environment. `make e2e` sets all of it; on another cluster the defaults fetch
//! public images, and only the driver's own image must be one that the nodes have or can pull.

use std::path::PathBuf;

/// Where the cluster is and which images to use there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster and its administrator.
    pub kubeconfig: PathBuf,
    /// The driver's image, `REPOSITORY:TAG`.
    pub driver_image: String,
    /// An image with busybox, for pods that read volumes.
    pub tools_image: String,
    /// An image with the program `registry`, the CNCF distribution's.
    pub registry_image: String,
    /// A values file for the chart besides the suite's own, for example for images of sidecars.
    pub values: Option<PathBuf>,
    /// The driver was built without optimisation: its code is twice as large as what is released.
    pub unoptimised: bool,
}

impl Settings {
    /// Reads the environment; without a cluster there is nothing to test, and that is a failure.
    pub fn from_environment() -> Result<Self, String> {
        let kubeconfig = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).ok_or(
            "KUBECONFIG is not set. This suite needs a cluster that it may change: run `make e2e`, which starts \
             one on this machine, or follow tests/kind/README.md for kind or a cluster of your own.",
        )?;
        let text = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Ok(Self {
            kubeconfig: kubeconfig.into(),
            driver_image: text("COMPOSEFS_CSI_E2E_IMAGE", "e2e.local/composefs-csi:1"),
            tools_image: text("COMPOSEFS_CSI_E2E_TOOLS_IMAGE", "docker.io/library/busybox:1.37"),
            registry_image: text("COMPOSEFS_CSI_E2E_REGISTRY_IMAGE", "docker.io/library/registry:2.8.3"),
            unoptimised: std::env::var_os("COMPOSEFS_CSI_E2E_UNOPTIMISED").is_some(),
            values: std::env::var_os("COMPOSEFS_CSI_E2E_VALUES").map(Into::into),
        })
    }
}
